"""Requests that break CDS Hooks, each with what the answer must name."""

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from tests.exchanges import GRANT, SERVER, Change, Json, changed, drop, put


@dataclass(frozen=True)
class Broken:
    """A change that CDS Hooks forbids, what the diagnostics must name, and whose requirement it is.

    `in_schema`: whether a JSON schema can tell.
    """

    name: str
    change: tuple[Change, ...]
    names: str
    requirements: tuple[str, ...]
    in_schema: bool = True

    @property
    def body(self) -> Json:
        return changed(*self.change)


def _without(path: str, *requirements: str) -> Broken:
    return Broken(f"no {path}", (drop(path),), path.rpartition(".")[2], requirements)


def _each(path: str, values: Sequence[object], *requirements: str) -> Iterator[Broken]:
    for value in values:
        name = f"{path} = {json.dumps(value)}"
        yield Broken(name, (put(path, value),), path.rpartition(".")[2], requirements)


def _granted(name: str, change: Change, names: str) -> Broken:
    given = (put("fhirServer", SERVER), put("fhirAuthorization", GRANT), change)
    return Broken(f"fhirAuthorization: {name}", given, names, ("REQ-09",))


def _grants(member: str, values: Sequence[object]) -> Iterator[Broken]:
    for value in values:
        change = put(f"fhirAuthorization.{member}", value)
        yield _granted(f"{member} = {json.dumps(value)}", change, member)


_WRONG_TYPES = (None, 5, True, ["x"], {"x": "y"})

BROKEN = (
    *(_without(x, "REQ-02", "REQ-04", "REQ-06") for x in ("hook", "hookInstance", "context")),
    *_each("hook", _WRONG_TYPES, "REQ-02"),
    *_each("hook", ("", "  "), "REQ-02"),
    *_each("hook", ("order-sign", "Patient-View"), "REQ-03", "DSC-15"),
    *_each("hookInstance", _WRONG_TYPES, "REQ-04"),
    *_each("hookInstance", ("", " "), "REQ-04"),
    *_each("context", (None, [], "x", 5), "REQ-06"),
    Broken("an empty context", (put("context", {}),), "userId", ("REQ-06", "HOK-01")),
    *(_without(f"context.{x}", "REQ-06", "HOK-01") for x in ("userId", "patientId")),
    *_each("context.userId", _WRONG_TYPES, "HOK-01"),
    *_each(
        "context.userId",
        ("", "123", "Practitioner/", "x/1", "Practitioner/a/b", "Practitioner/a b"),
        "HOK-02",
    ),
    *_each("context.patientId", _WRONG_TYPES, "HOK-01"),
    *_each("context.patientId", ("", " ", "a/b", "..", "p1?x", "Patient/a/b"), "HOK-03"),
    *_each("context.encounterId", (5, ["e1"]), "HOK-01"),
    *_each("fhirServer", (5, [SERVER]), "REQ-07"),
    Broken(
        "fhirAuthorization without fhirServer",
        (put("fhirAuthorization", GRANT),),
        "fhirServer",
        ("REQ-07",),
    ),
    *(_granted(f"no {x}", drop(f"fhirAuthorization.{x}"), x) for x in GRANT),
    *_grants("token_type", ("bearer", "MAC", "")),
    *(x for name in ("access_token", "scope", "subject") for x in _grants(name, ("", " "))),
    *_grants("expires_in", ("300", 300.5, None, True)),
    *(x for name in GRANT if name != "expires_in" for x in _grants(name, (5,))),
    *_grants("patient", (5,)),
    _granted("text", put("fhirAuthorization", "opaque"), "fhirAuthorization"),
    Broken(
        "a token for another patient",
        (put("fhirServer", SERVER), put("fhirAuthorization", {**GRANT, "patient": "p2"})),
        "patient",
        ("REQ-10",),
        in_schema=False,
    ),
    *_each("prefetch", ([], "x", 5), "REQ-11"),
)
