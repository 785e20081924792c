"""`check`: runs every vignette of a content folder, and with a site file lists the vignettes it
moves.
"""

from collections.abc import Iterator, Mapping
from datetime import UTC, date, datetime
from typing import Any

import msgspec
from msgspec import Struct
from msgspec.structs import replace

from cds_service.answering import Answering
from cds_service.content import Content, Family
from cds_service.errors import CdsError, ContentError
from cds_service.modes import Mode, switched
from cds_service.terminology import LOINC
from cds_service.vignettes import (
    MeasureCode,
    OrderCode,
    PrefetchKey,
    RequestBuilder,
    Vignette,
    read_as_of,
    read_vignettes,
)


class CardShown(Struct, frozen=True):
    """One card as it is compared: its topic and indicator, and the codes of the orders it suggests.

    A code is written bare when it is LOINC's, else as system|code; several of one order joined
    by +.
    """

    topic: str
    indicator: str
    suggests: tuple[str, ...]

    def __str__(self) -> str:
        return f"{self.topic} {self.indicator}"


class Outcome(Struct, frozen=True):
    """What a vignette came to: the cards, and each difference from what its row says."""

    vignette: Vignette
    cards: tuple[CardShown, ...]
    differences: tuple[str, ...]


def builder_for(content: Content, family: Family) -> RequestBuilder:
    """The request builder of a family: its keys, and the codes written out for each name."""
    codes, measures = content.vignette_codes, content.measures
    results = {
        name: MeasureCode(system, code, measures[name].unit if name in measures else "")
        for name, (system, code) in codes.results.items()
    }
    orders = {name: OrderCode(system, code) for name, (system, code) in codes.orders.items()}
    keys = {key.name: PrefetchKey(key.type, key.codes) for key in family.keys.keys}
    return RequestBuilder(results, orders, keys)


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
    for case in _cases(content):
        yield case.outcome()


def explanations_of(content: Content, vignette_id: str) -> list[dict[str, Any]]:
    """The explanation of the vignette of that id, in each family that has one; raises ContentError
    when none has.
    """
    cases = [x for x in _cases(content) if x.vignette.id == vignette_id]
    if not cases:
        raise ContentError("vignettes.toml", f"vignette {vignette_id}", "there is none of that id")
    return [x.explanation() for x in cases]


class _Case(Struct, frozen=True):
    """One vignette as a call of a service."""

    content: Content
    service_id: str
    vignette: Vignette
    body: bytes
    today: date

    def explanation(self) -> dict[str, Any]:
        """What the service explains; raises CdsError for what it cannot answer."""
        day = self.today
        noon = datetime(day.year, day.month, day.day, 12, tzinfo=UTC)
        here = in_modes(self.content, self.vignette.modes)
        return Answering(here, None, 1.0, lambda: noon).explain(self.service_id, self.body)

    def outcome(self) -> Outcome:
        """What the vignette came to."""
        try:
            found = self.explanation()
        except CdsError as error:
            return Outcome(self.vignette, (), (f"answered {error.status}: {error.text}",))
        cards = tuple(_shown_card(x) for x in found["cards"])
        return Outcome(self.vignette, cards, tuple(_differences(self.vignette, cards, found)))


def _cases(content: Content) -> Iterator[_Case]:
    for family in content.families:
        as_of, vignettes = vignettes_of(family)
        builder = builder_for(content, family)
        by_hook = {service.hook: service.id for service in family.services}
        for vignette in vignettes:
            if vignette.hook not in by_hook:
                why = f"no service of {family.name} answers {vignette.hook}"
                raise ContentError(vignette.file, f"vignette {vignette.id}: hook", why)
            body = msgspec.json.encode(builder.body(vignette, as_of, as_of))
            yield _Case(content, by_hook[vignette.hook], vignette, body, as_of)


def in_modes(content: Content, asked: Mapping[str, Mode]) -> Content:
    """The content with the modes that a vignette asks for; "*" is every topic."""
    return replace(content, modes=switched(content.modes, asked))


