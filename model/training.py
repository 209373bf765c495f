"""The training loop: one for every strategy, resumable from any checkpoint."""

import dataclasses
import math
import sys
import time
from pathlib import Path

import tensorflow as tf
from tqdm import tqdm

from model.checkpoints import Checkpoints
from model.config import GPT2Config
from model.gpt2 import GPT2
from model.packing import PackedTokens
from model.strategy import is_chief, make_strategy
from model.train_step import TrainStep
from model.training_config import TrainingConfig
from model.training_log import TrainingLog


@dataclasses.dataclass(frozen=True)
class TrainingResult:
    """Says how a training run ended.

    Args:
        model: The trained model, outside of any strategy.
        train_loss: Mean of the last 50 steps' losses, nats a token.
        eval_loss: Nats a token on the measured part of the eval split after the last step.
        tokens_seen: Tokens that were targets, repetitions counted.
    """

    model: GPT2
    train_loss: float
    eval_loss: float
    tokens_seen: int


def train(
    model_config: GPT2Config,
    config: TrainingConfig,
    train_tokens: PackedTokens,
    eval_tokens: PackedTokens,
    folder: Path,
    initial: GPT2 | None = None,
) -> TrainingResult:
    """Trains a GPT-2, going on from the newest checkpoint in `folder` if there is one.

    The same arguments give the same losses, whether the run was interrupted or not.

    Args:
        model_config: The model's sizes.
        config: How to train.
        train_tokens: The train split, packed for `model_config.max_length`.
        eval_tokens: The eval split, likewise.
        folder: Where checkpoints, `metrics.jsonl` and TensorBoard's files go. It must belong to
            this model, this configuration, this data and this start alone.
        initial: The model whose weights the first step starts with; drawn at random if not given.

    Raises:
        ValueError: The batch does not divide over the replicas, or a loss is not finite.
    """
    strategy = make_strategy(config.strategy)
    if config.global_batch_size % strategy.num_replicas_in_sync:
        raise ValueError(
            f"global_batch_size must be a multiple of the {strategy.num_replicas_in_sync} "
            f"replicas, got {config.global_batch_size}"
        )
    train_step = TrainStep(model_config, config, strategy, initial=initial)
    checkpoints = Checkpoints(
        folder / "checkpoints",
        tf.train.Checkpoint(**train_step.state),
        config.keep_checkpoints,
        is_writer=is_chief(strategy),
    )
    if checkpoints.restore():
        print(f"training goes on from step {train_step.steps_done}", file=sys.stderr)
    log = TrainingLog(folder, train_step.steps_done, enabled=is_chief(strategy))
    _run(train_step, config, train_tokens, eval_tokens, checkpoints, log)
    log.close()
    return TrainingResult(
        model=train_step.copy_model(),
        train_loss=log.mean_loss(last=50),
        eval_loss=log.records[-1]["eval_loss"],
        tokens_seen=log.tokens,
    )


def _run(
    train_step: TrainStep,
    config: TrainingConfig,
    train_tokens: PackedTokens,
    eval_tokens: PackedTokens,
    checkpoints: Checkpoints,
    log: TrainingLog,
) -> None:
    """Does the steps that are left, writing records and checkpoints on the way."""
    start = train_step.steps_done
    progress = tqdm(
        desc="training",
        unit="step",
        initial=start,
        total=config.steps,
        dynamic_ncols=True,
        # Where a line can't be drawn again in place, one now and then is enough.
        mininterval=0.5 if sys.stderr.isatty() else 20.0,
    )
    shown_eval_loss = "-"
    rate = _TokenRate()
    for done in range(start + 1, config.steps + 1):
        is_last = done == config.steps
        begin = time.perf_counter()
        record = _do_step(train_step, config, train_tokens, done)
        rate.add(record["tokens"], time.perf_counter() - begin)
        record["tokens"] += log.tokens
        record["tokens_per_second"] = rate.tokens_per_second
        if done % config.eval_every_steps == 0 or is_last:
            record["eval_loss"] = train_step.mean_nll(eval_tokens, config.eval_batches)
            shown_eval_loss = f"{record['eval_loss']:.3f}"
        log.add(record)
        if done % config.checkpoint_every_steps == 0 or is_last:
            log.flush()
            checkpoints.save(done)
        progress.set_postfix(
            loss=f"{record['loss']:.3f}",
            eval_loss=shown_eval_loss,
            learning_rate=f"{record['learning_rate']:.1e}",
            tokens_per_second=f"{rate.tokens_per_second:.0f}",
            refresh=False,
        )
        progress.update()
    progress.close()


def _do_step(
    train_step: TrainStep, config: TrainingConfig, train_tokens: PackedTokens, done: int
) -> dict[str, float]:
    """Does the step whose number is `done`, the first being 1, and returns its record."""
    first = (done - 1) * config.global_batch_size
    ids, weights = train_tokens.batch(config.seed, first, config.global_batch_size)
    result = train_step.update(ids, weights)
    if not math.isfinite(result.loss):
        raise ValueError(
            f"loss is {result.loss} at step {done}: try a learning_rate below "
            f"{config.learning_rate} or warmup_steps above {config.warmup_steps}"
        )
    return {
        "step": done,
        "tokens": int(weights.sum()),
        "loss": result.loss,
        "gradient_norm": result.gradient_norm,
        "learning_rate": train_step.learning_rate(done),
    }


class _TokenRate:
    """Averages tokens a second over all steps but the first, which traces and compiles."""

    def __init__(self) -> None:
        self._steps, self._tokens, self._seconds = 0, 0.0, 0.0

    def add(self, tokens: float, seconds: float) -> None:
        """Counts a step."""
        if self._steps > 0:
            self._tokens += tokens
            self._seconds += seconds
        self._steps += 1

    @property
    def tokens_per_second(self) -> float:
        """The average; 0 until two steps are done."""
        return self._tokens / self._seconds if self._seconds else 0.0
