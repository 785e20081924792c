"""Turns: a worker computes its calls one after the other, in the order in which they came, and goes
on with others while one waits for something elsewhere.
"""

import json
import sys
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from datetime import datetime
from functools import partial
from socket import create_server

import pytest
from flask import Flask

from cds_service.answering import Answering
from cds_service.app import LARGE, create_app
from cds_service.call_record import CallRecord, RecordedFetcher
from cds_service.clients import ANYBODY
from cds_service.config import Settings
from cds_service.errors import Overloaded
from cds_service.fhir_client import Fetched, FhirClient, open_servers
from cds_service.overrides import Overrides
from cds_service.store import Store
from cds_service.turns import Room, Turns
from tests.charts import content
from tests.exchanges import (
    EXPLAIN,
    NORMAL,
    SERVICE,
    Json,
    as_bytes,
    changed,
    drop,
    now,
    put,
    request,
    send,
)
from tests.loopback import FhirServer, hangs, wait_until
from tests.test_openapi import check

requirement = pytest.mark.requirement
A_WHILE = 30.0  # seconds, that no test waits for unless it fails


# -- the line ----------------------------------------------------------------------------------


class Line:
    """Turns, and who has had one; everybody stands there in a thread of its own."""

    def __init__(self, threads: ThreadPoolExecutor) -> None:
        self.turns, self.had = Turns(), list[str]()
        self._threads = threads

    def join(self, who: str, how: Callable[[], None] | None = None) -> "Future[None]":
        """Who joins the line, and stands in it when this returns."""
        before = self.turns.waiting()

        def wait() -> None:
            (how or (lambda: self.turns.take(A_WHILE)))()
            self.had.append(who)
            self.turns.give()

        joined = self._threads.submit(wait)
        wait_until(lambda: self.turns.waiting() > before, f"{who} does not stand in line")
        return joined


@pytest.fixture
def line() -> Iterator[Line]:
    with ThreadPoolExecutor(9) as threads:
        yield Line(threads)


@pytest.fixture
def switching() -> Iterator[None]:
    """Threads are interrupted at any place."""
    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    yield
    sys.setswitchinterval(before)


def test_turns_come_in_the_order_of_arrival(line: Line) -> None:
    line.turns.take(0)
    joined = [line.join(who) for who in "abcdefgh"]
    assert line.had == []
    line.turns.give()
    for one in joined:
        one.result(A_WHILE)
    assert line.had == [*"abcdefgh"]
    line.turns.take(0)  # nobody is left who holds it


def test_who_waited_elsewhere_goes_on_before_all_who_stand_in_line(line: Line) -> None:
    line.turns.take(0)
    joined = [line.join("a"), line.join("b")]
    joined += [line.join(who, line.turns.take_again) for who in ("back", "back later")]
    line.turns.give()
    for one in joined:
        one.result(A_WHILE)
    assert line.had == ["back", "back later", "a", "b"]


def test_who_gives_up_leaves_the_line_and_the_next_is_not_kept_from_its_turn(line: Line) -> None:
    line.turns.take(0)
    first = line.join("a")
    with pytest.raises(Overloaded):
        line.turns.take(0.01)
    last = line.join("b")
    assert line.turns.waiting() == 2
    line.turns.give()
    first.result(A_WHILE)
    last.result(A_WHILE)
    assert line.had == ["a", "b"]


