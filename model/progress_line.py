"""The line that says how far training is."""

import sys

from tqdm import tqdm


class _Lines:
    """Writes what tqdm would draw in place as a line each, which is how logs are kept and read."""

    encoding = "utf-8"

    def write(self, text: str) -> None:
        if text.strip():
            print(text.strip(), file=sys.stderr)

    def flush(self) -> None:
        sys.stderr.flush()


class ProgressLine:
    """Draws a line on stderr, with the newest numbers of what is logged.

    Where stderr is no terminal it is a new line every 20 seconds.

    Args:
        start: Steps that were done before.
        steps: Steps of the whole run.
        enabled: Whether this process draws it.
    """

    def __init__(self, start: int, steps: int, enabled: bool) -> None:
        self._eval_loss = "-"
        in_place = sys.stderr.isatty()
        self._bar = tqdm(
            desc="training",
            unit="step",
            initial=start,
            total=steps,
            dynamic_ncols=True,
            file=None if in_place else _Lines(),
            mininterval=0.5 if in_place else 20.0,
            disable=not enabled,
        )

    def add(self, record: dict[str, float]) -> None:
        """Shows a step's number and record, and the last eval loss that there was."""
        if "eval_loss" in record:
            self._eval_loss = f"{record['eval_loss']:.3f}"
        shown = {  # what a narrow terminal cuts off stands last
            "loss": f"{record['loss']:.3f}",
            "eval_loss": self._eval_loss,
            "tokens_per_second": f"{record['tokens_per_second']:.0f}",
            "model_flop_utilisation": f"{record['model_flop_utilisation']:.0%}",
            "gradient_norm": f"{record['gradient_norm']:.2f}",
            "learning_rate": f"{record['learning_rate']:.1e}",
            "tokens": f"{record['tokens']:.3g}",
            "peak_memory": f"{record['peak_memory_bytes'] / 2**30:.2f}GiB",
        }
        self._bar.set_postfix(shown, refresh=False)
        self._bar.update(int(record["step"]) - self._bar.n)

    def close(self) -> None:
        """Leaves the line as it is."""
        self._bar.close()
