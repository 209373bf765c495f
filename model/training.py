"""The training loop: one for every strategy, resumable from any checkpoint."""

import contextlib
import dataclasses
import functools
import math
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import tensorflow as tf

from model.checkpoints import Checkpoints
from model.config import GPT2Config
from model.device_speed import PeakMemory, measure_matmul_rate, training_flops_per_token
from model.gpt2 import GPT2
from model.interruption import InterruptionWatch, TrainingInterrupted
from model.packing import PackedTokens
from model.prefetch import one_ahead
from model.progress_line import ProgressLine
from model.strategy import Workers, make_strategy, num_physical_devices
from model.throughput import Throughput
from model.train_step import StepResult, TrainStep
from model.training_config import TrainingConfig
from model.training_log import TrainingLog

# Measured once a process: it takes about two seconds, and does not change.
_matmul_rate = functools.cache(measure_matmul_rate)


@dataclasses.dataclass(frozen=True)
class TrainingResult:
    """Says how a training run ended.

    Args:
        model: The trained model, outside of any strategy.
        step: Whose weights it has: the last, or with `load_best_at_end` that of the checkpoint
            with the lowest eval loss.
        train_loss: Mean of the last 50 steps' losses, nats a token.
        eval_loss: The model's nats a token on the measured part of the eval split.
        tokens_seen: Tokens that were targets, repetitions counted.
    """

    model: GPT2
    step: int
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
    """Trains a GPT-2, going on from the newest whole checkpoint in `folder` if there is one.

    The same arguments give the same losses, whether the run was interrupted or not. SIGTERM or
    SIGINT to any worker has all of them finish the step that they are in, or the batch of an
    evaluation, write a checkpoint and stop. That must fit into the time between it and SIGKILL. An
    evaluation that was broken off is the first thing to be done when the run goes on.

    Args:
        model_config: The model's sizes.
        config: How to train.
        train_tokens: The train split, packed for `model_config.max_length`.
        eval_tokens: The eval split, likewise.
        folder: Where checkpoints, `metrics.jsonl` and TensorBoard's files go. It must belong to
            this model, this configuration, this data and this start alone, and all workers must
            see it.
        initial: The model whose weights the first step starts with; drawn at random if not given.

    Raises:
        ValueError: The batch does not divide over the replicas, a loss or a gradient is not finite,
            what lies in `folder` can't be gone on from, or the best checkpoint can't be read.
        TrainingInterrupted: SIGTERM or SIGINT came, to this worker or to another one.
    """
    strategy = make_strategy(config.strategy)
    shares = strategy.num_replicas_in_sync * config.accumulation_steps
    if config.global_batch_size % shares:
        raise ValueError(
            f"global_batch_size must be a multiple of the {strategy.num_replicas_in_sync} "
            f"replicas times accumulation_steps={config.accumulation_steps}, "
            f"got {config.global_batch_size}"
        )
    train_step = TrainStep(model_config, config, strategy, train_tokens.end_of_text, initial)
    workers = Workers(strategy)
    checkpoints = Checkpoints(
        folder / "checkpoints",
        tf.train.Checkpoint(**train_step.state),
        config.keep_checkpoints,
        workers,
    )
    start = checkpoints.restore()
    if start:
        print(f"training goes on from step {start}", file=sys.stderr)
    peak_flops = math.inf  # only the chief says how much of it is used
    if workers.is_chief:
        # Said, as a GPU that the driver or the libraries don't find is missed without an error.
        devices = (device.rpartition("device:")[2] for device in strategy.extended.worker_devices)
        print(f"training on {', '.join(devices)}", file=sys.stderr)
        peak_flops = num_physical_devices(config.strategy, strategy) * _matmul_rate(
            config.precision.removeprefix("mixed_")
        )
    loop = _Loop(
        config,
        train_step,
        train_tokens,
        eval_tokens,
        workers,
        checkpoints,
        TrainingLog(folder, start, enabled=workers.is_chief),
        ProgressLine(start, config.steps, enabled=workers.is_chief),
        Throughput(training_flops_per_token(model_config), peak_flops),
        PeakMemory(),
    )
    loop.run(start)
    step, eval_loss = config.steps, loop.log.last["eval_loss"]
    if config.load_best_at_end:
        step = checkpoints.restore_best(loop.log.eval_losses)
        eval_loss = loop.log.eval_losses[step]
        print(f"the model is that of step {step}, with eval loss {eval_loss:.3f}", file=sys.stderr)
    return TrainingResult(
        model=train_step.copy_model(),
        step=step,
        train_loss=loop.log.mean_loss,
        eval_loss=eval_loss,
        tokens_seen=loop.log.tokens,
    )


