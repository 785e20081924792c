"""The charts of tests/data, which nobody here wrote, sent as a client would send them.

`make verdicts` writes the tables of docs/testing.md from the forty patients of Synthea.
"""

import gzip
import json
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime, time
from functools import cache, cached_property
from pathlib import Path
from typing import Any, get_args

from werkzeug.test import TestResponse

from cds_service.app import create_app
from cds_service.config import Settings
from cds_service.fhir_endpoint import FhirEndpoint
from cds_service.rules import Outcome
from tests.exchanges import EXPLAIN, TODAY, Json, resolved, send

ROOT = Path(__file__).resolve().parents[1]
DATA = ROOT / "tests" / "data"
PAGE = ROOT / "docs" / "testing.md"
OUTCOMES: tuple[str, ...] = get_args(Outcome)
_BASE = "https://hospital.example/fhir"
_DATED = (
    *("effectiveDateTime", "effectiveInstant", "issued", "authoredOn", "recordedDate"),
    *("performedDateTime", "onsetDateTime", "start"),
)


# -- the files ---------------------------------------------------------------------------------


def _text(path: Path) -> str:
    return gzip.decompress(path.read_bytes()).decode()


@cache
def bundles() -> dict[str, Json]:
    """The Bundles by name."""
    return {name: x for name, x in _bodies().items() if x.get("resourceType") == "Bundle"}


def ahrq_request() -> Json:
    """A request that AHRQ wrote to try a CDS Hooks service of its own."""
    return _bodies()["ahrq-cdshooks-unhealthy"]


@cache
def _bodies() -> dict[str, Json]:
    paths = sorted((DATA / "bundles").glob("*.json.gz"))
    return {x.name.removesuffix(".json.gz"): json.loads(_text(x)) for x in paths}


@cache
def hl7_examples() -> tuple[Json, ...]:
    """The examples of the FHIR R4 specification for the types that we read."""
    return tuple(map(json.loads, _text(DATA / "hl7-r4-examples.ndjson.gz").splitlines()))


def _synthea() -> Iterator[tuple[str, Json]]:
    """A Bundle for each of Synthea's patients, by the patient's id."""
    found: dict[str, list[Json]] = {}
    for path in sorted((DATA / "synthea").glob("*.ndjson.gz")):
        for x in map(json.loads, _text(path).splitlines()):
            owner = f"Patient/{x['id']}" if "subject" not in x else x["subject"]["reference"]
            found.setdefault(owner, []).append(x)
    for owner, resources in sorted(found.items()):
        yield owner.removeprefix("Patient/"), collected(resources)


def collected(resources: Iterable[Json]) -> Json:
    """A Bundle of resources."""
    entries = [{"resource": x} for x in resources]
    return {"resourceType": "Bundle", "type": "collection", "entry": entries}


def entries_of(bundle: Json) -> Iterator[Json]:
    """The entries of a Bundle, those of Bundles in it included."""
    for entry in bundle.get("entry", []):
        if entry["resource"]["resourceType"] == "Bundle":
            yield from entries_of(entry["resource"])
        else:
            yield entry


def _stored(bundle: Json) -> Json:
    """What a FHIR server makes of a Bundle: everything has an id, nothing stands twice, and
    references lead to where things are now.
    """
    kept: dict[tuple[str, str], Json] = {}
    urls: dict[str, str] = {}
    for n, entry in enumerate(entries_of(bundle)):
        resource = {"id": f"stored-{n}", **entry["resource"]}
        kept[resource["resourceType"], resource["id"]] = resource
        urls[entry.get("fullUrl", "")] = f"{resource['resourceType']}/{resource['id']}"
    return collected(_pointing(resource, urls) for resource in kept.values())


def _pointing(value: Any, urls: Mapping[str, str]) -> Any:
    if isinstance(value, list):
        return [_pointing(x, urls) for x in value]
    if not isinstance(value, dict):
        return value
    found = {name: _pointing(x, urls) for name, x in value.items()}
    if isinstance(found.get("reference"), str):
        found["reference"] = urls.get(found["reference"], found["reference"])
    return found


# -- the patients ------------------------------------------------------------------------------


