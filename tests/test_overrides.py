"""A card that was set aside stays silent for its reason's time and no longer, for its patient or
user only, and until there is new evidence.
"""

import re
from collections.abc import Callable, Iterator
from contextlib import suppress
from copy import deepcopy
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, timedelta
from functools import cache
from pathlib import Path
from typing import Any

import msgspec
import pytest
import requests
from msgspec.structs import replace

from cds_service.answering import Answering
from cds_service.call_record import CallRecord
from cds_service.checking import builder_for, in_modes, vignettes_of
from cds_service.clients import ANYBODY, Caller
from cds_service.config import migrations_dir
from cds_service.content import Content
from cds_service.errors import StoreDown
from cds_service.feedback import Feedback, parse_feedback
from cds_service.issued import IssuedCards
from cds_service.loading import load_content
from cds_service.overrides import Overrides
from cds_service.store import Store
from tests.loopback import running

HOOKS = Path(__file__).parent.parent / "hooks"
AS_OF = date(2026, 1, 15)
SECRET = b"a secret of thirty-two bytes or so"
MILD, VERY_LOW, SIGNED = "V02", "V01", "ARX-sign-persistent"
LOW, SIGN = "lowAlpPersistent", "antiresorptiveWithPersistentLowAlp"
RISEN, RISE = "V48", "alpRiseOnProteasomeInhibitor"
SERVICES = {
    "patient-view": "alp-review",
    "order-select": "antiresorptive-safety-select",
    "order-sign": "antiresorptive-safety-sign",
}
Json = dict[str, Any]
Change = Callable[[Json], None]


@cache
def content() -> Content:
    return load_content(HOOKS)


@cache
def rows() -> dict[str, bytes]:
    """The request of each vignette, on the day it was written for."""
    found = {}
    for family in content().families:
        as_of, vignettes = vignettes_of(family)
        builder = builder_for(content(), family)
        for vignette in vignettes:
            found[vignette.id] = msgspec.json.encode(builder.body(vignette, as_of, as_of))
    return found


def request(row: str, *changes: Change) -> Json:
    body: Json = msgspec.json.decode(rows()[row])
    for change in changes:
        change(body)
    return body


@dataclass(slots=True)
class Desk:
    """The services at a clock that can be set, over one store."""

    store: Store
    with_repeats: bool = False
    day: float = 0.0
    issued: IssuedCards = field(init=False)
    answering: Answering = field(init=False)

    def __post_init__(self) -> None:
        self.issued = IssuedCards(self.store, SECRET)
        overrides = Overrides(self.store, SECRET, self.now, self.with_repeats)
        self.answering = Answering(
            content(), None, 1.0, self.now, issued=self.issued, overrides=overrides
        )

    def now(self) -> datetime:
        """Noon of the vignettes' day, and so many days later."""
        return datetime(AS_OF.year, AS_OF.month, AS_OF.day, 12, tzinfo=UTC) + timedelta(self.day)

    def cards(self, body: Json, caller: Caller = ANYBODY) -> dict[str, Any]:
        """The cards by their topic."""
        record = CallRecord(caller=caller)
        service = SERVICES[body["hook"]]
        found = self.answering.cards(service, msgspec.json.encode(body), record).cards
        return {x.source.topic.code: x for x in found}

    def verdict(self, body: Json, topic: str, caller: Caller = ANYBODY) -> Json:
        record = CallRecord(caller=caller)
        service = SERVICES[body["hook"]]
        explained = self.answering.explain(service, msgspec.json.encode(body), record)
        [found] = [x for x in explained["verdicts"] if x["topic"] == topic]
        return dict(found)

    def set_aside(
        self, body: Json, topic: str, reason: str, comment: str = "", caller: Caller = ANYBODY
    ) -> None:
        """Asks for the card and sets it aside as a user would."""
        why: Json = {"reason": {"code": reason}} | ({"userComment": comment} if comment else {})
        self.answer(body, topic, {"outcome": "overridden", "overrideReason": why}, caller)

    def answer(self, body: Json, topic: str, became: Json, caller: Caller = ANYBODY) -> None:
        """Asks for the card and says what became of it."""
        card = self.cards(body, caller)[topic]
        item = {"card": card.uuid, "outcomeTimestamp": self.now().isoformat(), **became}
        feedback = Feedback(self.store, self.issued, self.now)
        heard = parse_feedback(msgspec.json.encode({"feedback": [item]}))
        assert feedback.take(SERVICES[body["hook"]], heard, caller).stored == 1

    def is_silent(self, body: Json, topic: str = LOW, caller: Caller = ANYBODY) -> bool:
        """Whether an override, and nothing else, keeps the topic's card back."""
        shown = topic in self.cards(body, caller)
        verdict = self.verdict(body, topic, caller)
        assert shown == (verdict["verdict"] == "fired"), verdict
        return not shown and verdict["by"] == "override"


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    found = Store(f"sqlite:///{tmp_path}/store.sqlite")
    found.migrate(migrations_dir())
    yield found
    found.close()


