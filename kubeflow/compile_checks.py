"""What must hold before a pipeline is compiled for Kubeflow."""

import math
import re

from components.pod_resources import check_image
from model.training_config import StrategyConfig
from pipeline.config import PipelineConfig
from pipeline.kubeflow_config import KubeflowConfig, check_bucket

# What Kubeflow Pipelines and TFX's runner agree on.
_PIPELINE_NAME = re.compile(r"[a-z0-9][a-z0-9-]{0,127}")


def check_run(config: PipelineConfig, image: str, pipeline_root: str) -> None:
    """Does nothing if the pipeline can run on Kubeflow with this image and this bucket's folder.

    Raises:
        ValueError: It can't; the message has the field, the value and the rule.
    """
    check_bucket("pipeline root", pipeline_root)
    check_image("image", image)
    if not _PIPELINE_NAME.fullmatch(config.name):
        raise ValueError(
            "name must be lower-case letters, digits and '-' on Kubeflow, at most 128 of them, "
            f"got {config.name!r}"
        )
    if config.serving.infra_validator:
        raise ValueError(
            "serving.infra_validator must be false on Kubeflow: it would start containers by Docker"
        )
    if math.isinf(config.evaluation.max_perplexity):
        raise ValueError(
            "evaluation.max_perplexity must be finite on Kubeflow, whose parameters are JSON, "
            f"got {config.evaluation.max_perplexity}"
        )
    _check_strategy(config.training.strategy, config.kubeflow)
    if config.beam.environment_type == "LOOPBACK":
        raise ValueError(
            "beam.environment_type must not be LOOPBACK on Kubeflow: no engine is in a task's pod"
        )
    for field, folder in (("pipeline root", pipeline_root), ("data.path", config.data_folder)):
        config.beam.check_folder(field, folder)


def _check_strategy(strategy: StrategyConfig, config: KubeflowConfig) -> None:
    accelerators = config.resources_of("Trainer").accelerators
    if strategy.name == "mirrored" and strategy.device == "gpu":
        if accelerators < strategy.num_devices:
            raise ValueError(
                "kubeflow.resources: Trainer.accelerators must be >= "
                f"{strategy.num_devices}, training.strategy.num_devices, got {accelerators}"
            )
    elif strategy.name == "multi_worker" and config.training_job is None:
        raise ValueError(
            "kubeflow.training_job must be given where training.strategy.name is 'multi_worker'"
        )


def check_components(config: KubeflowConfig, components: list[str]) -> None:
    """Does nothing if the resources are those of components that there are.

    Raises:
        ValueError: One is for another.
    """
    known = ["default", *components]
    for name in config.resources:
        if name not in known:
            raise ValueError(f"kubeflow.resources: {name!r} must be one of {', '.join(known)}")
