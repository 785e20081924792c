"""`demo`: a server with the fixture patients, and their cards."""

import signal
import sys
import time

import click
from rich.console import Console

from cds_service.command_options import AT_LEAST_ONE, PORT, topic_mode
from cds_service.demonstration import running_server, show_patients
from cds_service.modes import Mode


@click.command()
@click.option("--port", default=8000, show_default=True, type=PORT)
@click.option("--once", is_flag=True, help="Stop after the cards are printed.")
@click.option(
    "--page-size", type=AT_LEAST_ONE, help="Most resources on one page of the FHIR endpoint."
)
@topic_mode
def demo(port: int, once: bool, page_size: int | None, modes: dict[str, Mode]) -> None:
    """Serve the fixture patients and print their cards."""
    arguments = [x for topic, mode in modes.items() for x in ("--topic-mode", f"{topic}={mode}")]
    if page_size is not None:
        arguments += ["--page-size", str(page_size)]
    console = Console()
    _end_on_signals()
    try:
        with running_server(port, arguments) as url:
            show_patients(console, url, stays_up=not once)
            if not once:
                _stay_up(console, url)
    except KeyboardInterrupt:
        if once:
            raise
        click.echo("stopped")


def _stay_up(console: Console, url: str) -> None:
    """Says where to look, and waits for Ctrl-C."""
    console.print()
    console.rule("The server stays up; stop it with Ctrl-C")
    for what, path in (
        ("The playground", "/"),
        ("CDS Hooks discovery", "/cds-services"),
        ("FHIR R4 patients", "/fhir/Patient"),
        ("topics", "/topics"),
        ("OpenAPI", "/openapi.json"),
        ("version", "/version"),
    ):
        click.echo(f"{what}: {url}{path}")
    while True:
        time.sleep(3600)


def _end_on_signals() -> None:
    """A request to end, or a terminal that closes, runs what Ctrl-C would run; a hang-up that is
    ignored (nohup) stays ignored.
    """
    for number in (signal.SIGTERM, signal.SIGHUP):
        if signal.getsignal(number) != signal.SIG_IGN:
            signal.signal(number, lambda number, _: sys.exit(128 + number))
