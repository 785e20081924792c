"""A server in service: who is killed comes back, who is told to stop ends what it has begun, and a
full disk shows and passes.
"""

import json
import os
import resource
import signal
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from socket import create_connection
from threading import Event, Lock, Thread

import pytest
import requests

from tests.exchanges import SERVICE, as_bytes, request
from tests.loopback import Running, has_ended, running, wait_until
from tests.test_metrics import count, scraped

requirement = pytest.mark.requirement
CALLERS = 6


@dataclass
class Load:
    """Callers without end, each on a connection of its own for every call; what became of a call is
    the answer's status, or how the connection ended: before it was taken up, or after.
    """

    port: int
    became: Counter[str] = field(default_factory=Counter)
    _lock: Lock = field(default_factory=Lock)
    _finished: Event = field(default_factory=Event)

    def call(self) -> None:
        body = as_bytes(request())
        head = f"POST {SERVICE} HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
        sent = f"{head}Connection: close\r\nContent-Length: {len(body)}\r\n\r\n".encode() + body
        while not self._finished.is_set():
            became = self._became(sent)
            with self._lock:
                self.became[became] += 1
            if became == "not taken up":
                time.sleep(0.02)

    def _became(self, sent: bytes) -> str:
        try:
            connection = create_connection(("127.0.0.1", self.port), timeout=30)
        except OSError:
            return "not taken up"
        with connection:
            got = b""
            try:
                connection.sendall(sent)
                while piece := connection.recv(65_536):
                    got += piece
            except OSError:
                return "broken off" if got else "reset"
        if not got:
            return "reset"
        head, _, body = got.partition(b"\r\n\r\n")
        return head.split()[1].decode() if _is_whole(body) else "broken off"

    def answered(self) -> int:
        return self.became["200"]

    def goes_on(self) -> None:
        """Returns once more has been answered than before."""
        before = self.answered()
        wait_until(lambda: self.answered() > before, f"nothing is answered: {self.became}")

    @contextmanager
    def running(self) -> Iterator[None]:
        threads = [Thread(target=self.call) for _ in range(CALLERS)]
        for thread in threads:
            thread.start()
        try:
            yield
        finally:
            self._finished.set()
            for thread in threads:
                thread.join(60)


def _is_whole(body: bytes) -> bool:
    with suppress(ValueError):
        return "cards" in json.loads(body)
    return False


def test_a_worker_that_is_killed_under_load_comes_back_and_the_others_answer_on() -> None:
    with running("--workers", "2") as server:
        load = Load(server.port)
        with load.running():
            for _ in range(3):
                load.goes_on()
                victim = next(x for x in server.children() if not has_ended(x))
                os.kill(victim, signal.SIGKILL)
                wait_until(lambda: _living(server) == 2, "no worker is started anew")
            load.goes_on()
        # The two of the start, and one for each that was killed.
        wait_until(
            lambda: count(scraped(server.url), "cds_workers_started_total") == 5,
            "a worker that came back does not show",
        )
    # What the killed workers had before them is lost; nobody else got anything but an answer.
    assert set(load.became) <= {"200", "reset", "broken off", "not taken up"}


def _living(server: Running) -> int:
    return sum(not has_ended(x) for x in server.children())


@pytest.mark.parametrize("workers", ["1", "2"])
def test_who_is_told_to_stop_under_load_answers_what_it_has_taken_up(
    workers: str, tmp_path: Path
) -> None:
    audit = tmp_path / "audit.ndjson"
    with running("--workers", workers, CDS_AUDIT_FILE=str(audit)) as server:
        load = Load(server.port)
        with load.running():
            load.goes_on()
            server.process.send_signal(signal.SIGTERM)
            server.process.wait(20)
            time.sleep(0.2)
    assert set(load.became) <= {"200", "not taken up", "reset"}, load.became
    records = [json.loads(x) for x in audit.read_text("utf-8").splitlines()]
    assert len(records) == load.answered()  # whoever was heard was answered


def test_a_full_disk_shows_in_the_metrics_costs_no_card_and_passes(tmp_path: Path) -> None:
    store = tmp_path / "store.sqlite"
    with running(CDS_STORE=f"sqlite:///{store}") as server:
        [worker] = server.children()
        limits = resource.prlimit(worker, resource.RLIMIT_FSIZE)
        resource.prlimit(worker, resource.RLIMIT_FSIZE, (1, limits[1]))
        answer = requests.get(f"{server.url}/readyz", timeout=30)
        assert answer.status_code == 503
        assert _posted(server) == 200
        assert _posted(server, f"{SERVICE}/feedback", _feedback()) == 503
        found = scraped(server.url)
        assert count(found, "cds_store_failures_total", operation="ready") == 1
        assert count(found, "cds_store_failures_total", operation="feedback") == 1
        wait_until(
            lambda: count(scraped(server.url), "cds_store_failures_total", operation="cards") > 0,
            "the writer of cards does not show",
        )
        assert count(scraped(server.url), "cds_store_writable") == 0
        resource.prlimit(worker, resource.RLIMIT_FSIZE, limits)
        wait_until(
            lambda: requests.get(f"{server.url}/readyz", timeout=30).ok, "it does not recover"
        )
        assert _posted(server, f"{SERVICE}/feedback", _feedback()) == 200
        wait_until(
            lambda: count(scraped(server.url), "cds_store_writable") == 1, "it does not show"
        )


def _posted(server: Running, path: str = SERVICE, body: bytes = b"") -> int:
    head = {"Content-Type": "application/json"}
    return requests.post(
        server.url + path, body or as_bytes(request()), headers=head, timeout=30
    ).status_code


def _feedback() -> bytes:
    at = "2026-05-04T09:31:07Z"
    item = {"card": "c", "outcome": "overridden", "outcomeTimestamp": at}
    return json.dumps({"feedback": [item]}).encode()
