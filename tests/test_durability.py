"""What was answered with 2xx is in the store, once, whoever is killed meanwhile.

A plain run kills eight workers and two servers on each kind of store;
`pytest --rounds 20 tests/test_durability.py` kills eighty and twenty.
"""

import json
import os
import signal
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from itertools import count
from threading import Event, Lock, Thread

import pytest
import requests
from sqlalchemy import select

from cds_service.store import COMMENT, FEEDBACK
from tests.databases import Cluster, Databases, opened
from tests.exchanges import SERVICE
from tests.invariants import strict_json
from tests.loopback import Running, has_ended, running, wait_until

requirement = pytest.mark.requirement
PATH = f"{SERVICE}/feedback"
REPORTERS = 4
WORKERS_A_ROUND = 4


@dataclass
class Load:
    """Clients that report without end; what was not answered they send again, as it was."""

    url: str = ""
    answered: set[str] = field(default_factory=set)
    statuses: Counter[int] = field(default_factory=Counter)
    refusals: list[bytes] = field(default_factory=list)
    _names: Iterator[int] = field(default_factory=count)
    _lock: Lock = field(default_factory=Lock)
    _finished: Event = field(default_factory=Event)

    def report(self) -> None:
        """One client; it ends once its last report was answered."""
        while not self._finished.is_set():
            with self._lock:
                cards = [f"card {next(self._names)}" for _ in range(3)]
            body = json.dumps({"feedback": [_item(x) for x in cards]}).encode()
            while not self._is_answered(body):
                time.sleep(0.02)
            with self._lock:
                self.answered.update(cards)

    def _is_answered(self, body: bytes) -> bool:
        headers = {"Content-Type": "application/json"}
        try:
            answer = requests.post(self.url + PATH, body, headers=headers, timeout=20)
        except requests.RequestException:
            return False
        with self._lock:
            self.statuses[answer.status_code] += 1
            if answer.status_code != 200:
                self.refusals.append(answer.content)
        return answer.status_code == 200

    def grows(self) -> None:
        """Returns once more has been answered than before."""
        before = len(self.answered)
        wait_until(lambda: len(self.answered) > before, "nothing is answered any more")

    @contextmanager
    def running(self, url: str) -> Iterator[None]:
        """Reports to a server; where it ends, the next must be said before the block does."""
        self.url = url
        threads = [Thread(target=self.report) for _ in range(REPORTERS)]
        for thread in threads:
            thread.start()
        try:
            yield
        finally:
            self._finished.set()
            for thread in threads:
                thread.join(60)
        assert not any(x.is_alive() for x in threads), "a report was never answered"


def _item(card: str) -> dict[str, object]:
    why = {"reason": {"code": "later"}, "userComment": f"about {card}"}
    at = "2026-05-04T09:31:07Z"
    return {"card": card, "outcome": "overridden", "overrideReason": why, "outcomeTimestamp": at}


def kept(url: str) -> Counter[tuple[str, str]]:
    """How often each card stands in the store, with its comment."""
    asked = select(FEEDBACK.c.card, COMMENT.c.text).select_from(FEEDBACK.outerjoin(COMMENT))
    with opened(url) as store, store.reading() as connection:
        return Counter((x[0], x[1] or "") for x in connection.execute(asked))


def holds(url: str, load: Load) -> None:
    """Fails unless the store has each report that was answered, once and whole."""
    expected = Counter({(x, f"about {x}"): 1 for x in load.answered})
    found = kept(url)
    assert found == expected, (expected - found, found - expected)


def living(server: Running) -> int:
    """The pid of the worker that has lived longest."""
    found: list[int] = []

    def there_is_one() -> bool:
        found[:] = [x for x in server.children() if not has_ended(x)]
        return bool(found)

    wait_until(there_is_one, "no worker is started anew")
    return found[0]


@requirement("FBK-01", "FBK-07")
def test_no_report_is_lost_or_twice_when_workers_and_servers_are_killed(
    databases: Databases, request: pytest.FixtureRequest
) -> None:
    url, load = databases.migrated(), Load()
    rounds: int = request.config.getoption("--rounds")
    with running("--workers", "2", CDS_STORE=url) as first, load.running(first.url):
        for _ in range(rounds):
            with running("--workers", "2", CDS_STORE=url) as server:
                load.url = server.url
                for _ in range(WORKERS_A_ROUND):
                    load.grows()
                    os.kill(living(server), signal.SIGKILL)
                load.grows()
                workers = server.children()
                server.process.kill()
                server.process.wait(10)
                wait_until(lambda: all(map(has_ended, workers)), "a worker has outlived its server")  # noqa: B023
        load.url = first.url
        load.grows()
    assert set(load.statuses) <= {200, 503}
    holds(url, load)


@requirement("FBK-01", "FBK-07")
def test_while_postgresql_restarts_reports_are_503_and_then_go_on_by_themselves(
    postgresql: Cluster,
) -> None:
    databases = Databases("postgresql", postgresql.folder, postgresql)
    url, load = databases.migrated(), Load()
    with running("--workers", "2", CDS_STORE=url) as server, load.running(server.url):
        for how in (signal.SIGQUIT, signal.SIGINT, signal.SIGQUIT):
            load.grows()
            postgresql.stop(how)
            refused = load.statuses[503]
            with suppress(AssertionError):
                wait_until(lambda: load.statuses[503] > refused, "no 503")  # noqa: B023
            postgresql.start()
            assert load.statuses[503] > refused
        load.grows()
        assert len(server.children()) == 2 and "about card" not in server.output
    assert set(load.statuses) == {200, 503}
    for body in load.refusals:
        issue = strict_json(body)["issue"][0]
        assert issue["code"] == "transient" and "store" in issue["details"]["text"]
    holds(url, load)
