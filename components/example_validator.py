"""An ExampleValidator that stops the run when data and schema disagree."""

import os
from typing import Any

from tensorflow_metadata.proto.v0 import anomalies_pb2
from tfx.components.example_validator import component, executor
from tfx.dsl.components.base import executor_spec
from tfx.dsl.io import fileio
from tfx.types import artifact_utils, standard_component_specs


class Executor(executor.Executor):
    """TFX's, which only writes anomalies down, and an error when there are any."""

    def Do(  # noqa: N802 (TFX's name)
        self,
        input_dict: dict[str, list],
        output_dict: dict[str, list],
        exec_properties: dict[str, Any],
    ) -> Any:
        """Validates the statistics of every split against the schema.

        Raises:
            ValueError: There are anomalies; it names split, feature and reason of each.
        """
        result = super().Do(input_dict, output_dict, exec_properties)
        artifact = artifact_utils.get_single_instance(
            output_dict[standard_component_specs.ANOMALIES_KEY]
        )
        found = []
        for split in artifact_utils.decode_split_names(artifact.split_names):
            path = os.path.join(
                artifact_utils.get_split_uri([artifact], split), executor.DEFAULT_FILE_NAME
            )
            found += [f"split {split}, {line}" for line in _describe(path)]
        if found:
            raise ValueError("the examples do not fit their schema: " + "; ".join(found))
        return result


class ExampleValidator(component.ExampleValidator):
    """TFX's ExampleValidator with the executor above."""

    EXECUTOR_SPEC = executor_spec.ExecutorClassSpec(Executor)


def _describe(path: str) -> list[str]:
    with fileio.open(path, "rb") as file:
        anomalies = anomalies_pb2.Anomalies.FromString(file.read())
    described = [
        f"feature {name!r}: {info.short_description}: {info.description}"
        for name, info in sorted(anomalies.anomaly_info.items())
    ]
    if anomalies.HasField("dataset_anomaly_info"):
        described.append(f"dataset: {anomalies.dataset_anomaly_info.description}")
    return described