@dataclass(frozen=True)
class ForeignPatient:
    """A patient of a set of data, with the prefetch that discovery asks for."""

    origin: str
    id: str
    prefetch: Json

    @property
    def name(self) -> str:
        return f"{self.origin} {self.id}"

    @cached_property
    def newest(self) -> date:
        """The day of the latest entry, today without any."""
        days = {x[:10] for x in _days(self.prefetch) if len(x) >= 10} or {str(TODAY)}
        return date.fromisoformat(max(x for x in days if x <= str(TODAY)))

    def body(self) -> Json:
        return called(self.id, self.prefetch)


def called(patient_id: str, prefetch: Json) -> Json:
    """A call for a patient."""
    return {
        "hook": "patient-view",
        "hookInstance": "7b0c7c36-6a7e-4d0d-9a53-0b0ab2a6c1f4",
        "context": {"userId": "Practitioner/dr1", "patientId": patient_id},
        "prefetch": prefetch,
    }


def _days(value: Any) -> Iterator[str]:
    for name, item in value.items() if isinstance(value, dict) else ():
        if name in _DATED and isinstance(item, str):
            yield item
        else:
            yield from _days(item)
    for item in value if isinstance(value, list) else ():
        yield from _days(item)


class Server:
    """The open server on whatever day, and discovery's templates."""

    def __init__(self) -> None:
        self._day = TODAY
        self._client = create_app(Settings(open=True), now=self._now).test_client()
        [service] = [x for x in self._discovered() if x["id"] == "alp-review"]
        self.templates: dict[str, str] = service["prefetch"]

    def _now(self) -> datetime:
        return datetime.combine(self._day, time(12), UTC)

    def _discovered(self) -> list[Json]:
        found: list[Json] = self._client.get("/cds-services").get_json()["services"]
        return found

    def answer(self, path: str, body: Json, day: date = TODAY) -> TestResponse:
        """What is answered to a body on a day."""
        self._day = day
        return send(self._client, body, path)

    def explained(self, body: Json, day: date = TODAY) -> Json:
        """Why it is answered so."""
        found: Json = self.answer(EXPLAIN, body, day).get_json()
        return found

    @cached_property
    def synthea(self) -> tuple[ForeignPatient, ...]:
        """The forty of Synthea."""
        return tuple(
            x for name, chart in _synthea() for x in self._patients("synthea", chart, [name])
        )

    @cached_property
    def patients(self) -> tuple[ForeignPatient, ...]:
        """Every Patient of every set."""
        sets = {**bundles(), "hl7-r4-examples": collected(hl7_examples())}
        others = (x for name, chart in sets.items() for x in self._patients(name, chart))
        return (*others, *self.synthea)

    def _patients(
        self, origin: str, bundle: Json, names: Sequence[str] = ()
    ) -> Iterator[ForeignPatient]:
        chart = _stored(bundle)
        endpoint = FhirEndpoint([chart], _BASE)
        found = [x["resource"] for x in chart["entry"]]
        for name in names or [x["id"] for x in found if x["resourceType"] == "Patient"]:
            prefetch = {k: resolved(endpoint, x, name) for k, x in self.templates.items()}
            yield ForeignPatient(origin, name, prefetch)


# -- the page ----------------------------------------------------------------------------------

_FROM, _TO = "<!-- from here on written by make verdicts -->\n", "<!-- up to here -->"
_TOPICS = {"low": "lowAlpUnconfirmed", "raised": "raisedAlpSourceUnknown"}


