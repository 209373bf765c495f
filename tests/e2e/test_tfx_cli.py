"""TFX's own command line takes pipeline/local_runner.py as it is."""

import json
import sys
from pathlib import Path

import pytest
import yaml

from tests.e2e.conftest import ROOT, start

pytestmark = [pytest.mark.slow, pytest.mark.long]


def test_tfx_creates_the_pipeline_and_runs_it_on_what_our_own_command_line_cached(
    first_run, tmp_path
):
    # The same pipeline in the same output folder, so that texts and tokens come from the cache,
    # but a shorter training: the Trainer and all after it are run by TFX.
    fields = yaml.safe_load((ROOT / "pipeline" / "configs" / "tiny.yaml").read_text())
    fields["output"] = str(first_run.output)
    fields["training"]["steps"] = 7
    config = tmp_path / "run.yaml"
    config.write_text(yaml.safe_dump(fields))
    versions = first_run.versions()
    summary_path = first_run.output / "summary.json"
    before = summary_path.read_text()

    def tfx(*arguments: str) -> str:
        command = [str(Path(sys.executable).with_name("tfx")), *arguments, "--engine=local"]
        # TFX keeps what it knows of pipelines in the home folder.
        process = start(ROOT, *command, HOME=str(tmp_path), GPT2_TFX_CONFIG=str(config))
        stdout, stderr = process.communicate(timeout=300)
        assert process.returncode == 0, stderr
        return stdout

    created = tfx("pipeline", "create", "--pipeline-path=pipeline/local_runner.py")
    assert 'Pipeline "tiny" created successfully.' in created
    assert (tmp_path / "tfx" / "local" / "tiny" / "pipeline_args.json").is_file()
    # Nothing ran yet.
    assert summary_path.read_text() == before
    assert "perplexity" not in created

    ran = tfx("run", "create", "--pipeline-name=tiny")
    assert "\nmodel          1,626,400 parameters, 7 steps from scratch\n" in ran
    assert "\nblessed        no: perplexity is " in ran
    summary = json.loads(summary_path.read_text())
    assert summary["steps"] == 7
    assert summary["cached"] == [
        "CorpusExampleGen",
        "ImportSchemaGen",
        "StatisticsGen",
        "ExampleValidator",
        "Transform",
    ]
    assert first_run.versions() == versions
