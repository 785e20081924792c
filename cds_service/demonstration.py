"""`demo`: a server with the fixture patients behind a FHIR endpoint, and the hook fired for each of
them over HTTP.
"""

import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from typing import Any
from uuid import uuid4

import requests
from rich.console import Console

from cds_service.config import fixtures_dir
from cds_service.fhir_endpoint import FixturePatient, load_patients
from cds_service.terminal import show_cards, show_explanation

SECONDS_TO_START = 30


@contextmanager
def running_server(port: int, arguments: list[str]) -> Iterator[str]:
    """The base URL of a demo server in a process of its own, ended by its pid; raises RuntimeError
    if it never answers.
    """
    command = [
        sys.executable,
        "-m",
        "cds_service",
        "serve",
        "--open",
        "--demo",
        "--port",
        str(port),
    ]
    process = subprocess.Popen([*command, *arguments], stdout=subprocess.DEVNULL)
    url = f"http://127.0.0.1:{port}"
    try:
        _wait_until_live(url, process)
        yield url
    finally:
        process.terminate()
        try:
            process.wait(10)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def _wait_until_live(url: str, process: "subprocess.Popen[bytes]") -> None:
    deadline = time.monotonic() + SECONDS_TO_START
    while time.monotonic() < deadline:
        if process.poll() is not None:
            raise RuntimeError(f"the server ended with code {process.returncode}")
        try:
            if requests.get(f"{url}/livez", timeout=1).ok:
                return
        except requests.ConnectionError:
            time.sleep(0.1)
    raise RuntimeError(f"the server did not answer within {SECONDS_TO_START} s")


def show_patients(console: Console, url: str) -> None:
    """Fires the hook for every fixture patient and prints the cards; for a silent one, why."""
    services = requests.get(f"{url}/cds-services", timeout=30).json()["services"]
    service_id = next(x["id"] for x in services if x["hook"] == "patient-view")
    for patient in load_patients(fixtures_dir() / "patients", datetime.now(UTC).date()):
        console.rule(str(patient.patient["id"]))
        console.print(patient.story, style="italic", highlight=False)
        body = hook_request(url, patient)
        answer = _post(f"{url}/cds-services/{service_id}", body)
        if answer["cards"]:
            show_cards(console, answer["cards"])
        else:
            show_explanation(console, _post(f"{url}/explain/{service_id}", body))


def hook_request(url: str, patient: FixturePatient) -> dict[str, Any]:
    """A patient-view request without prefetch: the server reads the chart from the FHIR
    endpoint.
    """
    return {
        "hook": "patient-view",
        "hookInstance": str(uuid4()),
        "fhirServer": f"{url}/fhir",
        "context": {"userId": "Practitioner/demo", "patientId": patient.patient["id"]},
    }


def _post(url: str, body: dict[str, Any]) -> dict[str, Any]:
    response = requests.post(url, json=body, timeout=30)
    response.raise_for_status()
    found: dict[str, Any] = response.json()
    return found
