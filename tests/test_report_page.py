"""The report in headless Chromium: it fits any window, loads nothing, and can be photographed."""

import math
from collections.abc import Iterator
from pathlib import Path

import pytest
import tensorflow as tf

from components.evaluation import eval_config
from pipeline.report import write_report
from tests.chromium import NAMES, Page, find_chromium, open_page
from tests.made_models import Document, evaluate
from tests.made_runs import MadeRuns, add_data, add_training, add_verdict
from tests.report_screenshots import PICTURES, WIDTH, take_screenshots

CHROMIUM = find_chromium()

pytestmark = pytest.mark.skipif(
    CHROMIUM is None, reason=f"needs a browser, one of {', '.join(NAMES)}"
)


@pytest.fixture(scope="module")
def report(tmp_path_factory) -> Path:
    """Of two runs with every section but the samples, and words that no line is long enough for."""
    folder = tmp_path_factory.mktemp("report")
    documents = [Document([0], 4, f"source_{number}_{'x' * 80}") for number in range(12)]
    evaluation = evaluate(
        folder, eval_config(50, 0), documents, [math.log(100)], [math.log(120)]
    )  # fmt: skip
    runs = MadeRuns(folder)
    refusal = {"file": "a/" * 60, "line": 7, "reason": "no " * 90, "record": "b'" + "\\x00" * 50}
    for name in "ab":
        runs.start(name)
        add_data(runs, [refusal])
        add_training(runs, [9 - step / 10 for step in range(80)])
        add_verdict(runs, evaluation, 41, False)
    return Path(write_report(runs.config))


@pytest.fixture(scope="module")
def browser(tmp_path_factory) -> Iterator[Page]:
    assert CHROMIUM
    with open_page(CHROMIUM, tmp_path_factory.mktemp("profile")) as page:
        yield page


@pytest.mark.parametrize("width", [320, 390, 768, 1240])
def test_the_page_fits_the_windows_width(browser, report, width):
    browser.look(width, 800)
    browser.open(report.as_uri())
    assert browser.evaluate("document.querySelectorAll('svg').length") == 5
    browser.evaluate("document.querySelectorAll('details').forEach((one) => { one.open = true; })")
    assert browser.evaluate("document.documentElement.scrollWidth") <= width


def test_the_page_loads_nothing_and_its_own_styles_are_in_force(browser, report):
    browser.look(1000, 800)
    browser.open(report.as_uri())
    loaded = "performance.getEntriesByType('resource').map((entry) => entry.name)"
    assert browser.evaluate(loaded) == []
    style = "getComputedStyle(document.querySelector('section')).borderRadius"
    assert browser.evaluate(style) == "10px"


def test_the_drawn_curve_ends_where_the_last_step_is(browser, report):
    browser.look(1000, 800)
    browser.open(report.as_uri())
    box = "(name) => document.querySelector('#training ' + name).getBoundingClientRect()"
    # Step 80 of an axis that ends there; the eval loss is measured after it.
    assert browser.evaluate(f"({box})('path.s1').right") == pytest.approx(
        browser.evaluate(f"({box})('line.grid').right"), abs=3
    )


def test_pictures_show_each_part_in_the_taste_that_they_are_for(browser, report, tmp_path):
    paths = take_screenshots(browser, report, tmp_path)
    assert [path.stem for path in paths] == list(PICTURES)
    brightness = {}
    for path in paths:
        assert path.stat().st_size < 200_000  # what the README may carry
        pixels = tf.io.decode_png(path.read_bytes(), channels=3).numpy()
        assert pixels.shape[1] == WIDTH
        assert pixels.shape[0] > 200
        assert pixels.std() > 10  # something is drawn
        brightness[path.stem] = pixels.mean()
    assert brightness["report-runs"] > 180
    assert brightness["report-training"] > 180
    assert brightness["report-lineage"] < 80
