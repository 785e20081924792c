"""What every list of cards keeps, whatever was asked: the rules of CDS Hooks 2.0 that a machine can
decide without the schemas of FHIR, each by its id in the checklist.
"""

import re
from collections.abc import Collection, Iterator
from typing import Any
from urllib.parse import parse_qsl, urlsplit

Found = Iterator[str]

ABOUT_ORDERS = "davinci-associated-resource"  # HL7's own name, which is no reverse DNS
_CARD = {
    *("uuid", "summary", "detail", "indicator", "source", "suggestions", "selectionBehavior"),
    *("overrideReasons", "links", "extension"),
}
_INDICATORS = ["info", "warning", "critical"]
_SOURCE = {"label", "url", "icon", "topic"}
_ACTION = {"type", "description", "resource"}
_LINK = {"label", "url", "type", "appContext", "autolaunchable"}
_RANDOM_UUID = re.compile(r"[0-9a-f]{8}-[0-9a-f]{4}-4[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}")
_MARKUP = re.compile(r"<[a-zA-Z!/]|!\[|\]\(|javascript:|data:")


def broken_rules(answer: Any) -> list[str]:
    """Each rule that an answer of a service breaks, by its id in the checklist."""
    if not isinstance(answer, dict) or not isinstance(answer.get("cards"), list):
        return ["RSP-01 no list of cards"]
    cards = answer["cards"]
    if shapeless := [x for card in cards for x in _lists(card)]:
        return shapeless
    found = [*_envelope(answer), *empties(answer, ""), *_ids(cards)]
    return found + [x for card in cards for x in _card(card)]


def _lists(card: dict[str, Any]) -> Found:
    for name in ("suggestions", "overrideReasons", "links"):
        if not isinstance(card.get(name, []), list):
            yield f"CAR-10 CAR-11 CAR-12 {name} is no list"


def is_text(value: Any) -> bool:
    """Whether it is a text that says something."""
    return isinstance(value, str) and value.strip() != ""


def _envelope(answer: dict[str, Any]) -> Found:
    if set(answer) - {"cards", "extension"}:
        yield f"RSP-04 SYS-02 EXT-01 members beside cards: {set(answer)}"
    yield from _extension(answer.get("extension", {}))
    if len(answer["cards"]) > 3:
        yield "RSP-06 more than three cards"
    shown = [card.get("indicator") for card in answer["cards"]]
    urgency = [_INDICATORS.index(x) for x in shown if x in _INDICATORS]
    if urgency != sorted(urgency, reverse=True):
        yield "RSP-06 the most urgent is not first"


def _extension(extension: Any, known: Collection[str] = ()) -> Found:
    if not isinstance(extension, dict):
        yield f"EXT-01 {extension!r}"
        return
    own = {*extension} - {*known}
    if not all(re.fullmatch(r"[a-z]+(\.[\w-]+){2,}", name) for name in own):
        yield f"EXT-02 {own}"


def _about_orders(references: Any) -> Found:
    """Da Vinci Coverage Requirements Discovery, "Linking cards to requests"."""
    if not isinstance(references, list) or not all(
        isinstance(x, str) and re.fullmatch(r"[A-Z][A-Za-z]+/[^/\s]+", x) for x in references
    ):
        yield f"EXT-05 no list of Type/id: {references!r}"
    elif len({*references}) != len(references):
        yield f"EXT-05 an order given twice: {references!r}"


def empties(value: Any, path: str) -> Found:
    """Every null, blank text and empty member below a value; `path` is where it stands itself."""
    if value in (None, "", [], {}) and value is not False and path != ".cards":
        yield f"JSN-02 {path} is {value!r}"
    elif isinstance(value, str) and not value.strip():
        yield f"JSN-04 {path} is blank"
    elif isinstance(value, dict):
        for name, item in value.items():
            yield from empties(item, f"{path}.{name}")
    elif isinstance(value, list):
        for item in value:
            yield from empties(item, f"{path}[]")


def _ids(cards: list[dict[str, Any]]) -> Found:
    suggestions = [x for card in cards for x in card.get("suggestions", [])]
    uuids = [x.get("uuid") for x in [*cards, *suggestions]]
    if len(set(uuids)) != len(uuids):
        yield "CAR-07 SUG-02 a uuid given twice"
    for given in uuids:
        if not isinstance(given, str) or not _RANDOM_UUID.fullmatch(given):
            yield f"CAR-07 SUG-02 {given!r} is no lower-case random UUID"
    resources = [a.get("resource") for x in suggestions for a in x.get("actions", [])]
    drafts = [x.get("id") for x in resources if isinstance(x, dict)]
    if len(set(drafts)) != len(drafts):
        yield "ACT-08 two drafts with one id"


def _card(card: dict[str, Any]) -> Found:
    if set(card) - _CARD:
        yield f"CAR-13 JSN-09 {set(card) - _CARD}"
    yield from _extension(card.get("extension", {}), {ABOUT_ORDERS})
    if isinstance(extension := card.get("extension"), dict) and ABOUT_ORDERS in extension:
        yield from _about_orders(extension[ABOUT_ORDERS])
    yield from _summary(card.get("summary"))
    detail = card.get("detail", "none")
    if not isinstance(detail, str) or _MARKUP.search(detail):
        yield f"CAR-03 CAR-04 {detail!r}"
    if card.get("indicator") not in _INDICATORS:
        yield f"CAR-05 {card.get('indicator')!r}"
    yield from _source(card.get("source"))
    yield from _suggestions(card)
    yield from _reasons(card.get("overrideReasons", []))
    for link in card.get("links", []):
        yield from _link(link)


