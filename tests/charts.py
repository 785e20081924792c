"""Every chart there is, as the call of a service that it makes on its day: the fixture patients and
what is ordered for them, the whole exchanges, the vignettes, and what others wrote.
"""

import json
import tomllib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from datetime import UTC, date, datetime
from functools import cache
from typing import Any

import msgspec

from cds_service.answering import Answering
from cds_service.call_record import CallRecord, Reader
from cds_service.checking import builder_for, in_modes, vignettes_of
from cds_service.config import Settings, fixtures_dir
from cds_service.content import Content
from cds_service.errors import DataUnobtainable
from cds_service.fhir_endpoint import FhirEndpoint, load_patients
from cds_service.loading import load_content
from cds_service.modes import Mode
from tests.exchanges import TODAY, Json, resolved
from tests.foreign_data import Server, ahrq_request, bundles, called, entries_of
from tests.invariants import without_uuids

_BASE = "https://hospital.example/fhir"
_LONG_ENOUGH = 60.0  # to read a server of this machine


@dataclass(frozen=True)
class Chart:
    """A call that is answered, or said to lack data, on a day, and the modes it is asked in."""

    name: str
    service: str
    day: date
    body: Json
    modes: Mapping[str, Mode] = field(default_factory=dict)
    is_vignette: bool = False

    def answer(self, body: Any, fetcher: Reader | None = None, years: int = 0) -> Json:
        """What a body in its place is answered on its day, or so many years later: status, cards
        without uuids, and every verdict with its reason.
        """
        day, record = self.day, CallRecord()
        noon = datetime(day.year + years, day.month, day.day, 12, tzinfo=UTC)
        here = in_modes(content(), self.modes)
        answering = Answering(here, fetcher, _LONG_ENOUGH, lambda: noon)
        status, cards = 200, []
        try:
            found = answering.cards(self.service, msgspec.json.encode(body), record)
            cards = without_uuids(msgspec.to_builtins(found.cards))
        except DataUnobtainable as refused:
            status = refused.status
        return {
            "status": status,
            "cards": cards,
            "verdicts": [x._asdict() for x in record.outcomes],
        }


@cache
def content() -> Content:
    """The content as shipped."""
    return load_content(Settings().hooks_dir)


def templates(service_id: str) -> dict[str, str]:
    """The prefetch templates of a service."""
    found = content().find(service_id)
    assert found is not None
    return {key.name: key.template for key in found[0].keys.keys}


def _service_of(hook: str) -> str:
    [found] = [service.id for _, service in content().services() if service.hook == hook]
    return found


def fixture_charts(today: date = TODAY) -> Iterator[Chart]:
    """The fixture patients, moved to a day, at patient-view and where something is ordered."""
    patients = load_patients(fixtures_dir() / "patients", today)
    endpoint = FhirEndpoint([x.bundle for x in patients], _BASE)
    for patient in patients:
        name = str(patient.patient["id"])
        moments: list[tuple[str, str, Json]] = [("patient-view", "", {})]
        moments += [(x.hook, f" {n}", x.context) for n, x in enumerate(patient.orders)]
        for hook, which, context in moments:
            service = _service_of(hook)
            asked = templates(service).items()
            prefetch = {key: resolved(endpoint, x, name) for key, x in asked}
            body = {**called(name, prefetch), "hook": hook}
            body["context"] = {**body["context"], **context}
            yield Chart(f"{name}{which}", service, today, body)


def exchange_charts() -> Iterator[Chart]:
    """The whole exchanges that are answered."""
    for folder in sorted((fixtures_dir() / "exchanges").iterdir()):
        about = tomllib.loads((folder / "about.toml").read_text("utf-8"))
        body = json.loads((folder / "request.json").read_text("utf-8"))
        if about["status"] == 200:
            yield Chart(f"exchange {folder.name}", about["service"], about["as_of"], body)


def vignette_charts(every: int = 1) -> Iterator[Chart]:
    """The vignettes of all services, or every so many of them."""
    for family in content().families:
        as_of, vignettes = vignettes_of(family)
        builder = builder_for(content(), family)
        for vignette in vignettes[::every]:
            body: Json = builder.body(vignette, as_of, as_of)
            service = _service_of(vignette.hook)
            yield Chart(vignette.id, service, as_of, body, vignette.modes, is_vignette=True)


def foreign_charts() -> Iterator[Chart]:
    """What others wrote: each Patient by our own templates, and whole under a name of theirs."""
    for patient in Server().patients:
        yield Chart(patient.name, "alp-review", patient.newest, patient.body())
    for name, bundle in sorted(bundles().items()):
        found = [x["resource"] for x in entries_of(bundle)]
        owners = [f"Patient/{x['id']}" for x in found if x["resourceType"] == "Patient"]
        owners += [x["subject"]["reference"] for x in found if "reference" in x.get("subject", {})]
        body = called(owners[0].removeprefix("Patient/"), {"their chart": bundle})
        yield Chart(f"{name} whole", "alp-review", TODAY, body)
    yield Chart("ahrq-cdshooks-unhealthy", "alp-review", TODAY, ahrq_request())


def resources(value: Any) -> Iterator[Json]:
    """The resources of a prefetch value, those of Bundles in Bundles included."""
    if isinstance(value, dict) and value.get("resourceType") == "Bundle":
        entries: Any = value.get("entry", [])
        for entry in entries if isinstance(entries, list) else [entries]:
            yield from resources(entry.get("resource"))
    elif isinstance(value, dict):
        yield value