@pytest.fixture
def desk(store: Store) -> Iterator[Desk]:
    found = Desk(store)
    yield found
    with suppress(StoreDown):  # one test takes it away
        found.issued.flush()


# -- for how long ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("reason", "days"),
    [
        ("acute-illness", 30),
        ("later", 30),
        ("ordered-elsewhere", 90),
        ("patient-declined", 180),
    ],
)
def test_a_card_is_silent_for_the_time_of_its_reason_and_no_longer(
    desk: Desk, reason: str, days: int
) -> None:
    body = request(MILD)
    desk.set_aside(body, LOW, reason)
    for day, silent in ((0, True), (days - 1, True), (days, False)):
        desk.day = day
        assert desk.is_silent(body) is silent, day


def test_the_explanation_says_which_override_and_until_when(desk: Desk) -> None:
    body = request(MILD)
    desk.set_aside(body, LOW, "acute-illness")
    verdict = desk.verdict(body, LOW)
    assert (verdict["verdict"], verdict["by"]) == ("suppressed", "override")
    assert verdict["until"] == "2026-02-14"
    assert verdict["reason"] == {
        "code": "override",
        "text": 'Set aside with "Explained by acute illness"; silent until 2026-02-14.',
    }


def test_a_row_of_its_own_shorter_time_wins(desk: Desk) -> None:
    body, topic = request("V05"), "lowAlpUnconfirmed"
    desk.set_aside(body, topic, "ordered-elsewhere")
    desk.day = 29
    assert desk.is_silent(body, topic)
    desk.day = 30
    assert not desk.is_silent(body, topic)


@pytest.mark.parametrize(
    ("row", "topic", "comment", "silent"),
    [
        (MILD, LOW, "", False),
        (MILD, LOW, "PLP was normal in 2024, elsewhere", True),
    ],
)
def test_a_claim_needs_a_comment_or_a_test(
    desk: Desk, row: str, topic: str, comment: str, silent: bool
) -> None:
    body = request(row)
    desk.set_aside(body, topic, "already-evaluated", comment)
    assert desk.is_silent(body, topic) is silent


def test_a_claim_is_proven_by_one_of_the_tests_of_the_card(desk: Desk) -> None:
    body = request(MILD, result("2777-1", 1.1, "mmol/L", 5))
    desk.set_aside(body, LOW, "already-evaluated")
    assert desk.is_silent(body)


@pytest.mark.parametrize(
    "became",
    [
        {"outcome": "overridden", "overrideReason": {"reason": {"code": "no-such-reason"}}},
        {"outcome": "overridden", "overrideReason": {"userComment": "no reason of a list"}},
        {"outcome": "overridden"},
        {"outcome": "accepted", "acceptedSuggestions": [{"id": "any"}]},
    ],
)
def test_accepting_a_card_or_giving_no_reason_of_ours_silences_nothing(
    desk: Desk, became: Json
) -> None:
    body = request(MILD)
    desk.answer(body, LOW, became)
    assert not desk.is_silent(body)


# -- for whom ----------------------------------------------------------------------------------


def by(user: str) -> Change:
    def change(body: Json) -> None:
        body["context"]["userId"] = user

    return change


@pytest.mark.parametrize(("reason", "for_others"), [("later", False), ("acute-illness", True)])
def test_some_reasons_are_the_users_own(desk: Desk, reason: str, for_others: bool) -> None:
    desk.set_aside(request(MILD), LOW, reason)
    assert desk.is_silent(request(MILD))
    assert desk.is_silent(request(MILD, by("Practitioner/another"))) is for_others


def test_goals_of_care_silence_every_topic_of_the_patient(desk: Desk) -> None:
    body = request(VERY_LOW)
    desk.set_aside(body, LOW, "not-appropriate-goals-of-care")
    order = request(SIGNED)
    assert desk.is_silent(body)
    assert desk.is_silent(order, SIGN)
    other = request(SIGNED)
    other["fhirServer"] = "https://another.example/fhir"
    assert not desk.is_silent(other, SIGN)


@pytest.mark.parametrize(
    "other",
    [Caller("https://a.example", "north"), Caller("https://b.example", "south"), ANYBODY],
)
def test_nobody_elses_patient_of_the_same_id_is_meant(desk: Desk, other: Caller) -> None:
    mine, body = Caller("https://a.example", "south"), request(MILD)
    desk.set_aside(body, LOW, "acute-illness", caller=mine)
    assert desk.is_silent(body, LOW, mine)
    assert not desk.is_silent(body, LOW, other)


