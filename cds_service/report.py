"""What became of the cards, counted by topic and content; the feedback itself, for export; and the
end of what was kept long enough.

No patient is in any of it. A card of which nothing was heard was not refused.
"""

import csv
import io
from collections.abc import Iterable, Iterator, Sequence
from datetime import UTC, date, datetime, time, timedelta
from typing import Any

import msgspec
from msgspec import Struct
from sqlalchemy import Column, ColumnElement, Select, Subquery, Table, and_, func, select, tuple_

from cds_service.feedback import named_reason
from cds_service.store import (
    CARD,
    CHARTS_SEEN,
    COMMENT,
    FEEDBACK,
    OVERRIDE,
    TOKEN_USED,
    Store,
)
from cds_service.terminal_text import harmless

AT_ONCE = 2000  # rows that go in one transaction: others write meanwhile
NO_REASON = "no reason given"
_DAY = 86_400_000  # milliseconds
_WHOSE = ("issuer", "tenant")
_STEERS = ("=", "+", "-", "@", "\t", "\r")  # what makes a formula of a cell


class Days(Struct, frozen=True):
    """From one day to another, both included, in UTC; None: from the first, to the last."""

    first: date | None = None
    last: date | None = None

    def hold(self, moment: "Column[int]") -> ColumnElement[bool]:
        """Whether a moment of the store lies in them."""
        asked = [moment >= _milliseconds(self.first)] if self.first else []
        if self.last:
            asked.append(moment < _milliseconds(self.last) + _DAY)
        return and_(True, *asked)

    def name(self, day: "Column[str]") -> ColumnElement[bool]:
        """Whether a day of the store is one of them."""
        asked = [day >= self.first.isoformat()] if self.first else []
        if self.last:
            asked.append(day <= self.last.isoformat())
        return and_(True, *asked)


def _milliseconds(day: date) -> int:
    return int(datetime.combine(day, time(), UTC).timestamp() * 1000)


# -- counting ----------------------------------------------------------------------------------


class Line(Struct, rename="camel"):
    """One topic at one service under one content. Of a card the last outcome counts."""

    topic: str
    service: str
    content: str
    charts_seen: int
    cards: int = 0
    shadow_cards: int = 0
    accepted: int = 0
    overridden: dict[str, int] = {}

    @property
    def unanswered(self) -> int:
        return self.cards - self.accepted - sum(self.overridden.values())

    @property
    def acceptance(self) -> str:
        """With its denominator; what was not answered is in it."""
        return f"{self.accepted} of {self.cards}"


def lines(store: Store, days: Days) -> list[Line]:
    """The cards issued in those days, and what was heard of them until now; raises StoreDown."""
    found: dict[tuple[str, str, str], Line] = {}
    with store.reading() as connection:
        charts = {(x[0], x[1]): x[2] for x in connection.execute(_charts(days))}
        for topic, service, content, *became in connection.execute(_cards(days)):
            seen = charts.get((service, content), 0)
            line = found.setdefault((topic, service, content), Line(topic, service, content, seen))
            _add(line, *became)
    return [found[x] for x in sorted(found)]


def _add(
    line: Line, shadow: bool, outcome: str | None, system: str, reason: str, times: int
) -> None:
    """Counts cards of one fate; `outcome` None: nothing was heard."""
    if shadow:
        line.shadow_cards += times
        return
    line.cards += times
    if outcome == "accepted":
        line.accepted += times
    elif outcome is not None:
        why = named_reason(system, reason) or NO_REASON
        line.overridden[why] = line.overridden.get(why, 0) + times


def _charts(days: Days) -> Select[Any]:
    key = (CHARTS_SEEN.c.service, CHARTS_SEEN.c.content)
    asked = select(*key, func.sum(CHARTS_SEEN.c.count)).where(days.name(CHARTS_SEEN.c.day))
    return asked.group_by(*key)


