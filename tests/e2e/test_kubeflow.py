"""The pipeline for Kubeflow: compiled, and each task's real command run in a process of its own."""

from pathlib import Path

import pytest
import tensorflow_model_analysis as tfma

from components.evaluation import CANDIDATE
from kubeflow.compiled import read_compiled
from kubeflow.mirror import Mirror
from kubeflow.simulate import FinishedTask, simulate
from pipeline import cli

pytestmark = [pytest.mark.slow, pytest.mark.long, pytest.mark.timeout(1500)]

PERPLEXITY = "perplexity"


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    """Holds the compiled file, and the folder that stands for the buckets."""
    folder = tmp_path_factory.mktemp("kubeflow")
    arguments = ["--config=tiny", "--image=gpt2-tfx:1", "--pipeline-root=s3://bucket/pipelines"]
    compiled = str(folder / "tiny.yaml")
    assert cli.main(["kubeflow", "compile", *arguments, f"--output={compiled}"]) == 0
    return folder


def run(folder: Path, **parameters: float) -> dict[str, FinishedTask]:
    pipeline = read_compiled(folder / "tiny.yaml")
    tasks = {task.name: task for task in simulate(pipeline, folder / "buckets", parameters)}
    print({name: round(task.seconds) for name, task in tasks.items()})
    return tasks


@pytest.fixture(scope="module")
def first(folder) -> dict[str, FinishedTask]:
    return run(folder)


def perplexity(path: str) -> float:
    result = tfma.load_eval_result(path, model_name=CANDIDATE)
    ((_, metrics),) = [found for found in result.slicing_metrics if found[0] == ()]
    return metrics[""][""][PERPLEXITY]["doubleValue"]


def path_of(folder: Path, uri: str) -> str:
    return Mirror(str(folder / "buckets"), is_all=True).to_path(uri)


def count_versions(folder: Path) -> int:
    served = Path(path_of(folder, "s3://bucket/pipelines/serving/tiny"))
    return sum(path.is_dir() for path in served.iterdir())


def test_the_model_is_as_good_as_that_of_the_run_on_one_machine(first, folder, first_run):
    evaluation = first["Evaluator"].outputs["evaluation"]["uri"]
    assert evaluation.startswith("s3://bucket/pipelines/tiny/")
    path = path_of(folder, evaluation)
    assert perplexity(path) == pytest.approx(first_run.summary["eval_perplexity"], rel=1e-6)


def test_the_model_is_pushed_whole_into_the_bucket(first, folder):
    metadata = first["Pusher"].outputs["pushed_model"]["metadata"]
    base = "s3://bucket/pipelines/serving/tiny/"
    assert metadata["pushed"] == 1
    assert metadata["pushed_destination"].startswith(base)
    versions = folder / "buckets" / "s3" / base.removeprefix("s3://")
    (version,) = [path for path in versions.iterdir() if path.is_dir()]
    assert version.name == metadata["pushed_destination"].removeprefix(base)
    assert (version / "saved_model.pb").is_file()
    assert first["Evaluator"].outputs["blessing"]["metadata"]["blessed"] == 1
    assert first["ServingCheck"].outputs["blessing"]["metadata"]["blessed"] == 1


def test_a_second_run_finds_no_new_data_and_ends_early(first, folder):
    second = run(folder)
    for name, task in second.items():
        for output in task.outputs.values():
            # The schema is of no data.
            assert ("no_new_data" in output["metadata"]) == (name != "ImportSchemaGen")
    assert count_versions(folder) == 1


def test_a_model_that_fails_a_runs_own_threshold_is_not_pushed_and_the_log_says_why(first, folder):
    tasks = run(folder, max_perplexity=2.0)
    assert tasks["Evaluator"].outputs["blessing"]["metadata"]["blessed"] == 0
    found = perplexity(path_of(folder, tasks["Evaluator"].outputs["evaluation"]["uri"]))
    reason = f"not blessed: perplexity is {found:.1f}, needed 2 or less"
    assert reason in tasks["Evaluator"].log.read_text()
    assert tasks["Pusher"].outputs["pushed_model"]["metadata"]["pushed"] == 0
    assert count_versions(folder) == 1
