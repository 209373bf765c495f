"""`gpt2-tfx generate`, `score` and `status`, against a server that answers as it is told."""

import io
import math
from collections.abc import Callable, Iterator

import grpc
import pytest

import pipeline.cli
from pipeline.cli import main
from serving.client import GenerateClient
from tests.reciting_server import RecitingServer


@pytest.fixture
def server() -> Iterator[RecitingServer]:
    server = RecitingServer()
    yield server
    server.stop()


@pytest.fixture
def run(server, monkeypatch) -> Callable[..., int]:
    """Runs a command that asks the server; gives its exit code."""
    # It would redirect this process' stderr for good.
    monkeypatch.setattr(pipeline.cli, "_log_native_messages", lambda config, name: None)
    port = server.address.rpartition(":")[2]

    def run(command: str, *arguments: str) -> int:
        return main([command, "--config=tiny", f"--set=serving.port={port}", *arguments])

    return run


def test_generate_prints_the_prompt_and_the_text_piece_by_piece(run, capsys, monkeypatch):
    printed = []
    monkeypatch.setattr(
        "builtins.print", lambda *values, **_: printed.append("".join(map(str, values)))
    )
    assert run("generate", "To be", "--max-new-tokens=6") == 0
    assert printed == ["To be or", " not or", " not or not", ""]


def test_a_text_that_ends_of_itself_ends_its_line_too(run, server, capsys):
    server.tokens, server.ends = [b" or"], True
    assert run("generate", "To be", "--max-new-tokens=6") == 0
    assert capsys.readouterr().out == "To be or\n"


def test_generate_without_a_stream_prints_the_same_by_one_call(run, server, capsys):
    assert run("generate", "To be", "--max-new-tokens=6") == 0
    streamed = capsys.readouterr().out
    server.requests.clear()
    assert run("generate", "To be", "--max-new-tokens=6", "--no-stream") == 0
    assert capsys.readouterr().out == streamed == "To be or not or not or not\n"
    assert [request.model_spec.signature_name for request in server.requests] == ["serving_default"]


def test_generate_takes_every_option(run, server):
    assert not run(
        *("generate", "--no-stream", "--max-new-tokens=3", "--temperature=0.5", "--top-k=4"),
        *("--top-p=0.25", "--repetition-penalty=1.5", "--seed=-6", "--stop=a", "--stop=\n"),
        *("--truncate", "--", "--To be"),
    )
    assert server.sent("serving_default") == [
        {
            "prompts": [b"--To be"],
            "max_new_tokens": [3],
            "temperature": [0.5],
            "top_k": [4],
            "top_p": [0.25],
            "repetition_penalty": [1.5],
            "seed": [-6],
            "stop": [[b"a", b"\n"]],
            "truncate": [True],
        }
    ]


def test_generate_reads_a_prompt_from_stdin(run, capsys, monkeypatch):
    monkeypatch.setattr("sys.stdin", io.StringIO("To\nbe\n"))
    assert run("generate", "-", "--max-new-tokens=1") == 0
    assert capsys.readouterr().out == "To\nbe or\n"


def test_an_error_before_the_text_prints_nothing_but_itself(run, capsys):
    assert run("generate", "x" * 90) == 1
    assert capsys.readouterr() == ("", "error: INVALID_ARGUMENT: 90 and 64 new tokens exceed 100\n")


def test_what_was_printed_before_an_error_stays_and_ends_its_line(run, capsys, monkeypatch):
    def stream(self, prompt, **options):
        yield from original(self, prompt, max_new_tokens=1)
        raise RuntimeError("too late")

    original = GenerateClient.stream
    monkeypatch.setattr(GenerateClient, "stream", stream)
    assert run("generate", "To be") == 1
    assert capsys.readouterr() == ("To be or\n", "error: too late\n")


def test_status_prints_a_line_for_each_version(run, capsys):
    assert run("status") == 0
    assert capsys.readouterr().out == "tiny 2 END broken\ntiny 1 AVAILABLE\n"


@pytest.mark.parametrize("command", [["generate", "x"], ["status"], ["score", "a.txt"]])
def test_commands_send_metadata_and_ask_for_the_wanted_version(
    run, server, command, tmp_path, monkeypatch
):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "a.txt").write_text("abc")
    wanted = ["--model-version=3", "--metadata=Authorization=Bearer a=b", "--metadata=x-team=c"]
    assert run(*command, *wanted, "--timeout=20") == 0
    assert run(*command, "--version-label=stable") == 0
    first, *_, last = server.requests
    assert first.model_spec.version.value == 3
    assert last.model_spec.version_label == "stable"
    assert server.metadata[0]["authorization"] == "Bearer a=b"
    assert server.metadata[0]["x-team"] == "c"
    assert 10 < server.seconds_left[0] < 30


def test_tls_files_make_the_connection_an_encrypted_one(run, server, capsys, monkeypatch, tmp_path):
    asked = []
    monkeypatch.setattr(grpc, "ssl_channel_credentials", lambda *pem: asked.append(pem))
    (tmp_path / "root.pem").write_text("root")
    assert run("status", f"--tls-root={tmp_path}/root.pem") == 0
    assert run("status", "--tls") == 0
    assert asked == [(b"root", None, None), (None, None, None)]
    assert run("status", "--tls-key=x") == 1
    assert "certificate is None and key is x; one needs the other" in capsys.readouterr().err


def test_score_keeps_within_the_servers_limits_of_a_call(run, server, capsys, tmp_path):
    texts = ["a", "b", "c", "ééé", "d", "longer", "e"]
    (tmp_path / "a.jsonl").write_text("".join(f'{{"text": "{text}"}}\n' for text in texts))
    limits = ["--set=serving.max_rows=2", "--set=serving.max_text_bytes=6"]
    assert run("score", *limits, f"{tmp_path}/a.jsonl") == 0
    sent = [b"".join(call["texts"]).decode() for call in server.sent("score")]
    assert sent == ["ab", "c", "ééé", "d", "longer", "e"]


def test_score_without_a_model_asks_the_server_for_the_files_texts(run, server, capsys, tmp_path):
    (tmp_path / "a.txt").write_text("ab")
    (tmp_path / "b.jsonl").write_text('{"text": "abcd", "source": "s"}\n{"text": "é"}\n')
    assert run("score", f"{tmp_path}/a.txt", f"{tmp_path}/b.jsonl") == 0
    assert server.sent("score") == [{"texts": [b"ab", b"abcd", "é".encode()]}]
    *_, total = capsys.readouterr().out.splitlines()
    # The server says: a token for each byte and one more, two nats for each byte.
    name, documents, tokens, num_bytes, perplexity, bits = total.split()
    assert (name, documents, tokens, num_bytes) == ("all", "3", "11", "8")
    assert float(perplexity) == pytest.approx(math.exp(16 / 11), abs=0.01)
    assert float(bits) == pytest.approx(16 / math.log(2) / 8, abs=1e-4)


def test_score_takes_a_stride_only_with_a_model(run, server, capsys):
    assert run("score", "--stride=2", "a.txt") == 1
    assert "stride is 2, but only a model of --model can be given" in capsys.readouterr().err
    assert server.requests == []
