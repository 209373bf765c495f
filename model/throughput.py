"""How fast training goes, in tokens and as a share of what the device can do."""

import collections

_MEAN_OVER = 50  # steps


class Throughput:
    """Averages over the last 50 steps of this process, without its first.

    The first one traces and compiles. Evaluation and checkpoints are no part of a step.

    Args:
        flops_per_token: Of forward and backward pass, as `training_flops_per_token` counts them.
        peak_flops: Floating-point operations a second of all devices together, measured.
    """

    def __init__(self, flops_per_token: float, peak_flops: float) -> None:
        self._utilisation = flops_per_token / peak_flops
        self._steps: collections.deque[tuple[float, float]] = collections.deque(maxlen=_MEAN_OVER)
        self._is_first = True

    def add(self, tokens: float, seconds: float) -> None:
        """Counts a step."""
        if not self._is_first:
            self._steps.append((tokens, seconds))
        self._is_first = False

    @property
    def tokens_per_second(self) -> float:
        """Targets a second; 0 until two steps are done."""
        if not self._steps:
            return 0.0
        tokens, seconds = map(sum, zip(*self._steps, strict=True))
        return tokens / seconds

    @property
    def model_flop_utilisation(self) -> float:
        """The share of the devices' matrix-product rate that the model's arithmetic takes.

        Of the arithmetic that the model needs, after Chowdhery et al. 2022 (PaLM), appendix B:
        what is computed twice, to save memory, counts once.
        """
        return self.tokens_per_second * self._utilisation
