"""components/direct_runner.py: Beam stays in Python, on this machine."""

import os
from pathlib import Path

import apache_beam as beam
import pytest
from apache_beam.io.filesystems import FileSystems
from apache_beam.options.pipeline_options import S3Options
from apache_beam.runners.portability.prism_runner import PrismRunner

from pipeline.beam_config import BeamConfig

ROOT = Path(__file__).parent.parent


def test_no_program_is_downloaded_to_run_the_pipeline(monkeypatch, tmp_path):
    def run_pipeline(*arguments):
        pytest.fail("Prism was to run the pipeline")

    monkeypatch.setattr(PrismRunner, "run_pipeline", run_pipeline)
    with beam.Pipeline(argv=BeamConfig().arguments()) as pipeline:
        process = pipeline | beam.Create([None]) | beam.Map(lambda _: os.getpid())
        _ = process | beam.io.WriteToText(str(tmp_path / "process"))
    (path,) = tmp_path.iterdir()
    assert path.read_text() == f"{os.getpid()}\n"


def test_an_error_in_a_pipeline_is_raised_as_what_it_is():
    def divide(number):
        return 1 // number

    with (
        pytest.raises(ZeroDivisionError),
        beam.Pipeline(argv=BeamConfig().arguments()) as pipeline,
    ):
        _ = pipeline | beam.Create([0]) | beam.Map(divide)


@pytest.mark.slow
def test_worker_processes_get_the_pipelines_options(monkeypatch, tmp_path):
    monkeypatch.setenv("PYTHONPATH", str(ROOT), prepend=os.pathsep)
    config = BeamConfig(
        running_mode="multi_processing", workers=2, options=["--s3_region_name=here"]
    )

    def region(_):
        return FileSystems._pipeline_options.view_as(S3Options).s3_region_name

    with beam.Pipeline(argv=config.arguments()) as pipeline:
        regions = pipeline | beam.Create([None]) | beam.Map(region)
        _ = regions | beam.io.WriteToText(str(tmp_path / "regions"))
    (path,) = tmp_path.iterdir()
    assert path.read_text() == "here\n"
