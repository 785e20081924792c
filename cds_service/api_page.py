"""The page of /openapi.json: every operation with its parameters, bodies, answers, an example and a
command, and every schema.
"""

import json
import re
import tomllib
from collections.abc import Iterable, Iterator, Mapping
from functools import lru_cache
from pathlib import Path
from typing import Any

from msgspec import Struct

from cds_service.content import Content
from cds_service.openapi import document
from cds_service.topic_pages import environment
from cds_service.topics import content_version

Json = dict[str, Any]
Pieces = tuple[tuple[str, str], ...]

_SCHEMAS = "#/components/schemas/"
# Said by what stands in other columns.
_SAID_ELSEWHERE = frozenset(
    {"$ref", "type", "const", "enum", "anyOf", "items", "properties", "required", "description"}
    | {"title", "additionalProperties"}
)
_RULES = {
    "pattern": "matches",
    "format": "format",
    "minLength": "characters at least",
    "maxLength": "characters at most",
    "minimum": "at least",
    "maximum": "at most",
    "minItems": "items at least",
    "maxItems": "items at most",
    "minProperties": "members at least",
    "maxProperties": "members at most",
    "default": "left out:",
    "examples": "such as",
    "dependentRequired": "each needs the other:",
    "propertyNames": "names:",
    "if": "if",
    "then": "then",
    "not": "not",
}


class Shape(Struct, frozen=True):
    """What a value is: its type in pieces, each with the schema that it names (""), what else is
    asked of it, and what it means.
    """

    kind: Pieces
    rules: tuple[tuple[str, str], ...]
    says: str
    members: tuple["Member", ...] = ()


class Member(Struct, frozen=True):
    """A member of an object, or of the objects in it, by its path."""

    path: str
    required: bool
    shape: Shape


class Body(Struct, frozen=True):
    """What is sent, or answered, as any of these media types."""

    media_types: tuple[str, ...]
    shape: Shape


class Answer(Struct, frozen=True):
    """What may come back with a status."""

    status: str
    says: str
    headers: tuple[str, ...]
    bodies: tuple[Body, ...]


class Example(Struct, frozen=True):
    """A whole exchange that this server is tested with; `says` tells what it shows, `file` where a
    clone has it ("": made of another).
    """

    says: str
    as_of: str
    file: str
    asked: str
    answered: str


class Operation(Struct, frozen=True):
    """A method of a path."""

    method: str
    path: str
    id: str
    title: str
    parameters: tuple[tuple[str, Member], ...]
    bodies: tuple[Body, ...]
    answers: tuple[Answer, ...]
    example: Example | None


class ApiPage:
    """Renders the page; `prefix` is the path under which the server is published, `exchanges` the
    folder of the examples.
    """

    def __init__(self, content: Content, prefix: str, exchanges: Path) -> None:
        self._document = document(content)
        self._version = content_version(content)
        self._examples = _examples(exchanges)
        self._template = environment(prefix).get_template("docs.html")
        self.html = lru_cache(maxsize=4)(self._html)

    def _html(self, url: str, links: tuple[tuple[str, str], ...]) -> bytes:
        """The page for who reaches the server at a URL."""
        operations = [*self._operations()]
        return self._template.render(
            shown={"content": self._version},
            links=links,
            info=self._document["info"],
            operations=operations,
            curl={x.id: _curl(url, x) for x in operations},
            schemas={name: shape_of(x) for name, x in self._schemas.items()},
            headers=self._document["components"]["headers"],
        ).encode()

    @property
    def _schemas(self) -> Mapping[str, Json]:
        found: Mapping[str, Json] = self._document["components"]["schemas"]
        return found

    def _operations(self) -> Iterator[Operation]:
        for path, methods in self._document["paths"].items():
            for method, found in methods.items():
                yield Operation(
                    method=method.upper(),
                    path=path,
                    id=found["operationId"],
                    title=found["summary"],
                    parameters=tuple(_parameters(found.get("parameters", ()))),
                    bodies=_bodies(found.get("requestBody", {}).get("content", {})),
                    answers=tuple(_answers(found["responses"])),
                    example=self._examples.get(path),
                )


# -- schemas -----------------------------------------------------------------------------------


def shape_of(schema: Json) -> Shape:
    """A JSON schema in words; nothing that it asks is left out."""
    return Shape(_kind(schema), tuple(_rules(schema)), _said(schema), tuple(_members(schema)))


def _kind(schema: Json) -> Pieces:
    """The type in pieces of text, each with the schema that it names."""
    if "$ref" in schema:
        name = schema["$ref"].removeprefix(_SCHEMAS)
        return ((name, name),)
    if "const" in schema:
        return ((json.dumps(schema["const"]), ""),)
    if "enum" in schema:
        return ((f"one of {', '.join(json.dumps(x) for x in schema['enum'])}", ""),)
    if "anyOf" in schema:
        kinds = [_kind(x) for x in schema["anyOf"]]
        return tuple(
            x for n, kind in enumerate(kinds) for x in ((((" or ", ""),) * bool(n)) + kind)
        )
    types = schema.get("type", "any value")
    named = " or ".join(types) if isinstance(types, list) else str(types)
    if schema.get("items"):
        return ((f"{named} of ", ""), *_kind(schema["items"]))
    if isinstance(schema.get("additionalProperties"), dict):
        return ((f"{named} with values ", ""), *_kind(schema["additionalProperties"]))
    return ((named, ""),)


