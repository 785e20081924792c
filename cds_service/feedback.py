"""Feedback: what became of cards, checked as a whole, then kept (CDS Hooks 2.0, "Feedback").

What a user wrote stands in the table `comment` only, and in no log and no error.
"""

import json
import re
import time
from collections.abc import Callable, Iterator, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

import msgspec
from msgspec import Struct
from sqlalchemy import Connection, select

from cds_service.cards import OVERRIDE_REASONS
from cds_service.clients import Caller
from cds_service.errors import BrokenRequest, NotJson
from cds_service.issued import IssuedCards
from cds_service.resources import with_whole_escapes
from cds_service.store import CARD, COMMENT, FEEDBACK, OVERRIDE, Store, insert_into, milliseconds

MOST_BYTES = 1_000_000
MOST_ITEMS = 1000
MOST_SUGGESTIONS = 100
LONGEST_COMMENT = 4000
LONGEST_ID = 128  # of a card, a suggestion or a reason: they are in indexes
LONGEST_SYSTEM = 1000
SECONDS_FOR_OTHERS = 1.0  # another worker has written its cards by then, on a busy machine too
SECONDS_BETWEEN_LOOKS = 0.1
OUTCOMES = ("accepted", "overridden")


class AcceptedSuggestion(Struct):
    """A suggestion that was accepted, by its uuid."""

    id: str


class ReasonCoding(Struct):
    """Why a card was set aside; it may be a reason of the client's own."""

    code: str
    system: str | None = None
    display: str | None = None


class OverrideReason(Struct, rename="camel"):
    """A reason from a list, words of the user's own, or both."""

    reason: ReasonCoding | None = None
    user_comment: str | None = None


class FeedbackItem(Struct, rename="camel"):
    """What became of one card. `overrideReasons` is how Epic names `overrideReason`."""

    card: str
    outcome: str
    outcome_timestamp: str
    accepted_suggestions: list[AcceptedSuggestion] | None = None
    override_reason: OverrideReason | None = None
    override_reasons: OverrideReason | None = None


class FeedbackRequest(Struct):
    """What a client reports, about any number of cards."""

    feedback: list[FeedbackItem]


class FeedbackTaken(Struct):
    """How many items were stored, and how many had been before."""

    stored: int
    repeated: int


# -- reading -----------------------------------------------------------------------------------


class Heard(Struct, frozen=True):
    """One item that was checked; `suggestions` is ("",) for a card that was set aside."""

    card: str
    outcome: str
    at: str
    suggestions: tuple[str, ...]
    system: str = ""
    reason: str = ""
    comment: str = ""


_decoder = msgspec.json.Decoder(FeedbackRequest)
_INSTANT = re.compile(
    r"(\d{4}-\d\d-\d\d)[Tt](\d\d:\d\d):(\d\d)(?:\.(\d{1,6})\d*)?([Zz]|[+-]\d\d:\d\d)", re.ASCII
)


def parse_feedback(body: bytes) -> tuple[Heard, ...]:
    """The items of a body; raises NotJson, or BrokenRequest that names the item and the member."""
    body = with_whole_escapes(body)
    _refuse_double_meanings(body)
    try:
        items = _decoder.decode(body).feedback
    except msgspec.ValidationError as error:
        raise _broken(str(error)) from None
    except msgspec.DecodeError:
        raise NotJson("The body is not JSON.") from None
    if len(items) > MOST_ITEMS:
        raise _broken(f"feedback has more than {MOST_ITEMS} items")
    return tuple(_heard(f"feedback[{n}]", item) for n, item in enumerate(items))


def _broken(why: str) -> BrokenRequest:
    return BrokenRequest("The feedback breaks CDS Hooks; none of it was stored.", why)


def _refuse_double_meanings(body: bytes) -> None:
    """Raises NotJson for a name that stands twice in one object: which one holds?"""
    try:
        json.loads(body.decode(), object_pairs_hook=_once, parse_int=str, parse_constant=_never)
    except (ValueError, UnicodeDecodeError):
        raise NotJson("The body is not JSON.") from None
    except RecursionError:
        raise NotJson("The body is nested too deeply.") from None


