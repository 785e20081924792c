"""What the vignettes cannot say of the rows on low ALP: which orders, which words, which number."""

from datetime import UTC, datetime
from functools import cache
from pathlib import Path
from typing import Any

import msgspec
import pytest

from cds_service.answering import Answering
from cds_service.checking import builder_for, vignettes_of
from cds_service.loading import load_content

HOOKS = Path(__file__).resolve().parents[1] / "hooks"
Json = dict[str, Any]


@cache
def whole() -> tuple[Answering, dict[str, Json]]:
    content = load_content(HOOKS)
    [family] = [x for x in content.families if x.name == "alp_review"]
    as_of, vignettes = vignettes_of(family)
    noon = datetime(as_of.year, as_of.month, as_of.day, 12, tzinfo=UTC)
    builder = builder_for(content, family)
    bodies = {x.id: builder.body(x, as_of, as_of) for x in vignettes}
    return Answering(content, None, 1.0, lambda: noon), bodies


def card(body: Json) -> Json:
    found = whole()[0].cards("alp-review", msgspec.json.encode(body)).cards[0]
    return dict(msgspec.to_builtins(found))


def of(vignette: str) -> Json:
    return msgspec.json.decode(msgspec.json.encode(whole()[1][vignette]), type=dict)


def orders(found: Json) -> list[str]:
    """The orders of a card by the names of their templates."""
    topic = found["source"]["topic"]["code"]
    drafts = [x["actions"][0]["resource"]["id"] for x in found.get("suggestions", [])]
    return [x.removeprefix(f"{topic}-") for x in drafts]


@pytest.mark.parametrize(
    ("vignette", "expected"),
    [
        ("low-0-just-below-half", "alp calcium phosphate plp"),
        ("low-3-info", "plp phosphate calcium 25ohd"),
        ("low-3-all-done", ""),
        ("low-4-twice", "plp phosphate calcium 25ohd"),
        ("low-4-aff-29", "plp phosphate calcium 25ohd alpl"),
        ("low-5-one-low", "alpl pea calcium phosphate"),
        ("low-5-all-ordered", ""),
        ("low-5-b6-running", "plp alpl pea calcium phosphate"),
        ("arx-3-by-words", ""),
    ],
)
def test_a_card_offers_these_orders(vignette: str, expected: str) -> None:
    assert orders(card(of(vignette))) == expected.split()


def test_a_test_worth_repeating_is_offered_although_done_and_not_while_on_order() -> None:
    body = of("low-5-b6-running")
    order = {
        "resourceType": "ServiceRequest",
        "id": "s1",
        "status": "active",
        "intent": "order",
        "code": {"coding": [{"system": "http://loinc.org", "code": "62236-5"}]},
        "subject": {"reference": "Patient/p1"},
        "authoredOn": "2026-01-10",
    }
    body["prefetch"]["orders"]["entry"] = [{"resource": order}]
    assert orders(card(body)) == ["alpl", "pea", "calcium", "phosphate"]


def test_a_limit_is_shown_in_the_unit_that_was_sent() -> None:
    body = of("low-4-twice")
    for entry in body["prefetch"]["alp"]["entry"]:
        entry["resource"] |= {
            "valueQuantity": {"value": 0.38, "unit": "ukat/L"},
            "referenceRange": [{"low": {"value": 0.58}, "high": {"value": 1.74}}],
        }
    assert "ALP 0.38, twice below 0.4167, on bisphosphonate" in card(body)["summary"]


@pytest.mark.parametrize(
    ("vignette", "said"),
    [
        ("arx-3-by-words", "(words of the problem list), and denosumab"),
        ("arx-3-by-words", "The entry reads: Hypophosphatasia, mild form."),
        ("arx-3-variant", "(ALPL variant reported), and zoledronate"),
        ("arx-3-asfotase-long-ago", "(asfotase alfa on record), and bisphosphonate"),
        ("low-3-very-low-is-not-deferred", "Possible acquired cause: hypothyroidism."),
        ("low-4-feature-is-not-deferred", "Possible acquired cause: hypothyroidism."),
        ("low-3-denosumab-60-mg", "denosumab not to be delayed or stopped without"),
        ("low-0-problem-list-failed-calcium-high", "**Not checked:** problem list."),
        ("low-5-one-low", "PLP 410 nmol/L on 2025-12-01, 20 to 125"),
    ],
)
def test_a_card_says_this_in_its_detail(vignette: str, said: str) -> None:
    assert said in card(of(vignette))["detail"]


def test_a_code_of_its_own_is_not_quoted() -> None:
    assert "The entry reads" not in card(of("VN08"))["detail"]


def test_a_history_sent_under_an_unknown_key_may_lack_the_values_before_a_drug() -> None:
    body = of("low-3-info")
    assert "older values may be missing" not in card(body)["detail"]
    body["prefetch"]["results"] = body["prefetch"].pop("alp")
    found = card(body)
    assert found["source"]["topic"]["code"] == "lowAlpBeforeAntiresorptive"
    assert "older values may be missing" in found["detail"]
