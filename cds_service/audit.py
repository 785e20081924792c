"""The audit: a FHIR AuditEvent for each call, in the shape of IHE's Basic Audit Log Patterns, a
line each in a file of its own. It is the one place where a patient is named.

A record tells who asked about whom and what became of every topic, so that a call can be explained
later without its data.
"""

import fcntl
import gzip
import os
import re
import stat
from collections.abc import Iterable, Iterator
from datetime import UTC
from pathlib import Path
from typing import Any
from uuid import uuid4

import msgspec

from cds_service.call_record import CallRecord, KeySettled

STDOUT = "-"
_Json = dict[str, Any]
_TERMINOLOGY = "http://terminology.hl7.org/CodeSystem/"
_DICOM = "http://dicom.nema.org/resources/ontology/DCM"
_BALP_ENTITY = "https://profiles.ihe.net/ITI/BALP/CodeSystem/BasicAuditEntityType"
_INTERACTION = "http://hl7.org/fhir/restful-interaction"
_ROUTE = "urn:cds-service:route"
_HOOK = "urn:cds-hooks:hook"
_ASKED = {"explain": "asked for an explanation of", "feedback": "sent feedback to"}
_MOST = 2000  # characters of what a client said of itself
_BLANK = re.compile(r"[\s\x00-\x1f\x7f]+")


def event_of(record: CallRecord, software: str, content: str, site: str) -> _Json:
    """The AuditEvent of a call: `software` and `content` say with what it was answered, `site` is
    the server's own address.
    """
    found: _Json = {
        "resourceType": "AuditEvent",
        "id": str(uuid4()),
        "type": _coding(f"{_TERMINOLOGY}audit-event-type", "rest", "Restful Operation"),
        "subtype": list(_subtypes(record)),
        "action": "C" if record.route == "feedback" else "E",
        "recorded": record.at.astimezone(UTC).isoformat(timespec="milliseconds"),
        "outcome": _outcome(record),
        "outcomeDesc": _said(f"{record.status} {record.refused or record.error}"),
        "agent": list(_agents(record, software, site)),
        "source": {
            "observer": {"display": software},
            "type": [_coding(f"{_TERMINOLOGY}security-source-type", "4", "Application Server")],
        },
        "entity": list(_entities(record, content)),
    }
    if site:
        found["source"]["site"] = site
    return found


def _coding(system: str, code: str, display: str = "") -> _Json:
    return {"system": system, "code": code, **({"display": display} if display else {})}


def _said(text: str) -> str:
    """A text as a FHIR string of ours: one line, and not endless."""
    # Nearly every text is of plain words already, which is soon seen.
    plain = text.isprintable() and "  " not in text
    return (text if plain else _BLANK.sub(" ", text)).strip()[:_MOST]


def _subtypes(record: CallRecord) -> Iterator[_Json]:
    yield _coding(_INTERACTION, "create" if record.route == "feedback" else "operation")
    yield _coding(_ROUTE, record.route)
    if record.call is not None:
        yield _coding(_HOOK, record.call.hook)


def _outcome(record: CallRecord) -> str:
    """FHIR's audit-event-outcome: success, a fault of the caller's or its data's, one of ours. A
    quiet client's 200 in place of an error is none.
    """
    if record.status >= 500 or record.error == "exception":
        return "8"
    return "4" if record.error or record.status >= 400 else "0"


def _agents(record: CallRecord, software: str, site: str) -> Iterator[_Json]:
    caller = record.caller
    client: _Json = {"display": _said(caller.name or "somebody unknown")}
    if caller.issuer:
        client["identifier"] = {"value": _said(caller.issuer)}
    yield {
        "type": {"coding": [_coding(_DICOM, "110153", "Source Role ID")]},
        "who": client,
        "requestor": False,
        **({"network": {"address": record.peer, "type": "2"}} if record.peer else {}),
    }
    yield {
        "type": {"coding": [_coding(_DICOM, "110152", "Destination Role ID")]},
        "who": {"display": software},
        "requestor": False,
        **({"network": {"address": site, "type": "5"}} if site else {}),
    }
    if record.call is not None and (user := _said(record.call.context.user_id)):
        yield {
            "type": {
                "coding": [
                    _coding(f"{_TERMINOLOGY}v3-ParticipationType", "IRCP", "information recipient")
                ]
            },
            "who": {"reference": user},
            "requestor": True,
        }


def _entities(record: CallRecord, content: str) -> Iterator[_Json]:
    if record.call is not None:
        yield {
            "what": {"reference": f"Patient/{_said(record.call.context.patient_id)}"},
            "type": _coding(f"{_TERMINOLOGY}audit-entity-type", "1", "Person"),
            "role": _coding(f"{_TERMINOLOGY}object-role", "1", "Patient"),
        }
    yield {
        "what": {"identifier": {"value": record.request_id}},
        "type": _coding(_BALP_ENTITY, "XrequestId"),
    }
    yield _listed("call", _call(record, content))
    yield from (
        _listed(name, details)
        for name, details in (
            ("data", [(x.key, _settled(x)) for x in record.keys]),
            ("verdicts", [(x.topic, f"{x.verdict} {x.code} {x.text}") for x in record.outcomes]),
            ("cards", [(x.topic, f"{x.id} {x.indicator}") for x in record.cards]),
            ("feedback", [(x.outcome, x.card) for x in record.feedback]),
        )
        if details
    )


def _settled(key: KeySettled) -> str:
    return f"{key.state} {key.by or '-'} {key.used} {key.why}"


