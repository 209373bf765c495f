"""pipeline/report_charts.py: where ticks, curves, bars and rows are drawn."""

import math

import numpy as np
import pytest

from pipeline.report_charts import (
    BOTTOM,
    HEIGHT,
    LABEL_WIDTH,
    LEFT,
    RIGHT,
    TOP,
    WIDTH,
    histogram,
    label,
    line_chart,
    log_steps,
    round_steps,
    runs_chart,
    source_chart,
)


@pytest.mark.parametrize(
    ("low", "high", "steps"),
    [
        (0, 1500, [0, 500, 1000, 1500]),
        (0, 1432, [0, 500, 1000, 1500]),
        (4.6, 10.8, [4, 6, 8, 10, 12]),
        (0, 3e-3, [0, 0.001, 0.002, 0.003]),
        (7, 7, [2, 4, 6, 8, 10, 12]),  # one value alone stands in the middle
        (0, 0, [-1, -0.5, 0, 0.5, 1]),
    ],
)
def test_steps_are_round_and_hold_both_ends(low, high, steps):
    assert round_steps(low, high) == pytest.approx(steps)


def test_where_only_whole_numbers_mean_something_steps_are_whole():
    assert round_steps(0, 2, least=1) == [0, 1, 2]


@pytest.mark.parametrize(
    ("low", "high", "steps"),
    [
        (251, 15822, [200, 500, 1000, 2000, 5000, 10000, 20000]),
        (100, 1000, [100, 200, 500, 1000]),
        (0.03, 0.04, [0.02, 0.05]),
        (5, 5, [5, 10]),
    ],
)
def test_steps_by_logarithm_are_the_fewest_that_hold_both_ends(low, high, steps):
    assert log_steps(low, high) == pytest.approx(steps)


@pytest.mark.parametrize(
    ("value", "text"),
    [(0, "0"), (1500, "1,500"), (2.5, "2.5"), (0.003, "0.003"), (0.0005, "5e-4"), (-1, "-1")],
)
def test_a_ticks_number_is_short(value, text):
    assert label(value) == text


def test_a_curve_goes_through_its_points():
    chart = line_chart("Loss", {"train": [(0, 10.0), (50, 6.0), (100, 2.0)], "eval": [(100, 4.0)]})
    assert chart
    train, evaluated = chart.lines
    middle, bottom = (LEFT + WIDTH - RIGHT) / 2, HEIGHT - BOTTOM
    height = bottom - TOP
    assert [tick.label for tick in chart.y_ticks] == ["2", "4", "6", "8", "10"]
    assert train.path == (
        f"M{LEFT} {TOP} L{middle:g} {bottom - height / 2:g} L{WIDTH - RIGHT} {bottom}"
    )
    (dot,) = evaluated.dots
    assert (dot.x, dot.y) == (WIDTH - RIGHT, bottom - height / 4)
    assert dot.title == "eval 4 at step 100"
    assert chart.legend == [("train", 1), ("eval", 2)]


def test_values_that_differ_tenfold_are_drawn_by_their_logarithms():
    chart = runs_chart([(1, 100.0, True), (2, 10_000.0, False), (3, 1_000.0, False)], [])
    assert chart
    assert [tick.label for tick in chart.y_ticks][::3] == ["100", "1,000", "10,000"]
    best, worst, between = chart.lines[0].dots
    assert between.y == pytest.approx((best.y + worst.y) / 2)
    assert [dot.kind for dot in (best, worst, between)] == ["", "hollow", "hollow"]


def test_perplexities_that_hardly_differ_are_drawn_near_each_other():
    chart = runs_chart([(1, 100.2071, True), (2, 100.20715, True)], [(2, 100.2071)])
    assert chart
    assert [tick.label for tick in chart.y_ticks] == ["100.2", "100.4"]
    first, second = chart.lines[0].dots
    assert first.y - second.y < 0.1


def test_a_run_of_infinite_perplexity_has_no_place_in_the_chart_and_one_run_needs_none():
    finite = [(1, 90.0, True), (2, 80.0, True)]
    chart = runs_chart([*finite, (3, math.inf, False)], [(2, 90.0), (3, 80.0)])
    assert chart
    assert [dot.title for dot in chart.lines[0].dots] == [
        "run 1: perplexity 90.0, pushed",
        "run 2: perplexity 80.0, pushed",
    ]
    assert [dot.title for dot in chart.lines[1].dots] == [
        "run 2: in production 90.0",
        "run 3: in production 80.0",
    ]
    assert runs_chart(finite[:1], []) is None


def test_each_source_has_a_bar_and_a_mark_and_one_that_is_infinite_ends_at_the_edge():
    chart = source_chart("", [("play", 100.0, 50.0), ("poem", math.inf, 200.0)])
    assert chart
    play, poem = chart.rows
    edge = WIDTH - RIGHT - 30
    assert [tick.label for tick in chart.x_ticks] == ["0", "50", "100", "150", "200"]
    assert play.bar == pytest.approx((edge - LABEL_WIDTH) / 2)
    assert play.mark == pytest.approx(LABEL_WIDTH + (edge - LABEL_WIDTH) / 4)
    assert (poem.bar, poem.mark) == (edge - LABEL_WIDTH, edge)
    assert [row.value for row in chart.rows] == ["100.0", "inf"]
    assert poem.y > play.y


def test_a_histogram_counts_every_document_once():
    lengths = {"train": np.array([1, 9, 10, 29, 29, 58, 60]), "eval": np.array([60, 12])}
    chart = histogram("", lengths)
    assert chart
    # 30 columns of two tokens.
    assert [bar.title for bar in chart.bars] == [
        "train: 1 documents of 0 to 2 tokens",
        "train: 1 documents of 8 to 10 tokens",
        "train: 1 documents of 10 to 12 tokens",
        "train: 2 documents of 28 to 30 tokens",
        "train: 2 documents of 58 to 60 tokens",
        "eval: 1 documents of 12 to 14 tokens",
        "eval: 1 documents of 58 to 60 tokens",
    ]
    last_train, last_eval = chart.bars[4], chart.bars[6]
    assert last_eval.y + last_eval.height == pytest.approx(last_train.y)  # on top of it
    assert last_train.height == pytest.approx(2 * last_eval.height)


def test_a_few_very_long_documents_share_the_last_column():
    lengths = {"train": np.array([100] * 995 + [50_000] * 5), "eval": np.array([], int)}
    chart = histogram("", lengths)
    assert chart
    assert chart.x_ticks[-1].label == "100+"
    assert chart.bars[-1].title.endswith("or more tokens")
    assert histogram("", {"train": np.array([], int)}) is None
