"""Text from the chart is data: nothing in it is live on a card, and no summary repeats it."""

import json
import re
import unicodedata
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cds_service.answering import Answering
from cds_service.loading import load_content
from tests.exchanges import Json, ago, bundle, now, problem, request, result

requirement = pytest.mark.requirement
HOOKS = Path(__file__).resolve().parents[1] / "hooks"
HOSTILE = {
    "a script": "<script>alert(1)</script>",
    "an image": '<img src=x onerror="alert(1)">',
    "a comment": "<!-- x --><?php x ?>",
    "an address in angle brackets": "<https://evil.example/x>",
    "an entity": "&lt;b&gt;&#60;b&#62;&amp;",
    "a quote that ends an attribute": "\"'><svg/onload=alert(1)>",
    "a link": "[lab](javascript:alert(1))",
    "a link by reference": "[lab][1]\n\n[1]: javascript:alert(1)",
    "a picture": "![x](https://evil.example/x.png)",
    "a bare address": "https://evil.example/x",
    "an address without scheme": "www.evil.example",
    "a mail address": "x@evil.example",
    "emphasis": "**x** _x_ ~~x~~ `x`",
    "blocks": "x\n\n# x\n\n- x\n\n> x\n\n    x\n\n```\nx\n```\n\n| x |\n|---|",
    "a footnote": "x[^1]\n\n[^1]: x",
    "terminal control": "\x1b[31mx\x1b]0;x\x07\x9b31m",
    "other control": "\x00\x01\x08\x7f\x85",
    "right to left": "\u202ex\u202d\u2066x\u2069\u200f",
    "no width": "x\u200b\u2060\ufeffx",
    "line ends of other alphabets": "x\u2028x\u2029x\x0bx\x0cx",
    "a placeholder": "{val} {cause} {0} %s ${x}",
    "very long": "x" * 10_000,
    "many words": "x " * 5_000,
    "many combining marks": "x" + "\u0301" * 300,
    "a character outside the first plane": "\U0001f9b4" * 50,
    "a backslash": "\\\\x\\",
}
TEXTS = ("text", "display", "unit", "conclusion", "valueString")


def poisoned(found: Any, text: str) -> Any:
    """The same JSON with a text in every place where people write."""
    if isinstance(found, list):
        return [poisoned(x, text) for x in found]
    if not isinstance(found, dict):
        return found
    new = {k: text if k in TEXTS else poisoned(v, text) for k, v in found.items()}
    if new.get("resourceType") == "Observation":
        new |= {"note": [{"text": text}], "specimen": {"display": text}}
        new["interpretation"] = [{"coding": [{"code": text, "display": text}], "text": text}]
        new["referenceRange"] = [*new.get("referenceRange", []), {"text": text}]
    return new


def coded(system: str, code: str, days: int = 400) -> Json:
    found = problem(90, code, "x") | {"recordedDate": ago(days)}
    found["code"]["coding"][0]["system"] = f"http://hl7.org/fhir/sid/{system}"
    return found


def report(text: str) -> Json:
    return {
        "resourceType": "DiagnosticReport",
        "id": "r1",
        "status": "final",
        "code": {"text": "CT"},
        "subject": {"reference": "Patient/p1"},
        "effectiveDateTime": ago(9),
        "conclusion": f"Lytic lesion of the femur\n{text}",
    }


def chart(values: tuple[float, ...], *more: Json) -> Json:
    body = request(values, 3, 1)
    body["prefetch"]["more"] = bundle([{**x, "id": f"m{n}"} for n, x in enumerate(more)])
    return body


def ggt(value: float) -> Json:
    return result(0, "2324-2", "GGT", "U/L", value, 5)


