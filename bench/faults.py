"""Faults that a server in service must bear: what each does, what a call may become of it, and the
metric that shows it.
"""

import os
import resource
import signal
import sqlite3
import struct
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from bench.mixed_load import CUT_OFF
from tests.loopback import Fault as Answers
from tests.loopback import FhirServer, Running, hangs, has_ended, refuses, truncates
from tests.loopback import _Answering as Answering
from tests.test_metrics import Samples, count

CLOCK = "clock"  # the file of a folder that says how wrong the server's clock is
GRACE = 12.0  # seconds after a fault in which a call may still bear its mark: a store waits five
_TYPES = ("Patient", "Observation", "Condition", "MedicationRequest", "MedicationAdministration")
_MORE_TYPES = ("DiagnosticReport", "ServiceRequest", "Procedure", "Encounter")
_LATE = 0.4  # of every answer of a slow FHIR server, which has two seconds for all of them
_STEP = 3600  # seconds that a clock is set wrong
_ALL = ("firing", "quiet", "fetched", "explained", "feedback", "broken")
_STORE_DOWN = dict.fromkeys(_ALL, ("503",))
_REFUSED = dict.fromkeys(_ALL, ("401",))
_UNREAD = {"fetched": ("412",)}
_LOST = dict.fromkeys(_ALL, (CUT_OFF,))


@dataclass(frozen=True)
class Place:
    """What faults are done to: the server, its folder with store and clock, its FHIR server."""

    server: Running
    folder: Path
    fhir: FhirServer

    @property
    def store(self) -> Path:
        return self.folder / "store.sqlite"

    def workers(self) -> list[int]:
        return [x for x in self.server.children() if not has_ended(x)]


During = Callable[[Place], AbstractContextManager[None]]


@dataclass(frozen=True)
class Metric:
    """A metric that a fault makes rise."""

    name: str
    labels: Mapping[str, str] = field(default_factory=dict)
    above: str = ""  # of a histogram: what took longer than that bound

    def value(self, samples: Samples) -> float:
        if not self.above:
            return count(samples, self.name, **self.labels)
        within = count(samples, f"{self.name}_bucket", le=self.above)
        return count(samples, f"{self.name}_count") - within

    def __str__(self) -> str:
        if self.above:
            return f"`{self.name}` above {self.above} s"
        labels = ",".join(f'{x}="{y}"' for x, y in self.labels.items())
        return f"`{self.name}{{{labels}}}`" if labels else f"`{self.name}`"


@dataclass(frozen=True)
class Fault:
    """What is done while a block runs; by kind of call what else may become of it; the metric that
    rises; and the least seconds that it must last to be one.
    """

    name: str
    during: During
    may: Mapping[str, tuple[str, ...]]
    shows: Metric
    least: float = 3.0


@contextmanager
def _fhir(place: Place, answers: Answers) -> Iterator[None]:
    for kind in (*_TYPES, *_MORE_TYPES):
        place.fhir.faults[kind] = answers
    try:
        yield
    finally:
        place.fhir.reset()


def _fhir_that(answers: Answers) -> During:
    return lambda place: _fhir(place, answers)


def _late(to: Answering, body: bytes) -> None:
    to.fhir.released.wait(_LATE)
    to.give(body)


@contextmanager
def _kill(place: Place) -> Iterator[None]:
    os.kill(place.workers()[0], signal.SIGKILL)
    yield


@contextmanager
def _lock_store(place: Place) -> Iterator[None]:
    with ExitStack() as held:
        other = sqlite3.connect(place.store, timeout=10, isolation_level=None)
        held.callback(other.close)
        other.execute("BEGIN IMMEDIATE")
        held.callback(other.execute, "ROLLBACK")
        yield


@contextmanager
def _fill_disk(place: Place) -> Iterator[None]:
    """No file of the workers grows any more, as on a disk that is full."""
    limits = {x: resource.prlimit(x, resource.RLIMIT_FSIZE) for x in place.workers()}
    for pid, (_, hard) in limits.items():
        resource.prlimit(pid, resource.RLIMIT_FSIZE, (1, hard))
    try:
        yield
    finally:
        for pid, both in limits.items():
            if not has_ended(pid):
                resource.prlimit(pid, resource.RLIMIT_FSIZE, both)


def set_clock(file: Path, seconds: int) -> None:
    """Sets the wall clock of the server that has the file mapped (wall_clock.c)."""
    with file.open("r+b" if file.exists() else "wb") as opened:
        opened.write(struct.pack("q", seconds))


def _clock_off_by(seconds: int) -> During:
    @contextmanager
    def during(place: Place) -> Iterator[None]:
        set_clock(place.folder / CLOCK, seconds)
        try:
            yield
        finally:
            set_clock(place.folder / CLOCK, 0)

    return during


def _failures(reason: str) -> Metric:
    return Metric("cds_fhir_fetch_failures_total", {"reason": reason})


def _rejected(reason: str) -> Metric:
    return Metric("cds_jwt_rejected_total", {"reason": reason})


FAULTS = (
    # First, so that the worker that comes after lives for most of a soak.
    Fault("a worker killed", _kill, _LOST, Metric("cds_workers_started_total")),
    Fault(
        "FHIR server slow",
        _fhir_that(_late),
        _UNREAD,
        Metric("cds_fhir_fetch_seconds", above="0.25"),
    ),
    Fault("FHIR server answers 500", _fhir_that(refuses(500)), _UNREAD, _failures("HTTP 500")),
    Fault("FHIR server half-open", _fhir_that(hangs), _UNREAD, _failures("timed out")),
    Fault("FHIR JSON cut short", _fhir_that(truncates), _UNREAD, _failures("not JSON")),
    # SQLite waits five seconds for another writer.
    Fault("store locked", _lock_store, _STORE_DOWN, Metric("cds_store_failures_total"), 8.0),
    Fault("disk full", _fill_disk, _STORE_DOWN, Metric("cds_audit_failures_total")),
    Fault("clock an hour ahead", _clock_off_by(_STEP), _REFUSED, _rejected("expired")),
    Fault("clock an hour behind", _clock_off_by(-_STEP), _REFUSED, _rejected("from-the-future")),
)
