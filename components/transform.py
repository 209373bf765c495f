"""Transform, whose files are not compressed."""

from tfx.components.transform import component, executor
from tfx.dsl.components.base import executor_spec

from components.examples_pipeline import WritesExamples


class Executor(WritesExamples, executor.Executor):
    """TFX's executor, which writes plain TFRecord files."""


class Transform(component.Transform):
    """TFX's Transform with the executor above."""

    EXECUTOR_SPEC = executor_spec.BeamExecutorSpec(Executor)
