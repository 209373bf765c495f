"""The report's charts as positions in an SVG, which the template draws."""

import dataclasses
import math
from collections.abc import Iterable, Mapping, Sequence

import numpy as np

# In the SVG's own units, which are CSS pixels where the page is wide enough.
WIDTH, HEIGHT = 560, 270
LEFT, RIGHT, TOP, BOTTOM = 58, 24, 12, 42

# Between two ticks of an axis, as a share of the highest value: less is noise, and makes labels too
# long for their place.
_LEAST_SHARE = 1e-3

# Of a chart with a row for each source.
ROW_HEIGHT, LABEL_WIDTH = 22, 190

Points = Sequence[tuple[float, float]]


@dataclasses.dataclass(frozen=True)
class Tick:
    """A mark on an axis: where, and what stands there."""

    position: float
    label: str


@dataclasses.dataclass(frozen=True)
class Dot:
    """A point that stands out; `title` is shown when the mouse rests on it."""

    x: float
    y: float
    title: str
    kind: str = ""
    radius: float = 5


@dataclasses.dataclass(frozen=True)
class Line:
    """A curve: its name in the legend, the number of its colour, the SVG path, its dots."""

    name: str
    colour: int
    path: str
    dots: list[Dot]


@dataclasses.dataclass(frozen=True)
class Bar:
    """A rectangle."""

    x: float
    y: float
    width: float
    height: float
    colour: int
    title: str


@dataclasses.dataclass(frozen=True)
class Row:
    """A source's row: its label, how far the bar goes, where the baseline's mark stands."""

    label: str
    y: float
    bar: float
    mark: float
    value: str
    title: str


@dataclasses.dataclass(frozen=True)
class Chart:
    """A chart: what it shows in words, its size, ticks, and what is drawn in it."""

    title: str
    x_label: str
    x_ticks: list[Tick]
    y_ticks: list[Tick]
    height: float = HEIGHT
    lines: list[Line] = dataclasses.field(default_factory=list)
    bars: list[Bar] = dataclasses.field(default_factory=list)
    rows: list[Row] = dataclasses.field(default_factory=list)
    legend: list[tuple[str, int]] = dataclasses.field(default_factory=list)


@dataclasses.dataclass(frozen=True)
class Scale:
    """Maps values from `low` to `high` to positions from `begin` to `end`, perhaps by logarithm."""

    low: float
    high: float
    begin: float
    end: float
    is_log: bool = False

    def __call__(self, value: float) -> float:
        low, high = self.low, self.high
        if self.is_log:
            low, high, value = math.log(low), math.log(high), math.log(value)
        share = (value - low) / (high - low)
        return round(self.begin + share * (self.end - self.begin), 2)

    def ticks(self, values: Iterable[float]) -> list[Tick]:
        """Returns ticks at these values."""
        return [Tick(self(value), label(value)) for value in values]


def label(value: float) -> str:
    """Returns a tick's number as short as it can be: 0.0005, 2.5, 1,500."""
    if value and abs(value) < 0.001:
        mantissa, _, exponent = f"{value:.1e}".partition("e")
        return f"{mantissa.removesuffix('.0')}e{int(exponent)}"
    return f"{value:,.4f}".rstrip("0").rstrip(".")


def round_steps(low: float, high: float, count: int = 5, least: float = 0.0) -> list[float]:
    """Returns about `count` round values, 1, 2 or 5 times a power of ten apart, that hold both.

    They are at least `least` apart: 1 where only whole numbers mean something.
    """
    if high <= low:
        low, high = low - (abs(low) / 2 or 1), high + (abs(high) / 2 or 1)
    rough = max((high - low) / count, least)
    power = 10.0 ** math.floor(math.log10(rough))
    step = next(power * factor for factor in (1, 2, 5, 10) if power * factor >= rough * 0.999)
    first, last = math.floor(low / step + 1e-9), math.ceil(high / step - 1e-9)
    return [number * step for number in range(first, last + 1)]


def log_steps(low: float, high: float) -> list[float]:
    """Returns 1, 2 and 5 times powers of ten, the fewest that hold both."""
    powers = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
    steps = [factor * 10.0**power for power in powers for factor in (1, 2, 5)]
    first = max(index for index, step in enumerate(steps) if step <= low)
    last = min(index for index, step in enumerate(steps) if step >= high)
    return steps[first : max(last, first + 1) + 1]


def _y_scale(steps: Sequence[float], is_log: bool = False) -> Scale:
    return Scale(steps[0], steps[-1], HEIGHT - BOTTOM, TOP, is_log)


def line_chart(title: str, curves: Mapping[str, Points]) -> Chart | None:
    """Returns a chart of curves over a training's steps; a curve of few points has dots.

    Args:
        title: What it shows, for those who cannot see it.
        curves: By name, each with (step, value).
    """
    values = [value for points in curves.values() for _, value in points]
    if not values:
        return None
    last = max(step for points in curves.values() for step, _ in points)
    steps = round_steps(0, last, least=1)
    y_steps = round_steps(min(values), max(values), least=max(values) * _LEAST_SHARE)
    x, y = Scale(0, steps[-1], LEFT, WIDTH - RIGHT), _y_scale(y_steps)
    lines = []
    for colour, (name, points) in enumerate(curves.items(), start=1):
        dots = [Dot(x(s), y(v), f"{name} {v:.4g} at step {s:,.0f}", radius=2.5) for s, v in points]
        lines.append(Line(name, colour, _path(dots), dots if len(dots) <= 60 else []))
    return Chart(
        title, "step", x.ticks(steps), y.ticks(y_steps),
        lines=lines, legend=[(line.name, line.colour) for line in lines],
    )  # fmt: skip


