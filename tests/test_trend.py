"""The picture of results over time: which points it shows, hollow or not, in which limits, and that
it can be read at any size and whatever a chart holds.
"""

import random
import re
import xml.etree.ElementTree as ET
from collections.abc import Sequence
from datetime import date
from decimal import Decimal
from functools import cache
from itertools import combinations
from pathlib import Path
from typing import Any

import msgspec
import pytest
from msgspec.structs import replace

from cds_service.axes import day_ticks, value_axis, value_ticks
from cds_service.config import Settings
from cds_service.content import Content
from cds_service.evaluation import review
from cds_service.evidence import Undecided
from cds_service.facts import PatientFacts
from cds_service.loading import load_content
from cds_service.playground import shown as plain
from cds_service.prefetch import Chart, Source
from cds_service.resources import (
    Condition,
    MedicationRequest,
    Observation,
    Patient,
    Resource,
)
from cds_service.trend import NO_LIMITS, NO_UNIT, Panel, Point, Trend, trends
from cds_service.trend_drawing import NARROW, WIDE, Sheet, Way, days_of, drawing
from cds_service.trend_limits import held
from cds_service.trend_page import svg
from tests.exchanges import TODAY, Json, ago, alp, problem, result

BOTH = pytest.mark.parametrize("sheet", [WIDE, NARROW], ids=lambda x: x.name)
STYLE = Path(__file__).resolve().parents[1] / "cds_service" / "static" / "trend.css"
KATAL = {"unit": "µkat/L", "code": "ukat/L", "system": "http://unitsofmeasure.org"}


@cache
def content() -> Content:
    return load_content(Settings().hooks_dir)


def read(kind: type[Resource], made: Json) -> Any:
    return msgspec.json.decode(msgspec.json.encode(made), type=kind)


def facts(
    *own: Json, foreign: Sequence[Json] = (), born: str = "1956-11-01", **about: str
) -> PatientFacts:
    """The facts of a woman of 70, or of whom `born` and `about` say."""
    resources: dict[type[Resource], list[Resource]] = {}
    for kind in (Observation, Condition, MedicationRequest):
        resources[kind] = [read(kind, x) for x in own if x["resourceType"] == kind.__name__]
    patient = read(Patient, {"id": "p1", "birthDate": born, "gender": "female", **about})
    others: list[Resource] = [read(Observation, x) for x in foreign]
    family = content().families[0]
    sources = {key.name: Source(key, "answered") for key in family.keys.keys}
    chart = Chart(patient=patient, resources=resources, foreign=others, sources=sources)
    return PatientFacts(chart, family.knowledge, TODAY.toordinal())


def trend(*own: Json, **about: Any) -> Trend:
    [found] = trends(facts(*own, **about), content())
    return found


def points(*own: Json, **about: Any) -> tuple[Point, ...]:
    return trend(*own, **about).panels[0].points


def within(made: Json, low: float | None, high: float | None, unit: str = "U/L") -> Json:
    """The result with printed limits."""
    printed = {"low": low, "high": high}
    limits = {k: {"value": x, "unit": unit} for k, x in printed.items() if x is not None}
    return {**made, "referenceRange": [limits]}


def changed(made: Json, **members: Any) -> Json:
    return {k: x for k, x in {**made, **members}.items() if x is not None}


def amount(value: float, **members: str) -> Json:
    return {"value": value, **members}


def drug(number: int, text: str, start: str | None, end: str = "", status: str = "active") -> Json:
    made: Json = {
        "resourceType": "MedicationRequest",
        "id": f"m{number}",
        "intent": "order",
        "status": status,
        "subject": {"reference": "Patient/p1"},
        "medicationCodeableConcept": {"text": text},
    }
    if start:
        made["authoredOn"] = start
    if end:
        made["dispenseRequest"] = {"validityPeriod": {"end": end}}
    return made


# -- points ------------------------------------------------------------------------------------