# -- until there is new evidence ---------------------------------------------------------------


def result(code: str, value: float, unit: str, days: int, high: float | None = None) -> Change:
    """A further result, so many days before the vignettes' day (negative: after it)."""

    def change(body: Json) -> None:
        quantity = {"value": value, "unit": unit, "code": unit}
        quantity |= {"system": "http://unitsofmeasure.org"}
        found: Json = {
            "resourceType": "Observation",
            "id": f"new-{code}-{days}",
            "status": "final",
            "code": {"coding": [{"system": "http://loinc.org", "code": code}]},
            "subject": {"reference": "Patient/p1"},
            "effectiveDateTime": str(AS_OF - timedelta(days)),
            "valueQuantity": quantity,
        }
        low = {"value": 35, "unit": unit} if code == "6768-6" else {"value": 0.1, "unit": unit}
        found["referenceRange"] = [{"low": low, "high": {"value": high or 104, "unit": unit}}]
        key = "alp" if code == "6768-6" else "labs"
        body["prefetch"][key].setdefault("entry", []).insert(0, {"resource": found})

    return change


def problem(code: str, system: str = "http://hl7.org/fhir/sid/icd-10-cm") -> Change:
    def change(body: Json) -> None:
        found = {
            "resourceType": "Condition",
            "id": f"new-{code}",
            "clinicalStatus": {"coding": [{"code": "active"}]},
            "code": {"coding": [{"system": system, "code": code}]},
            "subject": {"reference": "Patient/p1"},
            "recordedDate": str(AS_OF),
        }
        body["prefetch"]["conditions"].setdefault("entry", []).append({"resource": found})

    return change


@pytest.mark.parametrize(
    ("value", "silent"),
    [(23.5, True), (23.25, False), (22, False)],  # 31 less a quarter is 23.25
)
def test_a_value_worse_by_a_quarter_ends_it(desk: Desk, value: float, silent: bool) -> None:
    desk.set_aside(request(MILD), LOW, "patient-declined")
    assert desk.is_silent(request(MILD, result("6768-6", value, "U/L", 1))) is silent


@pytest.mark.parametrize("value", [21, 22])  # the first was 21
def test_the_next_alp_ends_the_silence_about_one_that_is_not_confirmed(
    desk: Desk, value: float
) -> None:
    body, topic = request("V05"), "lowAlpUnconfirmed"
    desk.set_aside(body, topic, "acute-illness")
    assert desk.is_silent(body, topic)
    assert not desk.is_silent(request("V05", result("6768-6", value, "U/L", 5)), topic)


@pytest.mark.parametrize(("value", "silent"), [(206, True), (207, False)])
def test_after_a_rise_it_is_the_latest_value_that_may_be_worse(
    desk: Desk, value: float, silent: bool
) -> None:
    everything = in_modes(content(), {"*": "on"})
    desk.answering = replace(desk.answering, content=everything)
    desk.set_aside(request(RISEN), RISE, "cause-known", comment="bone healing")  # 165, before it 80
    assert desk.is_silent(request(RISEN), RISE)
    assert desk.is_silent(request(RISEN, result("6768-6", value, "U/L", 1)), RISE) is silent


@pytest.mark.parametrize(
    "news",
    [
        pytest.param(problem("M84.759A"), id="feature"),
        pytest.param(problem("S72.001A"), id="fracture"),
        pytest.param(problem("12584003", "http://snomed.info/sct"), id="bone pain"),
        pytest.param(problem("C50.911"), id="cancer"),
        pytest.param(problem("M89.50"), id="lytic lesion"),
        pytest.param(result("62236-5", 400, "nmol/L", 1, high=125), id="abnormal follow-up"),
    ],
)
def test_new_evidence_ends_it(desk: Desk, news: Change) -> None:
    desk.set_aside(request(MILD), LOW, "patient-declined")
    assert desk.is_silent(request(MILD))
    assert not desk.is_silent(request(MILD, news))


def test_what_was_there_before_is_no_news(desk: Desk) -> None:
    body = request(MILD, problem("C50.911"))
    desk.set_aside(body, LOW, "patient-declined")
    assert desk.is_silent(body)
    assert desk.is_silent(request(MILD, problem("C50.911"), problem("I10")))


@pytest.mark.parametrize(
    ("reason", "change"),
    [
        ("lab-artefact", result("6768-6", 32, "U/L", 1)),
        ("diagnosis-wrong", problem("I10")),
    ],
)
def test_some_reasons_last_until_what_they_are_about_changes(
    desk: Desk, reason: str, change: Change
) -> None:
    desk.set_aside(request(MILD), LOW, reason)
    desk.day = 250
    assert desk.is_silent(request(MILD))
    assert "until" not in desk.verdict(request(MILD), LOW)
    desk.day = 0
    assert not desk.is_silent(request(MILD, change))


