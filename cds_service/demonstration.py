"""`demo`: a server with the fixture patients behind a FHIR endpoint, and the hook fired for each of
them over HTTP.
"""

import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from typing import Any
from uuid import uuid4

import requests
from rich.console import Console
from rich.table import Table
from rich.text import Text

from cds_service.config import fixtures_dir
from cds_service.fhir_endpoint import FixturePatient, load_patients
from cds_service.terminal import counted, show_cards, show_explanation
from cds_service.terminal_text import Line

Json = dict[str, Any]
Answer = tuple[FixturePatient, Json]

_BY_SEVERITY = ("critical", "warning", "info")


@contextmanager
def running_server(port: int, arguments: list[str]) -> Iterator[str]:
    """The base URL of a demo server in a process of its own, ended by its pid, or with this process
    however that ends; ends with the server's own exit code when it does not start.
    """
    command = [sys.executable, "-m", "cds_service", "serve", "--open", "--demo"]
    command += ["--until-stdin-closes", "--port", str(port), *arguments]
    process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    try:
        _wait_until_bound(process)
        yield f"http://127.0.0.1:{port}"
    finally:
        process.terminate()
        try:
            process.wait(10)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def _wait_until_bound(process: "subprocess.Popen[str]") -> None:
    """Passes on what the server says until it says where it answers: then the port is its own, and
    nobody else is talked to.
    """
    assert process.stdout is not None
    for line in process.stdout:
        if "/cds-services" in line:
            return
        print(line, end="", flush=True)
    sys.exit(process.wait())


def show_patients(console: Console, url: str, stays_up: bool = True) -> None:
    """Fires the hook for every fixture patient and prints the cards, why one silent patient gets
    none, and which patient got what.
    """
    services = requests.get(f"{url}/cds-services", timeout=30).json()["services"]
    service_id = next(x["id"] for x in services if x["hook"] == "patient-view")
    answers: list[Answer] = []
    for patient in load_patients(fixtures_dir() / "patients", datetime.now(UTC).date()):
        body = hook_request(url, patient)
        answer = _post(f"{url}/cds-services/{service_id}", body)
        if not answer["cards"]:
            answer = _post(f"{url}/explain/{service_id}", body)
        answers.append((patient, answer))
    answers.sort(key=_place)
    speaking = [x for x in answers if x[1]["cards"]]
    silent = [x for x in answers if not x[1]["cards"]]
    _show_speaking(console, speaking, stays_up)
    _show_silent(console, silent)
    _show_table(console, [*speaking, *silent])


def _place(answer: Answer) -> tuple[int, int, str]:
    """The charts that tell most first, as their files say; else warnings before information."""
    patient, found = answer
    places = [_BY_SEVERITY.index(card["indicator"]) for card in found["cards"]]
    return patient.rank, min(places, default=len(_BY_SEVERITY)), _name(patient)


def _name(patient: FixturePatient) -> str:
    return str(patient.patient["id"])


def _topic(card: Json) -> str:
    return str(card["source"]["topic"]["code"])


def _show_heading(console: Console, patient: FixturePatient) -> None:
    console.print()
    console.rule(_name(patient))
    console.print(Text(patient.story, "italic"))


def _show_speaking(console: Console, answers: Sequence[Answer], stays_up: bool) -> None:
    """Every card; whole the first time that its topic speaks."""
    seen: set[str] = set()
    for patient, answer in answers:
        _show_heading(console, patient)
        for card in answer["cards"]:
            if not stays_up:
                card["source"].pop("url", None)  # it leads to this server
            show_cards(console, [card], briefly=_topic(card) in seen)
            seen.add(_topic(card))


def _show_silent(console: Console, answers: Sequence[Answer]) -> None:
    """One patient with all reasons, of the others what their story ends with."""
    for patient, explanation in answers[:1]:
        _show_heading(console, patient)
        show_explanation(console, explanation)
    if answers[1:]:
        console.print()
        console.rule("No card either")
    for patient, _ in answers[1:]:
        console.print(Line(0, patient.story.rpartition(". ")[2], bullet=f"{_name(patient)}: "))


def _show_table(console: Console, answers: Sequence[Answer]) -> None:
    table = Table(box=None, padding=(0, 2, 0, 0), pad_edge=False)
    table.add_column("patient", overflow="fold")
    table.add_column("cards", overflow="fold")
    for patient, answer in answers:
        cards = [f"{_topic(card)} {card['indicator']}" for card in answer["cards"]]
        said = ", ".join(cards) or f"none ({counted(answer['verdicts'])})"
        table.add_row(Text(_name(patient)), Text(said))
    console.print()
    console.rule("Who got what")
    console.print(table)


def hook_request(url: str, patient: FixturePatient) -> Json:
    """A patient-view request without prefetch: the server reads the chart from the FHIR
    endpoint.
    """
    return {
        "hook": "patient-view",
        "hookInstance": str(uuid4()),
        "fhirServer": f"{url}/fhir",
        "context": {"userId": "Practitioner/demo", "patientId": patient.patient["id"]},
    }


def _post(url: str, body: Json) -> Json:
    response = requests.post(url, json=body, timeout=30)
    response.raise_for_status()
    found: Json = response.json()
    return found