def _path(dots: Sequence[Dot]) -> str:
    return "M" + " L".join(f"{dot.x:g} {dot.y:g}" for dot in dots)


def runs_chart(
    candidates: Sequence[tuple[int, float, bool]], in_production: Sequence[tuple[int, float]]
) -> Chart | None:
    """Returns a chart of perplexity by run, or None if there are fewer than two.

    The scale is logarithmic where perplexities differ tenfold.

    Args:
        candidates: Number of the run, its model's perplexity, whether that was pushed.
        in_production: Number of the run, perplexity of the model that it was compared with.
    """
    candidates = [point for point in candidates if math.isfinite(point[1])]
    in_production = [point for point in in_production if math.isfinite(point[1])]
    if len(candidates) < 2:
        return None
    numbers = [number for number, *_ in candidates]
    values = [p for _, p, *_ in candidates] + [p for _, p in in_production]
    low, high = min(values), max(values)
    is_log = high / low > 10
    y_steps = log_steps(low, high) if is_log else round_steps(low, high, least=high * _LEAST_SHARE)
    y = _y_scale(y_steps, is_log)
    x = Scale(numbers[0] - 0.5, numbers[-1] + 0.5, LEFT, WIDTH - RIGHT)
    every = math.ceil((numbers[-1] - numbers[0] + 1) / 15)
    models = [
        Dot(
            x(number),
            y(perplexity),
            f"run {number}: perplexity {perplexity:.1f}, {'' if pushed else 'not '}pushed",
            "" if pushed else "hollow",
        )
        for number, perplexity, pushed in candidates
    ]
    before = [
        Dot(x(number), y(perplexity), f"run {number}: in production {perplexity:.1f}", "dash")
        for number, perplexity in in_production
    ]
    return Chart(
        "Perplexity of each run's model, and of the model in production then",
        "run",
        x.ticks(range(numbers[0], numbers[-1] + 1, every)), y.ticks(y_steps),
        lines=[Line("model", 1, _path(models), models), Line("in production", 2, "", before)],
        legend=[("pushed", 1), ("not pushed", -1), ("in production at that time", 2)],
    )  # fmt: skip


def source_chart(title: str, scores: Sequence[tuple[str, float, float]]) -> Chart | None:
    """Returns a row for each source: a bar for the model, a mark for what it is compared with.

    Args:
        title: What it shows, for those who cannot see it.
        scores: Source, the model's perplexity, the baseline's.
    """
    finite = [value for _, *pair in scores for value in pair if math.isfinite(value)]
    if not finite:
        return None
    steps = round_steps(0, max(finite))
    x = Scale(0, steps[-1], LABEL_WIDTH, WIDTH - RIGHT - 30)

    def position(value: float) -> float:
        return x(min(value, steps[-1]))  # one that is infinite goes to the end

    rows = [
        Row(
            label=source if len(source) <= 26 else source[:25] + "…",
            y=TOP + index * ROW_HEIGHT,
            bar=position(model) - LABEL_WIDTH,
            mark=position(baseline),
            value=f"{model:,.1f}",
            title=f"{source}: {model:,.1f}, compared with {baseline:,.1f}",
        )
        for index, (source, model, baseline) in enumerate(scores)
    ]
    height = TOP + len(rows) * ROW_HEIGHT + BOTTOM
    return Chart(title, "perplexity", x.ticks(steps), [], height, rows=rows)


def histogram(title: str, lengths: dict[str, np.ndarray]) -> Chart | None:
    """Returns how many documents have which length, the splits on top of each other.

    The longest hundredth shares the last column where else it would stretch the axis.

    Args:
        title: What it shows, for those who cannot see it.
        lengths: The documents' lengths in tokens, int64 [M], for each split.
    """
    together = np.concatenate(list(lengths.values()))
    if not together.size:
        return None
    longest, most = int(together.max()), float(np.quantile(together, 0.99))
    limit = most if longest > 2 * most else longest
    steps = round_steps(0, limit, count=8, least=1)
    each = max(1, round(30 / (len(steps) - 1)))  # columns between two ticks
    edges = np.linspace(0, steps[-1], each * (len(steps) - 1) + 1)
    cut = {name: np.minimum(values, steps[-1]) for name, values in lengths.items()}
    counts = {name: np.histogram(values, edges)[0] for name, values in cut.items()}
    highest = int(np.sum(list(counts.values()), axis=0).max())
    x = Scale(0, steps[-1], LEFT, WIDTH - RIGHT)
    y_steps = round_steps(0, highest, count=4, least=1)
    y = _y_scale(y_steps)
    bars, below = [], np.zeros(len(edges) - 1, int)
    for colour, (name, heights) in enumerate(counts.items(), start=1):
        for index in np.flatnonzero(heights):
            bottom, top = y(below[index]), y(below[index] + heights[index])
            begin, end = x(edges[index]), x(edges[index + 1])
            is_last = index == len(heights) - 1 and longest > steps[-1]
            to = "or more" if is_last else f"to {edges[index + 1]:,.0f}"
            shown = f"{name}: {heights[index]:,} documents of {edges[index]:,.0f} {to} tokens"
            bars.append(Bar(begin + 0.5, top, end - begin - 1, bottom - top, colour, shown))
        below += heights
    ticks = x.ticks(steps)
    if longest > steps[-1]:
        ticks[-1] = Tick(ticks[-1].position, ticks[-1].label + "+")
    return Chart(
        title, "tokens in a document", ticks, y.ticks(y_steps),
        bars=bars, legend=[(name, colour) for colour, name in enumerate(counts, start=1)],
    )  # fmt: skip
