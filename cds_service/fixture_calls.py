"""The fixture patients as calls of our services; a FHIR server in memory holds them."""

from collections.abc import Iterable, Iterator, Mapping
from contextlib import AbstractContextManager, nullcontext

import msgspec
from msgspec import Struct

from cds_service.chart_requests import hook_request
from cds_service.clients import Caller
from cds_service.content import Content
from cds_service.fhir_client import Fetched
from cds_service.fhir_endpoint import FhirEndpoint, FixturePatient

_BASE = "https://fixtures.example/fhir"  # never called


class FixtureCall(Struct, frozen=True):
    """One firing of a hook for a fixture patient; `says` is what its file says about it."""

    patient: str
    hook: str
    service: str
    says: str
    body: bytes


def fixture_calls(patients: Iterable[FixturePatient], content: Content) -> Iterator[FixtureCall]:
    """Every chart opened and everything ordered, at each service of its hook."""
    for patient in patients:
        for ordering in (None, *patient.orders):
            hook = ordering.hook if ordering is not None else "patient-view"
            says = ordering.says if ordering is not None else patient.story
            drafted = ordering.context if ordering is not None else {}
            identity = str(patient.patient["id"])
            for _, service in content.services():
                if service.hook == hook:
                    body = hook_request(identity, hook, drafted, _BASE)
                    encoded = msgspec.json.encode(body)
                    yield FixtureCall(identity, hook, service.id, says, encoded)


class FixtureFetcher:
    """Reads the fixture patients without a network; each query is answered once and kept."""

    def __init__(self, patients: Iterable[FixturePatient]) -> None:
        self._endpoint = FhirEndpoint((x.bundle for x in patients), _BASE)
        self._answers: dict[str, Fetched] = {}

    def refusal(self, base: str, caller: Caller, subject: str | None) -> str:
        """Nobody is refused."""
        return ""

    def place(self, base: str, caller: Caller, seconds: float) -> AbstractContextManager[None]:
        """There is always one."""
        return nullcontext()

    def fetch(
        self,
        base: str,
        queries: Mapping[str, str],
        *,
        token: str | None,
        seconds: float,
        caller: Caller,
    ) -> dict[str, Fetched]:
        """The answer to each query."""
        return {name: self._answer(query) for name, query in queries.items()}

    def _answer(self, query: str) -> Fetched:
        if query not in self._answers:
            path, _, asked = query.partition("?")
            status, body = self._endpoint.answer("GET", path, asked)
            found = Fetched("answered", (body,), "")
            if status != 200:
                found = Fetched("failed", (), f"HTTP {status}")
            self._answers[query] = found
        return self._answers[query]
