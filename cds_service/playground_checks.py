"""Whether a request and its answer are what /openapi.json and the rules of CDS Hooks say."""

import json
from collections.abc import Iterable
from functools import lru_cache
from typing import TYPE_CHECKING, Any

from msgspec import Struct

from cds_service import openapi
from cds_service.content import Content
from cds_service.content_files import Service
from cds_service.invariants import broken_rules
from cds_service.resources import integer

if TYPE_CHECKING:
    from jsonschema import Draft202012Validator

Json = dict[str, Any]

MOST_FAULTS = 8
LONGEST_FAULT = 200
_JSON = "application/json"


class Check(Struct, frozen=True):
    """What was held against what, and what is wrong; nothing where it is as it should be."""

    what: str
    faults: tuple[str, ...]


class Checks:
    """Checks the calls of one content."""

    def __init__(self, content: Content) -> None:
        self._document = openapi.document(content)
        self._validator = lru_cache(self._made)

    def _made(self, service_id: str, status: int) -> "Draft202012Validator | None":
        """The schema of a service's request (status 0) or of an answer; None for a status that the
        document does not have.
        """
        from jsonschema import Draft202012Validator  # takes longer to import than all the rest

        called = self._document["paths"][f"/cds-services/{service_id}"]["post"]
        described = called["requestBody"] if not status else called["responses"].get(str(status))
        if described is None:
            return None
        components = self._document["components"]
        schema = described["content"][_JSON]["schema"]
        return Draft202012Validator({**schema, "components": components})

    def of(self, service: Service, sent: bytes, status: int, answer: bytes) -> tuple[Check, ...]:
        """The checks of a call."""
        found = json.loads(answer)
        checks = [
            Check("request: schema of /openapi.json", self._request(service.id, sent)),
            Check("response: schema of /openapi.json", self._answer(service.id, status, found)),
        ]
        if status == 200:
            checks.append(Check("response: rules of CDS Hooks 2.0", _first(broken_rules(found))))
        return tuple(checks)

    def _request(self, service_id: str, sent: bytes) -> tuple[str, ...]:
        try:
            value = json.loads(sent, parse_int=integer)
        except (ValueError, RecursionError):
            return ("it is no JSON",)
        return self._against(value, self._validator(service_id, 0))

    def _answer(self, service_id: str, status: int, found: Any) -> tuple[str, ...]:
        validator = self._validator(service_id, status)
        if validator is None:
            return (f"no answer of status {status} is described",)
        return self._against(found, validator)

    def _against(self, value: Any, validator: "Draft202012Validator | None") -> tuple[str, ...]:
        assert validator is not None
        try:
            return _first(f"{x.json_path}: {x.message}" for x in validator.iter_errors(value))
        except RecursionError:
            return ("it is nested too deeply",)


def _first(faults: Iterable[str]) -> tuple[str, ...]:
    """The first faults, each cut to a length: a message of a schema repeats what it is about."""
    said = [x if len(x) <= LONGEST_FAULT else f"{x[:LONGEST_FAULT]}…" for x in faults]
    more = len(said) - MOST_FAULTS
    return (*said[:MOST_FAULTS], *([f"and {more} more"] if more > 0 else []))
