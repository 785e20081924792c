"""Shadow is as it would be: what is recorded of a topic in shadow is what would have been shown had
all such topics been on, and nothing that is shown depends on it.
"""

import json
import shutil
from collections import Counter
from collections.abc import Iterator
from contextlib import suppress
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner
from msgspec.structs import replace
from sqlalchemy import func, select

from cds_service.checking import in_modes
from cds_service.cli import group
from cds_service.config import fixtures_dir, migrations_dir
from cds_service.content import Content
from cds_service.errors import StoreDown
from cds_service.fhir_endpoint import FhirEndpoint, load_patients
from cds_service.loading import load_content
from cds_service.modes import Mode
from cds_service.store import CARD, CHARTS_SEEN, Store
from tests.exchanges import TODAY, Json, resolved
from tests.loopback import wait_until
from tests.test_overrides import HOOKS, Desk, content, request
from tests.trust import Hospital, client_row

requirement = pytest.mark.requirement

# -- one call ----------------------------------------------------------------------------------


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    found = Store(f"sqlite:///{tmp_path}/store.sqlite")
    found.migrate(migrations_dir())
    yield found
    found.close()


def desk(store: Store, modes: dict[str, Mode], of: Content | None = None) -> Desk:
    found = Desk(store, with_repeats=True)
    found.answering = replace(found.answering, content=in_modes(of or content(), modes))
    return found


def by_another(row: str) -> Json:
    """A chart that another user opens."""
    body = request(row)
    body["context"]["userId"] = "Practitioner/another"
    return body


def recorded(store: Store) -> Counter[str]:
    """How many cards of each topic would have been shown."""
    asked = select(CARD.c.topic, func.count()).where(CARD.c.shadow.is_(True))
    with store.reading() as connection:
        rows = connection.execute(asked.group_by(CARD.c.topic)).all()
    return Counter({topic: count for topic, count in rows})


def shown_and_recorded(at: Desk, body: Json) -> tuple[list[str], list[str]]:
    before = recorded(at.store)
    cards = at.cards(body)
    at.issued.flush()
    return sorted(cards), sorted((recorded(at.store) - before).elements())


X, HI_1, HI_2 = "extremeAlp", "raisedAlpSourceUnknown", "raisedAlpHepatobiliary"
PAGET, LOW, PLP = "pagetAlpReview", "lowAlpPersistent", "lowAlpRaisedPlp"
TUM, LYT = "raisedAlpWithCancer", "lyticLesionWithoutMyelomaScreen"
BEFORE = "lowAlpBeforeAntiresorptive"
THREE = "order-tum-hi2-lyt"  # their cards in this order: warning, warning, info
ONE_CALL: list[tuple[str, dict[str, Mode], list[str], list[str]]] = [
    ("V26", {"*": "on"}, [LYT, HI_1], []),
    ("V26", {"*": "shadow"}, [], [LYT, HI_1]),
    ("V26", {LYT: "shadow"}, [HI_1], [LYT]),
    # who yields to whom: X-1 silences HI-1, LOW-5 the others
    ("V54", {HI_1: "shadow"}, [X], []),
    ("V54", {X: "shadow"}, [HI_1], [X]),
    ("V54", {X: "shadow", HI_1: "shadow"}, [], [X]),
    ("V54", {X: "off", HI_1: "shadow"}, [], [HI_1]),
    ("low-3-silenced-by-low-5", {"*": "shadow"}, [], [PLP]),
    ("low-3-silenced-by-low-5", {PLP: "shadow"}, [BEFORE], [PLP]),
    ("low-3-silenced-by-low-5", {"*": "shadow", PLP: "off"}, [], [BEFORE]),
    # nothing left to order; not in hospital; in shadow while in hospital
    ("ggt-on-order-as-an-undated-draft", {HI_1: "shadow"}, [], []),
    ("pag1-inpatient", {PAGET: "shadow"}, [], []),
    ("x1-inpatient", {X: "off"}, [], [HI_1]),
    ("x1-inpatient", {X: "off", HI_1: "shadow"}, [], [HI_1]),
    ("x1-inpatient", {}, [X], []),
    (THREE, {"*": "shadow"}, [], [TUM, HI_2, LYT]),
]


