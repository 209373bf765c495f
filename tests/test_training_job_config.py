"""pipeline/training_job_config.py."""

import dataclasses

import pytest

from components.training_job_spec import TrainingJobSpec, TrainingPods, read_spec
from model.training_config import StrategyConfig, TrainingConfig
from pipeline.training_job_config import TrainingJobConfig

TRAINING = TrainingConfig(steps=200, strategy=StrategyConfig("multi_worker"))


def test_what_is_not_given_is_the_pipelines_own():
    fields = TrainingJobConfig(workers=4).fields("gpt2:1", "claim", "/workspace", {"A": "b"})
    assert read_spec(fields, TRAINING) == TrainingJobSpec(
        image="gpt2:1", volume="claim", mount_path="/workspace", workers=4, environment={"A": "b"}
    )


def test_a_worker_that_is_not_described_is_the_same_in_a_file_and_in_a_job():
    config, spec = TrainingJobConfig(), TrainingJobSpec(image="gpt2:1", volume="claim")
    shared = {field.name for field in dataclasses.fields(TrainingPods)}
    assert shared == {field.name for field in dataclasses.fields(config)} - {"image"}
    assert {name: getattr(config, name) for name in shared} == {
        name: getattr(spec, name) for name in shared
    }


def test_what_is_given_stands():
    config = TrainingJobConfig(
        image="gpt2-gpu:2", cpu=16, accelerator="nvidia.com/gpu", accelerators=1
    )
    spec = read_spec(config.fields("gpt2:1", "claim", "/workspace"), TRAINING)
    assert (spec.image, spec.cpu) == ("gpt2-gpu:2", "16")
    assert (spec.accelerator, spec.accelerators) == ("nvidia.com/gpu", 1)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"workers": 1}, r"workers must be in \[2, 100\], got 1"),
        ({"image": "gpt2"}, "image must be an image with a tag or digest.*, got 'gpt2'"),
        ({"memory": "much"}, "memory must be an amount above zero.*, got 'much'"),
        ({"accelerators": 1}, "accelerator and accelerators must be given together"),
    ],
)
def test_a_value_out_of_range_is_an_error_as_soon_as_it_is_read(values, message):
    with pytest.raises(ValueError, match=message):
        TrainingJobConfig(**values)


def test_a_strategy_for_one_process_does_not_go_with_several_workers():
    TrainingJobConfig(workers=4).check_training(TRAINING)
    with pytest.raises(ValueError, match=r"training\.strategy\.name must be 'multi_worker'"):
        TrainingJobConfig().check_training(TrainingConfig(steps=200))
    with pytest.raises(ValueError, match=r"training\.global_batch_size must be a multiple of 3"):
        TrainingJobConfig(workers=3).check_training(TRAINING)
