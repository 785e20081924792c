"""A service call from bytes to answer: the cards, or why there are which."""

from collections.abc import Callable
from datetime import datetime
from typing import Any, cast
from zoneinfo import ZoneInfo

import msgspec
from msgspec import Struct

from cds_service.call_record import CallRecord, CardGiven, Reader, RecordedFetcher, TopicOutcome
from cds_service.cards import Cards, CardWriter
from cds_service.content import Content, Family
from cds_service.content_files import Service
from cds_service.dates import as_text
from cds_service.errors import UnknownService
from cds_service.evaluation import Review, review
from cds_service.explanation import (
    Explanation,
    TopicVerdict,
    about,
    data_of,
    keys_of,
    outcomes_of,
    series_of,
    verdicts_of,
)
from cds_service.facts import PatientFacts
from cds_service.hook_request import Call, parse_call
from cds_service.issued import Answered, IssuedCards
from cds_service.modes import switched
from cds_service.overrides import Overrides
from cds_service.prefetch import Unsettled, settle, undeclared_line
from cds_service.trend import Trend, trends


class Answering(Struct, frozen=True):
    """Answers calls with one content; `now` is the clock, `reader` None where nothing may be
    fetched, `public_url` where the pages of the topics lie ("": nobody can tell), `issued` where
    answers are noted and `overrides` what was set aside (None: nothing is remembered).
    """

    content: Content
    reader: Reader | None
    fetch_seconds: float
    now: Callable[[], datetime]
    public_url: str = ""
    issued: IssuedCards | None = None
    overrides: Overrides | None = None

    def today(self) -> int:
        """Today at the site, as an ordinal."""
        return self.now().astimezone(ZoneInfo(self.content.site.time_zone)).date().toordinal()

    def service(self, service_id: str) -> tuple[Family, Service]:
        """The service of an id; raises UnknownService."""
        found = self.content.find(service_id)
        if found is None:
            raise UnknownService("No such service.")
        return found

    def cards(self, service_id: str, body: bytes, record: CallRecord | None = None) -> Cards:
        """The cards of a call; raises CdsError for what cannot be answered. The record says whose
        call it is, and is told what comes of it.
        """
        record = CallRecord() if record is None else record
        family, service = self.service(service_id)
        found = self._reviewed(family, service, body, record)
        assert record.call is not None
        with record.phase("cards"):
            cards = self._writer(record.call).write(found)
        fired = zip(found.fired, cards.cards, strict=True)
        record.cards = tuple(CardGiven(card.uuid, x.topic, x.indicator) for x, card in fired)
        found.facts.trace.close()
        if self.issued is not None:
            content, at = self.content.hash, self.now()
            self.issued.note(
                Answered(record.caller, record.call, service, content, found, cards, at)
            )
        return cards

    def _reviewed(
        self,
        family: Family,
        service: Service,
        body: bytes,
        record: CallRecord,
        *,
        also_off: bool = False,
    ) -> Review:
        with record.phase("decode"):
            call = record.call = parse_call(body, service.hook)
        facts = self._facts(call, family, record)
        hold_back = None
        if self.overrides is not None:
            hold_back = self.overrides.hold_back(
                self.content, family, facts, call, record.caller, record.aside
            )
        modes = switched(self.content.modes, record.caller.modes)
        with record.phase("rules"):
            found = review(family, service, facts, modes, also_off=also_off, hold_back=hold_back)
        if not found.overrides_read:
            record.store_failures.append("overrides")
        record.outcomes = tuple(outcomes_of(self.content, found))
        return found

    def _writer(self, call: Call) -> CardWriter:
        return CardWriter(self.content, call.context, public_url=self.public_url)

    def _facts(self, call: Call, family: Family, record: CallRecord) -> PatientFacts:
        fetcher = None
        if self.reader is not None:
            fetcher = RecordedFetcher(self.reader, record, self.fetch_seconds)
        names = self.content.site.prefetch
        try:
            with record.phase("decode"):
                chart = settle(call, family.keys, names, fetcher, record.caller)
        except Unsettled as unsettled:
            record.keys = tuple(keys_of(unsettled.chart))
            record.outcomes = tuple(
                TopicOutcome(x.code, "data-missing", "", "required", unsettled.diagnostics)
                for x in family.topics
            )
            raise
        record.keys = tuple(keys_of(chart))
        today = self.today()
        record.as_of = as_text(today)
        with record.phase("facts"):
            return PatientFacts(chart, family.knowledge, today, record.bound())

    def explain(
        self, service_id: str, body: bytes, record: CallRecord | None = None
    ) -> dict[str, Any]:
        """Every verdict with its evidence, an Explanation as JSON has it; a call that lacks
        required data is explained, not refused.
        """
        record = CallRecord() if record is None else record
        return cast("dict[str, Any]", self._explanation(service_id, body, record))

    def _explanation(self, service_id: str, body: bytes, record: CallRecord) -> Explanation:
        family, service = self.service(service_id)
        try:
            found = self._reviewed(family, service, body, record, also_off=True)
        except Unsettled as unsettled:
            return self._explain_unsettled(family, unsettled)
        assert record.call is not None
        return self._explain(record.call, found)

    def forget(self, service_id: str, body: bytes) -> int:
        """Deletes what was set aside for a call's patient, and tells how many overrides that were;
        0 where nothing is remembered. Raises CdsError for what is no call.
        """
        _, service = self.service(service_id)
        call = parse_call(body, service.hook)
        return 0 if self.overrides is None else self.overrides.forget(call, CallRecord().caller)

    def trends(self, service_id: str, body: bytes) -> tuple[Trend, ...]:
        """The pictures of a call's patient, once every topic has looked at the chart; none where
        required data is missing. Raises CdsError for what is no call.
        """
        family, service = self.service(service_id)
        record = CallRecord()
        try:
            facts = self._facts(parse_call(body, service.hook), family, record)
        except Unsettled:
            return ()
        review(family, service, facts, self.content.modes, also_off=True)
        return trends(facts, self.content)

    def _explain(self, call: Call, found: Review) -> Explanation:
        cards = self._writer(call).write(found)
        return {
            "status": 200,
            "cards": msgspec.to_builtins(cards.cards),
            "verdicts": verdicts_of(self.content, found),
            "data": data_of(found.facts.chart),
            "content": about(self.content),
            "asOf": as_text(found.facts.today),
            "series": series_of(self.content, found.facts),
        }

    def _explain_unsettled(self, family: Family, unsettled: Unsettled) -> Explanation:
        verdicts: list[TopicVerdict] = [
            {
                "topic": topic.code,
                "verdict": "data-missing",
                "reason": {"code": "required", "text": unsettled.diagnostics},
                "evidence": [],
            }
            for topic in family.topics
        ]
        return {
            "status": 412,
            "cards": [],
            "verdicts": verdicts,
            "data": data_of(unsettled.chart),
            "content": about(self.content),
            "asOf": as_text(self.today()),
            "series": [],
            "hint": [
                undeclared_line(name, key)
                for name in unsettled.undeclared
                for key in unsettled.keys
                if key != "patient"
            ],
        }
