"""The servers that are measured, each in a process of its own, and what its workers use."""

import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import requests

from bench.fhir import BASE
from bench.payloads import Payload
from cds_service.serving import THREADS
from tests.loopback import ROOT, below, children_of, clean_environment, free_port, has_ended

PEER_PYTHON = ROOT / "bench" / ".venv" / "bin" / "python"
PATH = "/cds-services/alp-review"
_SECONDS_TO_START = 30
_TICKS = os.sysconf("SC_CLK_TCK")


@dataclass(frozen=True)
class Target:
    """A server that can be measured: how it is started, and where it takes calls."""

    name: str
    application: str = ""  # "" is the product, else what granian serves
    interface: str = "wsgi"
    python: str = sys.executable
    path: str = PATH
    answers: bool = True  # with the cards that are owed; the floor knows none

    def command(self, port: int, workers: int) -> list[str]:
        if not self.application:
            served = ["-m", "cds_service", "serve", "--open", "--port", str(port)]
            return [self.python, *served, "--workers", str(workers)]
        numbers = map(str, (port, workers, THREADS))
        served = ["-m", "bench.under_granian", self.application, self.interface]
        return [self.python, *served, *numbers]

    def is_right(self, answer: requests.Response, payload: Payload) -> bool:
        """Whether an answer has the cards that are owed."""
        if not answer.ok:
            return False
        cards = answer.json()["cards"]
        return not self.answers or len(cards) == len(payload.cards)


FLOOR = Target("floor", "bench.floor:application", answers=False)
OURS = Target("cds-service")
OBJECTS = Target(
    "HealthChain, FHIR objects",
    *("bench.peer:with_objects", "asgi", str(PEER_PYTHON), f"/cds{PATH}"),
)
DICTS = Target(
    "HealthChain, dictionaries",
    *("bench.peer:with_dicts", "asgi", str(PEER_PYTHON), f"/cds{PATH}"),
)
FHIR = Target("FHIR server", "bench.fhir:application", path="/fhir/metadata")
TARGETS = (FLOOR, OURS, OBJECTS, DICTS)


class WentWrong(Exception):
    """A server did not start, or answered what it must not; the sentence says which."""


@dataclass(frozen=True)
class Server:
    """A target that runs."""

    target: Target
    port: int
    process: "subprocess.Popen[bytes]"
    output: Path

    @property
    def root(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    @property
    def url(self) -> str:
        return self.root + self.target.path

    def post(self, payload: Payload, seconds: float = 60) -> requests.Response:
        headers = {"Content-Type": "application/json"}
        return requests.post(self.url, payload.body, headers=headers, timeout=seconds)

    def check(self, payload: Payload) -> float:
        """The seconds until the right answer; raises WentWrong on any other."""
        began = time.monotonic()
        answer = self.post(payload)
        if not self.target.is_right(answer, payload):
            raise WentWrong(f"{self.target.name}: {payload.name}: {answer.status_code}")
        return time.monotonic() - began

    def cpu_seconds(self) -> float:
        """What its workers have computed so far."""
        return sum(map(_ticks, children_of(self.process.pid))) / _TICKS

    def peak_megabytes(self) -> float:
        """The most that a worker has held in memory so far."""
        return max(megabytes(pid, "VmHWM") for pid in children_of(self.process.pid))

    def settle(self) -> None:
        """Returns once its workers rest: calls that were broken off are still computed."""
        deadline, before = time.monotonic() + 30, -1.0
        while (now := self.cpu_seconds()) - before > 0.01 and time.monotonic() < deadline:
            before = now
            time.sleep(0.05)


def _ticks(pid: int) -> int:
    fields = Path(f"/proc/{pid}/stat").read_text("ascii", "replace").rpartition(")")[2].split()
    return int(fields[11]) + int(fields[12])


def megabytes(pid: int, field: str) -> float:
    """What a process holds (VmRSS) or held at most (VmHWM); raises OSError or ValueError when it
    has ended.
    """
    lines = Path(f"/proc/{pid}/status").read_text("ascii", "replace").splitlines()
    [kilobytes] = [x.split()[1] for x in lines if x.startswith(f"{field}:")]
    return int(kilobytes) / 1024


@contextmanager
def started(
    target: Target, workers: int, environ: Mapping[str, str] | None = None
) -> Iterator[Server]:
    """A server, just started and not awaited, ended by its pid with the block."""
    with tempfile.TemporaryDirectory() as folder:
        output, port = Path(folder) / "output", free_port()
        settings = {"TMPDIR": folder, BASE: f"http://127.0.0.1:{port}/fhir", **(environ or {})}
        with output.open("wb") as stream:
            process = subprocess.Popen(
                target.command(port, workers),
                stdout=stream,
                stderr=subprocess.STDOUT,
                cwd=ROOT,
                env=clean_environment(**settings),
            )
        try:
            yield Server(target, port, process, output)
        finally:
            _end(process)


def _end(process: "subprocess.Popen[bytes]") -> None:
    """Ends a server, and its workers where they outlive it."""
    workers = below(process.pid)
    process.terminate()
    try:
        process.wait(10)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
    for pid in workers:
        if not has_ended(pid):
            os.kill(pid, signal.SIGKILL)


def first_answer(server: Server, payload: Payload | None) -> None:
    """Returns as soon as a call (None: a GET) is answered rightly; raises WentWrong when it never
    is.
    """
    deadline = time.monotonic() + _SECONDS_TO_START
    while time.monotonic() < deadline and server.process.poll() is None:
        try:
            if payload is None:
                requests.get(server.url, timeout=5).raise_for_status()
            else:
                server.check(payload)
            return
        except requests.ConnectionError:
            time.sleep(0.01)
    said = server.output.read_text("utf-8", "replace")[-2000:]
    raise WentWrong(f"{server.target.name} does not answer: {said}")