def _last_heard() -> Subquery:
    """The last item of each card by its own time; of one moment, what came in last."""
    last = (FEEDBACK.c.outcome_at.desc(), FEEDBACK.c.id.desc())
    card = [FEEDBACK.c[x] for x in (*_WHOSE, "card")]
    place = func.row_number().over(partition_by=card, order_by=last).label("place")
    what = [FEEDBACK.c[x] for x in ("outcome", "reason_system", "reason")]
    ranked = select(*card, *what, place).subquery()
    return select(ranked).where(ranked.c.place == 1).subquery()


def _cards(days: Days) -> Select[Any]:
    heard = _last_heard()
    key: list[ColumnElement[Any]] = [CARD.c[x] for x in ("topic", "service", "content", "shadow")]
    key += [heard.c[x] for x in ("outcome", "reason_system", "reason")]
    joined = CARD.outerjoin(heard, _is_about(heard))
    asked = select(*key, func.count()).select_from(joined).where(days.hold(CARD.c.issued))
    return asked.group_by(*key)


def _is_about(heard: Subquery | Table) -> ColumnElement[bool]:
    """Feedback is about a card only when it came from whom the card was issued to."""
    mine = (CARD.c[x] == heard.c[x] for x in _WHOSE)
    return and_(CARD.c.id == heard.c.card, *mine)


# -- exporting ---------------------------------------------------------------------------------


class Heard(Struct, rename="camel", omit_defaults=True):
    """One row of feedback. Intervention, action, user, date, time and location are those of 45 CFR
    170.315(b)(11)(ii)(C); what is not known is left out. The user is a keyed hash.
    """

    intervention: str
    service: str
    content: str
    variant: str
    card: str
    action: str
    suggestion: str
    reason: str
    reason_system: str
    user: str
    date: str
    time: str
    location: str
    received: str
    comment: str = ""


def feedback(store: Store, days: Days, comments: bool) -> Iterator[Heard]:
    """The feedback that came in on those days, in that order; raises StoreDown."""
    said = COMMENT.c.text if comments else func.coalesce(None, "").label("text")
    joined = FEEDBACK.outerjoin(CARD, _is_about(FEEDBACK))
    if comments:
        joined = joined.outerjoin(COMMENT)
    known = [CARD.c[x] for x in ("topic", "content", "variant", "asked_by", "suggestions")]
    asked = select(FEEDBACK, *known, said.label("comment")).select_from(joined)
    asked = asked.where(days.hold(FEEDBACK.c.received)).order_by(FEEDBACK.c.id)
    with store.reading() as connection:
        for row in connection.execute(asked).mappings():
            yield _heard({name: "" if x is None else x for name, x in row.items()})


def _heard(row: dict[str, Any]) -> Heard:
    orders = msgspec.json.decode(row["suggestions"] or "{}")
    day, _, clock = row["outcome_at"].partition("T")
    received = datetime.fromtimestamp(row["received"] / 1000, UTC)
    return Heard(
        intervention=row["topic"],
        service=row["service"],
        content=row["content"],
        variant=row["variant"],
        card=row["card"],
        action=row["outcome"],
        suggestion=orders.get(row["suggestion"], row["suggestion"]),
        reason=row["reason"],
        reason_system=row["reason_system"],
        user=row["asked_by"],
        date=day,
        time=clock,
        location=" ".join(x for x in (row["issuer"], row["tenant"]) if x),
        received=received.isoformat(timespec="milliseconds").replace("+00:00", "Z"),
        comment=row["comment"],
    )


# -- writing -----------------------------------------------------------------------------------

Cells = Sequence[str | int]


def cells(line: Line) -> list[str | int]:
    """A line as a table has it."""
    reasons = "; ".join(f"{why}: {n}" for why, n in sorted(line.overridden.items()))
    counts = (line.charts_seen, line.cards, line.shadow_cards, line.accepted)
    overridden = sum(line.overridden.values())
    key = (line.topic, line.service, line.content[:12])
    return [*key, *counts, overridden, reasons, line.unanswered, line.acceptance]


