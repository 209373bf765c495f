"""What one run came to, as the report tells it."""

import dataclasses
import os
from typing import Any

from pipeline.lineage import Run


@dataclasses.dataclass(frozen=True)
class Step:
    """One artifact on the way from data to a pushed version.

    Args:
        path: Its folder.
        made_by: The number of the run that made it; None for one that is not in the report.
    """

    path: str
    made_by: int | None


@dataclasses.dataclass(frozen=True)
class SliceScore:
    """What the Evaluator measured on one slice of the eval split; `baseline` is a perplexity."""

    name: str
    documents: int
    perplexity: float
    bits_per_byte: float
    baseline: float


@dataclasses.dataclass(frozen=True)
class Outcome:
    """How a run ended: `good`, `bad` or `calm`; in a few words; perhaps in more."""

    tone: str
    words: str
    more: str = ""

    @property
    def sentence(self) -> str:
        """What the run did, to follow its name."""
        return self.more or self.words


@dataclasses.dataclass(frozen=True)
class RunReport:
    """What one run came to. What it did not get to is None or empty.

    Args:
        run: The run.
        failed_in, interrupted_in: The component that failed; the one that never ended, because it
            was killed or still runs. "" for neither.
        error, log: Why it failed, and the log's path; "" where no log tells.
        data: Where it read: `folder`, `span`, `files`, `bytes` and TFX's `fingerprint`.
        counts: ExampleGen's `counts.json`.
        settings: The Trainer's: `model`, `training` and more.
        training: The Trainer's `training.json`.
        compared: BaselineModel's `baseline.json`.
        perplexity, bits_per_byte: The candidate's, on the whole eval split.
        baseline_perplexity: Of what it was compared with.
        sources, parts: The same for each source, and for new data and that of earlier spans.
        blessed, not_blessed_because: The Evaluator's decision.
        servable, not_servable_because: The serving check's.
        pushed_path: The folder of the version that it pushed, or that an earlier run with nothing
            changed since then had pushed; "" when nothing was pushed.
        steps: The chain from examples to the version, by the step's name.
        missing: Folders that the metadata names and that are gone.
    """

    run: Run
    failed_in: str = ""
    interrupted_in: str = ""
    error: str = ""
    log: str = ""
    data: dict[str, Any] | None = None
    counts: dict[str, Any] | None = None
    settings: dict[str, Any] | None = None
    training: dict[str, Any] | None = None
    compared: dict[str, Any] | None = None
    perplexity: float | None = None
    bits_per_byte: float | None = None
    baseline_perplexity: float | None = None
    sources: list[SliceScore] = dataclasses.field(default_factory=list)
    parts: list[SliceScore] = dataclasses.field(default_factory=list)
    blessed: bool | None = None
    not_blessed_because: list[str] = dataclasses.field(default_factory=list)
    servable: bool | None = None
    not_servable_because: list[str] = dataclasses.field(default_factory=list)
    pushed_path: str = ""
    steps: dict[str, Step] = dataclasses.field(default_factory=dict)
    missing: list[str] = dataclasses.field(default_factory=list)

    @property
    def version(self) -> str:
        """The pushed version's number, as text; "" without one."""
        return os.path.basename(self.pushed_path)

    @property
    def baseline_name(self) -> str:
        """What the candidate was compared with; "" if it was not."""
        if self.compared is None:
            return ""
        version = self.compared["version"]
        return "the unigram model" if version is None else f"version {version}"

    @property
    def has_pushed(self) -> bool:
        """Whether it was this run that pushed the version."""
        return bool(self.pushed_path) and not self.run.nodes["Pusher"].is_cached

    @property
    def outcome(self) -> Outcome:
        """How it ended."""
        if self.failed_in:
            return Outcome("bad", f"failed in {self.failed_in}")
        if self.interrupted_in:
            return Outcome("bad", f"broke off in {self.interrupted_in}, or still runs")
        if self.has_pushed:
            return Outcome("good", "pushed", f"pushed version {self.version}")
        if self.pushed_path:
            since = f"found nothing changed since version {self.version} was pushed"
            return Outcome("calm", "nothing new", since)
        if "Pusher" in self.run.nodes:
            reasons = "; ".join([*self.not_blessed_because, *self.not_servable_because])
            return Outcome("calm", "not pushed", f"pushed nothing{reasons and f': {reasons}'}")
        return Outcome("calm", f"ended after {next(reversed(self.run.nodes), 'its start')}")
