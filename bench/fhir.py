"""A FHIR server whose answers take five milliseconds and next to no computing, so that what is
measured is the reading of it.
"""

import os
import time
from collections.abc import Callable, Iterable
from datetime import date
from typing import Any

from bench.payloads import TYPICAL, chart
from cds_service.fhir_endpoint import FhirEndpoint

BASE = "BENCH_FHIR_BASE"
LATENCY = 0.005


def application() -> Callable[[dict[str, Any], Any], Iterable[bytes]]:
    """The WSGI application; its base URL is in the environment. Answers are kept once made."""
    patient, results, problems = chart(TYPICAL, fires=True, today=date.today())
    entries = [{"resource": x} for x in (patient, *results, *problems)]
    endpoint = FhirEndpoint([{"entry": entries}], os.environ[BASE])
    known: dict[tuple[str, str], tuple[int, bytes]] = {}

    def answer(environ: dict[str, Any], start_response: Any) -> Iterable[bytes]:
        asked = environ["PATH_INFO"].removeprefix("/fhir"), environ["QUERY_STRING"]
        if asked not in known:
            known[asked] = endpoint.answer("GET", *asked)
        status, body = known[asked]
        time.sleep(LATENCY)
        length = ("Content-Length", str(len(body)))
        start_response(f"{status} -", [("Content-Type", "application/fhir+json"), length])
        return [body]

    return answer
