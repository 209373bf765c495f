"""How the components that write examples make their Beam pipeline: to lose no time in it.

TFX has Beam compress all that ExampleGen and Transform write, at gzip's level 6, in the thread that
does all else. Of Transform's time for 50 MB of text that was a third, to make 28 MB of tokens
17 MB; each later component would take them apart again.

Beam asks its options a thousand times while it builds Transform's graph, and parses the command
line each time: one more third of a second, however little text there is.
"""

import functools
from typing import Any

import apache_beam as beam
from apache_beam.io.filesystem import CompressionTypes
from apache_beam.options.pipeline_options import PipelineOptions
from apache_beam.options.value_provider import StaticValueProvider
from tfx.dsl.components.base.base_beam_executor import BaseBeamExecutor


class ExamplesPipeline(beam.Pipeline):
    """A pipeline in which WriteToTFRecord compresses nothing, whatever suffix it was given."""

    def apply(
        self, transform: beam.PTransform, pvalueish: Any = None, label: str | None = None
    ) -> Any:
        if isinstance(transform, beam.io.WriteToTFRecord):
            transform._sink.file_name_suffix = StaticValueProvider(str, "")
            transform._sink.compression_type = CompressionTypes.UNCOMPRESSED
        return super().apply(transform, pvalueish, label)


class WritesExamples(BaseBeamExecutor):
    """To inherit from before one of TFX's Beam executors: its pipeline is the one above."""

    def _make_beam_pipeline(self) -> beam.Pipeline:
        return ExamplesPipeline(options=_ParsedOnce(self._beam_pipeline_args))


class _ParsedOnce(PipelineOptions):
    """Options that make each view of themselves once; by Beam's rules all views share values."""

    # Not in an attribute, which Pipeline would copy with the options that it is given.
    @functools.cache  # noqa: B019 (the few options of each pipeline stay in memory)
    def view_as(self, cls: type[PipelineOptions]) -> Any:
        return super().view_as(cls)