@dataclass(frozen=True)
class Seen:
    """A patient on the day of the latest ALP, and why which cards came."""

    patient: ForeignPatient
    day: date
    explained: Json

    @property
    def alps(self) -> list[float]:
        return [x["valueQuantity"]["value"] for x in _resources(self.patient.prefetch["alp"])]

    @property
    def cards(self) -> list[str]:
        return [x["summary"] for x in self.explained["cards"]]

    @property
    def who(self) -> str:
        """Sex and age on that day, and whether the patient has died since."""
        record = self.patient.prefetch["patient"]
        born = date.fromisoformat(record["birthDate"])
        age = self.day.year - born.year - ((self.day.month, self.day.day) < (born.month, born.day))
        sex = {"female": "woman", "male": "man"}[record["gender"]]
        return f"{sex} of {age}" + (", dead since" if "deceasedDateTime" in record else "")

    def latest(self) -> Json:
        """The latest ALP with its limits."""
        [series] = [x for x in self.explained["series"] if x["measure"] == "alp"]
        found: Json = series["points"][-1]
        return found

    def reason(self, topic: str) -> str:
        """Why a topic is silent, and why the latest ALP did not count, if it did not."""
        [verdict] = [x for x in self.explained["verdicts"] if x["topic"] == topic]
        reference = self.latest()["reference"]
        asides = [f" ({why})" for x, why in rejected(verdict["evidence"]) if x == reference]
        return "".join([verdict["reason"]["text"], *asides])


def rejected(asked: Sequence[Json]) -> set[tuple[str, str]]:
    """The entries that could not be used for an answer, and why."""
    found = {(x["reference"], x["why"]) for one in asked for x in one["rejected"]}
    return found.union(*(rejected(one.get("because", [])) for one in asked))


def _resources(value: Json) -> list[Json]:
    return [x["resource"] for x in value.get("entry", [])]


def _seen(server: Server) -> Iterator[Seen]:
    for x in server.synthea:
        drawn = [y["effectiveDateTime"][:10] for y in _resources(x.prefetch["alp"])]
        day = date.fromisoformat(max(drawn)) if drawn else x.newest
        yield Seen(x, day, server.explained(x.body(), day))


def page(server: Server, text: str) -> str:
    """The text of docs/testing.md with the tables that Synthea's patients give."""
    head, _, rest = text.partition(_FROM)
    _, _, tail = rest.partition(_TO)
    return head + _FROM + "\n".join(["", *_tables(server), ""]) + _TO + tail


def _tables(server: Server) -> Iterator[str]:
    seen = list(_seen(server))
    alps = [x for one in seen for x in one.alps]
    later = sum(bool(server.explained(x.body(), x.newest)["cards"]) for x in server.synthea)
    dead = sum("dead" in x.who for x in seen)
    yield f"* {len(seen)} patients, {dead} of them dead since."
    have, span = sum(bool(x.alps) for x in seen), f"{min(alps):.0f} to {max(alps):.0f} U/L"
    yield f"* {have} have an ALP: {len(alps)} results from {span}."
    spoken = sum(bool(x.cards) for x in seen)
    yield f"* {spoken} have a card; on the day of the latest entry of any kind {later or 'none'}.\n"
    yield f"| topic | {' | '.join(OUTCOMES)} |"
    yield f"|---|{'---:|' * len(OUTCOMES)}"
    counts = Counter((v["topic"], v["verdict"]) for x in seen for v in x.explained["verdicts"])
    for topic in dict.fromkeys(v["topic"] for v in seen[0].explained["verdicts"]):
        yield f"| `{topic}` | {' | '.join(str(counts[topic, x]) for x in OUTCOMES)} |"
    yield "\n| cards | patient | day | ALP in U/L, latest first | summary |\n|---|---|---|---|---|"
    for one in seen:
        for card in one.explained["cards"]:
            values = ", ".join(f"{x:.1f}" for x in one.alps[:4])
            topic = card["source"]["topic"]["code"]
            yield f"| `{topic}` | {one.who} | {one.day} | {values} | {card['summary']} |"
    yield "\n| no card, though the ALP is | patient | day | ALP | why |\n|---|---|---|---|---|"
    for one in seen:
        yield from _silences(one)


def _silences(one: Seen) -> Iterator[str]:
    """Why an ALP outside its limits makes no card."""
    at = one.latest()
    outside = "low" if at["value"] < at["low"] else "raised" if at["value"] > at["high"] else ""
    if outside and not one.cards:
        why = one.reason(_TOPICS[outside])
        yield f"| {outside} | {one.who} | {one.day} | {at['value']:.1f} | {why} |"


def main() -> None:
    """Writes the tables anew."""
    PAGE.write_text(page(Server(), PAGE.read_text("utf-8")), "utf-8")


if __name__ == "__main__":
    main()
