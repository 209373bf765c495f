"""GPT-2 124M as it is served, exported once for all benchmarks of a run."""

import atexit
import functools
import shutil
import subprocess
import sys
import tempfile

from benchmarks.processes import ROOT


@functools.cache
def exported_gpt2(export: str) -> str:
    """Returns the folder of an exported model, which is deleted when the program ends.

    Args:
        export: `portable`, `xla`, or `int8`, which is compiled by XLA as well.
    """
    folder = tempfile.mkdtemp(prefix="gpt2-124m-")
    atexit.register(shutil.rmtree, folder)
    options = {"portable": [], "xla": ["--xla"], "int8": ["--xla", "--int8"]}
    command = [sys.executable, "-m", "benchmarks.workers.export", folder, *options[export]]
    subprocess.run(command, cwd=ROOT, check=True)
    return folder
