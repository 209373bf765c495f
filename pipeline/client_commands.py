"""The commands that ask a server: `gpt2-tfx generate`, `score` and `status`."""

import argparse
import sys
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pipeline.config import PipelineConfig
    from serving.client import GenerateClient


def add_connection_options(parser: argparse.ArgumentParser) -> None:
    """Adds what every command that asks a server has; the address is the configuration's."""
    group = parser.add_argument_group(
        "the server", "Its address is the configuration's serving.host and serving.port."
    )
    group.add_argument(
        "--timeout", type=float, default=60.0, help="seconds that a call may take; default: 60"
    )
    group.add_argument("--model-version", type=int, metavar="N", help="default: the newest")
    group.add_argument("--version-label", metavar="LABEL", help="ask the version of this label")
    group.add_argument(
        "--metadata",
        type=_metadata,
        action="append",
        default=[],
        metavar="KEY=VALUE",
        help="gRPC metadata of every call, such as authorization=...; may be given again",
    )
    group.add_argument("--tls", action="store_true", help="speak TLS; implied by the options below")
    group.add_argument("--tls-root", metavar="FILE", help="authorities of its certificate, in PEM")
    group.add_argument("--tls-certificate", metavar="FILE", help="the client's own, in PEM")
    group.add_argument("--tls-key", metavar="FILE", help="and its private key, in PEM")


def add_generate_options(parser: argparse.ArgumentParser) -> None:
    """Adds the prompt, and how it is continued."""
    parser.add_argument("prompt", help="-: what stdin has, without its last newline")
    parser.add_argument("--max-new-tokens", type=int, default=64, help="default: 64")
    parser.add_argument(
        "--temperature", type=float, default=0.8, help="0: likeliest token; default: 0.8"
    )
    parser.add_argument("--top-k", type=int, default=0, help="0: all tokens; default: 0")
    parser.add_argument("--top-p", type=float, default=0.95, help="1: all tokens; default: 0.95")
    parser.add_argument("--repetition-penalty", type=float, default=1.0, help="1: none; default: 1")
    parser.add_argument(
        "--seed", type=int, default=0, help="the same gives the same text; default: 0"
    )
    parser.add_argument(
        "--stop",
        action="append",
        default=[],
        metavar="TEXT",
        help="end before this; may be given again",
    )
    parser.add_argument(
        "--truncate", action="store_true", help="let a prompt that is too long lose its beginning"
    )
    parser.add_argument(
        "--no-stream", action="store_true", help="print all at once, not as it comes"
    )


def generate(config: "PipelineConfig", options: argparse.Namespace) -> None:
    """Prints the prompt and, as it comes, what the model writes after it."""
    prompt = sys.stdin.read().removesuffix("\n") if options.prompt == "-" else options.prompt
    wanted = {
        name: getattr(options, name)
        for name in (
            "max_new_tokens",
            "temperature",
            "top_k",
            "top_p",
            "repetition_penalty",
            "seed",
            "stop",
            "truncate",
        )
    }
    with _client(config, options) as client:
        if options.no_stream:
            print(prompt + client.generate(prompt, **wanted).text)
            return
        has_begun = False
        try:
            for piece in client.stream(prompt, **wanted):
                print(piece.text if has_begun else prompt + piece.text, end="", flush=True)
                has_begun = True
        finally:
            if has_begun:
                print()


def status(config: "PipelineConfig", options: argparse.Namespace) -> None:
    """Prints a line for each version that the server has."""
    with _client(config, options) as client:
        for version in client.status():
            print(f"{config.model_name} {version.version} {version.state} {version.error}".rstrip())


def score(config: "PipelineConfig", options: argparse.Namespace) -> None:
    """Prints how well the served model predicts the files' texts."""
    from pipeline.score import describe, read_documents, score_documents

    documents = read_documents(options.files)
    with _client(config, options) as client:
        scores = score_documents(
            documents,
            lambda texts: [(text.num_tokens, text.nll) for text in client.score(texts)],
            config.serving.max_rows,
            config.serving.max_text_bytes,
        )
    print(describe(scores))


def _client(config: "PipelineConfig", options: argparse.Namespace) -> "GenerateClient":
    from serving.client import GenerateClient
    from serving.connection import tls_credentials

    files = (options.tls_root, options.tls_certificate, options.tls_key)
    return GenerateClient(
        config.serving.address,
        config.model_name,
        options.timeout,
        version=options.model_version,
        version_label=options.version_label,
        metadata=options.metadata,
        credentials=tls_credentials(*files) if options.tls or any(files) else None,
    )


def _metadata(text: str) -> tuple[str, str]:
    key, equals, value = text.partition("=")
    if not equals or not key:
        raise argparse.ArgumentTypeError(f"must look like key=value, got {text!r}")
    return key.lower(), value
