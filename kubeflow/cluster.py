"""The connection to a Kubeflow Pipelines API: kfp's own client, in bounded time, with plain errors.

kfp finds address and credentials by itself where they are not given: its environment variables
KF_PIPELINES_..., ~/.config/kfp/context.json, the pod's service account, the current kubeconfig.
"""

import json
import logging
import os
import warnings
from collections.abc import Callable
from typing import Any

import kfp.client
import urllib3
from kfp.client.set_volume_credentials import ServiceAccountTokenVolumeCredentials
from kfp_server_api import ApiException

# Seconds until a connection stands, and between two packets of an answer. urllib3 tries a
# connection four times, and as often what only reads.
_TIMEOUT = (5, 20)

_HINTS = {
    401: "its credentials are missing or have expired: give --token-file, or sign in as kfp's "
    "client does (KF_PIPELINES_... variables)",
    403: "these credentials lack the permission",
    404: "it is not there, or this is no address of a Kubeflow Pipelines 2 API",
}


class ClusterError(Exception):
    """A cluster gave no answer, or refused what was asked of it; the message says what and why."""


class Client(kfp.client.Client):
    """kfp's client, whose every request ends in bounded time, in JSON or in a ClusterError."""

    namespace: str | None = None  # where it works, in a Kubeflow with several users

    def get_kfp_healthz(self, sleep_duration: int = 0) -> Any:
        """Returns what the API says of itself; kfp's own asks five times and prints stack traces.

        kfp's constructor calls this, before any other request.
        """
        rest = self._healthz_api.api_client.rest_client
        if "request" not in vars(rest):
            rest.request = _checked(rest.request)
        return self._healthz_api.healthz_service_get_healthz()


def connect(
    host: str | None = None,
    namespace: str | None = None,
    token_file: str | None = None,
    ca_file: str | None = None,
) -> Client:
    """Returns a client that has had an answer from its cluster.

    Args:
        host: The API's URL, http:// or https://; where kfp finds it if not given.
        namespace: Kubernetes namespace, in a Kubeflow with several users; kfp's if not given.
        token_file: A file with a bearer token, read for each request: such tokens are renewed.
        ca_file: The certificate authorities of its TLS, in PEM.

    Raises:
        ValueError: an option is wrong in itself.
        ClusterError: the API cannot be reached, or refuses.
    """
    if host is not None and not host.startswith(("http://", "https://")):
        raise ValueError(f"host is {host!r}: must begin with http:// or https://")
    for option, path in (("token file", token_file), ("CA file", ca_file)):
        if path is not None and not os.path.isfile(path):
            raise ValueError(f"{option} is {path!r}: must be a file that is there")
    # It warns of each try to connect; the error says it all.
    logging.getLogger("urllib3.connectionpool").setLevel(logging.ERROR)
    credentials = ServiceAccountTokenVolumeCredentials(token_file) if token_file else None
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", FutureWarning)  # that it serves KFP 2 only, each time
            # kfp would look for the API itself in a namespace given here.
            client = Client(host=host, credentials=credentials, ssl_ca_cert=ca_file)
        client.get_kfp_healthz()
    except ClusterError as error:
        if host is None:
            raise ClusterError(f"{error}; --host says where else to look") from error
        raise
    client.namespace = namespace or client.get_user_namespace() or None
    return client


def _checked(request: Callable[..., Any]) -> Callable[..., Any]:
    """Returns the sending of a request, with a limit on its time and a look at its answer.

    kfp's methods pass no limit, and its models come out empty when the answer is a login page.
    """

    def checked(method: str, url: str, **options: Any) -> Any:
        options["_request_timeout"] = options.get("_request_timeout") or _TIMEOUT
        try:
            response = request(method, url, **options)
        except urllib3.exceptions.HTTPError as error:
            reason = getattr(error, "reason", None) or error
            raise ClusterError(f"{url} does not answer: {reason}") from error
        except ApiException as error:
            hint = f" ({_HINTS[error.status]})" if error.status in _HINTS else ""
            said = f"{url} answered {error.status} {error.reason}: {_words(error.body)}"
            raise ClusterError(said + hint) from error
        try:
            json.loads(response.data or "{}")
        except ValueError:
            kind = response.getheader("content-type")
            raise ClusterError(
                f"{url} answered with {kind} in place of JSON: is it a login page? See --token-file"
            ) from None
        return response

    return checked


def _words(body: bytes | str | None) -> str:
    """Returns what an answer says: grpc-gateway's `message`, or the `error_message` of uploads."""
    try:
        said = json.loads(body or "{}")
        return str(said.get("message") or said.get("error_message") or said)
    except (ValueError, AttributeError):
        return repr(body)[:200]
