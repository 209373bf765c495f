"""ServingCheck: whether a candidate can be served."""

import logging
import os
import subprocess
import sys
import tempfile
from pathlib import Path

from tfx.dsl.component.experimental.annotations import InputArtifact, OutputArtifact, Parameter
from tfx.dsl.component.experimental.decorators import component
from tfx.dsl.io import fileio
from tfx.types import standard_artifacts
from tfx.utils import io_utils, path_utils

REPORT = "serving_check.txt"

# The names that TFX's own InfraValidator uses: other tools look for these.
_BLESSED, _NOT_BLESSED = "INFRA_BLESSED", "INFRA_NOT_BLESSED"


@component
def ServingCheck(  # noqa: N802 (a component is named like a class)
    model: InputArtifact[standard_artifacts.Model],
    blessing: OutputArtifact[standard_artifacts.InfraBlessing],
    seconds: Parameter[int],
    code: Parameter[str],
    infra_blessing: InputArtifact[standard_artifacts.InfraBlessing] = None,
) -> None:
    """Blesses a model that the embedded server loads and that answers as it should.

    The server runs in a process of its own, `python -m serving.check`: what a model does to it,
    it does not do to the pipeline. What it found is in `serving_check.txt`, and a model that is
    not blessed is not pushed; the run goes on. Where the check itself came to no end, nothing is
    known of the model: that is an error, so that the next run checks it again.

    Args:
        model: The candidate.
        blessing: Its custom property `blessed` is 1 or 0.
        seconds: The check may take so long.
        code: Not read: another digest of what checks makes it check again.
        infra_blessing: InfraValidator's, where that runs too: without it there is no blessing.

    Raises:
        RuntimeError: The check took too long, or ended without a word about the model.
    """
    del code
    if infra_blessing is not None and not infra_blessing.get_int_custom_property("blessed"):
        report, is_blessed = "InfraValidator has not blessed it", False
    else:
        report, is_blessed = _check(path_utils.serving_model_path(model.uri), seconds)
    if not is_blessed:
        logging.error("the model cannot be served: %s", report)
    blessing.set_int_custom_property("blessed", int(is_blessed))
    for name, text in ((REPORT, report), (_BLESSED if is_blessed else _NOT_BLESSED, "")):
        with fileio.open(os.path.join(blessing.uri, name), "w") as file:
            file.write(text)


def _check(folder: str, seconds: int) -> tuple[str, bool]:
    """Returns what the check said, and whether all was well."""
    with tempfile.TemporaryDirectory() as copies:
        if not Path(folder).is_dir():  # in a bucket
            io_utils.copy_dir(folder, copies)
            folder = copies
        try:
            done = subprocess.run(
                [sys.executable, "-m", "serving.check", folder],
                capture_output=True,
                text=True,
                timeout=seconds,
                check=False,
            )
        except subprocess.TimeoutExpired:
            raise RuntimeError(f"serving.check took more than {seconds} seconds") from None
    logging.info("serving.check wrote to standard error:\n%s", done.stderr)
    report = done.stdout.strip()
    if done.returncode not in (0, 1) or not report:
        last_words = "\n".join(done.stderr.splitlines()[-5:])
        raise RuntimeError(f"serving.check ended with exit status {done.returncode}: {last_words}")
    return report, done.returncode == 0
