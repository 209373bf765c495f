"""Runs the benchmarks, prints a table and writes `output/benchmarks.json`.

    python -m benchmarks
    python -m benchmarks --only transform_tokens_per_second_vs_tiktoken

The file is a list of {name, ours, peer, limit, unit, ratio}. Entries of benchmarks that this call
does not run stay as they are.
"""

import argparse
import dataclasses
import importlib
import json
import sys
from pathlib import Path

from benchmarks import Result

# Each benchmark's name and its module, which has `run() -> Result`. Imported when it is run only.
BENCHMARKS = {
    "input_pipeline_tokens_per_second": "benchmarks.input_pipeline",
    "transform_tokens_per_second_vs_tiktoken": "benchmarks.transform_throughput",
}


def main(arguments: list[str] | None = None) -> int:
    """Returns 1 when a ratio is below its limit, else 0."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description="Run benchmarks.")
    parser.add_argument(
        "--only", action="append", choices=BENCHMARKS, metavar="NAME", help=", ".join(BENCHMARKS)
    )
    parser.add_argument("--output", type=Path, default=Path("output/benchmarks.json"))
    options = parser.parse_args(arguments)

    results = []
    for name in options.only or BENCHMARKS:
        print(f"{name} ...", file=sys.stderr, flush=True)
        results.append(importlib.import_module(BENCHMARKS[name]).run())
        write(options.output, results[-1])
    print(table(results))
    return 0 if all(result.holds for result in results) else 1


def write(path: Path, result: Result) -> None:
    """Puts the result in place of an older one of the same benchmark, or behind all others."""
    entries = json.loads(path.read_text()) if path.exists() else []
    entries = [entry for entry in entries if entry["name"] != result.name]
    entries.append(dataclasses.asdict(result) | {"ratio": result.ratio})
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(entries, indent=2) + "\n")


def table(results: list[Result]) -> str:
    """Returns a line for each result below a headline."""
    rows = [("benchmark", "ours", "peer", "unit", "ratio", "limit", "")]
    for result in results:
        figures = (f"{result.ours:,.0f}", f"{result.peer:,.0f}", result.unit)
        ratios = (f"{result.ratio:.2f}", f"{result.limit:.2f}")
        rows.append((result.name, *figures, *ratios, "" if result.holds else "below its limit"))
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return "\n".join(
        "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()
        for row in rows
    )


if __name__ == "__main__":
    sys.exit(main())