@pytest.mark.parametrize(("row", "modes", "shown", "would"), ONE_CALL)
def test_what_would_have_been_shown_is_recorded_and_nothing_else(
    store: Store, row: str, modes: dict[str, Mode], shown: list[str], would: list[str]
) -> None:
    found = shown_and_recorded(desk(store, modes), request(row))
    assert found == (sorted(shown), sorted(would))


def changed(folder: Path, *lines: tuple[str, str, str]) -> Content:
    """The content with some lines otherwise: file, old and new text of each."""
    shutil.copytree(HOOKS, folder)
    for file, old, new in lines:
        text = (folder / "alp_review" / file).read_text("utf-8")
        assert text.count(old) == 1
        (folder / "alp_review" / file).write_text(text.replace(old, new), "utf-8")
    return load_content(folder)


@pytest.fixture(scope="module")
def two_cards(tmp_path_factory: pytest.TempPathFactory) -> Content:
    """The content with at most two cards to a call."""
    folder = tmp_path_factory.mktemp("content") / "hooks"
    return changed(folder, ("service.toml", "most_cards = 3", "most_cards = 2"))


@pytest.mark.parametrize(
    ("modes", "shown", "would"),
    [
        ({}, [TUM, HI_2], []),
        ({LYT: "shadow"}, [TUM, HI_2], []),
        ({TUM: "shadow"}, [HI_2, LYT], [TUM]),
        ({TUM: "shadow", LYT: "shadow"}, [HI_2], [TUM]),
        ({"*": "shadow"}, [], [TUM, HI_2]),
    ],
)
def test_the_limit_of_cards_counts_those_in_shadow_among_themselves_only(
    store: Store,
    two_cards: Content,
    modes: dict[str, Mode],
    shown: list[str],
    would: list[str],
) -> None:
    found = shown_and_recorded(desk(store, modes, two_cards), request(THREE))
    assert found == (sorted(shown), sorted(would))


def test_a_card_that_was_set_aside_takes_no_place_from_one_in_shadow(
    store: Store, two_cards: Content
) -> None:
    desk(store, {}, two_cards).set_aside(by_another(THREE), TUM, "acute-illness")
    at = desk(store, {HI_2: "shadow", LYT: "shadow"}, two_cards)
    assert shown_and_recorded(at, request(THREE)) == ([], sorted([HI_2, LYT]))


HI_1_THERE = ("cards/raised_alp_source_unknown.toml", 'while_inpatient = "shadow"')


def test_what_holds_in_hospital_never_shows_what_is_in_shadow(store: Store, tmp_path: Path) -> None:
    of = changed(tmp_path / "hooks", (*HI_1_THERE, 'while_inpatient = "on"'))
    at = desk(store, {X: "off", HI_1: "shadow"}, of)
    assert shown_and_recorded(at, request("x1-inpatient")) == ([], [HI_1])


def test_a_topic_in_shadow_in_hospital_silences_nobody_there(store: Store, tmp_path: Path) -> None:
    there = ("cards/extreme_alp.toml", 'mode  = "on"', 'mode = "on"\nwhile_inpatient = "shadow"')
    of = changed(tmp_path / "hooks", there, (*HI_1_THERE, ""))
    assert shown_and_recorded(desk(store, {}, of), request("x1-inpatient")) == ([HI_1], [X])


def test_the_explanation_says_who_would_hold_it_back_all_the_same(
    store: Store, two_cards: Content
) -> None:
    for at, row, topic, also in (
        (desk(store, {HI_1: "shadow"}), "V54", HI_1, "; if it were on, by extremeAlp"),
        (desk(store, {X: "shadow"}), "V54", X, ""),
        (desk(store, {LYT: "shadow"}, two_cards), THREE, LYT, "; if it were on, by most-cards"),
    ):
        found = at.verdict(request(row), topic)
        assert (found["verdict"], found["by"]) == ("suppressed", "shadow")
        text = f"Every condition held; held back by shadow{also}."
        assert found["reason"] == {"code": "shadow", "text": text}