USED = alp(1, 50, 10)
# What was sent; what is drawn of it; why it is hollow or has no place.
POINTS = [
    ("plain", USED, {"sent": "50 U/L", "number": 50, "used": True, "why": ""}),
    ("bound", changed(USED, valueQuantity={**USED["valueQuantity"], "comparator": "<"}),
     {"sent": "<50 U/L", "number": 50, "comparator": "<", "used": True}),
    ("other-unit", changed(USED, valueQuantity=amount(0.5, **KATAL)),
     {"sent": "0.5 µkat/L", "used": True, "why": ""}),
    ("preliminary", changed(USED, status="preliminary"),
     {"number": 50, "used": False, "why": "status preliminary"}),
    ("unit-not-known", changed(USED, valueQuantity=amount(7, unit="King-Armstrong units")),
     {"sent": "7 King-Armstrong units", "number": None, "used": False, "why": "unit not known"}),
    ("no-unit", within(changed(USED, valueQuantity=amount(7)), 35, 104, ""),
     {"sent": "7", "number": None, "low": None, "used": True, "why": NO_UNIT}),
    ("no-unit-no-limits", changed(USED, valueQuantity=amount(7)),
     {"number": None, "used": False, "why": NO_LIMITS}),
    ("no-number", changed(USED, valueQuantity=None, valueString="haemolysed"),
     {"sent": "haemolysed", "number": None, "used": False, "why": "no usable number"}),
    ("nothing", changed(USED, valueQuantity=None),
     {"sent": "no value", "number": None, "used": False}),
    ("no-date", changed(USED, effectiveDateTime=None),
     {"moment": None, "number": 50, "used": False, "why": "no usable date"}),
    ("not-plausible", changed(USED, valueQuantity=amount(-3, unit="U/L")),
     {"number": None, "used": False, "why": "number not plausible"}),
    ("too-high", changed(USED, valueQuantity=amount(99_999, unit="U/L")),
     {"number": 99_999, "used": False, "why": "number not plausible"}),
    ("look-alike", changed(USED, code={"text": "Alkaline phosphatase"}),
     {"number": 50, "used": False, "why": "looks like it, but carries no known code"}),
]  # fmt: skip


@pytest.mark.parametrize(("sent", "drawn"), [x[1:] for x in POINTS], ids=[x[0] for x in POINTS])
def test_a_result_is_drawn_as_far_as_it_can_be_read(sent: Json, drawn: Json) -> None:
    found = points(sent, alp(2, 60, 400))
    [point] = [x for x in found if x.reference == "Observation/o1"]
    assert {name: getattr(point, name) for name in drawn} == drawn
    assert [x.used for x in found if x.reference == "Observation/o2"] == [True]


def test_a_result_of_somebody_else_is_named_without_its_value() -> None:
    [point] = points(foreign=[changed(USED, subject={"reference": "Patient/p2"})])
    assert (point.sent, point.number, point.used) == ("not shown", None, False)
    assert point.why == "belongs to another patient"
    assert "50" not in re.sub(r"\d{4}-\d\d-\d\d", "", str(point))


def test_points_are_in_order_of_their_dates_and_undated_ones_last() -> None:
    undated = changed(alp(9, 44, 0), effectiveDateTime=None)
    found = points(undated, alp(1, 50, 10), alp(2, 51, 700), alp(3, 52, 90))
    assert [x.reference[-1] for x in found] == ["2", "3", "1", "9"]


@pytest.mark.parametrize(("said", "days"), [("2024", 366), ("2024-02", 29), ("2024-02-03", 1)])
def test_a_partial_date_is_all_the_days_that_it_can_mean(said: str, days: int) -> None:
    [point] = points(changed(USED, effectiveDateTime=said))
    assert point.moment is not None
    assert point.moment.last - point.moment.first + 1 == days
    assert ('class="whisker"' in drawing(trend(changed(USED, effectiveDateTime=said)), WIDE, "t")) \
        == (days > 1)  # fmt: skip


def test_a_value_that_says_nothing_about_a_low_result_is_hollow_once_rules_have_looked() -> None:
    spoilt = changed(within(alp(1, 9, 10), 35, 104), note=[{"text": "Haemolysed specimen, EDTA"}])
    patient = facts(spoilt, within(alp(2, 28, 300), 35, 104), within(alp(3, 27, 600), 35, 104))
    family, service = content().families[0], content().families[0].services[0]
    review(family, service, patient, content().modes, also_off=True)
    [found] = trends(patient, content())
    whys = {x.reference: (x.used, x.why) for x in found.panels[0].points}
    assert whys["Observation/o1"] == (False, content().words.set_aside["spoilt_specimen"])
    assert whys["Observation/o2"] == (True, "")


# -- limits ------------------------------------------------------------------------------------

# Birth date, result, and the limits and lines that it is owed.
LIMITS = [
    ("report", "1956-11-01", within(USED, 35, 104), (35, 104, 35, 25)),
    ("report-above-the-cap", "1956-11-01", within(USED, 45, 120), (45, 120, 40, 25)),
    ("report-below-the-floor", "1956-11-01", within(USED, 12, 120), (30, 120, 30, 25)),
    ("report-between", "1956-11-01", within(USED, 25, 120), (25, 120, 30, 25)),
    ("none", "1956-11-01", USED, (30, 130, 30, 25)),
    ("high-only", "1956-11-01", within(USED, None, 110), (30, 110, 30, 25)),
    ("unusual-method", "1956-11-01", within(USED, 80, 300), (80, 300, 80, 48)),
    ("child", "2020-11-01", within(USED, 150, 350), (150, 350, 150, 90)),
    ("child-in-an-adult-s-limits", "2020-11-01", within(USED, 35, 350), (142, 335, 113.6, 85.2)),
    ("child-without-limits", "2020-11-01", USED, (142, 335, 142, 85.2)),
]


