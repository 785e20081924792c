"""What a soak comes to: what each fault did to the calls, whether it showed and passed, and how the
memory of each worker went.
"""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import zip_longest
from statistics import linear_regression

from bench.faults import FAULTS, GRACE
from bench.mixed_load import Became

MEMORY = 120.0  # megabytes that a worker may hold
_WARM = 0.3  # of a worker's life, after which memory should be flat


@dataclass(frozen=True)
class Happened:
    """A fault that was injected: its metric, by how much that rose, and when it was."""

    name: str
    metric: str
    shown: float
    began: float
    ended: float


@dataclass(frozen=True)
class Borne:
    """What a fault did: calls meanwhile by what became of them, and the seconds after its end until
    the last call that it marred was begun.
    """

    happened: Happened
    owed: int
    marred: Mapping[str, int]
    recovered: float


@dataclass(frozen=True)
class Worker:
    """A worker's memory: megabytes by the seconds since the soak's beginning, the peak, and what it
    grew a minute once it was warm.
    """

    number: int
    samples: Sequence[tuple[float, float]]
    peak: float
    slope: float | None

    @property
    def last(self) -> float:
        return self.samples[-1][1]


@dataclass(frozen=True)
class Report:
    """A soak; `wrong` are the calls that no fault excuses, by kind and what became of them."""

    day: str
    made_with: str
    minutes: float
    began: float
    calls: int
    borne: Sequence[Borne]
    wrong: Mapping[str, int]
    workers: Sequence[Worker]

    @property
    def faults(self) -> list[str]:
        """Why the soak was not passed; empty when it was."""
        found = [f"{n} x {what}" for what, n in self.wrong.items()]
        for x in self.borne:
            if x.happened.shown <= 0:
                found.append(f"{x.happened.name}: {x.happened.metric} does not show it")
        for worker in self.workers:
            if worker.last >= MEMORY:
                found.append(f"worker {worker.number}: {worker.last:.0f} MB at its end")
        return found


def judged(
    *,
    day: str,
    made_with: str,
    began: float,
    ended: float,
    happened: Sequence[Happened],
    became: Sequence[Became],
    memory: Mapping[int, Sequence[tuple[float, float]]],
    peaks: Mapping[int, float],
) -> Report:
    """The report of what was seen, all times being of one clock."""
    wrong = Counter(
        f"{x.kind}: {x.got}" + (f" ({x.why})" if x.why else "")
        for x in became
        if not x.is_owed and not _excused(x, happened)
    )
    return Report(
        day=day,
        made_with=made_with,
        minutes=(ended - began) / 60,
        began=began,
        calls=len(became),
        borne=[
            _borne(x, became, after.began if after else ended)
            for x, after in zip_longest(happened, happened[1:])
        ],
        wrong=wrong,
        workers=[
            _worker(n, [(at - began, held) for at, held in samples], peaks[pid])
            for n, (pid, samples) in enumerate(memory.items(), 1)
        ],
    )


def _excused(call: Became, happened: Sequence[Happened]) -> bool:
    """Whether a fault at the time may make of a call what it became."""
    return any(call.got in _may(x, call.kind) for x in happened if _touches(x, call))


def _may(happened: Happened, kind: str) -> tuple[str, ...]:
    [fault] = [x for x in FAULTS if x.name == happened.name]
    return fault.may.get(kind, ())


def _touches(happened: Happened, call: Became) -> bool:
    return call.ended >= happened.began and call.began <= happened.ended + GRACE


def _borne(happened: Happened, became: Sequence[Became], until: float) -> Borne:
    """What a fault did to the calls that were begun before the next."""
    touched = [x for x in became if _touches(happened, x) and x.began < until]
    marred = [x for x in touched if not x.is_owed and x.got in _may(happened, x.kind)]
    meanwhile = [x for x in touched if x.began <= happened.ended]
    last = max((x.began for x in marred), default=happened.began)
    return Borne(
        happened,
        owed=sum(x.is_owed for x in meanwhile),
        marred=Counter(x.got for x in marred),
        recovered=max(0.0, last - happened.ended),
    )


def _worker(number: int, samples: Sequence[tuple[float, float]], peak: float) -> Worker:
    warm = samples[int(len(samples) * _WARM) :]
    slope = None
    if len(warm) > 2:
        slope = 60 * linear_regression([x for x, _ in warm], [y for _, y in warm]).slope
    return Worker(number, samples, peak, slope)
