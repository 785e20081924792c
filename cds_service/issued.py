"""What was answered, kept in the store: cards with whom they were for, and how many charts.

Answers do not wait for it: one thread of each worker writes what has come together.
"""

import logging
import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime
from threading import Lock, Thread, main_thread
from typing import Any
from uuid import uuid4

import msgspec
from msgspec import Struct
from sqlalchemy import Connection

from cds_service.cards import Card, Cards
from cds_service.clients import Caller
from cds_service.content_files import Service
from cds_service.errors import StoreDown
from cds_service.evaluation import SHADOW, Review
from cds_service.hook_request import Call
from cds_service.rules import Verdict
from cds_service.store import (
    CARD,
    CHARTS_SEEN,
    Store,
    insert_into,
    milliseconds,
    patient_key,
    user_key,
)

MOST_WAITING = 2000  # cards
SECONDS_TO_WAIT = 0.2

log = logging.getLogger("cds_service")
_Row = dict[str, Any]
_Chart = tuple[str, str, str, str]  # the key of a tally


class Answered(Struct, frozen=True):
    """One call that was answered: whose, when, and with what."""

    caller: Caller
    call: Call
    service: Service
    content: str
    review: Review
    cards: Cards
    at: datetime

    def chart(self) -> _Chart:
        """Where it is counted; days are those of UTC."""
        day = self.at.astimezone(UTC).date().isoformat()
        return day, self.caller.issuer, self.service.id, self.content

    def rows(self, secret: bytes) -> Iterator[_Row]:
        """A row for each card, and for each that only would have been one."""
        whose = self._whose(secret)
        for verdict, card in zip(self.review.fired, self.cards.cards, strict=True):
            yield {"id": card.uuid, "suggestions": _suggestions(verdict, card)} | _of(
                verdict, whose
            )
        for verdict in self.review.verdicts:
            if verdict.if_on is not None and verdict.if_on.outcome == "fired":
                yield {"id": f"{SHADOW}-{uuid4()}", "suggestions": "{}"} | _of(verdict.if_on, whose)

    def _whose(self, secret: bytes) -> _Row:
        issuer, tenant, context = self.caller.issuer, self.caller.tenant, self.call.context
        server = self.call.fhir_server or ""
        return {
            "issuer": issuer,
            "tenant": tenant,
            "service": self.service.id,
            "content": self.content,
            "patient": patient_key(secret, issuer, tenant, server, context.patient_id),
            "asked_by": user_key(secret, issuer, tenant, context.user_id),
            "issued": milliseconds(self.at),
        }


def _of(verdict: Verdict, whose: _Row) -> _Row:
    assert verdict.advice is not None
    return {
        **whose,
        "topic": verdict.topic,
        "variant": verdict.advice.variant,
        "indicator": verdict.indicator,
        "shadow": verdict.in_shadow,
        "evidence": verdict.fingerprint,
    }


def _suggestions(verdict: Verdict, card: Card) -> str:
    """Which order each suggestion is, by its uuid, as JSON."""
    orders = zip(card.suggestions or [], verdict.orders, strict=False)
    return msgspec.json.encode({x.uuid: order for x, order in orders}).decode()


@dataclass(slots=True)
class IssuedCards:
    """Takes in what was answered and writes it soon after; `secret` makes the keys of patients.

    `dropped` counts the cards that found no room, which happens while the store is down; `tell` is
    told after each write whether the store took it, and how many cards were dropped since.
    """

    store: Store
    secret: bytes
    tell: Callable[[bool, int], None] = lambda works, dropped: None
    dropped: int = 0
    _cards: list[_Row] = field(default_factory=list)
    _charts: Counter[_Chart] = field(default_factory=Counter)
    _waiting: Lock = field(default_factory=Lock)
    _writing: Lock = field(default_factory=Lock)
    _writer: Thread | None = None
    _failed: float = 0.0
    _told: int = 0

    def note(self, answered: Answered) -> None:
        """Takes in an answer; waits for nothing."""
        rows = [*answered.rows(self.secret)]
        with self._waiting:
            self._take(rows)
            self._charts[answered.chart()] += 1
            if self._writer is None:
                # No daemon: the interpreter waits for it at the end, and it for the last cards.
                self._writer = Thread(target=self._write_on, name="issued", daemon=False)
                self._writer.start()

    def _take(self, rows: list[_Row]) -> None:
        kept = rows[: max(0, MOST_WAITING - len(self._cards))]
        self._cards += kept
        self.dropped += len(rows) - len(kept)

    def flush(self) -> None:
        """Writes what waits; raises StoreDown, and then it waits on."""
        asked = time.monotonic()
        with self._writing:
            if self._failed > asked:  # while this one stood in line; the next would wait as long
                raise StoreDown("The store cannot be reached.")
            with self._waiting:
                cards, charts = self._cards, self._charts
                self._cards, self._charts = [], Counter()
            try:
                if charts:
                    self._write(cards, charts)
                    self._tell(True)
            except StoreDown:
                self._failed = time.monotonic()
                with self._waiting:
                    later, self._cards = self._cards, cards
                    self._take(later)
                    self._charts.update(charts)
                self._tell(False)
                raise

    def _tell(self, works: bool) -> None:
        dropped, self._told = self.dropped - self._told, self.dropped
        self.tell(works, dropped)

    def _write(self, cards: list[_Row], charts: Counter[_Chart]) -> None:
        with self.store.writing() as connection:
            if cards:
                connection.execute(insert_into(connection, CARD).on_conflict_do_nothing(), cards)
            for chart, times in sorted(charts.items()):  # in order, so that no two lock each other
                _count(connection, chart, times)

    def _write_on(self) -> None:
        works, goes_on = True, True
        while goes_on:
            time.sleep(SECONDS_TO_WAIT)
            goes_on = main_thread().is_alive()  # asked before the last cards are written
            works = self._write_and_say(works)

    def _write_and_say(self, worked: bool) -> bool:
        """Whether the store took it; what changes is logged."""
        try:
            self.flush()
        except StoreDown as down:
            if worked:
                log.warning("cards issued wait", extra={"reason": down.diagnostics or down.text})
            return False
        if not worked:
            log.warning("cards issued are written again", extra={"dropped": self.dropped})
        return True


def _count(connection: Connection, chart: _Chart, times: int) -> None:
    names = ("day", "issuer", "service", "content")
    insert = insert_into(connection, CHARTS_SEEN).values(dict(zip(names, chart, strict=True)))
    insert = insert.values(count=times)
    more = CHARTS_SEEN.c.count + insert.excluded.count
    connection.execute(insert.on_conflict_do_update(index_elements=names, set_={"count": more}))
