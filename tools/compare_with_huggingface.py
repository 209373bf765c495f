"""Compare our GPT-2's logits with those of Hugging Face's, on PyTorch, at the size of 124M.

    python tools/compare_with_huggingface.py [--python PATH]

A model of ours with random weights, biases and norms too, is written in Hugging Face's form, and
`transformers` loads it and computes logits for the same 1 x 1,024 random ids in float32. The tool
fails if any logit differs by more than 1e-4, or if what `transformers` then saves does not come
back to us bit for bit.

PyTorch stays out of our environment: unless `--python` names one that has it, the tool makes an
environment of its own in `output/peers/huggingface`, once. Where pip knows no other build of
torch, that takes gigabytes.
"""

import argparse
import importlib.metadata
import json
import os
import subprocess
import sys
import tempfile
import venv
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from model.gpt2 import GPT2

ENVIRONMENT = Path("output/peers/huggingface")
REQUIREMENTS = ("torch==2.13.0", "transformers==5.23.0", "safetensors==0.8.0", "numpy==2.4.6")
LIMIT = 1e-4
SEED = 0


def main() -> int:
    """Runs the comparison and returns the exit code: 0 if both agree."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument(
        "--python", type=Path, metavar="PATH", help="of an environment with torch and transformers"
    )
    parser.add_argument("--in-peer", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.in_peer:
        run_in_peer(options.in_peer)
        return 0
    python = options.python or make_environment(ENVIRONMENT)
    with tempfile.TemporaryDirectory() as folder:
        return compare(Path(folder), python)


def make_environment(folder: Path) -> Path:
    """Returns the Python of an environment with `REQUIREMENTS`, which is made if need be."""
    python = folder / "bin" / "python"
    if not python.exists():
        venv.create(folder, with_pip=True)
    subprocess.run([python, "-m", "pip", "install", "--quiet", *REQUIREMENTS], check=True)
    return python


def compare(folder: Path, python: Path) -> int:
    """Prints what both give for the same weights and ids, and returns the exit code."""
    from model.huggingface import read_huggingface, write_huggingface

    model = random_model()
    ids_shape = (1, model.config.max_length)
    ids = np.random.default_rng(SEED).integers(0, model.config.vocab_size, ids_shape)
    np.save(folder / "ids.npy", ids)
    write_huggingface(model, folder / "ours")
    ours = model.logits(ids).numpy()

    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    environment["HF_HUB_OFFLINE"] = "1"
    subprocess.run([python, __file__, "--in-peer", folder], check=True, env=environment)
    theirs = np.load(folder / "logits.npy")
    peer = json.loads((folder / "peer.json").read_text())
    difference = float(np.abs(ours - theirs).max())
    again = read_huggingface(folder / "theirs")
    pairs = zip(model.weights, again.weights, strict=True)
    came_back = sum(np.array_equal(before.numpy(), after.numpy()) for before, after in pairs)

    versions = {name: importlib.metadata.version(name) for name in ("tensorflow", "keras")}
    print(f"model: {model.count_params():,} parameters, all random; ids: 1 x {ids.size}; float32")
    print(f"ours: {listed(versions)}; theirs: {listed(peer['versions'])}")
    print(f"loading there: {listed(peer['loading'])}")
    print(f"logits: {ours.size:,}, from {ours.min():.2f} to {ours.max():.2f}")
    print(f"largest absolute difference: {difference:.2e} (limit {LIMIT:.0e})")
    print(f"saved there, read here: {came_back} of {len(model.weights)} tensors equal bit for bit")
    agree = (
        difference <= LIMIT
        and came_back == len(model.weights)
        and not any(peer["loading"].values())
    )
    print("they agree" if agree else "they DO NOT AGREE")
    return 0 if agree else 1


def listed(named: dict[str, Any]) -> str:
    """Returns `name value, name value`."""
    return ", ".join(f"{name} {value}" for name, value in named.items())


def random_model() -> "GPT2":
    """Returns a GPT-2 124M in which no tensor is left at zeros or ones.

    The spread is wider than at initialisation, nearer to that of trained weights: attention looks
    at some positions more than at others.
    """
    from model.gpt2 import GPT2
    from model.sizes import SIZES

    model = GPT2(**SIZES["gpt2"].to_dict())
    model.build((None, model.config.max_length))
    generator = np.random.default_rng(SEED)
    for variable in model.trainable_variables:
        center, spread = (1.0, 0.2) if variable.name == "gamma" else (0.0, 0.05)
        drawn = generator.standard_normal(variable.shape, np.float32)
        variable.assign(center + spread * drawn)
    return model


def run_in_peer(folder: Path) -> None:
    """Loads, computes and saves by `transformers`; this runs in the other environment."""
    import torch
    import transformers

    model: Any
    model, loading = transformers.GPT2LMHeadModel.from_pretrained(
        folder / "ours", dtype=torch.float32, output_loading_info=True
    )
    model.eval()
    with torch.no_grad():
        logits = model(torch.from_numpy(np.load(folder / "ids.npy"))).logits
    np.save(folder / "logits.npy", logits.numpy())
    model.save_pretrained(folder / "theirs")
    report = {
        "versions": {"transformers": transformers.__version__, "torch": torch.__version__},
        "loading": {
            key: len(loading[key]) for key in ("missing_keys", "unexpected_keys", "mismatched_keys")
        },
    }
    (folder / "peer.json").write_text(json.dumps(report))


if __name__ == "__main__":
    sys.exit(main())
