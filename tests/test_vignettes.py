"""Every vignette holds over HTTP, and the table is whole: each card and variant is earned."""

from collections import Counter
from collections.abc import Iterator
from datetime import UTC, date, datetime
from functools import cache
from pathlib import Path
from typing import Any

import pytest
from flask.testing import FlaskClient

from cds_service.app import create_app
from cds_service.checking import builder_for, vignettes_of
from cds_service.config import Settings
from cds_service.content import Content, Family
from cds_service.content_files import Variant
from cds_service.loading import load_content
from cds_service.modes import Mode
from cds_service.vignettes import Vignette
from tests import words

HOOKS = Path(__file__).parent.parent / "hooks"


@cache
def content() -> Content:
    return load_content(HOOKS)


def families() -> Iterator[Family]:
    return iter(content().families)


ROWS = [
    pytest.param(family, vignette, id=vignette.id)
    for family in families()
    for vignette in vignettes_of(family)[1]
]


@cache
def client(modes: tuple[tuple[str, Mode], ...], today: date) -> FlaskClient:
    noon = datetime(today.year, today.month, today.day, 12, tzinfo=UTC)
    return create_app(Settings(open=True, topic_modes=dict(modes)), now=lambda: noon).test_client()


def answer(family: Family, vignette: Vignette, today: date, path: str) -> Any:
    as_of, _ = vignettes_of_family(family.name)
    body = builder_for(content(), family).body(vignette, as_of, today)
    asked = client(tuple(sorted(vignette.modes.items())), today)
    [service] = [x.id for x in family.services if x.hook == vignette.hook]
    response = asked.post(f"{path}/{service}", json=body)
    assert response.status_code == 200, response.get_data(as_text=True)
    return response.get_json()


@cache
def vignettes_of_family(name: str) -> tuple[date, list[Vignette]]:
    return vignettes_of(next(x for x in families() if x.name == name))


@pytest.mark.parametrize(("family", "vignette"), ROWS)
def test_a_vignette_gets_exactly_the_cards_and_verdicts_of_its_row(
    family: Family, vignette: Vignette
) -> None:
    as_of, _ = vignettes_of_family(family.name)
    cards = answer(family, vignette, as_of, "/cds-services")["cards"]
    shown = [(x["source"]["topic"]["code"], x["indicator"]) for x in cards]
    assert shown == list(vignette.expect), vignette.says
    text = " ".join(f"{x['summary']} {x['detail']}" for x in cards).lower()
    assert not [x for x in vignette.must_not_say if x.lower() in text], vignette.says
    explained = answer(family, vignette, as_of, "/explain")
    verdicts = {x["topic"]: x for x in explained["verdicts"]}
    for topic, expected in vignette.verdicts.items():
        verdict = verdicts[topic]
        by = f" by {verdict['by']}" if " by " in expected else ""
        assert f"{verdict['verdict']}{by}" == expected, f"{vignette.says} {verdict}"
    recorded = words.recorded().get(vignette.id)
    assert words.digest(cards, explained) == recorded, "other words: see tests/words.py"


def what_is_said(family: Family, vignette: Vignette, as_of: date) -> str:
    """The digest of a row's cards and of its explanation."""
    cards = answer(family, vignette, as_of, "/cds-services")["cards"]
    return words.digest(cards, answer(family, vignette, as_of, "/explain"))


def has_partial_date(vignette: Vignette) -> bool:
    """A partial date does not stay the same distance from today when the whole row moves."""
    return any(
        isinstance(item, dict) and any(is_partial(value) for value in item.values())
        for items in vignette.row.values()
        for item in (items if isinstance(items, list | tuple) else [items])
    )


def is_partial(value: object) -> bool:
    parts = value.split("-") if isinstance(value, str) else []
    return 0 < len(parts) < 3 and len(parts[0]) == 4 and all(x.isdigit() for x in parts)


@pytest.mark.parametrize(("today", "half"), [(date(2028, 2, 29), 0), (date(2027, 12, 31), 1)])
def test_the_vignettes_hold_whatever_today_is(today: date, half: int) -> None:
    moved = []
    for family in families():
        for vignette in vignettes_of_family(family.name)[1][half::2]:
            if has_partial_date(vignette):
                continue
            cards = answer(family, vignette, today, "/cds-services")["cards"]
            shown = tuple((x["source"]["topic"]["code"], x["indicator"]) for x in cards)
            if shown != vignette.expect:
                moved.append(f"{vignette.id}: {shown}, not {vignette.expect}")
    assert not moved


Seen = tuple[str, str, str]


def fired() -> Counter[Seen]:
    """The cards of the table: family, topic, indicator."""
    return Counter(
        (family.name, *card)
        for family in families()
        for vignette in vignettes_of_family(family.name)[1]
        for card in vignette.expect
    )


def variants() -> Iterator[tuple[str, str, str, Variant]]:
    """Every variant with its family, topic and name; a topic may stand in two families."""
    for family in families():
        for topic in family.topics:
            for name, variant in topic.card.variant.items():
                yield family.name, topic.code, name, variant


def test_every_topic_speaks_in_some_row() -> None:
    spoken = {(family, topic) for family, topic, _ in fired()}
    assert spoken == {(family, topic) for family, topic, _, _ in variants()}


def test_every_indicator_of_every_card_is_earned() -> None:
    owed = {
        (family, topic, indicator)
        for family, topic, _, variant in variants()
        for indicator in (variant.indicator, *variant.indicator_at.values())
    }
    capped = {(*x, "info") for *x, indicator in owed if indicator == "warning"}
    assert owed <= set(fired()) <= owed | capped


def test_every_variant_of_every_card_is_earned() -> None:
    lacking = {(family, topic, name) for family, topic, name, _ in variants()}
    for family in families():
        as_of, vignettes = vignettes_of_family(family.name)
        for vignette in vignettes:
            owed = {(family.name, topic) for topic, _ in vignette.expect}
            if owed & {(x, topic) for x, topic, _ in lacking}:
                found = answer(family, vignette, as_of, "/explain")["verdicts"]
                spoken = [x for x in found if x["verdict"] == "fired"]
                lacking -= {(family.name, x["topic"], x["variant"]) for x in spoken}
    assert not lacking
