"""The graph: from texts to a pushed model."""

import dataclasses
import json
from collections.abc import Sequence
from importlib import resources
from typing import Any

from tfx import v1 as tfx
from tfx.dsl.components.base.base_component import BaseComponent
from tfx.orchestration import pipeline as tfx_pipeline

from components.baseline import BaselineModel, find_production
from components.code_version import code_digest
from components.evaluation import eval_config
from components.example_gen import corpus_example_gen
from components.example_validator import ExampleValidator
from components.import_schema import ImportSchemaGen
from components.pusher import Pusher
from components.serving_check import ServingCheck
from components.start import list_start_files
from components.transform import Transform
from pipeline.config import PipelineConfig

_TENSORFLOW_SERVING = "2.19.1"  # the image's tag

# Loading a model and its answers take seconds; on a machine that is busy, more.
_SERVING_CHECK_SECONDS = 600


def create_pipeline(config: PipelineConfig) -> tfx_pipeline.Pipeline:
    """Returns the pipeline for a runner on this machine; see the picture in the README.

    Raises:
        ValueError: The weights to start from are not there, can't be trained or are of other
            sizes, the model in production is scored with another stride, or nobody would start
            the workers of the training's strategy.
    """
    if config.training.strategy.name == "multi_worker":
        raise ValueError(
            "training.strategy.name must be 'one_device' or 'mirrored' on this machine, got "
            "'multi_worker', whose workers kubeflow.training_job starts on Kubernetes alone"
        )
    find_production(config.serving_base, config.stride)  # else its error would follow training
    return tfx_pipeline.Pipeline(
        pipeline_name=config.name,
        pipeline_root=config.pipeline_root,
        components=create_components(
            config,
            config.serving_base,
            list_start_files(config.start, config.serving_base, config.model),
        ),
        enable_cache=config.cache,
        metadata_connection_config=tfx.orchestration.metadata.sqlite_metadata_connection_config(
            config.metadata_path
        ),
        beam_pipeline_args=config.beam.arguments(),
    )


def create_components(
    config: PipelineConfig,
    serving_base: str,
    start_files: Sequence[str],
    job: dict[str, Any] | None = None,
) -> list[BaseComponent]:
    """Returns the one chain of components that every runner runs.

    Args:
        config: The run's.
        serving_base: The served model's folder, with its versions.
        start_files: What `list_start_files` says about the weights to start from; part of the
            cache's key.
        job: Where several pods are to train in place of the Trainer's own process, what
            `components.trainer.run_fn` is told about them.
    """
    example_gen, statistics_gen, schema_gen, example_validator = _read_data(config)
    transform = _transform(example_gen, schema_gen)
    transform.add_upstream_node(example_validator)
    trainer = _trainer(config, transform, serving_base, start_files, job)
    return [
        example_gen,
        statistics_gen,
        schema_gen,
        example_validator,
        transform,
        trainer,
        *_judge_and_push(config, transform, trainer, serving_base),
    ]


def _read_data(config: PipelineConfig) -> list[BaseComponent]:
    """Returns what reads the data and looks at it: generator, statistics, schema, validator."""
    example_gen = corpus_example_gen(
        config.data_folder,
        config.data.eval_share,
        config.data.max_refused_share,
        config.data.spans,
        config.data.eval_spans,
        report_dir=config.refused_folder,
    )
    statistics_gen = tfx.components.StatisticsGen(examples=example_gen.outputs["examples"])
    schema_gen = ImportSchemaGen(text=(resources.files("data") / "schema.pbtxt").read_text())
    example_validator = ExampleValidator(
        statistics=statistics_gen.outputs["statistics"], schema=schema_gen.outputs["schema"]
    )
    return [example_gen, statistics_gen, schema_gen, example_validator]


