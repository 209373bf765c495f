"""What the README claims, measured: `python -m benchmarks`. One module for each kind of claim."""

import dataclasses


@dataclasses.dataclass(frozen=True)
class Result:
    """What a benchmark found: our figure beside that of a peer, from the same run and machine.

    Only their ratio says anything about the code.

    Args:
        name: The benchmark's name.
        ours, peer: Medians, in `unit`.
        limit: What we aim at: a `ratio` of this at least.
        unit: Of both figures.
        more_is_better: True for rates, False for what is spent: seconds, bytes.
    """

    name: str
    ours: float
    peer: float
    limit: float
    unit: str
    more_is_better: bool = True

    @property
    def ratio(self) -> float:
        """How many times better ours is than the peer's."""
        return self.ours / self.peer if self.more_is_better else self.peer / self.ours

    @property
    def holds(self) -> bool:
        """Whether the aim is reached."""
        return self.ratio >= self.limit

    def to_dict(self) -> dict[str, str | float]:
        """Returns name, ours, peer, limit, unit and ratio, as they are written to the file."""
        names = ("name", "ours", "peer", "limit", "unit", "ratio")
        return {name: getattr(self, name) for name in names}