@dataclasses.dataclass(frozen=True)
class _Loop:
    """Does steps, and on the way measures, logs and saves."""

    config: TrainingConfig
    train_step: TrainStep
    train_tokens: PackedTokens
    eval_tokens: PackedTokens
    workers: Workers
    checkpoints: Checkpoints
    log: TrainingLog
    progress: ProgressLine
    throughput: Throughput
    peak_memory: PeakMemory

    def run(self, start: int) -> None:
        """Does the steps after `start`."""
        steps = range(start + 1, self.config.steps + 1)
        with (
            contextlib.closing(self.log),
            contextlib.closing(self.progress),
            contextlib.closing(one_ahead(self._read_batch, steps)) as batches,
            InterruptionWatch() as interruption,
        ):

            def must_stop() -> bool:
                # Asked by all workers at the same time: a signal may have reached only some.
                return any(self.workers.gather(interruption.is_asked))

            if start:  # whoever wrote it may have ended before it knew the best one
                self.checkpoints.save(start, self.log.eval_losses)
            is_owed = self._is_evaluation_due(start) and "eval_loss" not in self.log.last
            if any(self.workers.gather(is_owed)):
                self._finish_step(dict(self.log.last), must_stop)
            begin = time.perf_counter()
            for step, (ids, weights) in zip(steps, batches, strict=True):
                record = self._update(step, ids, weights)
                self.throughput.add(float(weights.sum()), time.perf_counter() - begin)
                self._finish_step(record | self._speed(), must_stop)
                begin = time.perf_counter()

    def _read_batch(self, step: int) -> tuple[np.ndarray, np.ndarray]:
        """Returns the batch of the step with this number, the first being 1."""
        size = self.config.global_batch_size
        return self.train_tokens.batch(self.config.seed, (step - 1) * size, size)

    def _update(self, step: int, ids: np.ndarray, weights: np.ndarray) -> dict[str, float]:
        """Does a step and returns what is known of it at once."""
        result = self.train_step.update(ids, weights)
        self._check_finite(step, result)
        record = {
            "step": step,
            "tokens": self.log.tokens + int(weights.sum()),
            "loss": result.loss,
            "gradient_norm": result.gradient_norm,
            "learning_rate": self.train_step.learning_rate(step),
            "updates_skipped": self.train_step.updates_skipped,
        }
        if self.config.precision == "mixed_float16":
            record["loss_scale"] = self.train_step.loss_scale
        return record

    def _check_finite(self, step: int, result: StepResult) -> None:
        # Gradients of a scaled loss may overflow; the scale is halved then, and the step skipped.
        overflow = not math.isfinite(result.gradient_norm) and self.train_step.loss_scale <= 1
        for name, number, is_bad in (
            ("loss", result.loss, not math.isfinite(result.loss)),
            ("gradient_norm", result.gradient_norm, overflow),
        ):
            if is_bad:
                raise ValueError(
                    f"{name} is {number} at step {step}: try a learning_rate below "
                    f"{self.config.learning_rate} or warmup_steps above {self.config.warmup_steps}"
                )

    def _speed(self) -> dict[str, float]:
        return {
            "tokens_per_second": self.throughput.tokens_per_second,
            "model_flop_utilisation": self.throughput.model_flop_utilisation,
            "peak_memory_bytes": self.peak_memory.read(),
        }

    def _is_evaluation_due(self, step: int) -> bool:
        is_due = step % self.config.eval_every_steps == 0 or step == self.config.steps
        return is_due and step > 0

    def _finish_step(self, record: dict[str, float], must_stop: Callable[[], bool]) -> None:
        """Measures, logs and saves what is due after a step.

        Raises:
            TrainingInterrupted: `must_stop` said so; the record and a checkpoint are written.
        """
        config, step = self.config, int(record["step"])
        if self._is_evaluation_due(step):
            eval_loss = self.train_step.mean_nll(self.eval_tokens, config.eval_batches, must_stop)
            if eval_loss is not None:
                record["eval_loss"] = eval_loss
        stops = must_stop()
        self.log.add(record)
        self.progress.add(record)
        is_due = step % config.checkpoint_every_steps == 0 or step == config.steps
        if is_due or stops or self.checkpoints.is_best(step, self.log.eval_losses):
            self.log.flush()  # first: a checkpoint without its log can't be gone on from
            self.checkpoints.save(step, self.log.eval_losses)
        if stops:
            raise TrainingInterrupted(
                f"training was stopped by a signal after step {step} of {config.steps}; it goes on "
                "from there when started again"
            )
