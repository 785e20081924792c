"""`demo`: a server with the fixture patients behind a FHIR endpoint, and the hook fired for each of
them over HTTP.
"""

import os
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from typing import Any

import requests
from msgspec import Struct
from rich.console import Console
from rich.table import Table
from rich.text import Text

from cds_service.chart_requests import hook_request
from cds_service.config import fixtures_dir
from cds_service.fhir_endpoint import FixturePatient, Ordering, load_patients
from cds_service.terminal import counted, show_cards, show_explanation
from cds_service.terminal_text import Line

Json = dict[str, Any]

_BY_SEVERITY = ("critical", "warning", "info")


@contextmanager
def running_server(port: int, arguments: list[str]) -> Iterator[str]:
    """The base URL of a demo server in a process of its own, ended by its pid, or with this process
    however that ends; ends with the server's own exit code when it does not start.
    """
    command = [sys.executable, "-m", "cds_service", "serve", "--open", "--demo"]
    command += ["--until-stdin-closes", "--port", str(port), *arguments]
    # A line in the log for each of its own calls would stand between its cards.
    environ = {"CDS_LOG_LEVEL": "warning", **os.environ}
    process = subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environ
    )
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


class Answer(Struct, frozen=True):
    """What one firing of a hook was answered with; `ordering` is None when the chart was opened."""

    patient: FixturePatient
    ordering: Ordering | None
    found: Json

    @property
    def cards(self) -> list[Json]:
        """Its cards."""
        return self.found["cards"]  # type: ignore[no-any-return]

    @property
    def hook(self) -> str:
        """The hook that was fired."""
        return self.ordering.hook if self.ordering is not None else "patient-view"

    @property
    def name(self) -> str:
        """The patient's id, with the hook where something is ordered."""
        name = str(self.patient.patient["id"])
        return f"{name}, {self.hook}" if self.ordering is not None else name

    @property
    def story(self) -> str:
        """What the fixture says about it."""
        return self.ordering.says if self.ordering is not None else self.patient.story

    @property
    def place(self) -> tuple[bool, int, int, str]:
        """Charts before orders, and those first that tell most, as their files say; else warnings
        before information.
        """
        severities = [_BY_SEVERITY.index(card["indicator"]) for card in self.cards]
        severity = min(severities, default=len(_BY_SEVERITY))
        return self.ordering is not None, self.patient.rank, severity, self.name


def show_patients(console: Console, url: str, stays_up: bool = True) -> None:
    """Fires the hooks for every fixture patient and prints the cards, why one silent patient gets
    none, and which patient got what.
    """
    answers: list[Answer] = []
    services = requests.get(f"{url}/cds-services", timeout=30).json()["services"]
    service_ids = {x["hook"]: x["id"] for x in services}
    for patient in load_patients(fixtures_dir() / "patients", datetime.now(UTC).date()):
        for ordering in (None, *patient.orders):
            hook = ordering.hook if ordering is not None else "patient-view"
            drafted = ordering.context if ordering is not None else {}
            # Without prefetch: the server reads the chart from the FHIR endpoint.
            body = hook_request(patient.patient["id"], hook, drafted, f"{url}/fhir")
            service_id = service_ids[body["hook"]]
            found = _post(f"{url}/cds-services/{service_id}", body)
            if not found["cards"]:
                found = _post(f"{url}/explain/{service_id}", body)
            answers.append(Answer(patient, ordering, found))
    answers.sort(key=lambda x: x.place)
    speaking = [x for x in answers if x.cards]
    silent = [x for x in answers if not x.cards]
    _show_speaking(console, speaking, stays_up)
    _show_silent(console, silent)
    _show_table(console, [*speaking, *silent])


def _topic(card: Json) -> str:
    return str(card["source"]["topic"]["code"])


def _show_heading(console: Console, answer: Answer) -> None:
    console.print()
    console.rule(answer.name)
    console.print(Text(answer.story, "italic"))


def _show_speaking(console: Console, answers: Sequence[Answer], stays_up: bool) -> None:
    """Every card; whole the first time that its topic speaks at a hook."""
    seen: set[tuple[str, str]] = set()
    for answer in answers:
        _show_heading(console, answer)
        for card in answer.cards:
            if not stays_up:
                card["source"].pop("url", None)  # it leads to this server
            spoken = _topic(card), answer.hook
            show_cards(console, [card], briefly=spoken in seen)
            seen.add(spoken)


def _show_silent(console: Console, answers: Sequence[Answer]) -> None:
    """One patient with all reasons, of the others what their story ends with."""
    for answer in answers[:1]:
        _show_heading(console, answer)
        show_explanation(console, answer.found)
    if answers[1:]:
        console.print()
        console.rule("No card either")
    for answer in answers[1:]:
        console.print(Line(0, answer.story.rpartition(". ")[2], bullet=f"{answer.name}: "))


def _show_table(console: Console, answers: Sequence[Answer]) -> None:
    table = Table(box=None, padding=(0, 2, 0, 0), pad_edge=False)
    table.add_column("patient", overflow="fold")
    table.add_column("cards", overflow="fold")
    for answer in answers:
        cards = [f"{_topic(card)} {card['indicator']}" for card in answer.cards]
        said = ", ".join(cards) or f"none ({counted(answer.found['verdicts'])})"
        table.add_row(Text(answer.name.replace(", ", "\n  ")), Text(said))
    console.print()
    console.rule("Who got what")
    console.print(table)


def _post(url: str, body: Json) -> Json:
    response = requests.post(url, json=body, timeout=30)
    response.raise_for_status()
    found: Json = response.json()
    return found
