"""A page about a pipeline's runs, for people: one file that loads nothing."""

import datetime
import math
import os
from pathlib import Path
from typing import Any

import jinja2
import numpy as np
import tensorflow as tf

from components.versions import newest_version
from model.staged_file import write_whole
from pipeline import report_charts
from pipeline.config import PipelineConfig
from pipeline.report_charts import Chart
from pipeline.report_data import Curves, read_curves, read_lengths, read_refusals
from pipeline.report_runs import read_run_reports
from pipeline.report_samples import SAMPLING, write_samples
from pipeline.run_report import RunReport

# A page with more is hard to read; a nightly schedule's last seven weeks.
MAX_RUNS = 50


def write_report(config: PipelineConfig, output: str | None = None) -> str:
    """Writes the page, whole or not at all, and returns its path.

    Args:
        config: Which pipeline's.
        output: The file; `<config.output>/report.html` when not given. One that is there is
            replaced.

    Raises:
        ValueError: The pipeline has not run yet, or `output` is a folder.
    """
    path = Path(output or os.path.join(config.output, "report.html"))
    if path.is_dir():
        raise ValueError(f"--output must be a file, got the folder {str(path)!r}")
    write_whole(path, render_report(config))
    return str(path)


def render_report(config: PipelineConfig) -> str:
    """Returns the page.

    Raises:
        ValueError: The pipeline has not run yet.
    """
    try:
        runs = read_run_reports(config, MAX_RUNS)
    except LookupError as error:
        raise ValueError(
            f"{error.args[0]}; `gpt2-tfx run` with the same --config and --set makes one"
        ) from error
    trained = _newest(runs, "training")
    measured = _newest(runs, "perplexity")
    with_tokens = next((run for run in reversed(runs) if "tokens" in run.steps), None)
    lengths = read_lengths(config, with_tokens) if with_tokens else None
    in_production = newest_version(config.serving_base)
    maker = _find_maker(runs, in_production)
    return _environment().get_template("report.html.jinja").render(
        config=config,
        written=datetime.datetime.now(datetime.timezone.utc),
        runs=runs,
        newest=runs[-1],
        runs_chart=_runs_chart(runs),
        in_production=in_production,
        maker=maker,
        trained=trained,
        trainings=_trainings(trained, maker),
        measured=measured,
        source_chart=_source_chart(measured),
        with_tokens=with_tokens,
        lengths=_describe_lengths(lengths, config.model.max_length),
        length_chart=lengths
        and report_charts.histogram("How long the documents are, in tokens", lengths),
        refusals=read_refusals(config, runs[-1]),
        sampling=SAMPLING,
        **_samples(config, in_production),
    )  # fmt: skip


def _newest(runs: list[RunReport], field: str) -> RunReport | None:
    """Returns the newest run that got as far as this field."""
    return next((run for run in reversed(runs) if getattr(run, field) is not None), None)


def _find_maker(runs: list[RunReport], version: int | None) -> RunReport | None:
    """Returns the run that pushed the version; None if it is none of these."""
    return next((run for run in runs if run.has_pushed and run.version == str(version)), None)


def _runs_chart(runs: list[RunReport]) -> Chart | None:
    return report_charts.runs_chart(
        [
            (run.run.number, run.perplexity, bool(run.pushed_path))
            for run in runs
            if run.perplexity is not None
        ],
        [
            (run.run.number, run.baseline_perplexity)
            for run in runs
            if run.baseline_perplexity is not None and run.compared and run.compared["version"]
        ],
    )


def _trainings(*runs: RunReport | None) -> list[dict[str, Any]]:
    """Returns each of the runs once, with its curves, which are None where their log is gone."""
    numbered = {run.run.number: run for run in runs if run and run.training}
    trainings = []
    for run in numbered.values():
        curves = read_curves(run)
        charts = _curve_charts(curves) if curves else {}
        trainings.append({"run": run, "curves": curves, "charts": charts})
    return trainings


def _curve_charts(curves: Curves) -> dict[str, Chart | None]:
    """Returns the charts by their captions."""
    losses = {"train": curves.train_loss, "eval": curves.eval_loss}
    rates = {"learning rate": curves.learning_rate}
    return {
        "Loss, in nats a token": report_charts.line_chart("Loss of both splits by step", losses),
        "Learning rate": report_charts.line_chart("Learning rate by step", rates),
    }


def _source_chart(measured: RunReport | None) -> Chart | None:
    if measured is None:
        return None
    return report_charts.source_chart(
        f"Perplexity by source, compared with {measured.baseline_name}",
        [(score.name, score.perplexity, score.baseline) for score in measured.sources],
    )


def _describe_lengths(
    lengths: dict[str, np.ndarray] | None, context: int
) -> dict[str, float] | None:
    """Returns the figures that stand beside the histogram."""
    if lengths is None:
        return None
    together = np.concatenate(list(lengths.values()))
    return {
        "documents": len(together),
        "tokens": int(together.sum()),
        "median": float(np.median(together)),
        "tenth": float(np.quantile(together, 0.9)),
        "longest": int(together.max()),
        "beyond": float(np.mean(together > context)),
    }


def _samples(config: PipelineConfig, version: int | None) -> dict[str, Any]:
    """Returns what the model in production writes, or why it wrote nothing."""
    if version is None:
        return {"samples": [], "no_samples": "Nothing was pushed yet, so no model could write."}
    folder = os.path.join(config.serving_base, str(version))
    try:
        return {"samples": write_samples(folder), "no_samples": ""}
    except (ValueError, tf.errors.OpError) as error:
        return {"samples": [], "no_samples": f"Version {version} could not be asked: {error}"}


def _environment() -> jinja2.Environment:
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("pipeline", "templates"),
        autoescape=True,  # names, reasons and texts come from data
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters.update(
        number="{:,}".format,
        plural=_plural,
        decimal=_decimal,
        date=_date,
        duration=_duration,
        share="{:.1%}".format,
    )
    environment.globals["charts"] = report_charts
    return environment


def _plural(number: int, noun: str) -> str:
    return f"{number:,} {noun}{'' if number == 1 else 's'}"


def _decimal(value: float | None, digits: int = 1) -> str:
    if value is None:
        return "–"
    return f"{value:,.{digits}f}" if math.isfinite(value) else "∞"


def _date(moment: datetime.datetime) -> str:
    return f"{moment:%Y-%m-%d %H:%M} UTC"


def _duration(seconds: float) -> str:
    """Returns 42 s, 3 min 20 s, 2 h 05 min."""
    minutes, rest = divmod(round(seconds), 60)
    if minutes < 1:
        return f"{rest} s"
    if minutes < 60:
        return f"{minutes} min {rest} s"
    return f"{minutes // 60} h {minutes % 60:02} min"