def _summary(summary: Any) -> Found:
    if not is_text(summary):
        yield f"CAR-01 {summary!r}"
    elif len(summary.encode("utf-16-le")) // 2 >= 140 or "\n" in summary:
        yield f"CAR-01 too long or of two lines: {summary!r}"
    elif re.search(r"\*\*|\]\(|<[a-zA-Z!/?]|\{|\}", summary):
        yield f"CAR-02 no plain text: {summary!r}"


def _source(source: Any) -> Found:
    if not isinstance(source, dict) or not is_text(source.get("label")):
        yield f"CAR-06 SRC-01 {source!r}"
        return
    if set(source) - _SOURCE:
        yield f"JSN-09 {set(source) - _SOURCE}"
    for member in ("url", "icon"):
        if member in source and not _absolute(source[member]):
            yield f"SRC-02 SRC-03 {source[member]!r}"
    if not isinstance(source.get("topic"), dict):
        yield f"SRC-04 {source.get('topic')!r}"
    else:
        yield from _coding(source["topic"])
        if not str(source["topic"].get("code")).isalnum():
            yield f"SRC-04 a topic that is not alphanumeric: {source['topic']!r}"


def _absolute(url: Any) -> bool:
    parts = urlsplit(url) if isinstance(url, str) else urlsplit("")
    return parts.scheme in ("http", "https") and bool(parts.netloc)


def _coding(coding: dict[str, Any]) -> Found:
    if set(coding) - {"system", "code", "display"}:
        yield f"COD-01 other members: {coding!r}"
    if not is_text(coding.get("system")) or not is_text(coding.get("code")):
        yield f"COD-01 no system or no code: {coding!r}"
    if not is_text(coding.get("display", "none")):
        yield f"COD-01 the display is no text: {coding!r}"


def _suggestions(card: dict[str, Any]) -> Found:
    suggestions = card.get("suggestions")
    behavior = card.get("selectionBehavior")
    if (suggestions is None) != (behavior is None):
        yield "CAR-08 CAR-09 selectionBehavior without suggestions, or the reverse"
    if behavior not in (None, "any", "at-most-one"):
        yield f"CAR-09 {behavior!r}"
    recommended = [x for x in suggestions or [] if x.get("isRecommended")]
    if len(recommended) > 1 and behavior != "any":
        yield "SUG-03 more than one recommended"
    for suggestion in suggestions or []:
        yield from _suggestion(suggestion)


def _suggestion(suggestion: dict[str, Any]) -> Found:
    if set(suggestion) - {"label", "uuid", "isRecommended", "actions"}:
        yield f"SUG-05 JSN-09 {set(suggestion)}"
    if not is_text(suggestion.get("label")):
        yield "SUG-01 no label"
    if not isinstance(suggestion.get("isRecommended", True), bool):
        yield "SUG-03 isRecommended is no boolean"
    actions = suggestion.get("actions")
    if not isinstance(actions, list) or len(actions) != 1:
        yield "SUG-04 a suggestion is one order and so one action"
        return
    if actions[0].get("description") != suggestion.get("label"):
        yield "SUG-01 the label is not what the action says"
    yield from _action(actions[0])


def _action(action: dict[str, Any]) -> Found:
    if action.get("type") != "create":
        yield f"ACT-01 {action.get('type')!r}"
    if set(action) - _ACTION:
        yield f"ACT-03 JSN-09 {set(action) - _ACTION}"
    if not is_text(action.get("description")):
        yield "ACT-02 no description"
    resource = action.get("resource")
    if not isinstance(resource, dict):
        yield "ACT-03 JSN-05 no resource object"
    elif resource.get("resourceType") != "ServiceRequest":
        yield f"ACT-03 {resource.get('resourceType')!r}"


def _reasons(reasons: list[dict[str, Any]]) -> Found:
    for reason in reasons:
        yield from _coding(reason)
        if not is_text(reason.get("display")):
            yield f"OVR-01 {reason!r}"
    codes = [(x.get("system"), x.get("code")) for x in reasons]
    if len(set(codes)) != len(codes):
        yield "OVR-02 a reason given twice"


def _link(link: dict[str, Any]) -> Found:
    if not all(is_text(link.get(name)) for name in ("label", "url", "type")):
        yield f"LNK-01 {link!r}"
    if set(link) - _LINK or not isinstance(link.get("autolaunchable", True), bool):
        yield f"LNK-07 JSN-09 {link!r}"
    if link.get("type") not in ("absolute", "smart") or not _absolute(link.get("url")):
        yield f"LNK-02 LNK-03 {link!r}"
    if {name for name, _ in parse_qsl(urlsplit(str(link.get("url"))).query)} & {"iss", "launch"}:
        yield f"LNK-04 {link!r}"
    if "appContext" in link and link.get("type") != "smart":
        yield f"LNK-05 {link!r}"
    if not is_text(link.get("appContext", "none")):
        yield f"LNK-06 {link!r}"