def test_no_turn_is_lost_by_who_gives_up_in_the_moment_it_comes(switching: None) -> None:
    turns = Turns()
    inside, most = [0], [0]

    def ask(seconds: float) -> None:
        for _ in range(2000):
            with suppress(Overloaded):
                turns.take(seconds)
                inside[0] += 1
                most[0] = max(most[0], inside[0])
                inside[0] -= 1
                turns.give()

    threads = [threading.Thread(target=ask, args=(x,)) for x in (0, 1e-6, 1e-5, 1e-4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(A_WHILE)
    assert most == [1]
    assert turns.waiting() == 0
    turns.take(0)


def test_a_room_has_places_for_a_few_and_a_line_for_some_more() -> None:
    room = Room(places=2, waiting=3)

    def have_one(seconds: float) -> str:
        with room.place(seconds):
            return "had"

    with ThreadPoolExecutor(9) as threads:
        with room.place(0), room.place(0):
            asked = [threads.submit(have_one, A_WHILE) for _ in range(9)]
            wait_until(lambda: sum(x.done() for x in asked) == 6, "the line has no end")
            refused = [x for x in asked if x.done()]
            assert all(isinstance(x.exception(), Overloaded) for x in refused)
        assert [x.result(A_WHILE) for x in asked if x not in refused] == ["had"] * 3
    with room.place(0), room.place(0), pytest.raises(Overloaded):
        have_one(0.01)
    assert [have_one(0) for _ in range(9)] == ["had"] * 9


# -- calls -------------------------------------------------------------------------------------


class Held:
    """A clock at which whoever looks is held until it is let go."""

    def __init__(self) -> None:
        self.looking, self.go = threading.Semaphore(0), threading.Event()

    def __call__(self) -> datetime:
        self.looking.release()
        assert self.go.wait(A_WHILE)
        return now()


def test_a_burst_of_calls_is_computed_one_by_one() -> None:
    inside, too_many = threading.Lock(), threading.Event()

    def clock() -> datetime:
        """Keeps every call for a moment, unless there is another."""
        if not inside.acquire(blocking=False):
            too_many.set()
            return now()
        too_many.wait(0.02)
        inside.release()
        return now()

    app = create_app(Settings(open=True), now=clock)
    with ThreadPoolExecutor(32) as threads:
        calls = [threads.submit(send, app.test_client(), request()) for _ in range(32)]
        assert {x.result().status_code for x in calls} == {200}
    assert not too_many.is_set()


def test_large_calls_have_a_line_of_their_own() -> None:
    first, looking, go = threading.Lock(), threading.Event(), threading.Event()

    def clock() -> datetime:
        """Keeps the first call until it is let go."""
        if first.acquire(blocking=False):
            looking.set()
            assert go.wait(A_WHILE)
        return now()

    app = create_app(Settings(open=True, answer_seconds=0.2), now=clock)
    large = json.dumps(request()) + " " * LARGE
    with ThreadPoolExecutor(1) as threads:
        early = threads.submit(send, app.test_client(), large)
        try:
            assert looking.wait(A_WHILE)
            assert send(app.test_client(), request()).status_code == 200
            assert send(app.test_client(), large).status_code == 503
        finally:
            go.set()
        assert early.result(A_WHILE).status_code == 200


@requirement("ERR-01", "PRF-02")
def test_a_call_whose_turn_does_not_come_in_time_is_told_to_come_again() -> None:
    clock = Held()
    app = create_app(Settings(open=True, answer_seconds=0.2), now=clock)
    document = app.test_client().get("/openapi.json").get_json()
    with ThreadPoolExecutor(1) as threads:
        early = threads.submit(send, app.test_client(), request())
        try:
            assert clock.looking.acquire(timeout=A_WHILE)
            for path in (SERVICE, EXPLAIN):
                late = send(app.test_client(), request(), path)
                issue = check(document, late, path)["issue"][0]
                assert (late.status_code, issue["code"]) == (503, "throttled")
                assert late.headers["Retry-After"] == "1"
            assert app.test_client().get("/livez").status_code == 200
        finally:
            clock.go.set()
        assert early.result().status_code == 200
    assert send(app.test_client(), request()).status_code == 200  # the turn was given back


@pytest.mark.parametrize("path", [SERVICE, EXPLAIN])
def test_a_call_that_cannot_be_answered_gives_its_turn_back(path: str) -> None:
    def broken() -> datetime:
        raise ZeroDivisionError

    app = create_app(Settings(open=True, answer_seconds=0.2), now=broken)
    for body, status in (("{", 400), (changed(drop("context.patientId")), 422), (request(), 500)):
        for _ in range(2):
            assert send(app.test_client(), body, path).status_code == status


# -- what waits elsewhere ----------------------------------------------------------------------


def answered_meanwhile(app: Flask, body: Json, waits: Callable[[], object]) -> bool:
    """Whether another call is answered while the one with this body, as `waits` tells, waits."""
    with ThreadPoolExecutor(1) as threads:
        slow = threads.submit(send, app.test_client(), body)
        waits()
        assert send(app.test_client(), request(NORMAL)).get_json() == {"cards": []}
        meanwhile = not slow.done()
        assert slow.result(A_WHILE).status_code in (200, 412)
    return meanwhile


@requirement("PRF-02", "FHR-08")
def test_others_are_answered_while_a_call_waits_for_a_fhir_server(fhir: FhirServer) -> None:
    fhir.faults["Observation"] = hangs
    app = create_app(Settings(open=True, fhir_servers=(fhir.base,), fetch_seconds=3), now=now)
    body = changed(drop("prefetch.results"), put("fhirServer", fhir.base))
    asked = partial(wait_until, lambda: "Observation" in fhir.types, "nothing was asked for")
    assert answered_meanwhile(app, body, asked)


@requirement("PRF-02", "FHR-08")
def test_the_time_for_reading_begins_with_a_place_and_is_that_of_all_fetches(
    fhir: FhirServer,
) -> None:
    client = FhirClient({"": open_servers([fhir.base])}, at_once=1)
    record = CallRecord()
    fetcher = RecordedFetcher(client, record, seconds=1.0)

    def fetched() -> Fetched:
        queries = {"patient": "Patient/low-alp-persistent"}
        return fetcher.fetch(fhir.base, queries, token=None, caller=ANYBODY)["patient"]

    with ThreadPoolExecutor(1) as threads:
        with client.place(fhir.base, ANYBODY, 0):
            waits = threads.submit(fetched)
            threading.Event().wait(1.2)  # longer than it may take to read
        assert waits.result(A_WHILE).state == "answered"
    assert record.seconds["wait"] > 1 > record.fetches[0]
    record.fetches.append(1.0)
    assert fetched() == Fetched("failed", (), "timed out")
    client.close()


def test_others_are_computed_while_a_call_waits_for_the_database() -> None:
    turns, record = Turns(), CallRecord()
    with create_server(("127.0.0.1", 0)) as silent, ThreadPoolExecutor(1) as threads:
        silent.settimeout(A_WHILE)
        store = Store(f"postgresql://cds@127.0.0.1:{silent.getsockname()[1]}/cds")
        answering = Answering(content(), None, 1.0, now, overrides=Overrides(store, b"x", now))

        def call() -> int:
            with record.in_turn(turns):
                return len(answering.cards("alp-review", as_bytes(request()), record).cards)

        slow = threads.submit(call)
        with silent.accept()[0]:
            turns.take(A_WHILE)
            meanwhile = not slow.done()
            turns.give()
        assert (meanwhile, slow.result(A_WHILE)) == (True, 1)
    turns.take(0)
    store.close()
