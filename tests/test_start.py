"""components/start.py: the weights that training starts with, and the Trainer on them."""

import dataclasses
import json
import os
import re
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from components import trainer
from components.start import find_start, list_start_files
from components.trainer import run_fn, run_key
from model.config import GPT2Config
from model.export import export_gpt2, read_description
from model.gpt2 import GPT2
from model.huggingface import write_huggingface
from model.pretrained import load_pretrained
from model.training_config import StrategyConfig, TrainingConfig
from pipeline.config_file import load_config
from pipeline.graph import create_pipeline
from tests.numpy_gpt2 import NumpyGPT2
from tests.published_models import (
    openai_arrays,
    random_arrays,
    write_huggingface_form,
    write_openai_form,
)
from tests.small_examples import write_examples
from tests.small_models import random_gpt2

VOCAB_SIZE, END = 50257, 50256
SIZES: dict[str, Any] = {
    "vocab_size": VOCAB_SIZE,
    "max_length": 6,
    "embedding_dim": 4,
    "num_layers": 1,
    "num_heads": 2,
    "feed_forward_dim": 8,
    "dropout": 0.0,
    "layer_norm_epsilon": 1e-5,
}
# Those of `published_models`, as a configuration here has them.
PUBLISHED: dict[str, Any] = {
    "vocab_size": 61,
    "max_length": 8,
    "embedding_dim": 6,
    "num_layers": 2,
    "num_heads": 3,
    "feed_forward_dim": 24,
    "dropout": 0.1,
    "layer_norm_epsilon": 1e-5,
}


def weights_of(model: GPT2) -> list[np.ndarray]:
    return [np.array(weight) for weight in model.trainable_variables]


def assert_same_weights(model: GPT2 | None, expected: GPT2) -> None:
    assert model is not None
    for weight, other in zip(weights_of(model), weights_of(expected), strict=True):
        np.testing.assert_array_equal(weight, other)


@pytest.fixture(scope="module")
def versions(tmp_path_factory) -> dict[int, GPT2]:
    return {number: random_gpt2(seed=number, **SIZES) for number in (9, 10)}


@pytest.fixture(scope="module")
def serving_folder(tmp_path_factory, versions) -> Path:
    """Two whole versions, and one that a server would not take."""
    folder = tmp_path_factory.mktemp("serving")
    for number, model in versions.items():
        export_gpt2(model, folder / str(number), stride=6)
    (folder / "11").mkdir()
    return folder


@pytest.fixture
def published(tmp_path) -> Path:
    return write_huggingface_form(tmp_path / "published", random_arrays())


def test_from_scratch_there_are_no_weights(serving_folder):
    start = find_start("scratch", str(serving_folder), GPT2Config(**SIZES))
    assert (start.model, start.description, start.digest) == (None, "scratch", "")


def test_with_nothing_in_production_training_starts_from_scratch(tmp_path):
    (tmp_path / "empty").mkdir()
    (tmp_path / "unfinished" / "3").mkdir(parents=True)
    config = GPT2Config(**SIZES)
    for name in ("nowhere", "empty", "unfinished"):
        start = find_start("production", str(tmp_path / name), config)
        assert start == find_start("scratch", "", config)


def test_production_is_the_newest_whole_version(serving_folder, versions):
    start = find_start("production", str(serving_folder), GPT2Config(**SIZES))
    assert start.description == "production version 10"
    assert_same_weights(start.model, versions[10])


def test_a_folder_of_an_exported_model_gives_its_weights(serving_folder, versions):
    folder = str(serving_folder / "9")
    start = find_start(folder, "", GPT2Config(**SIZES))
    assert start.description == f"weights {folder}"
    assert_same_weights(start.model, versions[9])


def test_published_weights_of_either_form_give_the_same_start(tmp_path, published):
    openai = write_openai_form(tmp_path / "openai", openai_arrays(random_arrays()))
    starts = [find_start(str(path), "", GPT2Config(**PUBLISHED)) for path in (published, openai)]
    for start in starts:
        assert_same_weights(start.model, load_pretrained(published))
    assert starts[0].digest == starts[1].digest


def test_every_size_that_differs_is_told_with_both_values(published):
    config = GPT2Config(
        vocab_size=61,
        max_length=9,
        embedding_dim=8,
        num_layers=3,
        num_heads=4,
        feed_forward_dim=32,
        dropout=0.5,
        layer_norm_epsilon=1e-6,
    )
    message = (
        f"cannot start from {published}: "
        "model.embedding_dim must be 6, as in the weights, got 8; "
        "model.num_layers must be 2, as in the weights, got 3; "
        "model.num_heads must be 3, as in the weights, got 4; "
        "model.feed_forward_dim must be 24, as in the weights, got 32; "
        "model.layer_norm_epsilon must be 1e-05, as in the weights, got 1e-06; "
        "model.max_length must be <= 8, the weights' own, got 9"
    )
    for find in (find_start, list_start_files):  # the latter before anything runs
        with pytest.raises(ValueError, match=f"^{re.escape(message)}$"):
            find(str(published), "", config)