# -- orders ------------------------------------------------------------------------------------


def drafting(text: str, order_id: str = "draft-2") -> Change:
    def change(body: Json) -> None:
        [entry] = body["context"]["draftOrders"]["entry"]
        entry["resource"]["medicationCodeableConcept"] = {"text": text}
        entry["resource"]["id"] = order_id

    return change


def test_an_override_at_signing_is_for_the_class_of_the_drug(desk: Desk) -> None:
    desk.set_aside(request(SIGNED), SIGN, "benefit-outweighs")
    assert desk.is_silent(request(SIGNED, drafting("risedronate 35 mg")), SIGN)
    assert not desk.is_silent(request(SIGNED, drafting("denosumab 60 mg")), SIGN)


def test_with_the_diagnosis_known_it_is_for_this_order_only(desk: Desk) -> None:
    topic, row = "antiresorptiveWithHypophosphatasia", "ARX-sign-hypophosphatasia-known"
    desk.set_aside(request(row), topic, "benefit-outweighs")
    assert desk.is_silent(request(row), topic)
    assert not desk.is_silent(request(row, drafting("denosumab 60 mg", "another")), topic)


# -- shown lately ------------------------------------------------------------------------------


def test_the_same_user_is_not_shown_the_same_card_again_for_a_while(store: Store) -> None:
    desk, body = Desk(store, with_repeats=True), request(MILD)
    assert LOW in desk.cards(body)
    desk.issued.flush()
    assert LOW not in desk.cards(body)
    verdict = desk.verdict(body, LOW)
    assert (verdict["by"], verdict["until"]) == ("shown-lately", "2026-01-29")
    assert LOW in desk.cards(request(MILD, by("Practitioner/another")))
    assert LOW in desk.cards(request(MILD, result("6768-6", 30, "U/L", 1)))
    desk.day = 14
    assert LOW in desk.cards(body)
    desk.issued.flush()


def test_a_warning_is_shown_again_the_next_day_and_an_order_every_time(store: Store) -> None:
    desk = Desk(store, with_repeats=True)
    for _ in range(2):
        assert SIGN in desk.cards(request(SIGNED))
        desk.issued.flush()
    body = request(VERY_LOW)
    assert LOW in desk.cards(body)
    desk.issued.flush()
    assert LOW not in desk.cards(body)
    desk.day = 1
    assert LOW in desk.cards(body)
    desk.issued.flush()


# -- the store ---------------------------------------------------------------------------------


def test_without_the_store_cards_go_on(desk: Desk, tmp_path: Path) -> None:
    body = request(MILD)
    desk.set_aside(body, LOW, "acute-illness")
    assert desk.is_silent(body)
    desk.store.close()
    for file in tmp_path.iterdir():
        file.unlink()
    assert LOW in desk.cards(body)


def test_every_worker_honours_it_and_so_does_the_server_that_comes_after(tmp_path: Path) -> None:
    store = f"sqlite:///{tmp_path}/store.sqlite"
    (tmp_path / "secret").write_bytes(SECRET)
    settings = {"CDS_STORE": store, "CDS_PATIENT_SECRET_FILE": str(tmp_path / "secret")}
    body = request(MILD)
    days = (datetime.now(UTC).date() - AS_OF).days
    moved = msgspec.json.decode(_moved(msgspec.json.encode(body), days))
    with running("--workers", "2", is_open=True, **settings) as server:
        [card] = _ask(server.url, moved)
        item = {
            "card": card["uuid"],
            "outcome": "overridden",
            "overrideReason": {"reason": {"code": "acute-illness"}},
            "outcomeTimestamp": datetime.now(UTC).isoformat(),
        }
        url = f"{server.url}/cds-services/alp-review/feedback"
        assert requests.post(url, json={"feedback": [item]}, timeout=20).status_code == 200
        assert [_ask(server.url, moved) for _ in range(20)] == [[]] * 20
    with running(is_open=True, **settings) as server:
        assert _ask(server.url, moved) == []
        other = deepcopy(moved) | {"fhirServer": "https://another.example/fhir"}
        assert len(_ask(server.url, other)) == 1


def _ask(url: str, body: Json) -> list[Json]:
    answer = requests.post(f"{url}/cds-services/alp-review", json=body, timeout=20)
    assert answer.status_code == 200
    cards: list[Json] = answer.json()["cards"]
    return cards


def _moved(body: bytes, days: int) -> bytes:
    """The request with its days moved to today."""

    def later(found: re.Match[str]) -> str:
        return str(date.fromisoformat(found[0]) + timedelta(days))

    return re.sub(r"\d{4}-\d\d-\d\d", later, body.decode()).encode()
