"""Overrides: a card that somebody has set aside stays silent for the reason's time, until there is
new evidence; and one that the same user saw lately is not shown again.
"""

import hashlib
import logging
from collections.abc import Callable, Iterable, Sequence
from contextlib import AbstractContextManager, nullcontext
from datetime import date, datetime
from decimal import Decimal
from typing import Any

import msgspec
from msgspec import Struct
from sqlalchemy import ColumnElement, Table, bindparam, delete, select

from cds_service.clients import Caller
from cds_service.content import Content, Family, Topic
from cds_service.content_files import ReasonRow
from cds_service.dates import as_text
from cds_service.errors import StoreDown
from cds_service.facts import Judged, PatientFacts, Problem, surely
from cds_service.hook_request import Call
from cds_service.resources import Condition
from cds_service.rules import Verdict
from cds_service.store import CARD, OVERRIDE, Store, milliseconds, patient_key, user_key

log = logging.getLogger(__name__)
OVERRIDDEN, SHOWN_LATELY = "override", "shown-lately"
CLEARLY_WORSE = Decimal("0.25")  # of the value when the card was set aside (specification 7)
_DAY = 86_400_000  # milliseconds
_EPOCH = date(1970, 1, 1).toordinal()


class Fingerprint(Struct, omit_defaults=True):
    """What a card rested on: a digest of its trigger, the number that decided, the words it was
    `made_for`, digests of what would be news, and one of the problem list.
    """

    trigger: str = ""
    value: float | None = None
    made_for: dict[str, str] = {}
    seen: list[str] = []
    problems: str = ""


class Silenced(Struct, frozen=True):
    """One override on record; `asked_by` is whose it was, `began` milliseconds since 1970."""

    topic: str
    reason: str
    asked_by: str
    commented: bool
    began: int
    evidence: Fingerprint


def digest(*parts: object) -> str:
    """A short digest of what is told apart by it."""
    said = "\0".join(map(str, parts)).encode()
    return hashlib.sha256(said).hexdigest()[:16]


def take_fingerprints(family: Family, facts: PatientFacts, verdicts: Iterable[Verdict]) -> None:
    """Gives each verdict the fingerprint of what it rests on."""
    facts.trace.begin("overrides")
    news = family.news(facts) if family.news is not None else []
    seen = sorted({digest(x.reference, x.title, x.moment.text if x.moment else "") for x in news})
    problems = digest(*sorted(_problem(x) for x in facts.chart.of(Condition)))
    cards = {topic.code: topic.card for topic in family.topics}
    for verdict in verdicts:
        assert verdict.advice is not None
        advice, card = verdict.advice, cards[verdict.topic]
        findings = [_finding(x) for x in advice.findings]
        orders = [x.reference for x in advice.about]
        numbers = [x for x in advice.findings if isinstance(x, Judged)]
        mark = Fingerprint(
            trigger=digest(verdict.topic, *findings, *orders),
            value=float(numbers[0].value.value) if card.worse and numbers else None,
            made_for={name: str(advice.values.get(name, "")) for name in card.snooze_for},
            seen=seen,
            problems=problems,
        )
        verdict.fingerprint = msgspec.json.encode(mark).decode()


def _problem(resource: Condition) -> str:
    problem = Problem(resource, frozenset(), 0)
    return f"{resource.id}\0{problem.title}\0{problem.active}\0{problem.firm}"


def _finding(found: Any) -> str:
    if isinstance(found, Judged):
        return digest(found.moment.text, found.value.value, found.value.comparator)
    return digest(found.value_set, found.entry.reference)


# -- what holds a card back --------------------------------------------------------------------


class Asked(Struct, frozen=True):
    """Whose card it would be, and when: the keys under which the store knows client, patient and
    user, and milliseconds since 1970.
    """

    issuer: str
    tenant: str
    patient: str
    user: str
    at: int


def _of_the_patient(table: Table) -> list[ColumnElement[bool]]:
    return [table.c[x] == bindparam(f"of_{x}") for x in ("issuer", "tenant", "patient")]


