"""The page of /openapi.json: the whole document is on it, its commands and examples work, and only
the open server has it.
"""

import json
import re
import shlex
from functools import cache
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest
from flask.testing import FlaskClient

from cds_service.api_page import shape_of
from cds_service.app import create_app
from cds_service.config import Settings
from tests.exchanges import Json, now

ROOT = Path(__file__).resolve().parents[1]
HTML = {"Accept": "text/html"}


@cache
def client() -> FlaskClient:
    return create_app(Settings(open=True), now=now).test_client()


@cache
def document() -> Json:
    found: Json = client().get("/openapi.json").get_json()
    return found


class Read(HTMLParser):
    """What a page says: its text, the text of each element with an id, its links and its tags."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.stack: list[tuple[str, str]] = []
        self.texts: dict[str, str] = {}
        self.ids: list[str] = []
        self.links: list[str] = []
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.feed(html)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        found = dict(attrs)
        self.tags.append((tag, found))
        if found.get("id"):
            self.ids.append(str(found["id"]))
        if tag == "a":
            self.links.append(str(found.get("href")))
        if tag not in ("meta", "link"):
            self.stack.append((tag, found.get("id") or ""))

    def handle_endtag(self, tag: str) -> None:
        opened, _ = self.stack.pop()
        assert opened == tag

    def handle_data(self, data: str) -> None:
        for name in {x for _, x in self.stack if x} | {""}:
            self.texts[name] = self.texts.get(name, "") + data


@cache
def html() -> str:
    answer = client().get("/docs", headers=HTML)
    assert (answer.status_code, answer.mimetype) == (200, "text/html")
    return answer.get_data(as_text=True)


@cache
def page() -> Read:
    return Read(html())


def section(operation: str) -> str:
    """The page from an operation's heading to the next one's."""
    _, _, rest = html().partition(f'<h2 id="{operation}">')
    return rest.partition("<h2 id=")[0]


def operations() -> list[tuple[str, str, Json]]:
    return [(path, way, x) for path, ways in document()["paths"].items() for way, x in ways.items()]


EVERY_OPERATION = pytest.mark.parametrize(
    ("path", "way", "operation"), operations(), ids=[x["operationId"] for _, _, x in operations()]
)
EVERY_SCHEMA = pytest.mark.parametrize("name", document()["components"]["schemas"])


# -- the whole document ------------------------------------------------------------------------


@EVERY_OPERATION
def test_an_operation_is_shown_with_all_that_it_takes_and_answers(
    path: str, way: str, operation: Json
) -> None:
    shown = section(operation["operationId"])
    text = re.sub(r"<[^>]+>", "", shown)
    assert re.match(rf'<span class="method">{way.upper()}</span> <code>{re.escape(path)}', shown)
    assert operation["summary"] in text
    for x in operation.get("parameters", ()):
        assert f"<code>{x['name']}</code>" in shown
    for media_type, x in operation.get("requestBody", {}).get("content", {}).items():
        assert f"<code>{media_type}</code>" in shown
        named = x["schema"]["$ref"].rpartition("/")[2]
        assert f'<a href="#schema-{named}">' in shown
        for member in x["schema"].get("properties", {}):
            assert f"<code>{member}</code>" in shown
    for status, answer in operation["responses"].items():
        assert f"<h3>{status}</h3>" in shown
        assert re.sub("`", "", answer["description"]).replace("'", "&#39;") in text
        for header in answer.get("headers", ()):
            assert f'<a href="#header-{header}">' in shown
        for media_type in answer["content"]:
            assert f"<code>{media_type}</code>" in shown


def members(schema: Any) -> set[str]:
    """The names of all members in a schema, those behind a condition left out."""
    if isinstance(schema, list):
        return set().union(*map(members, schema))
    if not isinstance(schema, dict):
        return set()
    inside = [x for key, x in schema.items() if key in ("anyOf", "items", "additionalProperties")]
    named = schema.get("properties", {})
    return set(named).union(*map(members, inside), *map(members, named.values()))


@EVERY_SCHEMA
def test_a_schema_is_shown_with_every_member(name: str) -> None:
    schema = document()["components"]["schemas"][name]
    text = page().texts[f"schema-{name}"]
    owed = members(schema)
    said = set(re.findall(r"[\w*]+(?=\[\]|\.|\s|$)", text, re.MULTILINE)) | set(text.split())
    assert owed <= said
    if "description" in schema:
        assert " ".join(schema["description"].replace("`", "").split()) in " ".join(text.split())


@EVERY_SCHEMA
def test_nothing_that_a_schema_asks_is_left_out(name: str) -> None:
    """Every pattern, bound and fixed value stands in the text."""

    def asked(value: Any) -> list[Any]:
        if isinstance(value, list):
            return [x for inner in value for x in asked(inner)]
        if not isinstance(value, dict):
            return []
        keys = {"pattern", "minLength", "maxLength", "minItems", "maxItems", "const", "format"}
        own = [x for key, x in value.items() if key in keys and not isinstance(x, dict)]
        return own + [x for inner in value.values() for x in asked(inner)]

    text = page().texts[f"schema-{name}"]
    for value in asked(document()["components"]["schemas"][name]):
        said = value if isinstance(value, str) else json.dumps(value)
        assert said in text or json.dumps(said)[1:-1] in text


@pytest.mark.parametrize(
    ("schema", "kind", "rules"),
    [
        ({"type": "string", "minLength": 1}, "string", {("characters at least", "1")}),
        ({"type": ["string", "null"]}, "string or null", set()),
        ({"enum": ["a", 1]}, 'one of "a", 1', set()),
        ({"const": True}, "true", set()),
        ({"type": "array", "items": {"$ref": "#/components/schemas/X"}}, "array of X", set()),
        ({"anyOf": [{"$ref": "#/components/schemas/X"}, {"type": "null"}]}, "X or null", set()),
        ({"type": "object", "additionalProperties": {"type": "integer", "maximum": 3}},
         "object with values integer", {("at most", "3")}),
        ({"type": "object", "additionalProperties": False}, "object", {("no other members", "")}),
        ({}, "any value", set()),
        ({"multipleOf": 7}, "any value", {("multipleOf", "7")}),
    ],
)  # fmt: skip
def test_a_schema_in_words(schema: Json, kind: str, rules: set[tuple[str, str]]) -> None:
    shape = shape_of(schema)
    assert "".join(text for text, _ in shape.kind) == kind
    assert {*shape.rules} == rules
    assert {name for _, name in shape.kind} <= {"", "X"}


# -- what can be tried -------------------------------------------------------------------------


@EVERY_OPERATION
def test_the_command_of_an_operation_is_answered(path: str, way: str, operation: Json) -> None:
    command = shlex.split(page().texts[f"curl-{operation['operationId']}"])
    assert command[:2] == ["curl", "-sS"]
    url = command[2].removeprefix("http://localhost")
    if way == "get":
        assert client().get(url).status_code == 200 and len(command) == 3
        return
    header, sent = command[command.index("-H") + 1], command[command.index("--data") + 1]
    body = (ROOT / sent[1:]).read_bytes() if sent.startswith("@") else sent.encode()
    answer = client().post(url, data=body, headers=dict([header.split(": ")]))
    if path.endswith("/feedback"):  # this server has no store: the message is good, and it says so
        assert answer.status_code == 503
        assert json.loads(body)["feedback"][0]["outcome"] in ("accepted", "overridden")
    else:
        assert answer.status_code == 200


@pytest.mark.parametrize("path", ["/cds-services", "/explain"])
@pytest.mark.parametrize("service", ["alp-review", "antiresorptive-safety-sign"])
def test_the_example_is_an_exchange_with_a_card(path: str, service: str) -> None:
    way = "call" if path == "/cds-services" else "explain"
    shown = section(f"{way}-{service}")
    assert "<summary>Example</summary>" in shown
    assert ("&#34;cards&#34;: [" in shown) == (way == "call")
    assert "&#34;hookInstance&#34;" in shown


# -- the page ----------------------------------------------------------------------------------


def test_every_link_on_the_page_leads_somewhere() -> None:
    ids = page().ids
    assert len(ids) == len(set(ids))
    for link in page().links:
        if link.startswith("#"):
            assert link[1:] in ids
        else:
            assert client().get(link).status_code == 200, link
    assert [tag for tag, _ in page().tags].count("h1") == 1


def test_nothing_on_the_page_is_from_elsewhere_or_written_in_place() -> None:
    for tag, attributes in page().tags:
        assert "style" not in attributes and not any(x.startswith("on") for x in attributes)
        for key in ("src", "href"):
            assert not re.match(r"\w+:|//", attributes.get(key) or ""), (tag, attributes)
    assert "<style" not in html()
    assert re.findall(r"<script[^>]*>[^<]", html()) == []


def test_the_policy_of_the_page_lets_nothing_else_in() -> None:
    policy = client().get("/docs", headers=HTML).headers["Content-Security-Policy"]
    assert {x.strip() for x in policy.split(";")} == {
        "default-src 'none'", "style-src 'self'", "script-src 'self'", "img-src 'self'",
        "connect-src 'self'", "form-action 'self'", "base-uri 'none'", "frame-ancestors 'none'",
    }  # fmt: skip


@pytest.mark.parametrize("file", ["docs.css", "docs.mjs"])
def test_its_files_are_there(file: str) -> None:
    answer = client().get(f"/static/{file}")
    assert answer.status_code == 200
    assert answer.headers["X-Content-Type-Options"] == "nosniff"


@pytest.mark.parametrize("path", ["/docs", "/static/docs.css", "/static/docs.mjs"])
def test_a_server_that_is_not_open_has_no_such_page(path: str) -> None:
    closed = create_app(Settings(), now=now).test_client()
    answer = closed.get(path, headers=HTML)
    assert (answer.status_code, answer.mimetype) == (404, "application/json")
    assert client().get(path).status_code == 200


@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE"])
def test_the_page_is_read_only(method: str) -> None:
    assert client().open("/docs", method=method).status_code == 405


def test_the_playground_leads_to_it() -> None:
    assert 'href="/docs"' in client().get("/", headers=HTML).get_data(as_text=True)
