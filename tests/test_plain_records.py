"""components/plain_records.py: what TFX would have compressed is written as it is."""

import apache_beam as beam
import pytest
import tensorflow as tf
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