def test_a_production_of_another_size_is_named_by_its_version(serving_folder):
    message = f"cannot start from {serving_folder}/10: model.num_heads must be 2, as in the"
    for find in (find_start, list_start_files):
        with pytest.raises(ValueError, match=f"^{re.escape(message)}"):
            find("production", str(serving_folder), GPT2Config(**SIZES | {"num_heads": 1}))


def test_of_a_longer_context_the_first_positions_are_taken(published):
    whole = load_pretrained(published)
    start = find_start(str(published), "", GPT2Config(**PUBLISHED | {"max_length": 5}))
    assert start.model is not None
    assert start.model.config.max_length == 5
    np.testing.assert_array_equal(
        np.array(start.model.position_embedding.embeddings),
        np.array(whole.position_embedding.embeddings)[:5],
    )
    ids = [60, 3, 1, 4, 1]
    np.testing.assert_allclose(
        start.model.logits(np.array([ids]))[0], NumpyGPT2(whole).logits(ids), rtol=1e-4, atol=1e-5
    )


def test_dropout_is_the_configurations(published):
    start = find_start(str(published), "", GPT2Config(**PUBLISHED | {"dropout": 0.0}))
    assert start.model is not None
    assert start.model.config.dropout == 0.0
    assert_same_weights(start.model, load_pretrained(published))


def test_the_digest_is_of_the_weights_alone(tmp_path, published):
    def digest(folder: Path, **sizes: Any) -> str:
        return find_start(str(folder), "", GPT2Config(**PUBLISHED | sizes)).digest

    model = load_pretrained(published)
    write_huggingface(model, tmp_path / "same")
    assert digest(tmp_path / "same") == digest(published) == digest(published, dropout=0.0)
    gamma = np.array(model.final_norm.gamma)
    gamma[-1] = np.nextafter(gamma[-1], np.float32(10))
    model.final_norm.gamma.assign(gamma)
    write_huggingface(model, tmp_path / "other")
    assert digest(tmp_path / "other") != digest(published)
    assert digest(published, max_length=5) != digest(published)


def test_the_files_to_start_from_are_told_by_name_size_and_time_of_change(published):
    before = list_start_files(str(published), "", GPT2Config(**PUBLISHED))
    assert [line.split(" ")[0] for line in before] == [
        f"{published}/config.json", f"{published}/model.safetensors"
    ]  # fmt: skip
    assert list_start_files(str(published), "", GPT2Config(**PUBLISHED)) == before
    weights = published / "model.safetensors"
    # Other weights of the same size, half a second later.
    seen = weights.stat().st_mtime_ns
    os.utime(weights, ns=(seen, seen + 500_000_000))
    later = list_start_files(str(published), "", GPT2Config(**PUBLISHED))
    assert (later[0], later[1] != before[1]) == (before[0], True)
    (published / "more").mkdir()
    (published / "more" / "notes.txt").write_text("below it")
    assert len(list_start_files(str(published), "", GPT2Config(**PUBLISHED))) == 3


@pytest.mark.parametrize("start", ["scratch", "production"])
def test_what_is_in_production_is_not_among_the_files(start):
    assert list_start_files(start, "nowhere", GPT2Config(**SIZES)) == []


@pytest.mark.parametrize("start", ["nowhere/at/all", "Production", ""])
def test_an_unknown_start_is_an_error_before_anything_runs(start, tmp_path):
    message = (
        "start must be 'scratch', 'production' or a folder with weights, "
        f"got {start!r}, which is no folder"
    )
    config = load_config("tiny", [f"start={start!r}", f"output={tmp_path}/output"])
    with pytest.raises(ValueError, match=f"^{re.escape(message)}$"):
        create_pipeline(config)
    assert list(tmp_path.iterdir()) == []


def test_a_folder_without_weights_is_an_error_before_anything_runs(tmp_path):
    config = load_config("tiny", [f"start={tmp_path}", f"output={tmp_path}/output"])
    with pytest.raises(ValueError, match=f"^{tmp_path} must be a folder with one of saved_model"):
        create_pipeline(config)
    assert list(tmp_path.iterdir()) == []


def test_weights_of_other_sizes_are_an_error_before_anything_runs(published, tmp_path):
    config = load_config("tiny", [f"start={published}", f"output={tmp_path}/output"])
    with pytest.raises(ValueError, match=f"^cannot start from {published}: model.vocab_size must"):
        create_pipeline(config)
    assert list(tmp_path.iterdir()) == [published]


def test_workers_that_nobody_starts_are_an_error_before_anything_runs(tmp_path):
    config = load_config(
        "tiny", [f"output={tmp_path}/output", "training.strategy.name=multi_worker"]
    )
    with pytest.raises(ValueError, match="must be 'one_device' or 'mirrored' on this machine, got"):
        create_pipeline(config)
    assert list(tmp_path.iterdir()) == []


