"""components/examples_pipeline.py: examples are written as they are, options parsed once."""

import apache_beam as beam
import pytest
import tensorflow as tf
from apache_beam.options.pipeline_options import SetupOptions, StandardOptions
from tfx.dsl.components.base.base_beam_executor import BaseBeamExecutor

from components import example_gen, transform
from pipeline.beam_config import BeamConfig

RECORDS = [b"a" * 1000, b"", b"b"]


@pytest.mark.parametrize("executor", [example_gen.Executor, transform.Executor])
def test_example_gen_and_transform_compress_nothing(executor, tmp_path):
    context = BaseBeamExecutor.Context(beam_pipeline_args=BeamConfig().arguments())
    with executor(context)._make_beam_pipeline() as pipeline:
        _ = (
            pipeline
            | beam.Create(RECORDS)
            # As TFX calls it.
            | "Write" >> beam.io.WriteToTFRecord(f"{tmp_path}/records", file_name_suffix=".gz")
        )
    (path,) = tmp_path.iterdir()
    assert path.name == "records-00000-of-00001"
    assert sorted(tf.data.TFRecordDataset(str(path)).as_numpy_iterator()) == sorted(RECORDS)


def test_a_view_of_the_options_is_made_once_and_shares_its_values():
    context = BaseBeamExecutor.Context(beam_pipeline_args=["--runner=DirectRunner"])
    options = transform.Executor(context)._make_beam_pipeline().options
    view = options.view_as(StandardOptions)
    assert options.view_as(StandardOptions) is view
    assert view.runner == "DirectRunner"
    options.view_as(SetupOptions).view_as(StandardOptions).runner = "another"
    assert view.runner == options.view_as(StandardOptions).runner == "another"
    assert options.get_all_options()["runner"] == "another"
