"""What a bench measures, as it is kept and as the page is made of it."""

from collections.abc import Sequence
from statistics import linear_regression, median

import msgspec

from bench.load import Run


class Start(msgspec.Struct, frozen=True):
    """A target with so many workers: seconds from its start to the first right answer, each time it
    was started, and the most megabytes that one worker held in all its runs.
    """

    target: str
    workers: int
    seconds: tuple[float, ...]
    megabytes: float

    @property
    def typical(self) -> float:
        return median(self.seconds)


class Cost(msgspec.Struct, frozen=True):
    """What a call with a chart of so many observations costs: milliseconds of computing."""

    observations: int
    kilobytes: float
    ours: float
    floor: float


class Figures(msgspec.Struct, frozen=True):
    """All that one bench measured."""

    day: str
    machine: str
    versions: dict[str, str]
    seconds: int
    minutes: float
    kilobytes: dict[str, float]
    starts: tuple[Start, ...]
    runs: tuple[Run, ...]
    fetched: tuple[Run, ...]
    costs: tuple[Cost, ...]
    megabytes_after_costs: float
    phases: dict[str, dict[str, float]]  # milliseconds of a call by payload and phase
    left_out: int = 0  # runs for which no time was left

    def run(self, target: str, workers: int, payload: str, connections: int) -> Run | None:
        """A run; None when it was left out."""
        asked = (target, workers, payload, connections)
        for x in self.runs:
            if (x.target, x.workers, x.payload, x.connections) == asked:
                return x
        return None

    def ratio(self, over: str, under: str, workers: int, payload: str, at: int) -> float | None:
        """How many times the throughput of `under` that of `over` is; None where either was left
        out.
        """
        above, below = self.run(over, workers, payload, at), self.run(under, workers, payload, at)
        return above.rate / below.rate if above and below and below.rate else None


class Line(msgspec.Struct, frozen=True):
    """A straight line through costs; `fits` is R squared."""

    per_thousand: float
    fixed: float
    fits: float


def line_through(costs: Sequence[Cost]) -> Line:
    """The line of least squares through our costs by observations; needs two that differ."""
    xs, ys = [x.observations / 1000 for x in costs], [x.ours for x in costs]
    slope, fixed = linear_regression(xs, ys)
    mean = sum(ys) / len(ys)
    off = sum((y - fixed - slope * x) ** 2 for x, y in zip(xs, ys, strict=True))
    spread = sum((y - mean) ** 2 for y in ys)
    return Line(slope, fixed, 1 - off / spread if spread else 1.0)