@pytest.mark.parametrize(
    ("born", "sent", "owed"), [x[1:] for x in LIMITS], ids=[x[0] for x in LIMITS]
)
def test_limits_are_those_that_the_rules_apply(
    born: str, sent: Json, owed: tuple[float, ...]
) -> None:
    [point] = points(sent, born=born)
    assert point.low is not None and point.high is not None
    assert [float(x) for x in (point.low, point.high, *point.lines) if x is not None] == [*owed]
    words = content().words.limit_from
    assert any(f"({x})" in point.limits for x in words.values())


def test_the_second_panel_has_the_limit_for_the_sex_and_no_lines() -> None:
    found = trend(result(1, "2324-2", "GGT", "U/L", 44, 30))
    [point] = found.panels[1].points
    assert (point.low, point.high, point.lines) == (None, Decimal(40), ())
    assert found.panels[0].points == ()


def test_without_what_a_definition_needs_the_limits_are_those_of_the_report() -> None:
    def lacks_data(patient: PatientFacts) -> list[Any]:
        raise Undecided(("conditions",))

    plan = content().trend
    assert plan is not None
    first = replace(plan.panels[0], judged_by=lacks_data)
    lacking = replace(content(), trend=replace(plan, panels=(first,)))
    [found] = trends(facts(within(USED, 45, 104)), lacking)
    [point] = found.panels[0].points
    assert (point.low, point.high, point.used) == (Decimal(45), Decimal(104), True)
    assert point.lines == () and 'class="line' not in drawing(found, WIDE, "t")


# -- limits that hold on some days only --------------------------------------------------------

YOUNG = "1994-11-01"
USUAL, PREGNANT = (35.0, 104.0, (35.0, 25.0)), (17.0, 229.0, (17.0, None))


def pregnancy(onset: int, end: int | None = None) -> Json:
    """Pregnant since so many days ago, and until so many; she counts as such for 84 d more."""
    made = problem(8, "77386006", "Pregnant")
    made["onsetDateTime"] = ago(onset)
    if end is not None:
        made["abatementDateTime"] = ago(end)
        made["clinicalStatus"]["coding"][0]["code"] = "resolved"
    return made


def usual(number: int, days: int) -> Json:
    return within(alp(number, 60, days), 35, 104)


def fracture(days: int) -> Json:
    return changed(problem(9, "125605004", "Fracture of bone"), onsetDateTime=ago(days))


# The chart, and which limits hold from how many days ago on.
ON_SOME_DAYS = [
    ("before-and-while", [usual(1, 700), usual(2, 20), pregnancy(200)],
     [(None, USUAL), (200, PREGNANT)]),
    ("while-only", [fracture(900), usual(1, 190), usual(2, 20), pregnancy(200)],
     [(None, USUAL), (200, PREGNANT)]),
    ("while-and-after", [fracture(1500), usual(1, 700), usual(2, 10), pregnancy(900, 630)],
     [(None, USUAL), (900, PREGNANT), (545, USUAL)]),
    ("no-value-while", [usual(1, 700), usual(2, 10), pregnancy(500, 400)],
     [(None, USUAL), (500, None), (315, USUAL)]),
    ("all-the-time", [usual(1, 190), usual(2, 20), pregnancy(200)], [(None, PREGNANT)]),
    ("year-alone", [usual(1, 700), changed(usual(2, 0), effectiveDateTime="2026"), pregnancy(100)],
     [(None, USUAL), (431.25, PREGNANT)]),
]  # fmt: skip


@pytest.mark.parametrize(
    ("own", "owed"), [x[1:] for x in ON_SOME_DAYS], ids=[x[0] for x in ON_SOME_DAYS]
)
def test_limits_of_some_days_hold_on_those_and_no_longer(
    own: list[Json], owed: list[tuple[float | None, Any]]
) -> None:
    found = trend(*own, born=YOUNG)
    runs = held(found.panels[0], days_of(found))
    said = [
        None if x.low is None or x.high is None
        else (float(x.low), float(x.high), tuple(y and float(y) for y in x.lines))
        for _, _, x in runs
    ]  # fmt: skip
    assert said == [limits for _, limits in owed]
    for (first, _, _), (days, _) in zip(runs, owed, strict=True):
        assert days is None or first == found.today - days - 0.5
    assert (runs[0][0], runs[-1][1]) == days_of(found)


def test_a_man_has_the_limits_of_every_day() -> None:
    found = trend(usual(1, 700), usual(2, 300), pregnancy(200), born=YOUNG, gender="male")
    assert len(held(found.panels[0], days_of(found))) == 1 and found.panels[0].notes == ()