_COLUMNS = ("topic", "reason", "asked_by", "commented", "began", "evidence")
_SILENCED = (
    select(*(OVERRIDE.c[x] for x in _COLUMNS))
    .where(*_of_the_patient(OVERRIDE))
    .order_by(OVERRIDE.c.began.desc())
)
_SHOWN = select(CARD.c.evidence, CARD.c.issued, CARD.c.shadow).where(
    *_of_the_patient(CARD),
    CARD.c.topic == bindparam("topic"),
    CARD.c.asked_by == bindparam("user"),
    CARD.c.issued > bindparam("since"),
)
_FORGOTTEN = delete(OVERRIDE).where(*_of_the_patient(OVERRIDE))


class Overrides(Struct, frozen=True):
    """Reads what was set aside; `secret` makes the keys of patients and users. Without
    `with_repeats` a card is shown to the same user as often as it is asked for.
    """

    store: Store
    secret: bytes
    now: Callable[[], datetime]
    with_repeats: bool = True

    def hold_back(
        self,
        content: Content,
        family: Family,
        facts: PatientFacts,
        call: Call,
        caller: Caller,
        aside: Callable[[], AbstractContextManager[None]] = nullcontext,
    ) -> Callable[[Sequence[Verdict]], bool]:
        """What suppresses those of the verdicts about to be shown that an override, or having been
        shown lately, silences; without the store nothing does, and its answer is False. A store
        that may have to be waited for is waited for `aside`.
        """
        # A file answers its readers at once.
        waiting = nullcontext if self.store.is_sqlite else aside

        def hold(verdicts: Sequence[Verdict]) -> bool:
            take_fingerprints(family, facts, verdicts)
            asked = self._asked(call, caller)
            try:
                with waiting():
                    self._hold(content, family, facts, asked, verdicts)
                return True
            except StoreDown:
                log.warning("overrides not read", extra={"reason": "the store cannot be reached"})
                return False

        return hold

    def forget(self, call: Call, caller: Caller) -> int:
        """Deletes what was set aside for a call's patient, and tells how many overrides that were;
        raises StoreDown.
        """
        with self.store.writing() as connection:
            return connection.execute(_FORGOTTEN, _whose(self._asked(call, caller))).rowcount

    def _asked(self, call: Call, caller: Caller) -> Asked:
        issuer, tenant, context = caller.issuer, caller.tenant, call.context
        server = call.fhir_server or ""
        return Asked(
            issuer=issuer,
            tenant=tenant,
            patient=patient_key(self.secret, issuer, tenant, server, context.patient_id),
            user=user_key(self.secret, issuer, tenant, context.user_id),
            at=milliseconds(self.now()),
        )

    def _hold(
        self,
        content: Content,
        family: Family,
        facts: PatientFacts,
        asked: Asked,
        verdicts: Sequence[Verdict],
    ) -> None:
        silenced = self._silenced(asked)
        topics = {topic.code: topic for topic in family.topics}
        for verdict in verdicts:
            topic = topics[verdict.topic]
            for one in silenced:
                until = _held_until(content, family, facts, topic, verdict, one, asked)
                if until is not None and (until == _FOR_EVER or until > asked.at):
                    verdict.outcome, verdict.by = "suppressed", OVERRIDDEN
                    verdict.held_because = one.reason
                    verdict.until = "" if until == _FOR_EVER else _day_of(until)
                    break
            else:
                self._hold_repeat(family, verdict, asked)

    def _silenced(self, asked: Asked) -> list[Silenced]:
        """The patient's overrides, the newest first; one that was repeated counts from then."""
        rows = self.store.rows(_SILENCED, _whose(asked))
        return [
            Silenced(topic, reason, asked_by, bool(commented), began, _read(evidence))
            for topic, reason, asked_by, commented, began, evidence in rows
        ]

    def _hold_repeat(self, family: Family, verdict: Verdict, asked: Asked) -> None:
        """Suppresses a card that the user saw lately about the same numbers; of a topic in shadow,
        also one that the user would have seen.
        """
        repeats = family.repeats
        if repeats is None or not self.with_repeats:
            return
        days = repeats.info_days if verdict.indicator == "info" else repeats.warning_days
        since = asked.at - days * _DAY
        about = {"topic": verdict.topic, "user": asked.user, "since": since}
        rows = self.store.rows(_SHOWN, {**_whose(asked), **about})
        trigger = _read(verdict.fingerprint).trigger
        times = [
            issued
            for evidence, issued, in_shadow in rows
            if (verdict.in_shadow or not in_shadow) and _read(evidence).trigger == trigger
        ]
        if times:
            verdict.outcome, verdict.by = "suppressed", SHOWN_LATELY
            verdict.until = _day_of(min(times) + days * _DAY)


