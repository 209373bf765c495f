"""What of a graph is marked to be compiled by XLA."""

from typing import Any


def marked_for_xla(program: Any, *arguments: Any) -> dict[str, set[bool]]:
    """For each kind of operation, whether some are marked and whether some are not."""
    found: dict[str, set[bool]] = {}
    for operation in program.get_concrete_function(*arguments).graph.get_operations():
        found.setdefault(operation.type, set()).add(operation.node_def.attr["_XlaCompile"].b)
    return found
