"""The runs of a bench, side by side: all targets are up, and each run is made with one after the
other, so that what the machine does meanwhile falls on all of them.
"""

import os
import platform
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from datetime import date
from importlib.metadata import version
from pathlib import Path

from bench.figures import Cost, Figures, Start
from bench.load import Run, measured
from bench.payloads import SIZES, Payload, chart_of, payloads, to_fetch
from bench.servers import (
    FHIR,
    FLOOR,
    OURS,
    PEER_PYTHON,
    TARGETS,
    Server,
    Target,
    first_answer,
    started,
)
from tests.test_metrics import count, scraped

CONNECTIONS = (1, 8, 32)
WORKERS = (1, 2)
OBSERVATIONS = (10, 30, 100, 300, 1000, 3000, 10_000)
PHASES = ("decode", "facts", "rules", "cards", "total")
_STARTS = 3


@dataclass
class Bench:
    """What has been measured so far, within so many seconds."""

    seconds: int
    ends: float
    today: date = field(default_factory=date.today)
    starts: list[Start] = field(default_factory=list)
    runs: list[Run] = field(default_factory=list)
    fetched: list[Run] = field(default_factory=list)
    costs: list[Cost] = field(default_factory=list)
    phases: dict[str, dict[str, float]] = field(default_factory=dict)
    megabytes_after_costs: float = 0.0
    left_out: int = 0

    def measure(
        self, server: Server, workers: int, payload: Payload, connections: int
    ) -> Run | None:
        """A run, said as it is made; None when it was left out."""
        if time.monotonic() > self.ends:
            self.left_out += 1
            return None
        run = measured(server, workers, payload, connections, self.seconds)
        named = f"{server.target.name}, {workers} worker(s), {payload.name}, {connections} at once"
        print(f"{named}: {f'{run.rate:.0f}/s, p99 {run.p99:.1f} ms' if run else '-'}", flush=True)
        return run


def bench(seconds: int, minutes: float) -> Figures:
    """Measures everything; runs for which the minutes do not suffice are left out and counted.
    Raises WentWrong when a server does not do what it must.
    """
    began = time.monotonic()
    found = Bench(seconds, began + 60 * minutes)
    for workers in WORKERS:
        _all_with(found, workers)
    return Figures(
        day=str(found.today),
        machine=machine(),
        versions=versions(),
        seconds=seconds,
        minutes=(time.monotonic() - began) / 60,
        kilobytes={x.name: len(x.body) / 1000 for x in payloads(found.today)},
        starts=tuple(found.starts),
        runs=tuple(found.runs),
        fetched=tuple(found.fetched),
        costs=tuple(found.costs),
        megabytes_after_costs=found.megabytes_after_costs,
        phases=found.phases,
        left_out=found.left_out,
    )


def _all_with(found: Bench, workers: int) -> None:
    """All that is measured with so many workers."""
    if time.monotonic() > found.ends:
        found.left_out += len(CONNECTIONS) * (len(TARGETS) * 2 * len(SIZES) + 1)
        return
    with _side_by_side(found, workers) as servers:
        _matrix(found, servers, workers)
        _note_memory(found, servers, workers)
        if workers == 1:
            _charts(found, servers)
    _fetching(found, workers)


def _typical(today: date) -> Payload:
    return next(x for x in payloads(today) if x.name.startswith("typical"))


@contextmanager
def _side_by_side(found: Bench, workers: int) -> Iterator[dict[Target, Server]]:
    """All targets with so many workers; with one, each is started some times before."""
    typical = _typical(found.today)
    with ExitStack() as up:
        servers = {}
        for target in TARGETS:
            before = _STARTS - 1 if workers == 1 else 0
            times = [_start(target, workers, typical) for _ in range(before)]
            began = time.monotonic()
            servers[target] = up.enter_context(started(target, workers))
            first_answer(servers[target], typical)
            times.append(time.monotonic() - began)
            found.starts.append(Start(target.name, workers, tuple(times), 0.0))
        for server in servers.values():
            measured(server, workers, typical, 8, 1)  # to warm all workers up
        yield servers


