"""`evaluate` and `explain`: one request, answered without a server."""

import json
import sys
from collections.abc import Callable
from datetime import UTC, date, datetime
from pathlib import Path
from typing import Any, NoReturn, TypeVar

import click
import msgspec

from cds_service.answering import Answering
from cds_service.audit import STDOUT, about_call, events_of, explanation_of
from cds_service.command_options import loaded, topic_mode
from cds_service.config import read_settings
from cds_service.errors import BrokenRequest, CdsError, NotJson
from cds_service.fhir_client import FhirClient, open_servers
from cds_service.modes import Mode

F = TypeVar("F", bound=Callable[..., Any])
R = TypeVar("R")


def _request_options(command: F) -> F:
    for option in (
        topic_mode,
        click.option(
            "--fetch", is_flag=True, help="Fetch what is missing from the request's fhirServer."
        ),
        click.option(
            "--service",
            "service_id",
            help="Which service; by default the one for the request's hook.",
        ),
        click.option(
            "--as-of", type=click.DateTime(["%Y-%m-%d"]), help="Evaluate as if today were this day."
        ),
    ):
        command = option(command)
    return command


request_file = click.argument("request_file", metavar="REQUEST.json", type=click.File("rb"))


def _answering(as_of: datetime | None, fetch: bool, modes: dict[str, Mode]) -> Answering:
    settings = read_settings()
    day = as_of.date() if as_of is not None else None
    fetcher = FhirClient(
        {"": open_servers(settings.fhir_servers)},
        ca_file=settings.ca_bundle,
        https_proxy=settings.https_proxy,
    )
    content, clock = loaded(settings, modes), _clock(day)
    readable = fetcher if fetch else None
    return Answering(content, readable, settings.fetch_seconds, clock, settings.public_url)


def _clock(day: date | None) -> Callable[[], datetime]:
    if day is None:
        return lambda: datetime.now(UTC)
    return lambda: datetime(day.year, day.month, day.day, 12, tzinfo=UTC)


def _service_for(answering: Answering, body: bytes, service_id: str | None) -> str:
    """The service asked for, else the first one for the request's hook, else the first."""
    if service_id is not None:
        return service_id
    try:
        hook = json.loads(body).get("hook")
    except (ValueError, AttributeError):
        hook = None
    services = [service for _, service in answering.content.services()]
    return next((x.id for x in services if x.hook == hook), services[0].id)


def _told(
    answering: Answering, ask: Callable[[str, bytes], R], body: bytes, service_id: str | None
) -> R:
    """What the request is told; ends the command when that is what is wrong with it."""
    try:
        _refuse_charts(body)
        return ask(_service_for(answering, body, service_id), body)
    except CdsError as error:
        fail(error, body)


@click.command()
@_request_options
@request_file
def evaluate(
    request_file: Any,
    as_of: datetime | None,
    service_id: str | None,
    fetch: bool,
    modes: dict[str, Mode],
) -> None:
    """Print the answer to a CDS Hooks request ("-" reads standard input); makes no network call
    unless --fetch.
    """
    answering = _answering(as_of, fetch, modes)
    answer = _told(answering, answering.cards, request_file.read(), service_id)
    click.echo(msgspec.json.format(msgspec.json.encode(answer), indent=2))


@click.command()
@click.option("--json", "as_json", is_flag=True, help="Print the explanation as JSON.")
@click.option("--all", "everything", is_flag=True, help="Show every question that was asked.")
@click.option("--request", "request_id", metavar="ID", help="Explain a past call from the audit.")
@click.option(
    "--audit",
    "audit_files",
    multiple=True,
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    help="Where its record may be (.gz too); by default in CDS_AUDIT_FILE. May be given often.",
)
@_request_options
@click.argument("request_file", metavar="[REQUEST.json]", type=click.File("rb"), required=False)
def explain(
    request_file: Any,
    request_id: str | None,
    audit_files: tuple[Path, ...],
    as_of: datetime | None,
    service_id: str | None,
    fetch: bool,
    modes: dict[str, Mode],
    as_json: bool,
    everything: bool,
) -> None:
    """Print why a request gets which cards ("-" reads standard input); makes no network call unless
    --fetch. With --request, why a past call got them: its X-Request-ID is in every answer and log
    line.
    """
    from rich.console import Console

    from cds_service.terminal import show_explanation

    if (request_id is None) == (request_file is None):
        raise click.UsageError("Give either REQUEST.json or --request ID.")
    if request_id is not None:
        _explain_past(request_id, audit_files, as_json, everything)
        return
    answering = _answering(as_of, fetch, modes)
    explanation = _told(answering, answering.explain, request_file.read(), service_id)
    if as_json:
        click.echo(msgspec.json.format(msgspec.json.encode(explanation), indent=2))
    else:
        show_explanation(Console(), explanation, everything=everything)


def _explain_past(
    request_id: str, files: tuple[Path, ...], as_json: bool, everything: bool
) -> None:
    """Prints every call of a request id that the audit has, without its data."""
    from rich.console import Console

    from cds_service.terminal import show_explanation
    from cds_service.terminal_text import harmless

    named = read_settings().audit_file
    files = files or ((Path(named),) if named not in ("", STDOUT) else ())
    if not files:
        why = "CDS_AUDIT_FILE is the standard output" if named else "CDS_AUDIT_FILE is not set"
        raise click.UsageError(f"No audit to look in: {why}. Give --audit FILE.")
    try:
        events = list(events_of(files, request_id))
    except OSError as error:
        raise click.ClickException(f"the audit cannot be read: {error.strerror}") from None
    if not events:
        named = ", ".join(map(str, files))
        raise click.ClickException(f"{request_id} is not in {named} (--audit names other files)")
    for event in events:
        if as_json:
            click.echo(msgspec.json.format(msgspec.json.encode(event), indent=2))
        else:
            click.echo(harmless(about_call(event)))
            if (explanation := explanation_of(event))["verdicts"]:
                show_explanation(Console(), explanation, everything=everything)


def _refuse_charts(body: bytes) -> None:
    """Raises BrokenRequest for patient data that was given instead of a request."""
    try:
        found = json.loads(body)
    except (ValueError, RecursionError):
        return  # said where requests are read
    if isinstance(found, dict) and "hook" not in found and {"resourceType", "bundle"} & set(found):
        raise BrokenRequest(
            "This is a chart, not a CDS Hooks request.",
            'a request has "hook", and carries chart data in "prefetch"; '
            "cds-service demo makes one of every chart in fixtures/patients",
        )


def fail(error: CdsError, body: bytes = b"") -> NoReturn:
    """Prints what was wrong with the request and ends with exit code 1."""
    said = [error.diagnostics, _where_no_json(body) if isinstance(error, NotJson) else ""]
    why = "; ".join(x for x in said if x)
    click.echo(f"{error.status}: {error.text}" + (f" ({why})" if why else ""), err=True)
    sys.exit(1)


def _where_no_json(body: bytes) -> str:
    """The line and column where JSON ends to be JSON, "" when it does not."""
    try:
        json.loads(body.decode())
    except json.JSONDecodeError as error:
        return f"line {error.lineno}, column {error.colno}: {error.msg.partition(':')[0]}"
    except UnicodeDecodeError as error:
        line, column = _place(body, error.start)
        return f"line {line}, column {column}: no UTF-8"
    except (ValueError, RecursionError):
        return ""
    return ""


def _place(body: bytes, at: int) -> tuple[int, int]:
    return body.count(b"\n", 0, at) + 1, at - body.rfind(b"\n", 0, at)
