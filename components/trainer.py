"""The Trainer's run_fn: transformed examples become a GPT-2 that can be evaluated and served."""

import dataclasses
import hashlib
import json
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow as tf

from components.start import find_start
from components.token_files import Documents, digest, map_documents, tokens_folder
from components.training_job import train_in_job
from components.training_task import REPORT
from components.transformed_examples import list_files
from model.config import GPT2Config
from model.export import export_gpt2
from model.packing import PackedTokens
from model.strategy import Workers, make_strategy
from model.tokenizer import gpt2_encoding
from model.training import train
from model.training_config import TrainingConfig, read_training_config

# Requests of one prompt each; a model server waits for the answers before it serves the model.
_WARM_UP_PROMPTS = 4

# A run that goes on with other values of these goes on from its checkpoints: they have no effect on
# the losses, the last four but for rounding.
_WITHOUT_EFFECT_ON_LOSSES = (
    "eval_every_steps",
    "eval_batches",
    "checkpoint_every_steps",
    "keep_checkpoints",
    "load_best_at_end",
    "recompute",
    "xla",
    "loss_chunk_size",
    "vocab_multiple",
)


def run_fn(fn_args: Any) -> None:
    """Trains, exports the model and writes a report, `training.json`, beside the run's logs.

    Args:
        fn_args: TFX's FnArgs. Its `custom_config` holds `model` and `training`, the fields of
            `GPT2Config` and `TrainingConfig`; `stride`, the evaluation's; `xla` and
            `int8`, see `export_gpt2`; `start` and `serving_folder`, see `find_start`;
            `checkpoints`, the folder below which each run has its own and the tokens are kept as
            files; and, if several pods on Kubernetes are to do all this in place of this process,
            `job`, the fields of `TrainingJobSpec`.

    Raises:
        ValueError: A configuration value is out of range, a split is shorter than a context, a
            token id does not fit into 16 bits, or the weights to start from don't fit.
    """
    settings = fn_args.custom_config
    model_config = GPT2Config(**settings["model"])
    training_config = read_training_config(settings["training"])
    if settings.get("job") is not None:
        train_in_job(fn_args, training_config)
        return
    # First of all: what comes next has TensorFlow start, and some strategies change how it does.
    strategy = make_strategy(training_config.strategy)
    start = find_start(settings["start"], settings["serving_folder"], model_config)
    train_files, eval_files = list_files(fn_args.train_files), list_files(fn_args.eval_files)
    checkpoints, context = Path(settings["checkpoints"]), model_config.max_length
    train_folder, eval_folder = (
        tokens_folder(checkpoints, files) for files in (train_files, eval_files)
    )
    train_documents = map_documents(train_files, train_folder)
    eval_documents = map_documents(eval_files, eval_folder)
    train_tokens = _pack("train", train_documents, context)
    eval_tokens = _pack("eval", eval_documents, context)

    folder = checkpoints / run_key(
        model_config, training_config, digest(train_folder) + digest(eval_folder), start.digest
    )
    result = train(
        model_config, training_config, train_tokens, eval_tokens, folder, initial=start.model
    )
    workers = Workers(strategy)
    if workers.is_chief:
        export_gpt2(
            result.model,
            fn_args.serving_model_dir,
            settings["stride"],
            start=start.description,
            xla=settings["xla"],
            int8=settings["int8"],
            warm_up_prompts=_beginnings(eval_documents, context),
        )
        report = {
            "parameters": result.model.count_params(),
            "start": start.description,
            "steps": training_config.steps,
            "model_step": result.step,
            "train_loss": result.train_loss,
            "train_tokens": train_tokens.num_tokens,
            "eval_tokens": eval_tokens.num_tokens,
            "tokens_seen": result.tokens_seen,
            "logs": str(folder),
        }
        # The last of what is written: a worker that finds it has nothing left to do.
        _write_report(fn_args.model_run_dir, report)
    # Nobody is done before the model is written: if the chief dies on the way, it needs them all.
    workers.gather(0)


def _write_report(folder: str, report: dict[str, Any]) -> None:
    tf.io.gfile.makedirs(folder)
    with tf.io.gfile.GFile(f"{folder}/{REPORT}", "w") as file:
        file.write(json.dumps(report, indent=2) + "\n")


def run_key(
    model_config: GPT2Config, training_config: TrainingConfig, data: str, start: str
) -> str:
    """Returns the name of the folder that belongs to this model, configuration, data and start.

    Checkpoints lie in it rather than below TFX's output, whose path is another one after every
    interruption: so a run that was killed finds them again, and no other run does.
    """
    training = dataclasses.asdict(training_config)
    for name in _WITHOUT_EFFECT_ON_LOSSES:
        del training[name]
    described = [dataclasses.asdict(model_config), training, data, start]
    return hashlib.sha256(json.dumps(described, sort_keys=True).encode()).hexdigest()[:16]


def _pack(split: str, documents: Documents, context: int) -> PackedTokens:
    try:
        return PackedTokens(*documents, context)
    except ValueError as error:
        raise ValueError(f"the {split} split is too small: {error}") from error


def _beginnings(documents: Documents, context: int) -> list[str]:
    """Returns how the first documents begin, in a quarter of a context at most."""
    tokens, lengths = documents
    ends = np.cumsum(lengths[:_WARM_UP_PROMPTS])
    texts = np.split(tokens[: ends[-1]], ends[:-1])  # each with the end of text
    return [gpt2_encoding().decode(text[:-1][: min(16, context // 4)].tolist()) for text in texts]