def test_the_trainer_gets_the_start_and_other_files_are_another_key_of_the_cache(tmp_path):
    published = tmp_path / "published"
    write_huggingface(random_gpt2(**load_config("tiny").model.to_dict()), published)

    def custom_config() -> dict[str, Any]:
        pipeline = create_pipeline(load_config("tiny", [f"start={published}"]))
        (node,) = (node for node in pipeline.components if node.id == "Trainer")
        return json.loads(node.exec_properties["custom_config"])

    before = custom_config()
    assert before["start"] == str(published)
    assert before["serving_folder"] == "output/serving/tiny"
    assert custom_config() == before
    (published / "model.safetensors").write_bytes(b"other weights")
    assert custom_config() != before


# The run that follows is of one row, over and over: its first loss can be told without packing.
DOCUMENT = [31, 41, 59, 26, 53, END]  # one context long: every row is it, behind <|endoftext|>
TRAINING: dict[str, Any] = {
    "steps": 2,
    "global_batch_size": 2,
    "learning_rate": 1e-3,
    "warmup_steps": 0,
    "eval_batches": 1,
    "xla": False,
    "strategy": {},
}


def arguments(folder: Path, start: str, **sizes: Any) -> SimpleNamespace:
    """TFX's FnArgs, as far as run_fn reads it."""
    files = write_examples(folder / "examples" / "part-0.tfrecord", [DOCUMENT] * 4)
    return SimpleNamespace(
        custom_config={
            "model": SIZES | sizes,
            "training": TRAINING,
            "stride": 6,
            "xla": False,
            "int8": False,
            "start": start,
            "serving_folder": str(folder / "serving"),
            "checkpoints": str(folder / "checkpoints"),
        },
        train_files=[files],
        eval_files=[files],
        serving_model_dir=str(folder / "model"),
        model_run_dir=str(folder / "model_run"),
    )


@pytest.fixture(scope="module")
def started(tmp_path_factory) -> GPT2:
    """The weights of the run below, of a longer context than its own."""
    return random_gpt2(seed=5, **SIZES | {"max_length": 7})


@pytest.fixture(scope="module")
def trained(tmp_path_factory, started) -> SimpleNamespace:
    """What run_fn left behind."""
    folder = tmp_path_factory.mktemp("run")
    write_huggingface(started, folder / "weights")
    fn_args = arguments(folder, str(folder / "weights"))
    run_fn(fn_args)
    report = json.loads((folder / "model_run" / "training.json").read_text())
    lines = Path(report["logs"], "metrics.jsonl").read_text().splitlines()
    return SimpleNamespace(
        folder=folder,
        fn_args=fn_args,
        report=report,
        metrics=[json.loads(line) for line in lines],
    )


def test_the_first_loss_is_that_of_the_weights_to_start_from(trained, started):
    expected = NumpyGPT2(started).nll([END, *DOCUMENT[:-1]], DOCUMENT).mean()
    assert trained.metrics[0]["step"] == 1
    assert trained.metrics[0]["loss"] == pytest.approx(expected, rel=1e-5)
    assert abs(expected - np.log(VOCAB_SIZE)) > 0.1  # as from scratch
    assert trained.metrics[1]["loss"] < trained.metrics[0]["loss"]


def test_the_report_and_the_model_say_where_training_started(trained):
    description = f"weights {trained.folder}/weights"
    assert trained.report["start"] == description
    assert read_description(trained.fn_args.serving_model_dir)["start"] == description
    assert read_description(trained.fn_args.serving_model_dir)["model"] == SIZES


def test_the_runs_folder_belongs_to_its_start(trained):
    model = GPT2Config(**SIZES)
    training = TrainingConfig(**TRAINING | {"strategy": StrategyConfig()})
    starts = ["", "digest", find_start(trained.fn_args.custom_config["start"], "", model).digest]
    keys = [run_key(model, training, "data", start) for start in starts]
    assert len(set(keys)) == 3
    assert keys == [run_key(model, training, "data", start) for start in starts]
    # How the same losses are computed may change on the way.
    other_way = {
        "recompute": "block",
        "xla": True,
        "loss_chunk_size": 7,
        "vocab_multiple": 8,
        "load_best_at_end": True,
    }
    for changes, is_same in ((other_way, True), ({"seed": 1}, False)):
        changed = dataclasses.replace(training, **changes)
        assert (run_key(model, changed, "data", "") == keys[0]) == is_same
    # The same run, but from scratch, goes into another folder beside the first.
    from_scratch = arguments(trained.folder, "scratch")
    from_scratch.custom_config["stride"] = 7  # training is over when export finds it out of range
    with pytest.raises(ValueError, match="stride must be in"):
        run_fn(from_scratch)
    folders = list((trained.folder / "checkpoints").glob("*/metrics.jsonl"))
    assert len(folders) == 2
    assert Path(trained.report["logs"], "metrics.jsonl") in folders


def test_the_strategy_is_made_before_anything_starts_tensorflow(tmp_path, monkeypatch):
    # Neither weights nor examples are there: what is touched first says so.
    fn_args = arguments(tmp_path, str(tmp_path / "nowhere"))

    def fail(config):
        raise RuntimeError(f"asked for {config.name}")

    monkeypatch.setattr(trainer, "make_strategy", fail)
    with pytest.raises(RuntimeError, match="asked for one_device"):
        run_fn(fn_args)