def _rules(schema: Json) -> Iterator[tuple[str, str]]:
    """What else is asked of a value, or of the alternatives and items that have no name: a word
    and a value each.
    """
    for key, value in schema.items():
        if key not in _SAID_ELSEWHERE:
            said = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
            yield _RULES.get(key, key), said
    if schema.get("additionalProperties") is False:
        yield "no other members", ""
    for inner in _nameless(schema):
        yield from _rules(inner)


def _nameless(schema: Json) -> list[Json]:
    """The schemas inside that are described where they stand: alternatives and items."""
    inside = [*schema.get("anyOf", ()), schema.get("items"), schema.get("additionalProperties")]
    return [x for x in inside if isinstance(x, dict)]


def _members(schema: Json, path: str = "") -> Iterator[Member]:
    """The members of an object, and of those in it, in order."""
    required = schema.get("required", ())
    for name, inner in schema.get("properties", {}).items():
        at = f"{path}{name}"
        kind, rules = _kind(inner), tuple(_rules(inner))
        yield Member(at, name in required, Shape(kind, rules, _said(inner)))
        yield from _members(inner, f"{at}.")
        for deeper in _nameless(inner):
            yield from _members(deeper, f"{at}[]." if deeper is inner.get("items") else f"{at}.")


def _said(schema: Json) -> str:
    return " ".join(schema.get("description", "").split())


# -- operations --------------------------------------------------------------------------------


def _parameters(found: Iterable[Json]) -> Iterator[tuple[str, Member]]:
    """Each parameter with where it stands."""
    for x in found:
        schema = {**x["schema"], "description": x.get("description", "")}
        yield x["in"], Member(x["name"], x.get("required", False), shape_of(schema))


def _answers(found: Mapping[str, Json]) -> Iterator[Answer]:
    for status, x in sorted(found.items()):
        headers = tuple(x.get("headers", ()))
        yield Answer(status, _said(x), headers, _bodies(x.get("content", {})))


def _bodies(content: Mapping[str, Json]) -> tuple[Body, ...]:
    """The bodies, one for all media types that have the same schema."""
    found: dict[str, tuple[list[str], Json]] = {}
    for media_type, x in content.items():
        key = json.dumps(x["schema"], sort_keys=True)
        found.setdefault(key, ([], x["schema"]))[0].append(media_type)
    return tuple(Body(tuple(types), shape_of(schema)) for types, schema in found.values())


# -- examples ----------------------------------------------------------------------------------


def _examples(folder: Path) -> dict[str, Example]:
    """For each path that is posted to, the shortest exchange with a card, and feedback on it."""
    found: dict[str, Example] = {}
    for file in sorted(folder.glob("*/about.toml"), key=_length):
        about = tomllib.loads(file.read_text("utf-8"))
        asked, answered = ((file.parent / f"{x}.json").read_text("utf-8") for x in _BOTH)
        service, cards = about["service"], json.loads(answered).get("cards")
        if not cards or f"/cds-services/{service}" in found:
            continue
        where = f"fixtures/exchanges/{file.parent.name}/request.json"
        made = Example(about["says"], str(about["as_of"]), where, asked, answered)
        found[f"/cds-services/{service}"] = made
        found[f"/explain/{service}"] = Example(made.says, made.as_of, where, asked, "")
        found[f"/cds-services/{service}/feedback"] = _feedback_on(cards[0], made)
    return found


_BOTH = ("request", "response")


def _length(about: Path) -> tuple[int, str]:
    return (about.parent / "request.json").stat().st_size, about.parent.name


def _feedback_on(card: Json, made: Example) -> Example:
    said: Json = {"card": card["uuid"], "outcome": "overridden"}
    if suggestions := card.get("suggestions"):
        said["outcome"] = "accepted"
        said["acceptedSuggestions"] = [{"id": suggestions[0]["uuid"]}]
    said["outcomeTimestamp"] = f"{made.as_of}T12:00:00Z"
    text = json.dumps({"feedback": [said]}, indent=1)
    return Example("The first card of such an answer is reported on.", made.as_of, "", text, "")


def _curl(url: str, operation: Operation) -> str:
    """The command that calls an operation."""
    path = operation.path
    for _, x in operation.parameters:
        first = re.match(r'one of "([^"]*)"', "".join(text for text, _ in x.shape.kind))
        if first is not None:
            path = path.replace(f"{{{x.path}}}", first[1])
    if operation.example is None:
        return f"curl -sS {url}{path}"
    sent = f"@{operation.example.file}"
    if not operation.example.file:
        sent = f"'{json.dumps(json.loads(operation.example.asked))}'"
    return f"curl -sS {url}{path} -H 'Content-Type: application/json' --data {sent}"
