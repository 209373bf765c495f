"""The peers' own environments, made when they are first needed."""

import subprocess
import sys
from pathlib import Path

FOLDER = Path("output/benchmark-environments")

# What a peer's environment is made of; what these depend on is as the registry has it that day.
PEERS = {
    "huggingface": {"torch": "2.13.0", "transformers": "5.23.0"},
    "kerashub": {"tensorflow": "2.21.0", "keras": "3.15.1", "keras-hub": "0.32.0"},
}

_PRINT_VERSION = "import importlib.metadata, sys; print(importlib.metadata.version(sys.argv[1]))"


def python_of(peer: str) -> str:
    """Returns the path of the peer's Python, after installing what it lacks.

    An environment that exists elsewhere can stand in as a symbolic link at
    `output/benchmark-environments/PEER`, as long as it has the packages in these versions.

    Raises:
        subprocess.CalledProcessError: The installation failed; pip's words are on standard error.
    """
    python = (FOLDER / peer / "bin" / "python").absolute()
    if not python.exists():
        print(f"making {FOLDER / peer} ...", file=sys.stderr, flush=True)
        subprocess.run([sys.executable, "-m", "venv", FOLDER / peer], check=True)
    wanted = PEERS[peer]
    if any(_version(python, package) != version for package, version in wanted.items()):
        packages = [f"{package}=={version}" for package, version in wanted.items()]
        # pip and not uv, which takes PyTorch's build for CUDA also where pip is set up otherwise.
        subprocess.run(
            [python, "-m", "pip", "install", "--quiet", *packages], check=True, stdout=sys.stderr
        )
    return str(python)


def _version(python: Path, package: str) -> str | None:
    """Returns the installed version without what follows a plus sign, None if there is none."""
    answer = subprocess.run(
        [python, "-c", _PRINT_VERSION, package], capture_output=True, text=True, check=False
    )
    return answer.stdout.strip().split("+")[0] if answer.returncode == 0 else None
