"""components/training_worker.py: workers find each other, and live and die together."""

import json
import os
import re
import signal
import socket
import threading
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from components import trainer, training_worker
from components.trainer import run_fn
from components.training_task import read_task
from components.training_worker import main, tf_config, wait_for_peers, worker_addresses
from model.interruption import TrainingInterrupted
from tests.small_kubernetes import end, small_kubernetes, use_cluster
from tests.small_training import last_step, metrics
from tests.small_workers import SmallWorkers, free_port, write_task

# --- who they are ---


def test_addresses_are_those_of_the_jobs_pods():
    assert worker_addresses("train-{index}.train", 3, 2222) == [
        "train-0.train:2222",
        "train-1.train:2223",
        "train-2.train:2224",
    ]


def test_tf_config_names_all_workers_and_this_ones_place():
    assert json.loads(tf_config(["train-0.train:2222", "train-1.train:2223"], 1)) == {
        "cluster": {"worker": ["train-0.train:2222", "train-1.train:2223"]},
        "task": {"type": "worker", "index": 1},
    }


@pytest.mark.parametrize("index", [-1, 2])
def test_an_index_that_no_worker_has_is_an_error(index):
    with pytest.raises(
        ValueError, match=rf"must be in \[0, 2\), the workers' numbers, got {index}"
    ):
        tf_config(["a:1", "b:2"], index)


# --- waiting for peers ---


def test_workers_that_come_at_different_times_find_each_other():
    addresses = worker_addresses("127.0.0.1", 3, free_port(3))
    found = []

    def wait(index: int) -> None:
        wait_for_peers(addresses, index, 60, is_done=lambda: False)
        # As TensorFlow's server does from now on.
        with socket.create_server(("", int(addresses[index].partition(":")[2]))):
            found.append(index)
            everyone.wait(60)

    everyone = threading.Barrier(3)
    threads = [threading.Thread(target=wait, args=(index,)) for index in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(found) == [0, 1, 2]


def test_workers_that_do_not_come_are_named_with_the_reason(monkeypatch):
    monkeypatch.setattr(training_worker, "_POLL_SECONDS", 0.01)
    port = free_port(4)
    addresses = [f"127.0.0.1:{port}", f"127.0.0.1:{port + 1}", f"nowhere.invalid:{port + 2}"]
    with socket.create_server(("", port)), pytest.raises(TimeoutError) as error:
        wait_for_peers([*addresses, f"127.0.0.1:{port + 3}"], 3, 0.1, is_done=lambda: False)
    assert re.fullmatch(
        rf"worker 3 waited 0.1 seconds for workers that did not come: 127.0.0.1:{port + 1} "
        r"\(it does not answer: \[Errno 111\] Connection refused\); "
        rf"nowhere.invalid:{port + 2} \(the name is not known: .+\)",
        str(error.value),
    )


# --- how they end ---


@pytest.fixture
def alone(tmp_path, monkeypatch) -> Iterator[list[str]]:
    """The arguments of a worker that waits for nobody. What `main` sets is set back afterwards."""
    monkeypatch.setenv("TF_CONFIG", "")
    monkeypatch.setenv("JOB_COMPLETION_INDEX", "0")
    before = signal.getsignal(signal.SIGTERM)
    yield [str(write_task(tmp_path)), "--hosts=127.0.0.1", "--workers=1", f"--port={free_port(1)}"]
    signal.signal(signal.SIGTERM, before)


def ends_by(error: BaseException, monkeypatch: Any) -> None:
    def fail(task: Any) -> None:
        raise error

    monkeypatch.setattr(training_worker, "run_fn", fail)


def test_a_worker_does_the_task_as_the_worker_that_kubernetes_says_it_is(alone, monkeypatch):
    seen: list[Any] = []

    def note(task: Any) -> None:
        seen.append((task, json.loads(os.environ["TF_CONFIG"])["task"]))

    monkeypatch.setattr(training_worker, "run_fn", note)
    assert main(alone) == 0
    assert seen == [(read_task(alone[0]), {"type": "worker", "index": 0})]


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (ValueError("learning_rate must be > 0"), 2),  # the Job fails at once
        (TrainingInterrupted("stopped after step 3"), 143),  # counts as no failure
        (TimeoutError("worker 1 did not come"), 1),  # is tried again
    ],
)
def test_the_exit_code_says_whether_another_attempt_makes_sense(
    alone, monkeypatch, capsys, error, code
):
    ends_by(error, monkeypatch)
    assert main(alone) == code
    assert str(error) in capsys.readouterr().err