def _call(record: CallRecord, content: str) -> Iterator[tuple[str, str]]:
    yield "service", record.service
    yield "tenant", record.caller.tenant
    yield "content", content
    yield "as-of", record.as_of
    yield "why", record.why
    if record.call is not None:
        yield "hook-instance", record.call.hook_instance
        yield "encounter", record.call.context.encounter_id or ""
        yield "fhir-server", (record.call.fhir_server or "").partition("?")[0]
    for operation in record.store_failures:
        yield "store-down-for", operation


def _listed(name: str, details: Iterable[tuple[str, str]]) -> _Json:
    said = [(kind, _said(text)) for kind, text in details]
    return {
        "type": _coding(f"{_TERMINOLOGY}audit-entity-type", "2", "System Object"),
        "name": name,
        "detail": [{"type": kind, "valueString": text} for kind, text in said if text],
    }


# -- the file ----------------------------------------------------------------------------------


class AuditFile:
    """Takes records, a line each; any number of processes may write to one file, and who renames it
    (logrotate) finds the next record in a new one. STDOUT is the standard output.
    """

    def __init__(self, name: str) -> None:
        self._name = name

    def write(self, event: _Json) -> None:
        """Appends a record whole or not at all; raises OSError."""
        line = msgspec.json.encode(event) + b"\n"
        descriptor = self._open()
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX)
            before = os.fstat(descriptor)
            if os.write(descriptor, line) < len(line):  # the disk is full
                if stat.S_ISREG(before.st_mode):  # half a record would spoil the next one too
                    os.ftruncate(descriptor, before.st_size)
                raise OSError("only a part could be written")
        finally:
            os.close(descriptor)

    def check(self) -> None:
        """Raises OSError when no record could be written."""
        os.close(self._open())

    def _open(self) -> int:
        """Opened anew for each record, so that locks tell workers apart and a renamed file is let
        go.
        """
        if self._name != STDOUT:
            return os.open(self._name, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
        try:
            return os.open("/dev/stdout", os.O_WRONLY | os.O_APPEND)
        except OSError:  # a socket, or a terminal of another user
            return os.dup(1)


def events_of(files: Iterable[Path], request_id: str) -> Iterator[_Json]:
    """The records of a request in files, oldest file first as given; those that end in .gz are
    unpacked, and a line that is no record is passed over. Raises OSError.
    """
    mark = msgspec.json.encode(request_id)
    for file in files:
        unpack = gzip.open if file.suffix == ".gz" else open
        with unpack(file, "rb") as lines:
            for line in lines:
                if mark in line and (event := _event(line)) and _is_of(event, request_id):
                    yield event


def _event(line: bytes) -> _Json | None:
    try:
        found = msgspec.json.decode(line)
    except (msgspec.DecodeError, UnicodeDecodeError):
        return None
    return found if isinstance(found, dict) else None


def _is_of(event: _Json, request_id: str) -> bool:
    return any(
        x.get("type", {}).get("system") == _BALP_ENTITY
        and x.get("what", {}).get("identifier", {}).get("value") == request_id
        for x in event.get("entity", ())
    )


def about_call(event: _Json) -> str:
    """Who asked what about whom, when, and what the answer was, in a sentence."""
    call = _details(event, "call")
    agents = [x["who"] for x in event["agent"]]
    [route] = [x["code"] for x in event["subtype"] if x["system"] == _ROUTE]
    said = [
        f"{event['recorded']}: {agents[0]['display']}",
        f"(tenant {call['tenant']})" if "tenant" in call else "",
        f"{_ASKED.get(route, 'asked')} {call.get('service', 'no service of ours')}",
        *(f"about {x['what']['reference']}" for x in event["entity"] if "role" in x),
        *(f"for {x['reference']}" for x in agents if "reference" in x),
        f"and was answered {event['outcomeDesc']}",
        f"({call['why']})" if "why" in call else "",
        *(f"; {outcome} {card}" for outcome, card in _listing(event, "feedback")),
    ]
    return " ".join(x for x in said if x).replace(" ;", ";")


def explanation_of(event: _Json) -> _Json:
    """What is left of the explanation of a call: status, cards without their words, each topic's
    verdict with its reason, and what became of the prefetch keys.
    """
    call = _details(event, "call")
    version, _, digest = call["content"].partition(" ")
    return {
        "status": int(event["outcomeDesc"].split()[0]),
        "cards": [
            {"source": {"topic": {"code": topic}}, "indicator": said.split()[-1]}
            for topic, said in _listing(event, "cards")
        ],
        "verdicts": [_said_verdict(*x) for x in _listing(event, "verdicts")],
        "data": [_said_key(*x) for x in _listing(event, "data")],
        "content": {"version": version, "hash": digest},
        "asOf": call.get("as-of", ""),
    }


def _said_key(key: str, said: str) -> _Json:
    state, by, used, *why = said.split(" ", 3)
    found = {"key": key, "state": state, "used": int(used), "skipped": []}
    optional = {"by": "" if by == "-" else by, "why": " ".join(why)}
    return found | {name: x for name, x in optional.items() if x}


def _said_verdict(topic: str, said: str) -> _Json:
    verdict, code, *text = said.split(" ", 2)
    held = {"by": code} if verdict == "suppressed" else {}
    return {
        "topic": topic,
        "verdict": verdict,
        **held,
        "reason": {"code": code, "text": text[0] if text else ""},
        "evidence": [],
    }


def _listing(event: _Json, name: str) -> list[tuple[str, str]]:
    """What a record lists under a name of `_entities`."""
    return [
        (detail["type"], detail["valueString"])
        for entity in event["entity"]
        if entity.get("name") == name
        for detail in entity.get("detail", ())
    ]


def _details(event: _Json, name: str) -> dict[str, str]:
    return dict(_listing(event, name))
