"""Runs the benchmarks, prints a table and writes `output/benchmarks.json`.

    python -m benchmarks
    python -m benchmarks --only train_step_1x512_vs_huggingface

The file is a list of {name, ours, peer, limit, unit, ratio}; a ratio above 1 says that ours is
better. Entries of benchmarks that this call does not run stay as they are. A benchmark may have
several results: `--only` takes the first one's name.
"""

import argparse
import json
import pkgutil
import sys
from pathlib import Path
from typing import Any

from benchmarks import Result

# Each benchmark's name, and the function that returns its Result, or several in a list, with its
# arguments. Imported when it is run only.
BENCHMARKS: dict[str, tuple[Any, ...]] = {
    "train_step_1x512_vs_huggingface": ("benchmarks.train_step:one_row_vs_huggingface",),
    "train_step_4x256_vs_huggingface": ("benchmarks.train_step:four_rows_vs_huggingface",),
    "train_step_bfloat16_4x256_vs_huggingface": ("benchmarks.train_step:bfloat16_vs_huggingface",),
    "train_step_1x512_vs_kerashub": ("benchmarks.train_step:one_row_vs_kerashub",),
    "train_step_4x256_vs_kerashub": ("benchmarks.train_step:four_rows_vs_kerashub",),
    "train_step_1x512_vs_matmul_limit": ("benchmarks.train_step:one_row_vs_matmul_limit",),
    "train_step_memory_vs_huggingface": ("benchmarks.train_step:memory_vs_huggingface",),
    "train_step_memory_vs_kerashub": ("benchmarks.train_step:memory_vs_kerashub",),
    "chunked_loss_memory_vs_plain": ("benchmarks.train_options:chunked_loss_memory",),
    "chunked_loss_time_vs_plain": ("benchmarks.train_options:chunked_loss_time",),
    "recompute_memory_vs_plain": ("benchmarks.train_options:recompute_memory",),
    "recompute_time_vs_plain": ("benchmarks.train_options:recompute_time",),
    "document_mask_time_vs_plain": ("benchmarks.train_options:document_mask_time",),
    "average_time_vs_plain": ("benchmarks.train_options:average_time",),
    "xla_time_vs_plain": ("benchmarks.train_options:xla_time",),
    "bfloat16_time_vs_float32": ("benchmarks.train_options:bfloat16_time",),
    "kept_memory_time_vs_returned": ("benchmarks.train_options:kept_memory",),
    "input_pipeline_tokens_per_second": ("benchmarks.input_pipeline:run",),
    "transform_tokens_per_second_vs_tiktoken": ("benchmarks.transform_throughput:run",),
    "transform_scaling": ("benchmarks.transform_scaling:run",),
    "encode_200_words_ms": ("benchmarks.encode_prompt:run",),
    "server_8_clients_vs_1": ("benchmarks.server_throughput:run",),
    "decode_batch1_xla_vs_memory_limit": ("benchmarks.decoding:one_row_vs_memory_limit",),
    "decode_batch1_int8_vs_float32_limit": ("benchmarks.decoding:int8_vs_float32_limit",),
    "decode_batch1_int8_vs_xla": ("benchmarks.decoding:compare", "xla", "int8", 1),
    "decode_batch8_int8_vs_xla": ("benchmarks.decoding:compare", "xla", "int8", 8),
} | {
    f"decode_batch{batch}_{export}_vs_{peer}": ("benchmarks.decoding:compare", peer, export, batch)
    for batch in (1, 8)
    for export in ("xla", "portable")
    for peer in ("huggingface", "kerashub")
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
        function, *its_arguments = BENCHMARKS[name]
        found = pkgutil.resolve_name(function)(*its_arguments)
        for result in found if isinstance(found, list) else [found]:
            results.append(result)
            write(options.output, result)
    print(table(results))
    return 0 if all(result.holds for result in results) else 1


def write(path: Path, result: Result) -> None:
    """Puts the result in place of an older one of the same benchmark, or behind all others."""
    entries = json.loads(path.read_text()) if path.exists() else []
    entries = [entry for entry in entries if entry["name"] != result.name]
    entries.append(result.to_dict())
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(entries, indent=2) + "\n")


def table(results: list[Result]) -> str:
    """Returns a line for each result below a headline."""
    rows = [("benchmark", "ours", "peer", "unit", "ratio", "limit", "")]
    for result in results:
        figures = (_figure(result.ours), _figure(result.peer), result.unit)
        ratios = (f"{result.ratio:.2f}", f"{result.limit:.2f}")
        rows.append((result.name, *figures, *ratios, "" if result.holds else "below its limit"))
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return "\n".join(
        "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()
        for row in rows
    )


def _figure(value: float) -> str:
    """Returns it with three digits at least: 0.51, 20.4, 148, 1,200,000."""
    digits = 0 if value >= 100 else 1 if value >= 10 else 2
    return f"{value:,.{digits}f}"


if __name__ == "__main__":
    sys.exit(main())