def _once(pairs: list[tuple[str, Any]]) -> None:
    names = {name for name, _ in pairs}
    if len(names) != len(pairs):
        raise NotJson("The body is not JSON of one meaning.", "an object has a name twice")


def _never(_: str) -> None:
    raise NotJson("The body is not JSON.")


def _heard(where: str, item: FeedbackItem) -> Heard:
    if item.outcome not in OUTCOMES:
        raise _broken(f"{where}.outcome must be {' or '.join(OUTCOMES)}")
    card = _said(f"{where}.card", item.card)
    at = _instant(f"{where}.outcomeTimestamp", item.outcome_timestamp)
    if item.outcome == "accepted":
        return Heard(card, item.outcome, at, _accepted(where, item.accepted_suggestions))
    name = "overrideReasons" if item.override_reason is None else "overrideReason"
    given = item.override_reason or item.override_reasons or OverrideReason()
    return Heard(card, item.outcome, at, ("",), *_why(f"{where}.{name}", given))


def _accepted(where: str, given: list[AcceptedSuggestion] | None) -> tuple[str, ...]:
    where = f"{where}.acceptedSuggestions"
    if not given:
        raise _broken(f"{where} must name what was accepted")
    if len(given) > MOST_SUGGESTIONS:
        raise _broken(f"{where} has more than {MOST_SUGGESTIONS} items")
    return tuple(_said(f"{where}[{n}].id", x.id) for n, x in enumerate(given))


def _why(where: str, given: OverrideReason) -> tuple[str, str, str]:
    """The system and code of the reason, and the comment; "" for what was not given."""
    comment = _short(f"{where}.userComment", given.user_comment or "", LONGEST_COMMENT).strip()
    if given.reason is None:
        return "", "", comment
    where = f"{where}.reason"
    code = _said(f"{where}.code", given.reason.code)
    return _short(f"{where}.system", given.reason.system or "", LONGEST_SYSTEM), code, comment


def _said(where: str, text: str) -> str:
    if not text.strip():
        raise _broken(f"{where} must not be blank")
    return _short(where, text, LONGEST_ID)


def _short(where: str, text: str, longest: int) -> str:
    if len(text) > longest:
        raise _broken(f"{where} is over {longest} characters")
    if "\0" in text:
        raise _broken(f"{where} must not hold U+0000")
    return text


def _instant(where: str, text: str) -> str:
    """A moment of RFC 3339 in UTC, always as long, so that texts sort as the moments do."""
    found = _INSTANT.fullmatch(text)
    try:
        if found is None:
            raise ValueError
        day, minute, second, fraction, zone = found.groups()
        zone = "+00:00" if zone in "Zz" else zone
        at = datetime.fromisoformat(f"{day}T{minute}:00.{(fraction or '').ljust(6, '0')}{zone}")
        if int(second) > 60:  # 60 is a leap second
            raise ValueError
        at = (at + timedelta(seconds=int(second))).astimezone(UTC)
    except (ValueError, OverflowError):
        raise _broken(f"{where} must be a moment with its zone, as RFC 3339 has it") from None
    return at.replace(tzinfo=None).isoformat(timespec="microseconds") + "Z"


# -- keeping -----------------------------------------------------------------------------------

_Key = tuple[str, str, str, str]  # card, suggestion, outcome, moment
_Row = dict[str, Any]
_KEY = ("card", "suggestion", "outcome", "outcome_at")
_COPIED = ("patient", "topic", "asked_by", "evidence")


