"""A FHIR endpoint that has the same chart for whoever is asked about."""

import re
from datetime import date

from bench.payloads import PATIENT, TYPICAL, chart
from cds_service.fhir_endpoint import FhirEndpoint

_ANYBODY = re.compile(rf"{PATIENT}x\d+")


class AnyPatient(FhirEndpoint):
    """Answers about each patient p1x… as about p1, under the id that was asked for."""

    def __init__(self, base_url: str) -> None:
        patient, results, problems = chart(TYPICAL, fires=True, today=date.today())
        entries = [{"resource": x} for x in (patient, *results, *problems)]
        super().__init__([{"entry": entries}], base_url)

    def answer(
        self, method: str, path: str, query: str, body: bytes = b"", prefer: str = ""
    ) -> tuple[int, bytes]:
        named = _ANYBODY.search(f"{path}?{query}")
        path, query = (_ANYBODY.sub(PATIENT, x) for x in (path, query))
        status, answer = super().answer(method, path, query, body, prefer)
        if named is None:
            return status, answer
        return status, answer.replace(f'{PATIENT}"'.encode(), f'{named[0]}"'.encode())