@BOTH
def test_a_line_is_not_drawn_above_the_one_before_it_and_a_note_says_so(sheet: Sheet) -> None:
    found = trend(usual(1, 700), usual(2, 20), pregnancy(200), born=YOUNG)
    [_, point] = found.panels[0].points
    assert point.said_lines == ("17", "25") and point.lines == (Decimal(17), None)
    root = ET.fromstring(drawing(found, sheet, "t"))
    assert [x.text for x in root.iter() if x.get("class") == "limit"] == ["229", "17"]
    [band] = [x for x in root.iter() if x.get("class") == "band"][1:]
    [very_low] = [x for x in root.iter() if x.get("class") == "line line-1"]
    ends = re.findall(r"H([\d.]+)", very_low.get("d") or "")
    assert float(ends[-1]) == pytest.approx(float(band.get("x", 0)), abs=0.2)
    said = " ".join("".join(ET.fromstring(svg(found)).itertext()).split())
    assert f"ALP: 17 to 229 (limits for pregnancy) from {ago(200)}." in said
    assert (
        "ALP: “very low below 25 U/L” is not drawn where it would lie above “low below 17 U/L”. "
        "It is a limit for adults outside pregnancy"
    ) in said


def test_a_line_that_is_nowhere_drawn_has_no_place_in_the_legend() -> None:
    html = svg(trend(usual(1, 190), pregnancy(200), born=YOUNG))
    legend = html[html.index('class="legend"') :].partition("</ul>")[0]
    assert "ALP: low below" in legend and "very low" not in legend


# -- units -------------------------------------------------------------------------------------


def panel(*own: Json) -> Panel:
    return trend(*own).panels[0]


def test_results_that_all_came_in_one_unit_are_drawn_in_it() -> None:
    found = panel(
        within(changed(USED, valueQuantity=amount(0.4, **KATAL)), 0.58, 1.74, "ukat/L"),
        within(changed(alp(2, 1, 90), valueQuantity=amount(0.5, **KATAL)), 0.58, 1.74, "ukat/L"),
    )
    assert found.unit == "µkat/L"
    assert [round(float(x.number or 0), 6) for x in found.points] == [0.5, 0.4]
    assert {round(float(x.low or 0), 6) for x in found.points} == {0.58}


def test_results_in_several_units_are_drawn_in_one_and_listed_as_sent() -> None:
    katal = within(changed(USED, valueQuantity=amount(0.4, **KATAL)), 0.58, 1.74, "ukat/L")
    found = panel(katal, within(alp(2, 60, 90), 35, 104))
    assert found.unit == "U/L"
    old, new = found.points
    assert (float(old.number or 0), old.sent) == (60, "60 U/L")
    assert (round(float(new.number or 0), 1), new.sent) == (24.0, "0.4 µkat/L")
    assert new.limits.startswith("0.58 to 1.74 (") and old.limits.startswith("35 to 104 (")


def katal(number: int, value: float, days: int, low: float = 0.58) -> Json:
    made = changed(alp(number, 1, days), valueQuantity=amount(value, **KATAL))
    return within(made, low, 1.74, "ukat/L")


@pytest.mark.parametrize(
    ("low", "said", "very_low"),
    [(0.58, "0.58", "0.42"), (0.6, "0.6", "0.42"), (0.583, "0.583", "0.417")],
)
@BOTH
def test_a_limit_that_was_converted_is_as_precise_as_what_the_laboratory_sends(
    sheet: Sheet, low: float, said: str, very_low: str
) -> None:
    found = trend(katal(1, 0.4, 10, low), katal(2, 0.4, 90, low))
    assert [x.said_lines for x in found.panels[0].points] == [(said, very_low)] * 2
    root = ET.fromstring(drawing(found, sheet, "t"))
    assert [x.text for x in root.iter() if x.get("class") == "limit"] == ["1.74", said, very_low]


# -- lanes -------------------------------------------------------------------------------------

# A record, its bar as days before today, and its dates in words.
DRUGS = [
    (drug(1, "Alendronate 70 mg weekly", ago(900), ago(400), "completed"), (900, 400, -331)),
    (drug(1, "Alendronate 70 mg weekly", ago(900)), (900, 0, -731)),
    (drug(1, "Zoledronic acid 5 mg", ago(900)), (900, 900, -196)),
    (drug(1, "Denosumab 60 mg", ago(300), ago(120), "completed"), (300, 120, -154)),
]


