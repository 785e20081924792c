"""What every answer keeps, whatever was asked: the requirements that a machine can decide.

Whatever the tests receive passes through `faults`: what Inferno's CRD test kit asserts of a server,
but for the orders that only CRD knows, and what it leaves out (null and empty members, uuids, error
bodies, unknown members).
"""

import json
import re
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from fhir.resources.R4B.operationoutcome import OperationOutcome
from fhir.resources.R4B.servicerequest import ServiceRequest
from pydantic import ValidationError

from cds_service.invariants import ABOUT_ORDERS, broken_rules, empties, is_text

__all__ = [
    "ABOUT_ORDERS",
    "cards_of",
    "drafts_of",
    "faults",
    "strict_json",
    "texts",
    "violations",
    "without_uuids",
]

Found = Iterator[str]

_SERVICE = {"hook", "id", "title", "description", "prefetch", "usageRequirements"}
_SEVERITIES = ("fatal", "error", "warning", "information")
# http://hl7.org/fhir/R4/valueset-issue-type.html
_ISSUES = {
    *("invalid", "structure", "required", "value", "invariant", "security", "login", "unknown"),
    *("expired", "forbidden", "suppressed", "processing", "not-supported", "duplicate"),
    *("multiple-matches", "not-found", "deleted", "too-long", "code-invalid", "extension"),
    *("too-costly", "business-rule", "conflict", "transient", "lock-error", "no-store"),
    *("exception", "timeout", "incomplete", "throttled", "informational"),
}
_PAGES = ("", "/docs", "/what-if")
_JSON = ("application/json", "application/fhir+json")


def strict_json(body: bytes) -> Any:
    """The value of a body; fails on a BOM, on bytes that are not UTF-8, and on what JSON lacks."""
    return json.loads(body.decode(), object_pairs_hook=_once, parse_constant=_no_constant)


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    names = [name for name, _ in pairs]
    assert len(set(names)) == len(names), names
    return dict(pairs)


def _no_constant(name: str) -> Any:
    raise AssertionError(f"JSON has no {name}")


def faults(method: str, path: str, status: int, head: Mapping[str, str], body: bytes) -> list[str]:
    """Each rule that an answer of the server breaks, by its id in the checklist."""
    kind = head.get("Content-Type", "").partition(";")[0]
    if _is_page(_plain(path), status, kind, head):
        return [*_headers(method, head)]
    return [*_headers(method, head), *_body(method, _plain(path), status, kind, body)]


def _is_page(path: str, status: int, kind: str, head: Mapping[str, str]) -> bool:
    """Whether it is a page of the open server: its form says itself what was wrong with a body."""
    is_strict = head.get("Content-Security-Policy", "").startswith("default-src 'none'; ")
    return path in _PAGES and kind == "text/html" and status < 500 and is_strict


def _plain(path: str) -> str:
    return re.sub("/{2,}", "/", path).rstrip("/")


def _headers(method: str, head: Mapping[str, str]) -> Found:
    if not head.get("X-Request-ID"):
        yield "ERR-07 no request id"
    if method == "POST" and head.get("Cache-Control") != "no-store":
        yield "RSP-05 an answer to a call may be stored"


def _body(method: str, path: str, status: int, kind: str, body: bytes) -> Found:
    if not body and (method == "HEAD" or status == 204):
        return
    if status == 200 and re.match(r"/(topics|static)(/|\Z)", path) and kind.startswith("text/"):
        return
    if (status, path, kind) == (200, "/what-if.toml", "text/plain"):
        return
    if kind not in _JSON:
        yield f"JSN-01 ERR-02 {kind!r}"
        return
    try:
        value = strict_json(body)
    except (AssertionError, ValueError) as error:
        yield f"JSN-01 JSN-06 {error}"
        return
    if status >= 400:
        yield from _outcome(value)
    elif status != 200:
        yield f"RSP-01 DSC-04 success is {status}"
    else:
        yield from _answer(path, value)


def _answer(path: str, value: Any) -> Found:
    if path == "/cds-services":
        yield from _discovered(value)
    elif re.fullmatch("/cds-services/[^/]+/feedback", path):
        yield from _taken(value)
    elif path.startswith("/cds-services/"):
        yield from violations(value)
    elif path.startswith("/explain/"):
        yield from violations({"cards": value["cards"]})


def _outcome(value: Any) -> Found:
    if not isinstance(value, dict) or set(value) != {"resourceType", "issue"}:
        yield "ERR-01 ERR-06 an error is an OperationOutcome and nothing else"
        return
    yield from empties(value, "")
    try:
        OperationOutcome.model_validate(value)
    except ValidationError as error:
        yield f"ERR-01 {error}"
        return
    for issue in value["issue"]:
        if issue["severity"] not in _SEVERITIES or issue["code"] not in _ISSUES:
            yield f"ERR-01 {issue!r}"
    if "Traceback" in str(value):
        yield "ERR-04 a stack trace"


def _taken(value: Any) -> Found:
    counts = value.values() if isinstance(value, dict) else ()
    if len(counts) != 2 or set(value) != {"stored", "repeated"}:
        yield f"FBK-09 RSP-04 {value!r}"
    elif not all(isinstance(x, int) and not isinstance(x, bool) and x >= 0 for x in counts):
        yield f"FBK-09 {value!r}"


def _discovered(value: Any) -> Found:
    if not isinstance(value, dict) or not isinstance(value.get("services"), list):
        yield "DSC-02 no list of services"
        return
    if set(value) != {"services"}:
        yield f"RSP-04 {set(value)}"
    yield from (x for x in empties(value, "") if ".services is" not in x)
    for service in value["services"]:
        if set(service) - _SERVICE:
            yield f"DSC-12 DSC-13 JSN-09 {set(service) - _SERVICE}"
        for name in ("hook", "id", "description"):
            if not is_text(service.get(name)):
                yield f"DSC-05 DSC-06 DSC-08 {name} {service.get(name)!r}"
        for name in ("title", "usageRequirements"):
            if not is_text(service.get(name, "none")):
                yield f"DSC-09 DSC-11 {name} {service.get(name)!r}"
        if not all(map(is_text, service.get("prefetch", {}).values())):
            yield f"DSC-10 {service['prefetch']!r}"


def violations(answer: Any) -> list[str]:
    """Each rule that an answer of a service breaks, by its id in the checklist."""
    return [*broken_rules(answer), *_no_resources(answer)]


def _no_resources(answer: Any) -> Found:
    try:
        suggested = [*drafts_of(answer)]
    except (AttributeError, KeyError, TypeError):
        return  # which is told of already
    for resource in suggested:
        if isinstance(resource, dict) and resource.get("resourceType") == "ServiceRequest":
            try:
                ServiceRequest.model_validate(resource)
            except ValidationError as error:
                yield f"ACT-06 FVR-04 {error}"


def cards_of(answer: dict[str, Any]) -> tuple[str, ...]:
    """The cards of an answer as "topic indicator"."""
    return tuple(f"{x['source']['topic']['code']} {x['indicator']}" for x in answer["cards"])


def drafts_of(answer: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """Every resource that an answer suggests to create."""
    for card in answer["cards"]:
        for suggestion in card.get("suggestions", []):
            for action in suggestion["actions"]:
                yield action["resource"]


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