def _start(target: Target, workers: int, payload: Payload) -> float:
    began = time.monotonic()
    with started(target, workers) as server:
        first_answer(server, payload)
        return time.monotonic() - began


def _note_memory(found: Bench, servers: dict[Target, Server], workers: int) -> None:
    peaks = {target.name: server.peak_megabytes() for target, server in servers.items()}
    found.starts = [
        Start(x.target, x.workers, x.seconds, peaks[x.target]) if x.workers == workers else x
        for x in found.starts
    ]


def _matrix(found: Bench, servers: dict[Target, Server], workers: int) -> None:
    for payload in payloads(found.today):
        for connections in CONNECTIONS:
            for target, server in servers.items():
                looks = target is OURS and connections == workers == 1
                before = _phases(server) if looks else {}
                run = found.measure(server, workers, payload, connections)
                if run is None:
                    continue
                found.runs.append(run)
                if looks:
                    found.phases[payload.name] = _a_call(before, _phases(server))


def _phases(server: Server) -> dict[str, tuple[float, float]]:
    """The seconds of each phase of calls so far, and how often it was gone through."""
    samples = scraped(server.root)
    return {
        x: (
            count(samples, "cds_hook_seconds_sum", phase=x),
            count(samples, "cds_hook_seconds_count", phase=x),
        )
        for x in PHASES
    }


def _a_call(
    before: dict[str, tuple[float, float]], after: dict[str, tuple[float, float]]
) -> dict[str, float]:
    """Milliseconds of a call by phase."""
    calls = max(after["total"][1] - before["total"][1], 1)
    return {x: 1000 * (after[x][0] - before[x][0]) / calls for x in PHASES}


def _charts(found: Bench, servers: dict[Target, Server]) -> None:
    for observations in OBSERVATIONS:
        payload = chart_of(observations, found.today)
        ours = found.measure(servers[OURS], 1, payload, 1)
        floor = found.measure(servers[FLOOR], 1, payload, 1)
        if ours is not None and floor is not None:
            found.costs.append(Cost(observations, len(payload.body) / 1000, ours.cpu, floor.cpu))
    found.megabytes_after_costs = servers[OURS].peak_megabytes()


def _fetching(found: Bench, workers: int) -> None:
    """Calls without data, all of which is read from a FHIR server."""
    with started(FHIR, 1) as fhir:
        first_answer(fhir, None)
        base = f"{fhir.root}/fhir"
        payload = to_fetch(base)
        with started(OURS, workers, {"CDS_FHIR_SERVERS": base}) as server:
            first_answer(server, payload)
            for connections in CONNECTIONS:
                run = found.measure(server, workers, payload, connections)
                if run is not None:
                    found.fetched.append(run)


# -- where and with what ---------------------------------------------------------------------------


def machine() -> str:
    """The machine's shape: cores, processor, memory, system."""
    said = (x.partition(":") for x in Path("/proc/cpuinfo").read_text().splitlines())
    cpu = {name.strip(): value.strip() for name, _, value in said}
    processor = cpu.get("model name", platform.machine())
    if "cpu family" in cpu:  # clouds hide the rest of the name, and generations differ by half
        processor += f", family {cpu['cpu family']} model {cpu.get('model', '?')}"
    gigabytes = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 1e9
    return f"{os.cpu_count()} cores ({processor}), {gigabytes:.0f} GB, {platform.system()}"


def versions() -> dict[str, str]:
    """What was measured, and with what."""
    ours = {x: version(x) for x in ("cds-service", "granian", "flask", "msgspec", "orjson")}
    installed = PEER_PYTHON.parents[1].glob("lib/python*/site-packages/healthchain-*.dist-info")
    peer = [("healthchain", x.stem.partition("-")[2]) for x in installed]
    return {"python": platform.python_version(), **ours, **dict(peer)}
