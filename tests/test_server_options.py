"""serving/options.py: a wrong option is an error before anything starts."""

import math
import re

import pytest

from serving.options import ServerOptions


def test_the_defaults_are_tensorflow_servings_port_on_this_machine_alone():
    options = ServerOptions()
    assert options.address == "127.0.0.1:8500"
    assert (options.rest_port, options.ui, options.tls_key) == (None, False, None)
    assert ServerOptions(host="::1", port=1).address == "[::1]:1"


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"port": 70_000}, "port must be in [0, 65535], got 70000"),
        ({"rest_port": -1}, "rest_port must be in [0, 65535], got -1"),
        ({"ui": True}, "ui needs rest_port, the port that gives the page"),
        ({"poll_seconds": 0.0}, "poll_seconds must be > 0 and <= 86400, got 0.0"),
        ({"poll_seconds": math.inf}, "poll_seconds must be > 0 and <= 86400, got inf"),
        ({"batch_wait_seconds": -1.0}, "batch_wait_seconds must be in [0, 86400], got -1.0"),
        ({"batch_wait_seconds": math.inf}, "batch_wait_seconds must be in [0, 86400], got inf"),
        ({"batch_wait_seconds": math.nan}, "batch_wait_seconds must be in [0, 86400], got nan"),
        ({"versions": 0}, "versions must be >= 1, got 0"),
        ({"versions": []}, "versions must hold at least one number, got []"),
        ({"max_rows": 0}, "max_rows must be >= 1, got 0"),
        ({"max_new_tokens": 0}, "max_new_tokens must be >= 1, got 0"),
        ({"max_concurrent_calls": 0}, "max_concurrent_calls must be >= 1, got 0"),
        (
            {"allowed_batch_sizes": [4, 2, 16]},
            "allowed_batch_sizes must ascend from >= 1 to max_batch_rows=16, got [4, 2, 16]",
        ),
        (
            {"allowed_batch_sizes": [1, 8]},
            "allowed_batch_sizes must ascend from >= 1 to max_batch_rows=16, got [1, 8]",
        ),
        ({"tls_key": "key"}, "tls_key and tls_certificate must be given both or not at all"),
        ({"tls_client_ca": "ca"}, "tls_client_ca needs tls_key and tls_certificate"),
    ],
)
def test_a_bad_option_is_an_error_that_names_it(options, message):
    with pytest.raises(ValueError, match=f"^{re.escape(message)}$"):
        ServerOptions(**options)
