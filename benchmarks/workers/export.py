"""Writes the SavedModel of a GPT-2 124M with random weights.

python -m benchmarks.workers.export FOLDER [--xla] [--int8]
"""

import argparse

import keras

from model.export import export_gpt2
from model.gpt2 import GPT2


def main() -> None:
    """Exports it."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder")
    for option in ("--xla", "--int8"):
        parser.add_argument(option, action="store_true")
    options = parser.parse_args()
    keras.utils.set_random_seed(0)
    model = GPT2()
    model.build((None, model.config.max_length))
    context = model.config.max_length
    export_gpt2(model, options.folder, stride=context, xla=options.xla, int8=options.int8)


if __name__ == "__main__":
    main()