HEADINGS = (
    *("topic", "service", "content", "charts seen", "cards", "shadow cards", "accepted"),
    *("overridden", "reasons", "unanswered", "acceptance"),
)


def counted(store: Store, days: Days, form: str) -> str:
    """The report as "table", "csv" or "json"; raises StoreDown."""
    found = lines(store, days)
    return as_json(found) if form == "json" else _in_columns(form, HEADINGS, map(cells, found))


def export(store: Store, days: Days, form: str, comments: bool) -> str:
    """The feedback as "table", "csv" or "json"; raises StoreDown."""
    found = feedback(store, days, comments)
    names = [x for x in Heard.__struct_encode_fields__ if comments or x != "comment"]
    if form == "json":
        return as_json(found)
    return _in_columns(form, names, (msgspec.structs.astuple(x)[: len(names)] for x in found))


def _in_columns(form: str, headings: Sequence[str], rows: Iterable[Cells]) -> str:
    return as_csv(headings, rows) if form == "csv" else as_table(headings, rows)


def as_json(rows: Iterable[Line | Heard]) -> str:
    """The rows as a JSON list, one to a line."""
    said = (msgspec.json.encode(_whole(x)).decode() for x in rows)
    return "[\n" + ",\n".join(said) + "\n]"


def _whole(row: Line | Heard) -> object:
    if isinstance(row, Heard):
        return row
    counted = {"unanswered": row.unanswered, "acceptance": row.acceptance}
    return {**msgspec.to_builtins(row), **counted}


def as_csv(headings: Sequence[str], rows: Iterable[Cells]) -> str:
    """The rows under their headings; a cell that a spreadsheet would run gets a quote before it."""
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow(headings)
    writer.writerows([_tame(x) for x in row] for row in rows)
    return out.getvalue().rstrip("\n")


def _tame(cell: str | int) -> str | int:
    return f"'{cell}" if isinstance(cell, str) and cell.startswith(_STEERS) else cell


def as_table(headings: Sequence[str], rows: Iterable[Cells]) -> str:
    """The rows in columns."""
    grid = [list(headings), *([harmless(str(x)) for x in row] for row in rows)]
    widths = [max(map(len, column)) for column in zip(*grid, strict=True)]
    padded = (
        "  ".join(x.ljust(width) for x, width in zip(row, widths, strict=True)) for row in grid
    )
    return "\n".join(x.rstrip() for x in padded)


# -- ending ------------------------------------------------------------------------------------


def purge(store: Store, now: datetime, older: timedelta) -> dict[str, int]:
    """Deletes what is older, and tokens whose time is over; how many rows of each table went.

    Raises StoreDown; what was deleted by then stays deleted.
    """
    this_instant, before = (int(x.timestamp() * 1000) for x in (now, now - older))
    old_feedback = select(FEEDBACK.c.id).where(FEEDBACK.c.received < before)
    day = (now - older).astimezone(UTC).date().isoformat()
    return {
        "tokens": _delete(store, TOKEN_USED, TOKEN_USED.c.until < this_instant),
        "comments": _delete(store, COMMENT, COMMENT.c.feedback.in_(old_feedback)),
        "feedback": _delete(store, FEEDBACK, FEEDBACK.c.received < before),
        "overrides": _delete(store, OVERRIDE, OVERRIDE.c.began < before),
        "cards": _delete(store, CARD, CARD.c.issued < before),
        "tallies": _delete(store, CHARTS_SEEN, CHARTS_SEEN.c.day < day),
    }


def _delete(store: Store, table: Table, old: ColumnElement[bool]) -> int:
    key = tuple_(*table.primary_key)
    some = select(*table.primary_key).where(old).limit(AT_ONCE)
    deleted = 0
    while True:
        with store.writing() as connection:
            gone = connection.execute(table.delete().where(key.in_(some))).rowcount
        deleted += gone
        if gone < AT_ONCE:
            return deleted
