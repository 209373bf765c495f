"""A server of Kubeflow Pipelines' v2beta1 REST API with its state in memory, for tests.

It stands in for the API server alone: what the paths are, what the bodies hold and what is refused
is taken from the API's description and the backend's source, and a request that is none of those
is refused as the real one would. Nothing runs, and no schedule falls due.
"""

import contextlib
import datetime
import email.parser
import email.policy
import http.server
import json
import re
import threading
from collections.abc import Callable, Iterator
from typing import Any
from urllib.parse import parse_qs, urlsplit

START = datetime.datetime(2027, 1, 1, tzinfo=datetime.timezone.utc)

# Fields that protobuf's JSON knows; any other is an error there.
RUN_FIELDS = {
    "experiment_id",
    "display_name",
    "description",
    "pipeline_version_reference",
    "runtime_config",
    "service_account",
}
RECURRING_FIELDS = RUN_FIELDS | {"max_concurrency", "mode", "no_catchup", "trigger"}


class RefusedError(Exception):
    """An answer other than 200."""

    def __init__(self, status: int, message: str):
        super().__init__(message)
        self.status = status


class KfpApi:
    """What such a server holds, and how it answers."""

    def __init__(self) -> None:
        self.requests: list[str] = []  # "METHOD path", in order
        self.headers: list[dict[str, str]] = []
        self.bodies: dict[str, Any] = {}  # the last of each "METHOD path"
        self.pipelines: list[dict[str, Any]] = []
        self.versions: list[dict[str, Any]] = []
        self.experiments: list[dict[str, Any]] = []
        self.runs: list[dict[str, Any]] = []
        self.recurring: list[dict[str, Any]] = []
        self.orphaned: list[str] = []  # recurring runs that were deleted without their runs
        # After each change: how many recurring runs of each name there are, and are enabled.
        self.history: list[dict[str, tuple[int, int]]] = []
        self.largest_page = 100
        self.ignores_filters = False
        self.multi_user = False
        self.token: str | None = None
        # Asked before each request, with "METHOD path"; what it raises is the answer.
        self.before: Callable[[str], None] = lambda request: None
        self._ids = 0

    @property
    def changes(self) -> list[str]:
        """The requests which change something."""
        return [request for request in self.requests if not request.startswith("GET")]

    def recurring_of(self, name: str) -> list[dict[str, Any]]:
        return [each for each in self.recurring if each["display_name"] == name]

    def answer(self, method: str, url: str, body: bytes, headers: dict[str, str]) -> Any:
        parts = urlsplit(url)
        query = {key: values[0] for key, values in parse_qs(parts.query).items()}
        request = f"{method} {parts.path}"
        self.requests.append(request)
        self.headers.append(headers)
        if self.token is not None and headers.get("authorization") != f"Bearer {self.token}":
            raise RefusedError(401, "Unauthenticated")
        self.before(request)
        path = parts.path.removeprefix("/apis/v2beta1/")
        sent: Any = json.loads(body) if body.startswith(b"{") else None
        if path.startswith("pipelines/upload"):
            sent = self._file(body, headers)
        self.bodies[request] = sent
        for pattern, handler in self._routes(method):
            if match := re.fullmatch(pattern, path):
                answer = handler(*match.groups(), query=query, body=sent)
                self._note()
                return answer
        raise RefusedError(404, f"Not Found: {request}")

    def _routes(self, method: str) -> list[tuple[str, Callable[..., Any]]]:
        one = "([^/:]+)"
        routes: dict[str, list[tuple[str, Callable[..., Any]]]] = {
            "GET": [
                ("healthz", lambda **_: {"multi_user": self.multi_user}),
                ("pipelines", self._lister("pipelines", self.pipelines, shared=True)),
                (f"pipelines/{one}/versions", self._list_versions),
                ("experiments", self._lister("experiments", self.experiments)),
                ("recurringruns", self._lister("recurringRuns", self.recurring)),
            ],
            "POST": [
                ("pipelines/upload", self._upload),
                ("pipelines/upload_version", self._upload_version),
                ("experiments", self._create_experiment),
                ("runs", self._create_run),
                ("recurringruns", self._create_recurring_run),
                (f"recurringruns/{one}:(enable|disable)", self._change_mode),
            ],
            "DELETE": [(f"recurringruns/{one}", self._delete_recurring_run)],
        }
        return routes.get(method, [])

    def _note(self) -> None:
        names = {each["display_name"] for each in self.recurring}
        counts = {}
        for name in names:
            states = [each["status"] for each in self.recurring_of(name)]
            counts[name] = (len(states), states.count("ENABLED"))
        if not self.history or self.history[-1] != counts:
            self.history.append(counts)

    def _new(self, key: str, **fields: Any) -> dict[str, Any]:
        self._ids += 1
        created = START + datetime.timedelta(seconds=self._ids)
        return {key: f"id-{self._ids}", "created_at": f"{created:%Y-%m-%dT%H:%M:%SZ}", **fields}

    @staticmethod
    def _file(body: bytes, headers: dict[str, str]) -> bytes:
        head = f"Content-Type: {headers['content-type']}\r\n\r\n".encode()
        message = email.parser.BytesParser(policy=email.policy.HTTP).parsebytes(head + body)
        (part,) = message.iter_parts()
        assert part.get_param("name", header="content-disposition") == "uploadfile"
        content = part.get_payload(decode=True)
        assert isinstance(content, bytes)
        return content

    def _lister(
        self, field: str, kept: list[dict[str, Any]], shared: bool = False
    ) -> Callable[..., Any]:
        def listing(query: dict[str, str], body: None) -> Any:
            if self.multi_user and not shared and not query.get("namespace"):
                raise RefusedError(400, "In multi-user mode a list must have a namespace")
            return self._page(field, kept, query)

        return listing

    def _page(self, field: str, kept: list[dict[str, Any]], query: dict[str, str]) -> Any:
        if filter_ := query.get("filter"):
            (predicate,) = json.loads(filter_)["predicates"]
            assert predicate["operation"] in ("EQUALS", 1), predicate
            assert predicate["key"] == "display_name", predicate
            if not self.ignores_filters:
                kept = [each for each in kept if each["display_name"] == predicate["stringValue"]]
        start = int(query.get("page_token") or 0)
        size = min(int(query.get("page_size") or 20), self.largest_page)
        page: dict[str, Any] = {}
        if kept[start : start + size]:  # protobuf's JSON leaves empty lists out
            page[field] = kept[start : start + size]
        if len(kept) > start + size:
            page["next_page_token"] = str(start + size)
        return page

    def _list_versions(self, pipeline_id: str, query: dict[str, str], body: None) -> Any:
        kept = [each for each in self.versions if each["pipeline_id"] == pipeline_id]
        return self._page("pipeline_versions", kept, query)

    def _upload(self, query: dict[str, str], body: bytes) -> Any:
        if any(each["display_name"] == query["name"] for each in self.pipelines):
            raise RefusedError(409, f"The name {query['name']} already exists")
        known = {key: query[key] for key in ("description", "namespace") if key in query}
        pipeline = self._new("pipeline_id", display_name=query["name"], **known)
        self.pipelines.append(pipeline)
        self._add_version(pipeline["pipeline_id"], query, body)
        return pipeline

    def _upload_version(self, query: dict[str, str], body: bytes) -> Any:
        return self._add_version(query["pipelineid"], query, body)

    def _add_version(self, pipeline_id: str, query: dict[str, str], body: bytes) -> Any:
        taken = {each["display_name"] for each in self.versions}
        if query["name"] in taken:
            raise RefusedError(409, f"The name {query['name']} already exists")
        version = self._new(
            "pipeline_version_id",
            pipeline_id=pipeline_id,
            display_name=query["name"],
            description=query.get("description", ""),
            pipeline_spec={"length": len(body)},
        )
        self.versions.append(version)
        return version

    def _create_experiment(self, query: dict[str, str], body: Any) -> Any:
        if self.multi_user and not body.get("namespace"):
            raise RefusedError(400, "The experiment has no namespace")
        self.experiments.append(self._new("experiment_id", **body))
        return self.experiments[-1]

    def _create_run(self, query: dict[str, str], body: Any) -> Any:
        self._check_run(body, RUN_FIELDS)
        self.runs.append(self._new("run_id", **body))
        return self.runs[-1]

    def _check_run(self, body: Any, fields: set[str]) -> None:
        if unknown := set(body) - fields:
            raise RefusedError(400, f"unknown field {unknown}")
        experiments = {each["experiment_id"] for each in self.experiments}
        versions = {
            (each["pipeline_id"], each["pipeline_version_id"]): each for each in self.versions
        }
        reference = body["pipeline_version_reference"]
        if (reference["pipeline_id"], reference["pipeline_version_id"]) not in versions:
            raise RefusedError(404, "pipeline version not found")
        if body["experiment_id"] not in experiments:
            raise RefusedError(404, "experiment not found")

    def _create_recurring_run(self, query: dict[str, str], body: Any) -> Any:
        self._check_run(body, RECURRING_FIELDS)
        cron = body["trigger"]["cron_schedule"]["cron"]
        if not re.fullmatch(r"[0-9*/,-]+( [0-9*/,-]+){5}", cron):
            raise RefusedError(400, f"Schedule cron is not a supported format: {cron}")
        if not 1 <= body["max_concurrency"] <= 10:
            raise RefusedError(400, "The max concurrency is out of range")
        body = {"service_account": "pipeline-runner", **body}  # the backend's default
        mode = body.pop("mode")
        made = self._new("recurring_run_id", **body)
        made["max_concurrency"] = str(body["max_concurrency"])  # as protobuf's JSON has int64
        made.update(mode=mode, status={"ENABLE": "ENABLED", "DISABLE": "DISABLED"}[mode])
        self.recurring.append(made)
        return made

    def _found(self, id_: str) -> dict[str, Any]:
        for each in self.recurring:
            if each["recurring_run_id"] == id_:
                return each
        raise RefusedError(404, f"Recurring run {id_} not found")

    def _change_mode(self, id_: str, verb: str, query: dict[str, str], body: None) -> Any:
        self._found(id_).update(mode=verb.upper(), status=f"{verb.upper()}D")
        return {}

    def _delete_recurring_run(self, id_: str, query: dict[str, str], body: None) -> Any:
        self.recurring.remove(self._found(id_))
        if query.get("propagation_policy") == "ORPHAN":
            self.orphaned.append(id_)
        return {}


@contextlib.contextmanager
def serving(api: KfpApi) -> Iterator[str]:
    """Serves it on a free port of this machine, and gives its URL."""

    class Handler(http.server.BaseHTTPRequestHandler):
        def _handle(self) -> None:
            body = self.rfile.read(int(self.headers.get("content-length") or 0))
            headers = {key.lower(): value for key, value in self.headers.items()}
            try:
                status, answer = 200, api.answer(self.command, self.path, body, headers)
            except RefusedError as error:
                status = error.status
                answer = {"error": str(error), "code": 2, "message": str(error), "details": []}
            content = answer if isinstance(answer, bytes) else json.dumps(answer).encode()
            kind = "text/html" if isinstance(answer, bytes) else "application/json"
            self.send_response(status)
            self.send_header("Content-Type", kind)
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)

        do_GET = do_POST = do_DELETE = do_PUT = do_PATCH = _handle  # noqa: N815

        def log_message(self, format: str, *args: Any) -> None:
            """Stays silent."""

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(
            target=server.serve_forever, args=(0.01,)
        )  # s until it sees the end
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_address[1]}"
        finally:
            server.shutdown()
            thread.join()