def test_a_card_that_the_user_would_have_seen_is_recorded_once_and_shown_when_it_is_on(
    store: Store,
) -> None:
    in_shadow, on = desk(store, {LOW: "shadow"}), desk(store, {})
    body = request("V02")
    nobody: tuple[list[str], list[str]] = ([], [])
    assert shown_and_recorded(in_shadow, body) == ([], [LOW])
    assert shown_and_recorded(in_shadow, body) == nobody
    in_shadow.day = on.day = 13
    assert shown_and_recorded(in_shadow, body) == nobody
    assert in_shadow.verdict(body, LOW)["reason"]["text"].endswith("on, by shown-lately.")
    assert shown_and_recorded(in_shadow, by_another("V02")) == ([], [LOW])
    assert shown_and_recorded(on, body) == ([LOW], [])  # it was recorded, and never seen
    in_shadow.day = 26
    assert shown_and_recorded(in_shadow, body) == nobody
    in_shadow.day = 27
    assert shown_and_recorded(in_shadow, body) == ([], [LOW])


def test_what_was_set_aside_would_not_have_been_shown(store: Store) -> None:
    on, in_shadow = desk(store, {}), desk(store, {LOW: "shadow"})
    on.set_aside(by_another("V02"), LOW, "acute-illness")
    assert shown_and_recorded(in_shadow, request("V02")) == ([], [])
    assert in_shadow.verdict(request("V02"), LOW)["reason"]["text"].endswith("on, by override.")
    in_shadow.day = 30
    assert shown_and_recorded(in_shadow, request("V02")) == ([], [LOW])


def test_without_the_store_the_calls_go_on(store: Store, tmp_path: Path) -> None:
    at = desk(store, {LOW: "shadow"})
    store.close()
    for file in tmp_path.iterdir():
        file.unlink()
    assert at.cards(request("V02")) == {}
    assert at.verdict(request("V02"), LOW)["by"] == "shadow"
    with suppress(StoreDown):
        at.issued.flush()


# -- a week of one hospital ----------------------------------------------------------------------

SHADOWED, OTHERS = "https://shadowed.example", "https://others.example"
# On, these silence no other topic of these patients.
IN_SHADOW = (LOW, "lyticLesionAbnormalMyelomaScreen", HI_2, PAGET)
PATIENTS = (
    *("extreme-alp", "low-alp-persistent", "low-alp-persistent-mild", "lytic-lesion-m-protein"),
    *("raised-alp-hepatobiliary", "raised-alp-with-cancer", "low-alp-infant"),
    *("mild-single-rise", "paget-alp-overdue", "antiresorptive-in-hpp"),
)
UNCHANGED = "low-alp-persistent-mild"  # her chart is opened every day and has nothing new
FIRST = TODAY - timedelta(days=7)
DAYS = [FIRST + timedelta(days=n) for n in range(7)]


class Charts:
    """What the clients send of each patient: the chart as of a day."""

    def __init__(self, templates: dict[str, str]) -> None:
        self.templates = templates
        self._made: dict[date, FhirEndpoint] = {}

    def request(self, name: str, day: date) -> Json:
        at = FIRST if name == UNCHANGED else day
        if at not in self._made:
            patients = load_patients(fixtures_dir() / "patients", at)
            bundles = [x.bundle for x in patients if str(x.patient["id"]) in PATIENTS]
            self._made[at] = FhirEndpoint(bundles, "https://hospital.example/fhir")
        endpoint = self._made[at]
        return {
            "hook": "patient-view",
            "hookInstance": "5a6f0f5e-7a39-4f0b-9f0c-1f1d0e7f9a11",
            "context": {"userId": "Practitioner/dr1", "patientId": name},
            "prefetch": {key: resolved(endpoint, x, name) for key, x in self.templates.items()},
        }