def _transform(example_gen: BaseComponent, schema_gen: BaseComponent) -> BaseComponent:
    return Transform(
        examples=example_gen.outputs["examples"],
        schema=schema_gen.outputs["schema"],
        preprocessing_fn="components.preprocessing.preprocessing_fn",
        # tft.apply_pyfunc, which runs the tokeniser, works in TensorFlow 1's graphs only.
        force_tf_compat_v1=True,
        # Statistics of token ids say nothing, and take longer than the tokeniser.
        disable_statistics=True,
        # Nothing is analysed, but TFX reads what it is told to analyse, and that must be something.
        splits_config=tfx.proto.SplitsConfig(analyze=["eval"], transform=["train", "eval"]),
        disable_analyzer_cache=True,
        custom_config={"code": code_digest()},
    )


def _trainer(
    config: PipelineConfig,
    transform: BaseComponent,
    serving_base: str,
    start_files: Sequence[str],
    job: dict[str, Any] | None,
) -> BaseComponent:
    return tfx.components.Trainer(
        run_fn="components.trainer.run_fn",
        examples=transform.outputs["transformed_examples"],
        transform_graph=transform.outputs["transform_graph"],
        train_args=tfx.proto.TrainArgs(splits=["train"], num_steps=config.training.steps),
        eval_args=tfx.proto.EvalArgs(splits=["eval"]),
        custom_config={
            "model": config.model.to_dict(),
            "training": dataclasses.asdict(config.training),
            "stride": config.stride,
            "xla": config.serving.xla,
            "int8": config.serving.int8,
            "start": config.start,
            "start_files": list(start_files),
            "serving_folder": serving_base,
            "checkpoints": config.checkpoints,
            "code": code_digest(),
            **({} if job is None else {"job": job}),
        },
    )


def _judge_and_push(
    config: PipelineConfig, transform: BaseComponent, trainer: BaseComponent, serving_base: str
) -> list[BaseComponent]:
    """Returns what compares the candidate with what it has to beat, tries it, and pushes it."""
    baseline = BaselineModel(
        candidate=trainer.outputs["model"],
        examples=transform.outputs["transformed_examples"],
        serving_folder=serving_base,
        stride=config.stride,
        # Not read: they have it look into production anew whenever the Evaluator runs anew.
        criteria=json.dumps(dataclasses.asdict(config.evaluation)),
    )
    evaluator = tfx.components.Evaluator(
        examples=transform.outputs["transformed_examples"],
        model=trainer.outputs["model"],
        baseline_model=baseline.outputs["baseline"],
        eval_config=eval_config(
            config.evaluation.max_perplexity,
            config.evaluation.min_improvement,
            config.evaluation.max_forgetting if config.data.spans else None,
        ),
    )
    infra_validators, validated = [], {}
    if config.serving.infra_validator:
        infra_validators = [_infra_validator(trainer)]
        validated["infra_blessing"] = infra_validators[0].outputs["blessing"]
    serving_check = ServingCheck(
        model=trainer.outputs["model"],
        seconds=_SERVING_CHECK_SECONDS,
        code=code_digest("serving"),
        **validated,
    )
    pusher = Pusher(
        model=trainer.outputs["model"],
        model_blessing=evaluator.outputs["blessing"],
        infra_blessing=serving_check.outputs["blessing"],
        push_destination=tfx.proto.PushDestination(
            filesystem=tfx.proto.PushDestination.Filesystem(base_directory=serving_base)
        ),
    )
    return [baseline, evaluator, *infra_validators, serving_check, pusher]


def _infra_validator(trainer: BaseComponent) -> BaseComponent:
    """Returns TFX's check that a stock TensorFlow Serving, started by Docker, loads the model."""
    return tfx.components.InfraValidator(
        model=trainer.outputs["model"],
        serving_spec=tfx.proto.ServingSpec(
            tensorflow_serving=tfx.proto.TensorFlowServing(tags=[_TENSORFLOW_SERVING]),
            local_docker=tfx.proto.LocalDockerConfig(),
        ),
    )