@pytest.mark.parametrize(("record", "owed"), DRUGS)
def test_a_drug_is_a_bar_to_its_last_dose_and_on_to_where_it_may_act(
    record: Json, owed: tuple[int, int, int]
) -> None:
    found = trend(record)
    [bar] = found.lanes[0].bars
    assert bar.acts_until is not None and bar.first is not None and bar.last is not None
    assert tuple(found.today - x for x in (bar.first, bar.last, bar.acts_until)) == owed
    assert bar.title == record["medicationCodeableConcept"]["text"]
    drawn = drawing(found, WIDE, "t")
    assert 'class="bar"' in drawn and 'class="tail"' in drawn


def test_beneath_the_picture_drugs_are_called_by_the_narrowest_of_our_sets() -> None:
    names = {
        "Aclasta 5 mg": "Zoledronic acid",
        "Alendronate 70 mg": "Bisphosphonate",
        "Prolia 60 mg": "Denosumab",
    }
    records = [drug(n, text, ago(300 - n)) for n, text in enumerate(names)]
    found = trend(*records, problem(1, "23382007", "Stress fracture"))
    assert [x.kind for x in found.lanes[0].bars] == [*names.values()]
    html = svg(found)
    listed = html[html.index('class="lanes"') :].partition("</ul>")[0]
    said = " ".join("".join(ET.fromstring(f"<ul {listed}</ul>").itertext()).split())
    assert said.startswith(f"Antiresorptives: Zoledronic acid {ago(300)} (may act until ")
    assert f"Bisphosphonate since {ago(299)}" in said and "Denosumab since" in said
    assert "Fractures: Stress fracture" in said
    assert not any(text in listed or text in drawing(found, WIDE, "t") for text in names)


def test_a_drug_that_runs_without_a_date_is_drawn_over_all_time_as_open() -> None:
    found = trend(drug(1, "Alendronate 70 mg", None), alp(1, 50, 10))
    [bar] = found.lanes[0].bars
    assert (bar.first, bar.last, bar.remark) == (None, found.today, "without a start date")
    assert 'class="bar open"' in drawing(found, WIDE, "t")


@pytest.mark.parametrize(
    ("status", "remark", "kind"),
    [("confirmed", "", 'class="moment"'), ("provisional", "unconfirmed", 'class="moment unsure"')],
)
def test_a_fracture_is_a_mark_on_its_day(status: str, remark: str, kind: str) -> None:
    made = problem(1, "125605004", "Fracture of bone")
    made["onsetDateTime"] = ago(500)
    made["verificationStatus"]["coding"][0]["code"] = status
    found = trend(made)
    [bar] = found.lanes[1].bars
    assert (bar.first, bar.last, bar.remark) == (found.today - 500, found.today - 500, remark)
    assert kind in drawing(found, WIDE, "t")


def test_a_code_of_two_sets_is_one_mark_and_other_problems_are_none() -> None:
    hip = problem(1, "263102004", "Fracture subluxation of joint")
    found = trend(
        hip,
        problem(2, "5913000", "Fracture of neck of femur"),
        problem(3, "38341003", "Hypertension"),
    )
    assert len({x.reference for x in found.lanes[1].bars}) == len(found.lanes[1].bars)
    assert "Condition/c3" not in {x.reference for x in found.lanes[1].bars}


def test_what_nobody_answered_is_not_said_to_be_absent() -> None:
    patient = facts(USED)
    for key in content().families[0].keys.keys:
        patient.chart.sources[key.name] = Source(key, "failed")
    [found] = trends(patient, content())
    assert [x.answered for x in found.panels] == [True, False]
    assert [x.answered for x in found.lanes] == [False, False]
    html = svg(found)
    assert "GGT: not known" in html and "Fractures: not known" in html
    assert "GGT: none on file" in svg(trend(USED))


# -- the drawing -------------------------------------------------------------------------------


def ggt(number: int, value: float, days: int) -> Json:
    return result(number, "2324-2", "GGT", "U/L", value, days)


