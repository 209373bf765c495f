"""ImportSchemaGen: the schema that comes with the code."""

import os

from google.protobuf import text_format
from tensorflow_metadata.proto.v0 import schema_pb2
from tfx.components.schema_gen import executor
from tfx.dsl.component.experimental.annotations import OutputArtifact, Parameter
from tfx.dsl.component.experimental.decorators import component
from tfx.dsl.io import fileio
from tfx.types import standard_artifacts


@component
def ImportSchemaGen(  # noqa: N802 (a component is named like a class)
    schema: OutputArtifact[standard_artifacts.Schema], text: Parameter[str]
) -> None:
    """Writes down a schema.

    TFX's own is told the file's path, and finds a schema that was changed in its cache.

    Args:
        schema: Gets `schema.pbtxt`.
        text: The schema, in protobuf's text format.

    Raises:
        google.protobuf.text_format.ParseError: `text` is no schema; it names line and column.
    """
    text_format.Parse(text, schema_pb2.Schema())
    with fileio.open(os.path.join(schema.uri, executor.DEFAULT_FILE_NAME), "w") as file:
        file.write(text)
