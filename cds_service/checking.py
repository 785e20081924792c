"""`check`: runs every vignette of a content folder, and with a site file lists the vignettes it
moves.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from datetime import UTC, date, datetime
from pathlib import Path
from typing import Any

import msgspec

from cds_service.answering import Answering
from cds_service.content import Content, Family
from cds_service.content_files import Mode
from cds_service.errors import CdsError
from cds_service.loading import load_content
from cds_service.vignettes import (
    MeasureCode,
    OrderCode,
    PrefetchKey,
    RequestBuilder,
    Vignette,
    read_as_of,
    read_vignettes,
)


@dataclass(frozen=True, slots=True)
class Outcome:
    """What a vignette came to: the cards, the verdicts, and each difference from what its
    row says.
    """

    vignette: Vignette
    cards: tuple[tuple[str, str], ...]
    differences: tuple[str, ...]


def builder_for(content: Content, family: Family) -> RequestBuilder:
    """The request builder of a family: its keys, and the codes that its content gives each name."""
    sets = family.knowledge.terminology.sets
    named = {x.removeprefix("obs-").replace("-", "_"): x for x in sets if x.startswith("obs-")}
    named |= content.vignette_names
    measures = {}
    for name, value_set in named.items():
        system, code, _ = sets[value_set].first_coding
        measures[name] = MeasureCode(system, code, "")
    for name, measure in content.measures.items():
        system, code, _ = sets[measure.value_set].first_coding
        measures[name] = MeasureCode(system, code, measure.unit)
    orders = {
        name: OrderCode(x.codings[0]["system"], x.codings[0]["code"])
        for name, x in content.orders.items()
    }
    keys = {key.name: PrefetchKey(key.type, key.codes) for key in family.keys.keys}
    return RequestBuilder(measures, orders, keys)


def vignettes_of(family: Family) -> tuple[date, list[Vignette]]:
    """The day a family's vignettes are written for, and its vignettes; none when it has no such
    file.
    """
    path = family.folder / "vignettes.toml"
    if not path.is_file():
        return date.today(), []
    return read_as_of(path), read_vignettes(path)


def run_vignettes(content: Content) -> Iterator[Outcome]:
    """What every vignette comes to under the content, on the day its file is written for."""
    for family in content.families:
        as_of, vignettes = vignettes_of(family)
        builder = builder_for(content, family)
        by_hook = {service.hook: service.id for service in family.services}
        for vignette in vignettes:
            body = msgspec.json.encode(builder.body(vignette, as_of, as_of))
            yield _run(content, by_hook[vignette.hook], vignette, body, as_of)


def _run(
    content: Content, service_id: str, vignette: Vignette, body: bytes, today: date
) -> Outcome:
    noon = datetime(today.year, today.month, today.day, 12, tzinfo=UTC)
    try:
        found = Answering(in_modes(content, vignette.modes), None, 1.0, lambda: noon).explain(
            service_id, body
        )
    except CdsError as error:
        return Outcome(vignette, (), (f"answered {error.status}: {error.text}",))
    cards = tuple((x["source"]["topic"]["code"], x["indicator"]) for x in found["cards"])
    return Outcome(vignette, cards, tuple(_differences(vignette, cards, found)))


def in_modes(content: Content, asked: Mapping[str, str]) -> Content:
    """The content with the modes that a vignette asks for; "*" is every topic."""
    modes: dict[str, Mode] = dict(content.modes)
    for name, mode in asked.items():
        for topic in modes if name == "*" else (name,):
            modes[topic] = mode  # type: ignore[assignment]  # read_vignettes allows the three only
    return replace(content, modes=modes)


def _differences(
    vignette: Vignette, cards: tuple[tuple[str, str], ...], found: dict[str, Any]
) -> Iterator[str]:
    if cards != vignette.expect:
        yield f"cards {_listed(cards)}, expected {_listed(vignette.expect)}"
    verdicts = {x["topic"]: x for x in found["verdicts"]}
    for topic, expected in vignette.verdicts.items():
        verdict = verdicts.get(topic)
        shown = "no such topic" if verdict is None else _shown(verdict)
        if shown != expected and (verdict is None or verdict["verdict"] != expected):
            yield f"{topic} is {shown}, expected {expected}"
    text = msgspec.json.encode(found["cards"]).decode().lower()
    for phrase in vignette.must_not_say:
        if phrase.lower() in text:
            yield f'a card says "{phrase}"'


def _shown(verdict: Mapping[str, Any]) -> str:
    return (
        f"{verdict['verdict']} by {verdict['by']}" if "by" in verdict else str(verdict["verdict"])
    )


def _listed(cards: tuple[tuple[str, str], ...]) -> str:
    return ", ".join(f"{topic} {indicator}" for topic, indicator in cards) or "none"


def moved_by_site(
    folder: Path, site: Path | None, modes: Mapping[str, str]
) -> list[tuple[Outcome, Outcome]]:
    """The vignettes whose cards a site's settings change: as shipped, and here."""
    shipped = {x.vignette.id: x for x in run_vignettes(load_content(folder))}
    here = run_vignettes(load_content(folder, site, modes))
    return [(shipped[x.vignette.id], x) for x in here if shipped[x.vignette.id].cards != x.cards]
