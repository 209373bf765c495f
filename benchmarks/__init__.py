"""What the README claims, measured: `python -m benchmarks`. One module for each benchmark."""

import dataclasses


@dataclasses.dataclass(frozen=True)
class Result:
    """What a benchmark found: our figure beside that of a peer, from the same run and machine.

    Figures are rates, so that more is better: only their ratio says anything about the code.

    Args:
        name: The benchmark's name.
        ours, peer: Medians, in `unit`.
        limit: What we claim: ours / peer is at least this.
        unit: Of both figures.
    """

    name: str
    ours: float
    peer: float
    limit: float
    unit: str

    @property
    def ratio(self) -> float:
        """Ours / peer."""
        return self.ours / self.peer

    @property
    def holds(self) -> bool:
        """Whether the claim holds."""
        return self.ratio >= self.limit
