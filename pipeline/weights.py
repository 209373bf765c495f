"""The commands `gpt2-tfx weights import` and `gpt2-tfx weights export`."""

import argparse
from typing import Any

from model.sizes import SIZES
from pipeline.native_messages import start_tensorflow

# What a server continues before it serves the model: short, as the smallest context is.
_WARM_UP_PROMPTS = ("The", "Once")


def add_weights_parsers(commands: Any, common: argparse.ArgumentParser) -> None:
    """Adds `weights`, with what stands below it, to the command line's subparsers.

    Args:
        commands: What `ArgumentParser.add_subparsers` gave.
        common: The parser of options that every command has.
    """
    description = "Read and write GPT-2's published forms."
    weights = commands.add_parser("weights", help=description, description=description)
    actions = weights.add_subparsers(required=True, metavar="ACTION")

    description = (
        "Turn weights from Hugging Face's form or OpenAI's into a model that can be served, scored "
        "and trained on."
    )
    added = actions.add_parser(
        "import", parents=[common], help=description, description=description
    )
    added.add_argument("source", metavar="SOURCE", help="folder with the weights")
    added.add_argument("out", metavar="OUT", help="folder to be written; must not exist")
    added.add_argument("--size", choices=SIZES, help="fail unless the weights have this size")
    added.add_argument(
        "--stride",
        type=int,
        help="tokens that the window moves when the model scores documents; its context if not "
        "given. A pipeline compares models of one stride only (evaluation.stride).",
    )
    added.add_argument(
        "--xla",
        action="store_true",
        help="have XLA compile generation: faster, but only for servers on which XLA is enabled",
    )
    added.add_argument(
        "--int8",
        action="store_true",
        help="round the weights to 8 bits, to be served with --xla; they can't be trained then",
    )
    added.set_defaults(command=_import)

    description = "Write a model in Hugging Face's form."
    added = actions.add_parser(
        "export", parents=[common], help=description, description=description
    )
    added.add_argument("model", metavar="MODEL", help="folder with a model or weights, any form")
    added.add_argument("out", metavar="OUT", help="folder to be written; must not exist")
    added.set_defaults(command=_export)


def _import(options: argparse.Namespace) -> None:
    start_tensorflow()
    from model.export import export_gpt2
    from model.pretrained import load_pretrained
    from model.sizes import check_size
    from model.staged_folder import check_absent, staged_folder

    if options.int8 and not options.xla:
        raise ValueError("--xla must be given where --int8 is, which is slow without")
    check_absent(options.out)  # before seconds of reading
    model = load_pretrained(options.source)
    if options.size is not None:
        check_size(model.config, options.size)
    stride = model.config.max_length if options.stride is None else options.stride
    with staged_folder(options.out) as staged:
        export_gpt2(
            model,
            staged,
            stride=stride,
            start=f"weights {options.source}",
            xla=options.xla,
            int8=options.int8,
            warm_up_prompts=_WARM_UP_PROMPTS,
        )
    print(f"wrote {options.out}: {model.count_params():,} parameters")


def _export(options: argparse.Namespace) -> None:
    start_tensorflow()
    from model.huggingface import write_huggingface
    from model.pretrained import load_pretrained
    from model.staged_folder import check_absent

    check_absent(options.out)
    model = load_pretrained(options.model)
    write_huggingface(model, options.out)
    print(f"wrote {options.out}: {model.count_params():,} parameters")