PTH = result(0, "2731-8", "PTH", "pg/mL", 190, 5) | {"referenceRange": [{"high": {"value": 65}}]}
PLP = result(0, "62236-5", "PLP", "nmol/L", 410, 5) | {"referenceRange": [{"high": {"value": 125}}]}
RATIO = result(0, "48378-4", "FLC ratio", "{ratio}", 85, 5) | {
    "referenceRange": [{"low": {"value": 0.26}, "high": {"value": 1.65}}]
}
LESION = coded("icd-10-cm", "M89.50")
# Every topic and, of those that print a number, the variant that prints it in its summary.
CHARTS: dict[str, Callable[[], Json]] = {
    "lowAlpPersistent": lambda: chart((28.0, 29.0, 27.0)),
    "lowAlpUnconfirmed": lambda: chart((21.0,)),
    "raisedAlpSourceUnknown": lambda: chart((260.0, 240.0)),
    "raisedAlpHepatobiliary": lambda: chart((260.0, 240.0), ggt(300)),
    "raisedAlpBoneSource": lambda: chart((260.0, 240.0), ggt(20), PTH),
    "raisedAlpWithCancer": lambda: chart((260.0, 240.0), coded("icd-10-cm", "C50.911")),
    "lowAlpRaisedPlp": lambda: chart((21.0,), PLP),
    "lyticLesionWithoutMyelomaScreen": lambda: chart((70.0,), coded("icd-10-cm", "M89.50")),
    "lyticLesionAbnormalMyelomaScreen": lambda: chart((70.0,), LESION, RATIO),
    "raisedAlpInMyeloma": lambda: chart((260.0, 240.0), coded("icd-10-cm", "C90.00")),
}


@cache
def answering() -> Answering:
    return Answering(load_content(HOOKS), None, 1.0, now)


def cards(body: Json) -> dict[str, Any]:
    """The cards by topic."""
    found = answering().cards("alp-review", json.dumps(body).encode()).cards
    return {x.source.topic.code: msgspec.to_builtins(x) for x in found}


LIVE = {
    "a tag": re.compile(r"<[A-Za-z/!?]"),
    "a link or picture": re.compile(r"(?<!\\)\]\(|(?<!\\)\]\["),
    "an address": re.compile(r"\w://|\bwww\.|\w@\w", re.IGNORECASE),
    "a script": re.compile(r"javascript:", re.IGNORECASE),
    "code": re.compile(r"(?<!\\)`"),
    "a heading": re.compile(r"^\s{0,3}#", re.MULTILINE),
    "a quotation": re.compile(r"^\s{0,3}>", re.MULTILINE),
    "a table": re.compile(r"(?<!\\)\|"),
    "a placeholder": re.compile(r"(?<!\\)\{\w+"),
}


def live_in(text: str) -> list[str]:
    """What a reader's software would act on rather than show."""
    found = [name for name, pattern in LIVE.items() if pattern.search(text)]
    kinds = {x: unicodedata.category(x) for x in text if x != "\n"}
    odd = [hex(ord(x)) for x, kind in kinds.items() if kind in ("Cc", "Cf", "Cs", "Zl", "Zp")]
    return found + odd


@pytest.mark.parametrize("topic", CHARTS)
def test_each_chart_gets_its_card_without_any_hostile_text(topic: str) -> None:
    found = cards(CHARTS[topic]())
    assert topic in found
    assert [live_in(x["detail"]) + live_in(x["summary"]) for x in found.values()] == [[]] * len(
        found
    )


@requirement("CAR-02", "CAR-04")
@pytest.mark.parametrize("name", HOSTILE)
@pytest.mark.parametrize("topic", CHARTS)
def test_hostile_text_in_a_chart_is_live_nowhere_and_changes_no_summary(
    topic: str, name: str
) -> None:
    plain, hostile = CHARTS[topic](), poisoned(CHARTS[topic](), HOSTILE[name])
    expected, found = cards(plain), cards(hostile)
    assert topic in found
    assert {k: x["summary"] for k, x in found.items()} == {
        k: x["summary"] for k, x in expected.items()
    }
    for card in found.values():
        assert live_in(card["detail"]) == []
        assert len(card["detail"]) < 5_000
        assert [x["label"] for x in card.get("suggestions", [])] == [
            x["label"] for x in expected[card["source"]["topic"]["code"]].get("suggestions", [])
        ]


@requirement("CAR-04")
@pytest.mark.parametrize("name", HOSTILE)
def test_a_report_that_is_read_for_its_words_is_not_repeated(name: str) -> None:
    body = chart((70.0,), report(HOSTILE[name]))
    found = cards(body)["lyticLesionWithoutMyelomaScreen"]
    assert (
        found["summary"]
        == cards(CHARTS["lyticLesionWithoutMyelomaScreen"]())["lyticLesionWithoutMyelomaScreen"][
            "summary"
        ]
    )
    assert live_in(found["detail"]) == []


DRUG = {
    "resourceType": "MedicationRequest",
    "status": "active",
    "intent": "order",
    "medicationCodeableConcept": {"text": "alendronic acid"},
    "subject": {"reference": "Patient/p1"},
    "authoredOn": ago(500),
}