def test_any_other_error_ends_the_worker_with_its_traceback(alone, monkeypatch):
    ends_by(RuntimeError("a peer is gone"), monkeypatch)
    with pytest.raises(RuntimeError, match="a peer is gone"):
        main(alone)


def test_sigterm_ends_a_worker_that_does_not_train_yet(alone, monkeypatch):
    monkeypatch.setattr(
        training_worker, "wait_for_peers", lambda *_: signal.raise_signal(signal.SIGTERM)
    )
    with pytest.raises(SystemExit) as stop:
        main(alone)
    assert stop.value.code == 143


def test_a_file_that_holds_no_task_is_bad_input(alone, capsys):
    Path(alone[0]).write_text('{"train_files": []}')
    assert main(alone) == 2
    assert f"{alone[0]} must hold a training task: " in capsys.readouterr().err


def test_a_worker_without_a_number_is_bad_input(alone, monkeypatch, capsys):
    monkeypatch.delenv("JOB_COMPLETION_INDEX")
    with pytest.raises(SystemExit) as stop:
        main(alone)
    assert stop.value.code == 2
    assert "--index or the variable JOB_COMPLETION_INDEX must be given" in capsys.readouterr().err


@pytest.fixture
def last(tmp_path, monkeypatch) -> Iterator[list[str]]:
    """The arguments of a worker whose peers, where they are, do not answer any more."""
    monkeypatch.setenv("TF_CONFIG", "")
    monkeypatch.setenv("JOB_COMPLETION_INDEX", "1")
    monkeypatch.setattr(training_worker, "_POLL_SECONDS", 0.01)
    before = signal.getsignal(signal.SIGTERM)
    port = free_port(2)
    arguments = ["--hosts=127.0.0.1", "--workers=2", f"--port={port}", "--wait-seconds=1"]
    yield [str(write_task(tmp_path)), *arguments]
    signal.signal(signal.SIGTERM, before)


def write_report(folder: Path, content: str = "{}") -> None:
    (folder / "model_run").mkdir(exist_ok=True)
    (folder / "model_run" / "training.json").write_text(content)


def test_a_worker_that_comes_back_when_the_model_is_whole_is_done(
    last, tmp_path, monkeypatch, capsys
):
    ends_by(AssertionError("trained again"), monkeypatch)
    write_report(tmp_path)
    assert main(last) == 0
    assert "the model is whole: nothing is left to do" in capsys.readouterr().err


def test_a_worker_that_waits_is_done_when_the_model_is(last, tmp_path, monkeypatch):
    def try_to_reach(address: str) -> str:
        write_report(tmp_path)
        return "it does not answer"

    ends_by(AssertionError("trained again"), monkeypatch)
    monkeypatch.setattr(training_worker, "_try_to_reach", try_to_reach)
    assert main(last) == 0


def test_a_report_that_is_cut_off_is_no_whole_result(last, tmp_path, capsys):
    write_report(tmp_path, '{"parameters": 1')
    assert main([*last, "--wait-seconds=0.1"]) == 1
    assert "worker 1 waited 0.1 seconds for workers that did not come" in capsys.readouterr().err