class Week:
    """Both clients' users open the same charts, twice a day; `shown` is what they saw: a card for
    each client, day and topic.
    """

    def __init__(self, charts: Charts) -> None:
        self.charts = charts
        self.shown: list[tuple[str, date, str]] = []
        self.calls = 0

    def pass_day(self, hospital: Hospital, day: date) -> None:
        for hour in (9, 15):
            hospital.at = datetime(day.year, day.month, day.day, hour, tzinfo=UTC)
            for name in PATIENTS:
                body = self.charts.request(name, day)
                for issuer in (SHADOWED, OTHERS):
                    answer = hospital.ask(issuer, body)
                    assert answer.status_code == 200
                    cards = answer.get_json()["cards"]
                    self.shown += [(issuer, day, x["source"]["topic"]["code"]) for x in cards]
            self.calls += 2 * len(PATIENTS)
            wait_until(lambda: seen(hospital.store) == self.calls, "answers are not noted")

    def of(self, issuer: str, *days: date, in_shadow: bool) -> Counter[str]:
        """How many cards a client was shown, of the topics in shadow or of the others."""
        topics = (x for whose, day, x in self.shown if whose == issuer and day in days)
        return Counter(x for x in topics if (x in IN_SHADOW) == in_shadow)


def seen(store: Store) -> int:
    with store.reading() as connection:
        return connection.execute(select(func.sum(CHARTS_SEEN.c.count))).scalar() or 0


def report(hospital: Hospital, *arguments: str) -> dict[str, Json]:
    """What the operator is told, by topic."""
    url = hospital.settings.store_url
    asked = ["report", "--store", url, "--format", "json", *arguments]
    found = CliRunner().invoke(group, asked)
    assert found.exit_code == 0, found.output
    lines: list[Json] = json.loads(found.stdout)
    assert len({x["topic"] for x in lines}) == len(lines)  # one content: nothing else has changed
    return {x["topic"]: x for x in lines}


def test_a_week_in_shadow_says_what_would_have_been_shown_and_on_shows_just_that(
    tmp_path: Path, templates: dict[str, str]
) -> None:
    def row(issuer: str, **members: Any) -> str:
        return client_row(issuer, keys="keys.json", **members)

    in_shadow = row(SHADOWED, modes=dict.fromkeys(IN_SHADOW, "shadow"))
    week, hospital = Week(Charts(templates)), Hospital(tmp_path, in_shadow, row(OTHERS))
    for day in DAYS:
        week.pass_day(hospital, day)

    # No card of theirs in any answer, and the other cards as anybody's.
    assert not week.of(SHADOWED, *DAYS, in_shadow=True)
    others = week.of(OTHERS, *DAYS, in_shadow=False)
    assert week.of(SHADOWED, *DAYS, in_shadow=False) == others and len(others) >= 4
    # What was recorded is what those saw for whom the topics were on.
    would = week.of(OTHERS, *DAYS, in_shadow=True)
    assert {*would} == {*IN_SHADOW}
    assert would[LOW] == 7 + 1  # one chart is new every day, and one stays as it was
    told = report(hospital)
    assert {x: told[x]["shadowCards"] for x in IN_SHADOW} == would
    assert {x: told[x]["cards"] for x in IN_SHADOW} == would
    assert sum(x["shadowCards"] for x in told.values()) == would.total()

    # The eighth day, and it is on: the same cards come, and nothing else is otherwise.
    hospital = Hospital(tmp_path, row(SHADOWED), row(OTHERS))
    week.pass_day(hospital, TODAY)
    first = report(hospital, "--to", str(FIRST))
    expected = {x: first[x]["shadowCards"] for x in IN_SHADOW}
    assert week.of(SHADOWED, TODAY, in_shadow=True) == expected
    before = week.of(SHADOWED, DAYS[-1], in_shadow=False)
    assert week.of(SHADOWED, TODAY, in_shadow=False) == before
    told = report(hospital, "--from", str(TODAY))
    assert {x: told[x]["shadowCards"] for x in IN_SHADOW} == dict.fromkeys(IN_SHADOW, 0)
