"""How a model is trained."""

import dataclasses
import math
from typing import Any, Literal, get_args

StrategyName = Literal["one_device", "mirrored", "multi_worker"]
Precision = Literal["float32", "mixed_bfloat16", "mixed_float16"]
Recompute = Literal["none", "attention", "block"]


@dataclasses.dataclass(frozen=True)
class StrategyConfig:
    """Names a strategy and its devices.

    Args:
        name: `one_device`; `mirrored`: replicas on several devices of one machine;
            `multi_worker`: one process a worker, with peers and rank from TF_CONFIG.
        num_devices: Replicas of `mirrored`.
        device: What `mirrored` runs on. `cpu` cuts the CPU into logical devices, which tests the
            strategy but gains no speed. `one_device` takes a GPU if there is one.

    Raises:
        ValueError: `num_devices` is below 1, or not 1 for a strategy that takes none.
    """

    name: StrategyName = "one_device"
    num_devices: int = 1
    device: Literal["gpu", "cpu"] = "gpu"

    def __post_init__(self) -> None:
        if self.num_devices < 1:
            raise ValueError(f"num_devices must be >= 1, got {self.num_devices}")
        if self.name != "mirrored" and self.num_devices != 1:
            raise ValueError(
                f"num_devices is for strategy 'mirrored' only, got name={self.name!r} "
                f"with num_devices={self.num_devices}"
            )


@dataclasses.dataclass(frozen=True)
class TrainingConfig:
    """Says how a model is trained; everything that decides the losses is in here.

    Args:
        steps: Optimiser updates.
        global_batch_size: Sequences of one context in a step, over all replicas and micro-batches.
        accumulation_steps: Micro-batches into which each replica cuts its share of the batch. Their
            gradients are summed before the one update, so that only memory and time depend on it.
        learning_rate: Its peak.
        final_learning_rate_share: The cosine's floor as a share of the peak.
        warmup_steps: Steps of linear rise to the peak.
        weight_decay: AdamW's, on matrices only.
        beta_1, beta_2: AdamW's decay of the gradient's mean and of its square's.
        gradient_clip_norm: Gradients above this global norm are scaled down to it; `.inf` never.
        skip_spikes: If given, an update whose gradient norm lies more than this many standard
            deviations above the running mean of about 100 steps is not applied; see
            `model/update_guards.py`.
        average_decay: If given, evaluated and exported is an exponential moving average of the
            weights, which forgets them by this factor in each update.
        precision: `mixed_bfloat16` and `mixed_float16` make products and activations in 16 bits;
            weights, normalisation, softmax and loss stay in float32. float16's loss is scaled.
        document_mask: Whether a position sees its own document only, with positions counted from
            the document's start, where several documents share a row. GPT-2 was trained without.
        seed: Of weights, order of data and dropout.
        eval_every_steps: How often the eval split is measured.
        eval_batches: Batches of the eval split in such a measurement, always the same ones.
        checkpoint_every_steps: How often a checkpoint is written. One is wherever the eval loss is
            the lowest so far, too.
        keep_checkpoints: How many of the newest are kept, beside the one of the lowest eval loss.
        load_best_at_end: Whether the model is that of the checkpoint with the lowest eval loss, not
            of the last step. A run whose `eval_batches` were changed on the way compares losses on
            more documents with such on fewer.
        xla: Whether forward and backward pass are compiled by XLA; see `model/compilation.py`.
        recompute: What the backward pass computes again instead of keeping it: `none`;
            `attention`, the attention weights, which grow with the square of the context; `block`,
            all that is inside of a block (gradient checkpointing), for the least memory and about
            a third more arithmetic.
        loss_chunk_size: Positions whose logits exist at one time; see `model/loss.py`.
        vocab_multiple: The output projection is made for the vocabulary rounded up to a multiple of
            this. Tensor cores like 64 or 128. Nothing else changes: no weight, no probability.
        strategy: Where it runs.

    Raises:
        ValueError: A value is out of its range.
    """

    steps: int
    global_batch_size: int = 8
    accumulation_steps: int = 1
    learning_rate: float = 6e-4
    final_learning_rate_share: float = 0.1
    warmup_steps: int = 100
    weight_decay: float = 0.1
    beta_1: float = 0.9
    beta_2: float = 0.95
    gradient_clip_norm: float = 1.0
    skip_spikes: float | None = None
    average_decay: float | None = None
    precision: Precision = "float32"
    document_mask: bool = False
    seed: int = 0
    eval_every_steps: int = 100
    eval_batches: int = 16
    checkpoint_every_steps: int = 200
    keep_checkpoints: int = 2
    load_best_at_end: bool = False
    xla: bool = True
    recompute: Recompute = "none"
    loss_chunk_size: int = 512
    vocab_multiple: int = 1
    strategy: StrategyConfig = dataclasses.field(default_factory=StrategyConfig)

    def __post_init__(self) -> None:
        at_least_one = (
            "steps",
            "global_batch_size",
            "accumulation_steps",
            "eval_every_steps",
            "eval_batches",
            "checkpoint_every_steps",
            "keep_checkpoints",
            "loss_chunk_size",
            "vocab_multiple",
        )
        for name in at_least_one:
            _require(getattr(self, name) >= 1, name, getattr(self, name), ">= 1")
        rate, clip = self.learning_rate, self.gradient_clip_norm
        _require(0 < rate < math.inf, "learning_rate", rate, "> 0 and finite")
        _require(clip > 0, "gradient_clip_norm", clip, "> 0")
        _require(self.weight_decay >= 0, "weight_decay", self.weight_decay, ">= 0")
        _require(0 <= self.seed < 2**32, "seed", self.seed, "in [0, 2**32)")  # as Keras takes it
        for name in ("beta_1", "beta_2"):
            _require(0 <= getattr(self, name) < 1, name, getattr(self, name), "in [0, 1)")
        share = self.final_learning_rate_share
        _require(0 <= share <= 1, "final_learning_rate_share", share, "in [0, 1]")
        warmup = self.warmup_steps
        _require(0 <= warmup < self.steps, "warmup_steps", warmup, f"in [0, steps={self.steps})")
        spikes, decay = self.skip_spikes, self.average_decay
        _require(spikes is None or spikes > 1, "skip_spikes", spikes, "> 1")
        _require(decay is None or 0 < decay < 1, "average_decay", decay, "in (0, 1)")
        parts = get_args(Recompute)
        _require(self.recompute in parts, "recompute", self.recompute, f"one of {parts}")
        shares = self.strategy.num_devices * self.accumulation_steps
        _require(
            self.global_batch_size % shares == 0,
            "global_batch_size",
            self.global_batch_size,
            f"a multiple of num_devices * accumulation_steps = {shares}",
        )


def read_training_config(fields: dict[str, Any]) -> TrainingConfig:
    """Returns what `dataclasses.asdict` made of a configuration as one again.

    Raises:
        ValueError: A value is out of its range.
    """
    return TrainingConfig(**fields | {"strategy": StrategyConfig(**fields["strategy"])})


def _require(holds: bool, name: str, value: object, rule: str) -> None:
    if not holds:
        raise ValueError(f"{name} must be {rule}, got {value!r}")
