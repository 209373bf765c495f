"""Examples in TFRecord files without compression.

TFX has Beam compress all that ExampleGen and Transform write, at gzip's level 6, in the thread that
does all else. Of Transform's time for 50 MB of text that was a third, to make 28 MB of tokens
17 MB; each later component would take them apart again.
"""

from typing import Any

import apache_beam as beam
from apache_beam.io.filesystem import CompressionTypes
from apache_beam.options.value_provider import StaticValueProvider
from tfx.dsl.components.base.base_beam_executor import BaseBeamExecutor


class PlainRecordsPipeline(beam.Pipeline):
    """A pipeline in which WriteToTFRecord compresses nothing, whatever suffix it was given."""

    def apply(
        self, transform: beam.PTransform, pvalueish: Any = None, label: str | None = None
    ) -> Any:
        if isinstance(transform, beam.io.WriteToTFRecord):
            transform._sink.file_name_suffix = StaticValueProvider(str, "")
            transform._sink.compression_type = CompressionTypes.UNCOMPRESSED
        return super().apply(transform, pvalueish, label)


class PlainRecords(BaseBeamExecutor):
    """To inherit from before one of TFX's Beam executors: its pipeline is the one above."""

    def _make_beam_pipeline(self) -> beam.Pipeline:
        return PlainRecordsPipeline(argv=self._beam_pipeline_args)
