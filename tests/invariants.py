"""What every answer keeps: the rows of the conformance checklist that a machine can decide."""

import json
import re
from collections.abc import Iterable, Iterator
from itertools import chain
from typing import Any
from urllib.parse import urlsplit

from fhir.resources.R4B.servicerequest import ServiceRequest
from pydantic import ValidationError

Found = Iterator[str]

_CARD = {
    *("uuid", "summary", "detail", "indicator", "source", "suggestions", "selectionBehavior"),
    *("overrideReasons", "links", "extension"),
}
_INDICATORS = ["info", "warning", "critical"]
_RANDOM_UUID = re.compile(r"[0-9a-f]{8}-[0-9a-f]{4}-4[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}")
_MARKUP = re.compile(r"<[a-zA-Z!/]|!\[|\]\(|javascript:|data:")


def strict_json(body: bytes) -> Any:
    """The value of a body; fails on a BOM, on bytes that are not UTF-8, and on what JSON lacks."""
    return json.loads(body.decode(), object_pairs_hook=_once, parse_constant=_no_constant)


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    names = [name for name, _ in pairs]
    assert len(set(names)) == len(names), names
    return dict(pairs)


def _no_constant(name: str) -> Any:
    raise AssertionError(f"JSON has no {name}")


def violations(answer: Any) -> list[str]:
    """Each rule that an answer of the service breaks, by its id in the checklist."""
    if not isinstance(answer, dict) or not isinstance(answer.get("cards"), list):
        return ["RSP-01 no list of cards"]
    cards = answer["cards"]
    rules = [_envelope(answer), _empties(answer, ""), _ids(cards)]
    return list(chain(*rules, *(_card(card) for card in cards)))


def _text(value: Any) -> bool:
    return isinstance(value, str) and value.strip() != ""


def _envelope(answer: dict[str, Any]) -> Found:
    if set(answer) - {"cards", "extension"}:
        yield "RSP-04 SYS-02 EXT-01 members beside cards"
    if len(answer["cards"]) > 3:
        yield "RSP-06 more than three cards"
    shown = [card.get("indicator") for card in answer["cards"]]
    urgency = [_INDICATORS.index(x) for x in shown if x in _INDICATORS]
    if urgency != sorted(urgency, reverse=True):
        yield "RSP-06 the most urgent is not first"


def _empties(value: Any, path: str) -> Found:
    if value in (None, "", [], {}) and value is not False and path != ".cards":
        yield f"JSN-02 {path} is {value!r}"
    elif isinstance(value, str) and not value.strip():
        yield f"JSN-04 {path} is blank"
    elif isinstance(value, dict):
        for name, item in value.items():
            yield from _empties(item, f"{path}.{name}")
    elif isinstance(value, list):
        for item in value:
            yield from _empties(item, f"{path}[]")


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
        yield f"CAR-13 {set(card) - _CARD}"
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
    if not _text(summary):
        yield f"CAR-01 {summary!r}"
    elif len(summary.encode("utf-16-le")) // 2 >= 140 or "\n" in summary:
        yield f"CAR-01 too long or of two lines: {summary!r}"
    elif re.search(r"\*\*|\]\(|<|\{|\}", summary):
        yield f"CAR-02 no plain text: {summary!r}"


def _source(source: Any) -> Found:
    if not isinstance(source, dict) or not _text(source.get("label")):
        yield f"CAR-06 SRC-01 {source!r}"
        return
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
    if not _text(coding.get("system")) or not _text(coding.get("code")):
        yield f"COD-01 no system or no code: {coding!r}"


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
        yield f"SUG-05 {set(suggestion)}"
    if not _text(suggestion.get("label")):
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
    if not _text(action.get("description")):
        yield "ACT-02 no description"
    resource = action.get("resource")
    if not isinstance(resource, dict) or "resourceId" in action:
        yield "ACT-03 JSN-05 no resource object"
    elif resource.get("resourceType") != "ServiceRequest":
        yield f"ACT-03 {resource.get('resourceType')!r}"
    else:
        try:
            ServiceRequest.model_validate(resource)
        except ValidationError as error:
            yield f"ACT-06 FVR-04 {error}"


def _reasons(reasons: list[dict[str, Any]]) -> Found:
    for reason in reasons:
        yield from _coding(reason)
        if not _text(reason.get("display")):
            yield f"OVR-01 {reason!r}"
    codes = [(x.get("system"), x.get("code")) for x in reasons]
    if len(set(codes)) != len(codes):
        yield "OVR-02 a reason given twice"


def _link(link: dict[str, Any]) -> Found:
    if not all(_text(link.get(name)) for name in ("label", "url", "type")):
        yield f"LNK-01 {link!r}"
    if link.get("type") not in ("absolute", "smart") or not _absolute(link.get("url")):
        yield f"LNK-02 LNK-03 {link!r}"
    if "appContext" in link and link.get("type") != "smart":
        yield f"LNK-05 {link!r}"


def cards_of(answer: dict[str, Any]) -> tuple[str, ...]:
    """The cards of an answer as "topic indicator"."""
    return tuple(f"{x['source']['topic']['code']} {x['indicator']}" for x in answer["cards"])


def without_uuids(value: Any) -> Any:
    """The JSON value without any member `uuid`: what two answers to one question share."""
    if isinstance(value, dict):
        return {name: without_uuids(x) for name, x in value.items() if name != "uuid"}
    return [without_uuids(x) for x in value] if isinstance(value, list) else value


def texts(value: Any) -> Iterable[str]:
    """Every string below a JSON value, names included."""
    if isinstance(value, dict):
        for name, item in value.items():
            yield name
            yield from texts(item)
    elif isinstance(value, list):
        for item in value:
            yield from texts(item)
    elif isinstance(value, str):
        yield value