def called(text: str) -> Json:
    """A diagnosis that has words and no code."""
    return problem(91, "x", "x") | {"recordedDate": ago(400), "code": {"text": text}}


def quoting(text: str) -> Any:
    """The card that quotes a diagnosis."""
    found = cards(chart((70.0,), called(text), DRUG))
    return found["antiresorptiveWithHypophosphatasia"]


@pytest.mark.parametrize("name", HOSTILE)
def test_a_diagnosis_that_is_quoted_is_harmless(name: str) -> None:
    plain, found = quoting("Hypophosphatasia"), quoting(f"Hypophosphatasia. {HOSTILE[name]}")
    assert "The entry reads: Hypophosphatasia." in plain["detail"]
    assert "The entry reads: Hypophosphatasia" in found["detail"]
    assert found["summary"] == plain["summary"]
    assert live_in(found["detail"]) == []
    assert len(found["detail"]) < len(plain["detail"]) + 500


@settings(max_examples=60, deadline=None)
@given(st.text(max_size=90))
def test_no_text_that_is_quoted_is_live(text: str) -> None:
    found = cards(chart((70.0,), called(f"Hypophosphatasia\n{text}"), DRUG))
    assert [live_in(x["detail"]) for x in found.values()] in ([], [[]])


@pytest.mark.parametrize("name", HOSTILE)
def test_a_result_that_is_read_for_its_words_is_named_and_not_repeated(name: str) -> None:
    words = result(0, "24351-9", "SPEP", "", 0, 5)
    del words["valueQuantity"]
    words["valueString"] = f"Monoclonal band, zyzzogeton\n{HOSTILE[name]}"
    found = cards(chart((70.0,), LESION, words))["lyticLesionAbnormalMyelomaScreen"]
    assert f"(SPEP abnormal, {ago(5)})" in found["summary"]
    assert f"- Serum protein electrophoresis on {ago(5)}\n" in found["detail"]
    assert "zyzzogeton" not in found["detail"] and live_in(found["detail"]) == []


@pytest.mark.parametrize("name", HOSTILE)
def test_a_draft_order_repeats_no_text_of_the_chart(name: str) -> None:
    for topic, made in CHARTS.items():
        plain, hostile = cards(made())[topic], cards(poisoned(made(), HOSTILE[name]))[topic]
        for card in (plain, hostile):
            for suggestion in card.get("suggestions", []):
                del suggestion["uuid"]
        assert hostile.get("suggestions") == plain.get("suggestions")


@pytest.mark.parametrize("name", HOSTILE)
def test_the_explanation_of_a_hostile_chart_is_whole(name: str) -> None:
    for made in CHARTS.values():
        body = json.dumps(poisoned(made(), HOSTILE[name])).encode()
        found = answering().explain("alp-review", body)
        assert found["status"] == 200
        json.loads(msgspec.json.encode(found))


@requirement("CAR-02", "CAR-04")
@settings(max_examples=60, deadline=None)
@given(st.text(max_size=40), st.sampled_from([*CHARTS]))
def test_no_text_at_all_is_live_or_in_a_summary(text: str, topic: str) -> None:
    found, expected = cards(poisoned(CHARTS[topic](), text)), cards(CHARTS[topic]())
    assert found[topic]["summary"] == expected[topic]["summary"]
    assert live_in(found[topic]["detail"]) == []


@pytest.mark.parametrize(
    ("unit", "shown"),
    [
        ("U/L", "U/L"),
        ("IU/L", "IU/L"),
        ("[IU]/L", "[IU]/L"),
        ("µkat/L", "µkat/L"),
        ("enzyme unit per liter", "U/L"),
        ("U\u2028/\n\nL", "U/L"),
        (" \u00a0U/L\t", "U/L"),
        ("U/\u212a", None),
    ],
)
def test_a_unit_is_shown_in_a_short_spelling_that_we_know(unit: str, shown: str | None) -> None:
    value = 0.35 if "kat" in unit else 21
    body = chart((21.0,))
    low = body["prefetch"]["results"]["entry"][0]["resource"]
    low["valueQuantity"] = {"value": value, "unit": unit}
    found = cards(body)
    if shown is None:
        assert found == {}
        return
    card = found["lowAlpUnconfirmed"]
    assert f"{value} {shown} (" in card["summary"]
    assert f"ALP {value} " in card["detail"] and live_in(card["detail"]) == []
