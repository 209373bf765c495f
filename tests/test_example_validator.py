"""components/example_validator.py: data that do not fit the schema stop the run."""

import json
import shutil
from collections.abc import Sequence
from pathlib import Path

import pytest
import tensorflow as tf
from tensorflow_data_validation.statistics import stats_impl
from tensorflow_metadata.proto.v0 import anomalies_pb2
from tfx.types import standard_artifacts
from tfx_bsl.coders.example_coder import ExamplesToRecordBatchDecoder

from components.example_validator import Executor

SCHEMA = Path(__file__).parent.parent / "data" / "schema.pbtxt"


def example(
    part: bytes | None = b"new", **features: bytes | int | Sequence[bytes]
) -> tf.train.Example:
    if part is not None:
        features["part"] = part
    made = tf.train.Example()
    for name, value in features.items():
        feature = made.features.feature[name]
        if isinstance(value, int):
            feature.int64_list.value.append(value)
        else:
            feature.bytes_list.value.extend([value] if isinstance(value, bytes) else value)
    return made


GOOD = [
    example(text=b"a text", source=b"play"),
    example(text=b"another", source=b"poem", part=b"old"),
]


def validate(tmp_path: Path, **splits: list[tf.train.Example]) -> dict[str, list[str]]:
    """Runs the executor on the splits' statistics; gives the anomalies that it wrote down."""
    statistics = standard_artifacts.ExampleStatistics()
    statistics.uri = str(tmp_path / "statistics")
    statistics.split_names = json.dumps(list(splits))
    for split, examples in splits.items():
        batch = ExamplesToRecordBatchDecoder().DecodeBatch(
            [e.SerializeToString() for e in examples]
        )
        path = tmp_path / "statistics" / f"Split-{split}" / "FeatureStats.pb"
        path.parent.mkdir(parents=True)
        path.write_bytes(stats_impl.generate_statistics_in_memory(batch).SerializeToString())
    schema = standard_artifacts.Schema()
    schema.uri = str(tmp_path / "schema")
    Path(schema.uri).mkdir()
    shutil.copy(SCHEMA, schema.uri)
    anomalies = standard_artifacts.ExampleAnomalies()
    anomalies.uri = str(tmp_path / "anomalies")
    Executor().Do(
        {"statistics": [statistics], "schema": [schema]},
        {"anomalies": [anomalies]},
        {"exclude_splits": json.dumps([])},
    )
    return {
        split: list(
            anomalies_pb2.Anomalies.FromString(
                Path(anomalies.uri, f"Split-{split}", "SchemaDiff.pb").read_bytes()
            ).anomaly_info
        )
        for split in splits
    }


def test_examples_that_fit_the_schema_pass_and_the_report_is_empty(tmp_path):
    assert validate(tmp_path, train=GOOD, eval=GOOD[:1]) == {"train": [], "eval": []}


@pytest.mark.parametrize(
    ("bad", "feature", "reason"),
    [
        (example(source=b"play"), "text", "dropped"),
        (example(text=b"a text"), "source", "dropped"),
        (example(text=b"a text", source=b"play", part=None), "part", "dropped"),
        (example(text=b"a text", source=b"play", part=b"newer"), "part", "Unexpected string"),
        (example(text=7, source=b"play"), "text", "type"),
        (example(text=[b"one", b"two"], source=b"play"), "text", "shape"),
        (example(text=b"a text", source=b"play", extra=b"?"), "extra", "New column"),
    ],
)
def test_an_anomaly_stops_the_run_and_its_split_and_feature_are_named(
    tmp_path, bad, feature, reason
):
    with pytest.raises(ValueError, match="the examples do not fit their schema") as failure:
        validate(tmp_path, train=GOOD, eval=[bad])
    message = str(failure.value)
    assert f"split eval, feature '{feature}': " in message
    assert reason in message
    assert "split train" not in message


def test_all_anomalies_of_all_splits_are_named_at_once(tmp_path):
    with pytest.raises(ValueError, match="do not fit") as failure:
        validate(
            tmp_path,
            train=[*GOOD, example(source=b"play")],
            eval=[example(text=b"a text", extra=b"?")],
        )
    for name in ("train, feature 'text'", "eval, feature 'source'", "eval, feature 'extra'"):
        assert f"split {name}: " in str(failure.value)
