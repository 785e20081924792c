"""One request from its first byte to its answer: what it was, what became of it, and how long each
part took. Audit, metrics and log are made of it.
"""

import math
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, ExitStack, contextmanager
from datetime import UTC, datetime
from typing import NamedTuple, Protocol

import msgspec
from msgspec import Struct

from cds_service.clients import ANYBODY, Caller
from cds_service.errors import CdsError, NotAuthenticated, Overloaded, StoreDown, TooOften
from cds_service.feedback import Heard
from cds_service.fhir_client import Fetched
from cds_service.hook_request import Call
from cds_service.turns import Turns

LEAST_SECONDS = 1.0  # of computing, which no chart of under a megabyte takes
PHASES = ("auth", "wait", "decode", "fetch", "facts", "rules", "cards")


class TopicOutcome(NamedTuple):
    """A topic's verdict, what held it back, and the reason: `code` for machines, `text` for people;
    neither holds anything of the chart.
    """

    topic: str
    verdict: str
    by: str
    code: str
    text: str


class CardGiven(NamedTuple):
    """A card of the answer."""

    id: str
    topic: str
    indicator: str


class KeySettled(NamedTuple):
    """What became of a prefetch key: how it was had ("" where nothing answered it), how many
    resources it gave, and why it is not answered.
    """

    key: str
    state: str
    by: str
    used: int
    why: str


class CallRecord(Struct):
    """What is known of one request so far; `service` is "" where it asks none of ours, `call` None
    until its body is read, `status` 0 until it is answered.

    `error` is the issue code of an answer that is none of those asked for and `why` what it names,
    `doing` is what is under way, `refused` says in a word why a token was not taken (and
    `refused_for` whose it says it is), `limited` whose limit a request was over, `store_failures`
    what the store was needed for and could not do, `fetch_failures` why queries were not answered.
    `ends` is until when the caller waits, on the monotonic clock.
    """

    request_id: str = ""
    route: str = ""
    peer: str = ""
    service: str = ""
    at: datetime = msgspec.field(default_factory=lambda: datetime.now(UTC))
    caller: Caller = ANYBODY
    call: Call | None = None
    as_of: str = ""
    outcomes: tuple[TopicOutcome, ...] = ()
    keys: tuple[KeySettled, ...] = ()
    cards: tuple[CardGiven, ...] = ()
    feedback: tuple[Heard, ...] = ()
    status: int = 0
    error: str = ""
    why: str = ""
    doing: str = ""
    refused: str = ""
    refused_for: str = ""
    limited: str = ""
    store_failures: list[str] = msgspec.field(default_factory=list)
    fetch_failures: list[str] = msgspec.field(default_factory=list)
    fetches: list[float] = msgspec.field(default_factory=list)
    seconds: dict[str, float] = msgspec.field(default_factory=dict)
    ends: float = math.inf
    _turns: Turns | None = None
    _began: float = msgspec.field(default_factory=time.perf_counter)

    def left(self) -> float:
        """The seconds that are left for an answer, never less than 0."""
        return max(0.0, self.ends - time.monotonic())

    def bound(self) -> Callable[[], None]:
        """What is asked while the chart is read, and raises Overloaded once the time for an answer
        is over: nobody waits for it any more. However late turn and data came, it has a second.
        """
        ends = max(self.ends, time.monotonic() + LEAST_SECONDS)

        def go_on() -> None:
            if time.monotonic() > ends:
                raise Overloaded("The server could not answer in time.")

        return go_on

    @contextmanager
    def phase(self, name: str) -> Iterator[None]:
        """Adds the time until the end of the block to a phase, less that of phases inside it."""
        began, others = time.perf_counter(), sum(self.seconds.values())
        try:
            yield
        finally:
            inside = sum(self.seconds.values()) - others
            spent = time.perf_counter() - began - inside
            self.seconds[name] = self.seconds.get(name, 0.0) + spent

    @contextmanager
    def in_turn(self, turns: Turns) -> Iterator[None]:
        """Holds a turn for the block; raises Overloaded when the time for an answer is over before
        it has come.
        """
        with self.phase("wait"):
            turns.take(self.left())
        self._turns = turns
        try:
            yield
        finally:
            self._turns = None
            turns.give()

    @contextmanager
    def aside(self) -> Iterator[None]:
        """Gives the turn to others while the block waits for something elsewhere."""
        turns = self._turns
        if turns is None:
            yield
            return
        turns.give()
        self._turns = None
        try:
            yield
        finally:
            with self.phase("wait"):
                turns.take_again()
            self._turns = turns

    def note_error(self, error: Exception) -> None:
        """Notes why the answer is none of those that were asked for."""
        self.error = error.code if isinstance(error, CdsError) else "exception"
        self.why = error.diagnostics or error.text if isinstance(error, CdsError) else ""
        if isinstance(error, NotAuthenticated):
            self.refused, self.refused_for = error.word, error.client
        if isinstance(error, TooOften):
            self.limited = "client" if self.caller.issuer else "peer"
        if isinstance(error, StoreDown):
            self.store_failures.append(self.doing or self.route)

    def end(self, status: int) -> None:
        """Notes the answer's status; the total time is until here."""
        self.status = status
        self.seconds["total"] = time.perf_counter() - self._began

    def outcome(self) -> str:
        """What the caller got: "cards", "none", "not-evaluated", "ok", or the HTTP status of an
        error.
        """
        if self.status != 200:
            return str(self.status)
        if self.route != "service":
            return "ok"
        if self.error:
            return "not-evaluated"
        return "cards" if self.cards else "none"


class Reader(Protocol):
    """Reads FHIR servers, for any number of calls at once."""

    def refusal(self, base: str, caller: Caller, subject: str | None) -> str:
        """Why the server is not called for the caller, "" when it is; `subject` is that of the
        fhirAuthorization, None without one.
        """
        ...

    def place(self, base: str, caller: Caller, seconds: float) -> AbstractContextManager[None]:
        """A place among those who read the server for the block; raises Overloaded when none is
        free within `seconds`.
        """
        ...

    def fetch(
        self,
        base: str,
        queries: Mapping[str, str],
        *,
        token: str | None,
        seconds: float,
        caller: Caller,
    ) -> dict[str, Fetched]:
        """What each query brought within `seconds`, by key."""
        ...


class RecordedFetcher(Struct, frozen=True):
    """A fetcher that notes in a record what it took and what failed; all of a call's fetches
    together may take `seconds`.
    """

    reader: Reader
    record: CallRecord
    seconds: float

    def refusal(self, base: str, caller: Caller, subject: str | None) -> str:
        """As of the reader."""
        return self.reader.refusal(base, caller, subject)

    def fetch(
        self, base: str, queries: Mapping[str, str], *, token: str | None, caller: Caller
    ) -> dict[str, Fetched]:
        """What each query brought, by key. Others are computed meanwhile; the time for it begins
        with a place. Raises Overloaded when none is free in time.
        """
        record = self.record
        with record.aside(), ExitStack() as had:
            with record.phase("wait"):
                had.enter_context(self.reader.place(base, caller, record.left()))
            left = min(self.seconds - sum(record.fetches), record.left())
            began = time.perf_counter()
            with record.phase("fetch"):
                found = self.reader.fetch(base, queries, token=token, seconds=left, caller=caller)
            record.fetches.append(time.perf_counter() - began)
        record.fetch_failures += [x.why for x in found.values() if x.state == "failed"]
        return found
