"""How fast Transform tokenises, against tiktoken alone on one thread.

The Shakespeare corpus, repeated to 50 MB of JSON lines, goes through the pipeline of the
configuration `shakespeare` up to Transform. Only Transform's own time counts, with all that Beam
and TFX do in it: reading the examples, both of its passes, writing the files.
"""

import json
import logging
import statistics
import tempfile
import time
from pathlib import Path

from tfx.orchestration import pipeline as tfx_pipeline
from tfx.orchestration.local.local_dag_runner import LocalDagRunner

from benchmarks import Result
from data.prepare import prepare
from model.tokenizer import gpt2_encoding
from pipeline.config import PipelineConfig
from pipeline.config_file import load_config
from pipeline.graph import create_pipeline
from pipeline.lineage import read_last_run

SHAKESPEARE = Path("output/data/shakespeare")
CORPUS_BYTES = 50_000_000
ROUNDS = 7


def run() -> Result:
    """Measures tiktoken and Transform in turn; takes about two minutes on two cores."""
    for library in ("absl", "apache_beam", "tensorflow"):
        logging.getLogger(library).setLevel(logging.ERROR)
    texts = read_texts(prepare("shakespeare", SHAKESPEARE).folder)
    with tempfile.TemporaryDirectory() as folder:
        copies = _write_copies(texts, Path(folder) / "texts")
        config = load_config(
            "shakespeare", [f"data={{path: {folder}/texts}}", f"output={folder}", "cache=false"]
        )
        num_tokens = copies * sum(map(len, gpt2_encoding().encode_ordinary_batch(texts)))
        # All copies, some seconds, as a shared machine is slow at one time and fast at another.
        texts *= copies
        peers, ours = [_tiktoken_rate(texts)], []
        for number in range(ROUNDS):
            # The first time the pipeline up to Transform, then Transform alone.
            options = tfx_pipeline.RunOptions(
                from_nodes=["Transform"] if number else None, to_nodes=["Transform"]
            )
            ours.append(num_tokens / run_seconds(config, options))
            peers.append(_tiktoken_rate(texts))
    return Result(
        name="transform_tokens_per_second_vs_tiktoken",
        ours=statistics.median(ours),
        peer=statistics.median(peers),
        limit=0.8,
        unit="tokens/s",
    )


def read_texts(folder: Path) -> list[str]:
    """Returns the documents of a folder of JSON lines."""
    return [
        json.loads(line)["text"]
        for path in sorted(folder.iterdir())
        for line in path.read_text(encoding="utf-8").splitlines()
    ]


def _write_copies(texts: list[str], folder: Path) -> int:
    """Writes one file for each copy of the corpus, and returns how many."""
    folder.mkdir()
    lines = "".join(json.dumps({"text": text, "source": "play"}) + "\n" for text in texts)
    copies = -(-CORPUS_BYTES // len(lines))
    for number in range(copies):
        (folder / f"{number}.jsonl").write_text(lines)
    return copies


def _tiktoken_rate(texts: list[str]) -> float:
    """Returns tokens a second of one thread, without any reading or writing."""
    encode = gpt2_encoding().encode_ordinary
    begin = time.perf_counter()
    num_tokens = sum(len(encode(text)) for text in texts)
    return num_tokens / (time.perf_counter() - begin)


def run_seconds(config: PipelineConfig, options: tfx_pipeline.RunOptions) -> float:
    """Runs these components of the pipeline, and returns the seconds of the last of them."""
    LocalDagRunner().run(create_pipeline(config), run_options=options)
    return read_last_run(config.metadata_path, config.name)[options.to_nodes[0]].seconds