def test_no_worker_is_done_before_the_chief_has_written_the_model(tmp_path, monkeypatch):
    # A Job starts none of its pods anew that has ended well, and the chief needs them all.
    events: list[str] = []
    trained = SimpleNamespace(
        model=SimpleNamespace(count_params=lambda: 1), step=1, train_loss=1.0, tokens_seen=1
    )

    def gather(self: Any, value: int) -> list[int]:
        assert (tmp_path / "model_run" / "training.json").exists()
        events.append("all wait for all")
        return [value]

    def export(*arguments: Any, **settings: Any) -> None:
        assert not (tmp_path / "model_run" / "training.json").exists()
        events.append("model")

    monkeypatch.setattr(trainer, "train", lambda *_, **__: trained)
    monkeypatch.setattr(trainer, "export_gpt2", export)
    monkeypatch.setattr(trainer.Workers, "gather", gather)
    run_fn(read_task(write_task(tmp_path, strategy={})))
    assert events == ["model", "all wait for all"]


# --- for real ---


def run_folder(checkpoints: Path) -> Path:
    """The one run's folder; that of all runs as long as there is none."""
    found = [each.parent for each in checkpoints.glob("*/metrics.jsonl")]
    return found[0] if found else checkpoints


def run_job(job: dict[str, Any], folder: Path, checkpoints: Path, failures: list[Any]) -> None:
    """Runs a Job's workers here, as Kubernetes would, and kills one of them in the middle."""
    (container,) = job["spec"]["template"]["spec"]["containers"]
    with SmallWorkers(folder, Path(container["args"][0]), job["spec"]["completions"]) as workers:
        workers.wait_until(lambda: last_step(run_folder(checkpoints)) >= 7)
        workers.processes[1].kill()
        # Nobody ends the first one: it has to end by itself, and to be started anew.
        failures.extend(workers.run_to_the_end(restarts=6))
        went_on = re.search(r"training goes on from step (\d+)", workers.output(0))
        assert went_on is not None
        assert 6 <= int(went_on[1]) < 40
        # As if one had been killed after all was done: its peers come back no more.
        workers.start(1)
        assert workers.run_to_the_end(restarts=0) == []
        assert "the model is whole" in workers.output(1)
    end(job, "Complete")


@pytest.mark.slow
@pytest.mark.long
def test_a_job_of_which_a_worker_is_killed_trains_as_if_nothing_had_been(tmp_path, monkeypatch):
    steps = {"steps": 40, "checkpoint_every_steps": 2, "eval_every_steps": 20}
    fn_args = read_task(write_task(tmp_path, **steps))
    volume, checkpoints = tmp_path / "volume", tmp_path / "volume" / "checkpoints"
    volume.mkdir()
    spec = {"image": "gpt2:1", "volume": "claim", "mount_path": str(volume), "workers": 2}
    fn_args.custom_config.update(job=spec, checkpoints=str(checkpoints))
    failures: list[tuple[int, int]] = []
    with small_kubernetes() as cluster, ThreadPoolExecutor(1) as kubelet:
        use_cluster(cluster, tmp_path / "kubeconfig", monkeypatch)
        running: list[Future[None]] = []

        def happen(job: dict[str, Any]) -> None:
            if not running:
                running.append(kubelet.submit(run_job, job, tmp_path, checkpoints, failures))
            if running[0].done() and running[0].exception():
                end(job, "Failed")

        cluster.happen = happen
        try:
            run_fn(fn_args)
        finally:
            running[0].result()
    assert (1, -signal.SIGKILL) in failures
    assert (0, 1) in failures
    assert (tmp_path / "model" / "saved_model.pb").exists()

    # One process that nothing happens to does the same steps.
    whole = tmp_path / "whole"
    whole.mkdir()
    monkeypatch.setattr(trainer, "export_gpt2", lambda *_, **__: None)
    run_fn(read_task(write_task(whole, **steps, strategy={})))
    records, others = metrics(run_folder(checkpoints)), metrics(run_folder(whole / "checkpoints"))
    assert [record["step"] for record in records] == list(range(1, 41))
    assert records == [
        {name: pytest.approx(value, rel=1e-5) for name, value in record.items()}
        for record in others
    ]
    report, other = (
        json.loads((folder / "model_run" / "training.json").read_text())
        for folder in (tmp_path, whole)
    )
    assert report["train_loss"] == pytest.approx(other["train_loss"], rel=1e-5)
    assert report["tokens_seen"] == other["tokens_seen"]