def _shown_card(card: Mapping[str, Any]) -> CardShown:
    drafts = [x["actions"][0]["resource"] for x in card.get("suggestions", ())]
    codes = tuple("+".join(map(_code, draft["code"].get("coding", ()))) for draft in drafts)
    return CardShown(card["source"]["topic"]["code"], card["indicator"], codes)


def _code(coding: Mapping[str, str]) -> str:
    system, code = coding["system"], coding["code"]
    return code if system == LOINC else f"{system}|{code}"


# -- what differs from the row -----------------------------------------------------------------


def _differences(
    vignette: Vignette, cards: tuple[CardShown, ...], found: dict[str, Any]
) -> Iterator[str]:
    verdicts = {x["topic"]: x for x in found["verdicts"]}
    shown = tuple((x.topic, x.indicator) for x in cards)
    if shown != vignette.expect:
        expected = ", ".join(" ".join(x) for x in vignette.expect) or "none"
        yield f"cards {listed(cards)}, expected {expected}"
        for topic in _in_one_only(shown, vignette.expect):
            yield f"{topic}: {_why(verdicts.get(topic))}"
    for topic, expected in vignette.verdicts.items():
        verdict = verdicts.get(topic)
        came_to = "no such topic" if verdict is None else _came_to(verdict)
        if came_to != expected and (verdict is None or verdict["verdict"] != expected):
            yield f"{topic} is {came_to}, expected {expected}: {_why(verdict)}"
    suggested = {x.topic: x.suggests for x in cards}
    for topic, codes in vignette.suggests.items():
        if suggested.get(topic) != codes:
            here = _codes(suggested[topic]) if topic in suggested else "nothing: it has no card"
            yield f"{topic} suggests {here}, expected {_codes(codes)}"
    text = msgspec.json.encode(found["cards"]).decode().lower()
    for phrase in vignette.must_not_say:
        if phrase.lower() in text:
            yield f'a card says "{phrase}"'


def _in_one_only(
    shown: tuple[tuple[str, str], ...], expected: tuple[tuple[str, str], ...]
) -> tuple[str, ...]:
    """The topics of the cards that only one of two lists has, each once."""
    differ = [x for x in (*expected, *shown) if (x in shown) != (x in expected)]
    return tuple(dict.fromkeys(topic for topic, _ in differ))


def _why(verdict: Mapping[str, Any] | None) -> str:
    if verdict is None:
        return "there is no such topic"
    code, text = verdict["reason"]["code"], verdict["reason"]["text"]
    named = "" if code in _came_to(verdict).split(" by ") else f" ({code})"
    return f"{_came_to(verdict)}{named}: {text}"


def _came_to(verdict: Mapping[str, Any]) -> str:
    return (
        f"{verdict['verdict']} by {verdict['by']}" if "by" in verdict else str(verdict["verdict"])
    )


def _codes(codes: tuple[str, ...]) -> str:
    return ", ".join(codes) or "no order"


def listed(cards: tuple[CardShown, ...], none: str = "none") -> str:
    """The cards in few words."""
    return ", ".join(map(str, cards)) or none


# -- what a site moves -------------------------------------------------------------------------


class Moved(Struct, frozen=True):
    """A vignette that a site's settings move, and what changes, in few words."""

    vignette: Vignette
    changes: tuple[str, ...]


def moved_by_site(shipped: list[Outcome], here: Content) -> list[Moved]:
    """The vignettes whose cards, indicators or suggested codes are other ones here than as
    shipped.
    """
    before = {(x.vignette.file, x.vignette.id): x.cards for x in shipped}
    outcomes = [(before[x.vignette.file, x.vignette.id], x) for x in run_vignettes(here)]
    return [
        Moved(after.vignette, tuple(_changes(cards, after.cards)))
        for cards, after in outcomes
        if cards != after.cards
    ]


def _changes(before: tuple[CardShown, ...], after: tuple[CardShown, ...]) -> Iterator[str]:
    if [str(x) for x in before] != [str(x) for x in after]:
        yield f"{listed(before, 'no card')} -> {listed(after, 'no card')}"
    then = {x.topic: x.suggests for x in before}
    for card in after:
        codes = then.get(card.topic, card.suggests)
        if codes != card.suggests:
            yield f"{card.topic} suggests {_codes(codes)} -> {_codes(card.suggests)}"