def _whose(asked: Asked) -> dict[str, str]:
    return {"of_issuer": asked.issuer, "of_tenant": asked.tenant, "of_patient": asked.patient}


_FOR_EVER = 0  # as long as the evidence stays what it was


def _held_until(
    content: Content,
    family: Family,
    facts: PatientFacts,
    topic: Topic,
    verdict: Verdict,
    one: Silenced,
    asked: Asked,
) -> int | None:
    """Until when an override holds the verdict back; None when it does not concern it."""
    row = content.override_reasons.get(one.reason)
    if row is None or not _concerns(row, verdict, one, asked):
        return None
    now, then = _read(verdict.fingerprint), one.evidence
    if now.made_for != then.made_for and one.topic == verdict.topic:
        return None
    if row.needs_proof and not one.commented and not _is_proven(topic, verdict, facts):
        return None
    if _is_news(topic, now, then, one.topic == verdict.topic):
        return None
    return _end(family, facts, topic, row, one, now)


def _concerns(row: ReasonRow, verdict: Verdict, one: Silenced, asked: Asked) -> bool:
    return (one.topic == verdict.topic or row.every_topic) and (
        not row.user_only or one.asked_by == asked.user
    )


def _is_proven(topic: Topic, verdict: Verdict, facts: PatientFacts) -> bool:
    """Whether one of the row's tests is on file, whatever it showed."""
    assert verdict.advice is not None
    offered = topic.card.variant[verdict.advice.variant].orders or topic.card.orders
    names = {*offered, *(verdict.advice.consider or ()), *verdict.left_out}
    return any(surely(facts.done(x)) for x in sorted(names))


def _is_news(topic: Topic, now: Fingerprint, then: Fingerprint, same_topic: bool) -> bool:
    """Whether there is an entry that was not there, or the value is clearly worse."""
    if set(now.seen) - set(then.seen):
        return True
    if not same_topic or now.value is None or then.value is None:
        return False
    before, after, step = Decimal(str(then.value)), Decimal(str(now.value)), CLEARLY_WORSE
    if topic.card.worse == "lower":
        return after <= before * (1 - step)
    return after >= before * (1 + step)


def _end(
    family: Family,
    facts: PatientFacts,
    topic: Topic,
    row: ReasonRow,
    one: Silenced,
    now: Fingerprint,
) -> int | None:
    card, then = topic.card, one.evidence
    if card.snooze_days == 0 or row.until == "value":
        return _FOR_EVER if now.trigger == then.trigger else None
    if row.until == "problems":
        return _FOR_EVER if now.problems == then.problems else None
    if one.reason in card.snooze_while:
        ask = family.snooze_questions[card.snooze_while[one.reason]]
        return _FOR_EVER if surely(ask(facts)) else None
    days = min(x for x in (row.days, card.snooze_days) if x is not None)
    return one.began + days * _DAY


def _read(evidence: str) -> Fingerprint:
    """The fingerprint of a row; an empty one for a row that has none."""
    try:
        return msgspec.json.decode(evidence, type=Fingerprint)
    except msgspec.DecodeError:
        return Fingerprint()


def _day_of(milliseconds: int) -> str:
    return as_text(_EPOCH + milliseconds // _DAY)