def _many() -> list[Json]:
    chance = random.Random(1)
    made = [
        within(alp(n, round(chance.uniform(20, 300)), n * 3), 35, 104 + n // 500)
        for n in range(2000)
    ]
    for n in range(0, 2000, 17):
        made[n]["status"] = ("preliminary", "unknown")[n % 2]
    return [*made, *(ggt(5000 + n, 20 + n % 50, n * 14) for n in range(400))]


def _odd() -> list[Json]:
    return [
        *(x[1] | {"id": f"odd{n}", "effectiveDateTime": ago(n * 4)} for n, x in enumerate(POINTS)),
        within(alp(50, 60, 2000), 35, 104),
        within(alp(51, 9999, 1900), 35, 104),
        within(alp(52, 61, 1880), 35, 104),
        within(alp(53, 9000, 1870), 35, 104),
        changed(alp(54, 66, 0), effectiveDateTime="2023"),
        ggt(55, 900, 5), ggt(56, 20, 5), ggt(57, 30, 5),
        drug(1, "Alendronate 70 mg", "2014-01"), drug(2, "Zoledronic acid", "2020-02-02"),
        problem(1, "125605004", "Fracture of bone"),
    ]  # fmt: skip


def _close() -> list[Json]:
    """Three values of a week that are not used, for two reasons in turn."""
    made = [within(alp(n, value, days), 40, 129) for n, value, days in
            [(2, 24, 9), (3, 19, 7), (4, 21, 3)]]  # fmt: skip
    for one, status in zip(made, ("preliminary", "unknown", "preliminary"), strict=True):
        one["status"] = status
    return made


CHARTS: dict[str, list[Json]] = {
    "nothing": [],
    "one": [within(alp(1, 60, 40), 35, 104)],
    "today": [alp(1, 60, 0), alp(2, 61, 0)],
    "one day": [alp(n, 40 + 10 * n, 50) for n in range(6)],
    "twenty years": [within(alp(n, 30 + n % 17 * 6, 7300 - n * 60), 35, 104) for n in range(120)],
    "outliers only": [alp(1, 9999, 10), alp(2, 8000, 20)],
    "only hollow": [changed(USED, status="preliminary")],
    "no place": [changed(USED, valueQuantity=amount(5, unit="furlongs"))],
    "undated": [changed(USED, effectiveDateTime=None)],
    "katal": [
        within(
            changed(alp(n, 1, n * 90), valueQuantity=amount(0.0123 + n, **KATAL)),
            0.0123,
            1.234,
            "ukat/L",
        )
        for n in range(3)
    ],
    "close": [within(alp(1, 78, 228), 40, 129), *_close()],
    "odd": _odd(),
    "2,000": _many(),
}
EVERY = pytest.mark.parametrize("name", CHARTS)


@cache
def pictured(name: str) -> Trend:
    return trend(*CHARTS[name])


@cache
def drawn(name: str, sheet: Sheet) -> ET.Element:
    return ET.fromstring(drawing(pictured(name), sheet, "t"))


@cache
def figured(name: str) -> str:
    return svg(pictured(name))


def tag(element: ET.Element) -> str:
    return element.tag.rpartition("}")[2]


@EVERY
@BOTH
def test_the_drawing_is_an_image_with_a_name_and_a_description(name: str, sheet: Sheet) -> None:
    root = drawn(name, sheet)
    ids = {x.get("id"): x.text for x in root if tag(x) in ("title", "desc")}
    assert root.get("role") == "img"
    assert ids[root.get("aria-labelledby")] == f"ALP and GGT over time, as of {TODAY}"
    assert (ids[root.get("aria-describedby")] or "").startswith("ALP: ")


@EVERY
@BOTH
def test_looks_are_in_the_style_sheet_and_nothing_runs(name: str, sheet: Sheet) -> None:
    elements = [*drawn(name, sheet).iter()]
    assert {tag(x) for x in elements} <= {
        *("svg", "title", "desc", "path", "rect", "circle", "text")
    }
    allowed = {
        *("class", "viewBox", "role", "id", "aria-labelledby", "aria-describedby"),
        *("d", "x", "y", "cx", "cy", "r", "width", "height", "text-anchor"),
    }
    assert {key for x in elements for key in x.attrib} <= allowed
    classes = {x for e in elements for x in (e.get("class") or "").split()}
    styled = set(re.findall(r"\.([a-z][a-z0-9-]*)", STYLE.read_text("utf-8")))
    assert classes <= styled | {"limit"}


def extent(text: ET.Element) -> tuple[float, float, float, float]:
    """The least room that a text takes, at 6.6 units a character and a height of 9."""
    width, x, y = 6.6 * len(text.text or ""), float(text.get("x", 0)), float(text.get("y", 0))
    left = {"start": x, "middle": x - width / 2, "end": x - width}[text.get("text-anchor", "start")]
    return left, y - 9, left + width, y


@EVERY
@BOTH
def test_no_text_lies_over_another_or_outside(name: str, sheet: Sheet) -> None:
    root = drawn(name, sheet)
    _, _, width, height = map(float, (root.get("viewBox") or "").split())
    texts = {x: extent(x) for x in root.iter() if tag(x) == "text"}
    for text, (left, top, right, bottom) in texts.items():
        assert left >= -1 and right <= width + 1 and top >= 0 and bottom <= height, text.text
    for one, other in combinations(texts, 2):
        a, b = texts[one], texts[other]
        meets = a[0] < b[2] and b[0] < a[2] and a[1] < b[3] and b[1] < a[3]
        assert not meets, (one.text, other.text)


@EVERY
@BOTH
def test_every_dated_point_is_drawn_inside_filled_or_hollow(name: str, sheet: Sheet) -> None:
    root = drawn(name, sheet)
    marks = [x for x in root.iter() if x.get("class") in ("used", "unused")]
    owed = [x for p in pictured(name).panels for x in p.points if x.moment is not None]
    assert len(marks) == len(owed)
    assert sum(x.get("class") == "used" for x in marks) == sum(x.used for x in owed)
    for mark in marks:
        if tag(mark) == "circle":
            assert sheet.left <= float(mark.get("cx", 0)) <= sheet.width - sheet.right


@EVERY
@BOTH
def test_a_number_beside_a_hollow_point_leads_to_its_reason(name: str, sheet: Sheet) -> None:
    found = pictured(name)
    listed = dict(re.findall(r"<li><b>\((\d+)\)</b> (.*?):\n", figured(name)))
    every = [x for panel in found.panels for x in panel.points if x.why]
    assert sorted(listed.values()) == sorted({x.why for x in every})
    texts = [x.text or "" for x in drawn(name, sheet).iter() if x.get("class") == "reason"]
    shown = {x for text in texts for x in re.findall(r"\d+", text[text.index("(") :])}
    assert shown == {
        n for n, why in listed.items() if any(x.why == why and x.moment for x in every)
    }


def led_to(root: ET.Element, x: str | None, y: str | None) -> str:
    """The number that a line leads to from a hollow point."""
    paths = [e.get("d") or "" for e in root.iter() if e.get("class") == "leader"]
    [way] = [d for d in paths if d.startswith(f"M{x} {y}L")]
    end_x, end_y = map(float, way.partition("L")[2].split())
    boxes = {e: extent(e) for e in root.iter() if e.get("class") == "reason"}
    [text] = [
        e.text or ""
        for e, (left, top, right, bottom) in boxes.items()
        if left - 12 <= end_x <= right + 12 and top - 8 <= end_y <= bottom + 8
    ]
    return text.strip("()")


@BOTH
def test_each_of_several_hollow_points_that_lie_close_leads_to_its_own_reason(sheet: Sheet) -> None:
    found = pictured("close")
    listed = dict(re.findall(r"<li><b>\((\d+)\)</b> (.*?):\n", figured("close")))
    root = drawn("close", sheet)
    marks = [x for x in root.iter() if x.get("class") == "unused"]
    owed = [x.why for x in found.panels[0].points if not x.used]
    assert owed == ["status preliminary", "status unknown", "status preliminary"]
    told = [led_to(root, x.get("cx"), x.get("cy")) for x in marks]
    assert [listed[x] for x in told] == owed


def test_lines_to_different_reasons_do_not_cross() -> None:
    paths = [e.get("d") or "" for e in drawn("close", WIDE).iter() if e.get("class") == "leader"]
    ends = [[*map(float, re.findall(r"[\d.]+", d))] for d in paths]
    ways = [Way(str(n), *x) for n, x in enumerate(ends) if x[0] < WIDE.width - WIDE.right]
    assert len(ways) == 3
    meet = [x for x in combinations(ways, 2) if x[0].crosses(x[1])]
    assert all((a.to_x, a.to_y) == (b.to_x, b.to_y) for a, b in meet)  # of one reason


@BOTH
def test_what_lies_far_beyond_is_a_triangle_with_its_value(sheet: Sheet) -> None:
    made = [within(alp(n, 60 + n, 100 * n), 35, 104) for n in range(6)]
    root = ET.fromstring(drawing(trend(*made, within(alp(9, 9999, 250), 35, 104)), sheet, "t"))
    assert [x.text for x in root.iter() if x.text == "9999"]
    [mark] = [x for x in root.iter() if x.get("class") == "used" and tag(x) == "path"]
    heights = [float(x.get("cy", 0)) for x in root.iter() if tag(x) == "circle"]
    assert max(heights) - min(heights) > 3  # the others still tell from each other
    assert min(heights) > float((mark.get("d") or "").split(" ")[1].split("h")[0])


def test_the_band_is_as_it_was_at_each_point() -> None:
    made = [within(alp(1, 50, 900), 35, 104), within(alp(2, 50, 500), 35, 104)]
    found = trend(*made, within(alp(3, 50, 100), 40, 130))
    root = ET.fromstring(drawing(found, WIDE, "t"))
    bands = [x for x in root.iter() if x.get("class") == "band"]
    [first, second] = [(float(x.get("x", 0)), float(x.get("width", 0))) for x in bands]
    assert first[0] == WIDE.left and second[0] == pytest.approx(first[0] + first[1], abs=0.2)
    assert second[0] + second[1] == pytest.approx(WIDE.width - WIDE.right, abs=0.2)
    assert [x.text for x in root.iter() if x.get("class") == "limit"] == ["130", "40", "25"]


def test_time_before_birth_is_not_drawn() -> None:
    assert days_of(trend(alp(1, 50, 30_000), born="2000-01-01"))[0] > date(1998, 1, 1).toordinal()
    before, _ = days_of(trend(alp(1, 50, 3000), born="2000-01-01"))
    assert before < TODAY.toordinal() - 3000


# -- the figure --------------------------------------------------------------------------------


def figure(name: str) -> ET.Element:
    return ET.fromstring(figured(name))


@EVERY
def test_the_tables_have_every_point_and_every_bar(name: str) -> None:
    found, root = pictured(name), figure(name)
    rows = [x for x in root.iter("tr") if x.find("td") is not None]
    owed = [len(x.points) for x in found.panels] + [len(x.bars) for x in found.lanes]
    assert len(rows) == sum(owed)
    said = [" ".join("".join(x.itertext()).split()) for x in rows]
    for point in [x for panel in found.panels for x in panel.points][:50]:
        assert any(point.sent in x and point.reference in x and point.limits in x for x in said)


@EVERY
def test_ids_are_there_once_and_what_names_them_is_there(name: str) -> None:
    root = figure(name)
    ids = [x.get("id") for x in root.iter() if x.get("id")]
    assert len(ids) == len(set(ids))
    for key in ("aria-labelledby", "aria-describedby"):
        assert {x.get(key) for x in root.iter() if x.get(key)} <= set(ids)
    other = svg(pictured(name), "second")
    assert not {x for x in ids if f'id="{x}"' in other}


HOSTILE = (
    "<script>alert(1)</script>", "<img src=x onerror=alert(1)>", "\" onmouseover=\"alert(1)",
    "'><svg onload=alert(1)>", "[x](javascript:alert(1)) **b**", "\u202egnitirw\u2066",
    "]]>", "{{ 7 * 7 }}", "x" * 10_000, "&lt;b&gt;",
)  # fmt: skip


@pytest.mark.parametrize("text", HOSTILE, ids=lambda x: x[:12])
def test_hostile_text_is_text(text: str) -> None:
    fracture = problem(1, "125605004", text)
    fracture["code"]["text"] = text
    found = trend(
        changed(USED, id=text, valueQuantity=amount(5, unit=text)),
        changed(alp(2, 50, 5), valueQuantity=None, valueString=text),
        changed(alp(3, 50, 5), specimen={"display": text}),
        drug(1, f"Zoledronic acid {text}", ago(30)),
        fracture,
    )
    root = ET.fromstring(svg(found))
    assert {tag(x) for x in root.iter()} <= {
        *("figure", "figcaption", "svg", "title", "desc", "path", "rect", "circle", "text"),
        *("ul", "li", "b", "bdi", "span", "details", "summary", "div", "table", "caption", "thead"),
        *("tbody", "tr", "th", "td"),
    }
    assert not {k for x in root.iter() for k in x.attrib if k.startswith("on") or k == "style"}
    isolated = ["".join(x.itertext()) for x in root.iter("bdi")]
    assert plain(f"Zoledronic acid {text}") in isolated
    assert max(map(len, isolated)) <= 201 and not {"\u202e", "\u2066"} & {*"".join(isolated)}
    for x in root.iter():
        if tag(x) != "bdi":
            assert text not in (x.text or "") + (x.tail or ""), tag(x)


def test_a_content_without_the_file_draws_nothing() -> None:
    assert trends(facts(USED), replace(content(), trend=None)) == ()


# -- axes --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("values", "limits"),
    [
        ([50], []),
        ([0], []),
        ([1e-9], []),
        ([28, 9999], [35, 104]),
        ([5e11, 6e11], []),
        ([-3, 4], []),
    ],
)
def test_an_axis_has_round_ends_around_most_values(
    values: list[float], limits: list[float]
) -> None:
    ends = value_axis(values, limits[:1], limits[1:])
    assert ends is not None and ends[0] < ends[1]
    near = [x for x in values if not limits or x < 1000]
    assert ends[0] <= min(near) and max(near) <= ends[1]
    for most in (3, 4, 6):
        ticks = value_ticks(ends, most)
        assert 1 <= len(ticks) <= most and ends[0] <= ticks[0] <= ticks[-1] <= ends[1] * 1.0001


@pytest.mark.parametrize("span", [10, 30, 42, 90, 200, 365, 800, 3000, 7300, 36_500])
@pytest.mark.parametrize("room", [33, 80])
def test_dates_along_an_axis_have_room_and_are_two_at_least(span: int, room: int) -> None:
    first = date(2005, 3, 9).toordinal()
    ticks = day_ticks(first, first + span, room)
    assert len(ticks) >= 2
    assert sum(len(text) + 3 for _, text in ticks) <= room
    for day, text in ticks:
        assert first <= day <= first + span
        assert date.fromordinal(day).isoformat().startswith(text)