class Feedback(Struct, frozen=True):
    """Takes feedback into the store; it is on disk when that is said."""

    store: Store
    issued: IssuedCards
    now: Callable[[], datetime]

    def take(self, service_id: str, heard: Sequence[Heard], caller: Caller) -> FeedbackTaken:
        """Stores the items of a body as a whole; raises StoreDown and then stored nothing."""
        if not heard:
            return FeedbackTaken(0, 0)
        cards = self._cards_set_aside(heard, caller)
        first = _firsts(heard)
        at = milliseconds(self.now())
        given = {"issuer": caller.issuer, "tenant": caller.tenant, "received": at}
        with self.store.writing() as connection:
            new = _insert(connection, {**given, "service": service_id}, heard, first)
            _insert_comments(connection, [(new[x], heard[first[x]].comment) for x in new])
            fresh = sorted({first[x] for x in new})
            _insert_overrides(connection, [heard[n] for n in fresh], cards, caller, at)
        return FeedbackTaken(len(fresh), len(heard) - len(fresh))

    def _cards_set_aside(self, heard: Sequence[Heard], caller: Caller) -> dict[str, _Row]:
        """The cards of this caller that were set aside, by id; one that was sent a moment ago may
        still be on its way into the store, from here or from another worker.
        """
        wanted = {x.card for x in heard if x.outcome == "overridden"}
        if not wanted:
            return {}
        self.issued.flush()
        found = self._find(wanted, caller)
        ends = time.monotonic() + SECONDS_FOR_OTHERS
        while wanted - set(found) and time.monotonic() < ends:
            time.sleep(SECONDS_BETWEEN_LOOKS)
            found |= self._find(wanted - set(found), caller)
        return found

    def _find(self, ids: set[str], caller: Caller) -> dict[str, _Row]:
        columns = [CARD.c[x] for x in ("id", *_COPIED)]
        asked = select(*columns).where(
            CARD.c.id.in_(sorted(ids)),
            CARD.c.issuer == caller.issuer,
            CARD.c.tenant == caller.tenant,
            CARD.c.shadow.is_(False),
        )
        with self.store.reading() as connection:
            rows = [dict(x) for x in connection.execute(asked).mappings()]
        return {x.pop("id"): x for x in rows}


def _keys(item: Heard) -> Iterator[_Key]:
    for suggestion in item.suggestions:
        yield item.card, suggestion, item.outcome, item.at


def _firsts(heard: Sequence[Heard]) -> dict[_Key, int]:
    """Which item said each thing first."""
    first: dict[_Key, int] = {}
    for n, item in enumerate(heard):
        for key in _keys(item):
            first.setdefault(key, n)
    return first


def _insert(
    connection: Connection, given: _Row, heard: Sequence[Heard], first: dict[_Key, int]
) -> dict[_Key, int]:
    """Inserts what was not there; the id of each new row by its key."""
    rows = [
        {
            **given,
            **dict(zip(_KEY, key, strict=True)),
            "reason_system": heard[n].system,
            "reason": heard[n].reason,
        }
        for key, n in sorted(first.items())  # in order, so that no two requests lock each other
    ]
    columns = [FEEDBACK.c[x] for x in ("id", *_KEY)]
    insert = insert_into(connection, FEEDBACK).on_conflict_do_nothing().returning(*columns)
    return {(x[1], x[2], x[3], x[4]): x[0] for x in connection.execute(insert, rows)}


def _insert_comments(connection: Connection, said: Sequence[tuple[int, str]]) -> None:
    rows = [{"feedback": x, "text": comment} for x, comment in said if comment]
    if rows:
        connection.execute(COMMENT.insert(), rows)


def _insert_overrides(
    connection: Connection, fresh: Sequence[Heard], cards: dict[str, _Row], caller: Caller, at: int
) -> None:
    rows = [
        {
            "issuer": caller.issuer,
            "tenant": caller.tenant,
            "card": x.card,
            "reason": named_reason(x.system, x.reason),
            "commented": bool(x.comment),
            "began": at,
            **cards[x.card],
        }
        for x in fresh
        if x.outcome == "overridden" and x.card in cards
    ]
    if rows:
        connection.execute(insert_into(connection, OVERRIDE).on_conflict_do_nothing(), rows)


def named_reason(system: str, code: str) -> str:
    """The code; that of another system with the system, so that nobody takes it for one of ours."""
    return code if system in ("", OVERRIDE_REASONS) else f"{system}|{code}"
