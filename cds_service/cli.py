"""The command line: what can be asked of the product from a shell, each command a function."""

import io
import json
import os
import re
import signal
import sys
import time
from collections.abc import Callable, Iterable
from dataclasses import replace
from datetime import UTC, date, datetime, timedelta
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click
import msgspec

from cds_service.answering import Answering
from cds_service.audit import STDOUT, about_call, events_of, explanation_of
from cds_service.config import Settings, migrations_dir, read_settings
from cds_service.content import Content
from cds_service.errors import (
    BrokenRequest,
    CannotServe,
    CdsError,
    ContentError,
    NotJson,
    StoreDown,
)
from cds_service.fhir_client import FhirClient, open_servers
from cds_service.loading import load_content
from cds_service.modes import Mode, topic_and_mode
from cds_service.vignette_rows import Vignette

if TYPE_CHECKING:
    from rich.console import Console

F = TypeVar("F", bound=Callable[..., Any])
PORT = click.IntRange(1, 65535)
NOBODY_TO_TRUST = (
    "{}: not set, and nobody can be trusted (docs/security.md says how). "
    "Use --open to serve this machine only, without client authentication."
)
AT_LEAST_ONE = click.IntRange(min=1)


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="cds-service", prog_name="cds-service")
def group() -> None:
    """A CDS Hooks server that reads a chart and suggests the next test."""


def main() -> None:
    """Runs the command line; what is wrong with content, settings or input is one sentence and exit
    code 2.
    """
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="replace")  # a terminal that lacks a sign still gets the rest
    try:
        group(standalone_mode=True)
    except (ContentError, CannotServe) as error:
        click.echo(f"cds-service: {error}", err=True)
        sys.exit(2)
    except StoreDown as error:
        click.echo(f"cds-service: {error.text} ({error.diagnostics})", err=True)
        sys.exit(2)


def _modes(_: click.Context, __: click.Parameter, given: tuple[str, ...]) -> dict[str, Mode]:
    try:
        return dict(map(topic_and_mode, given))
    except ValueError as error:
        raise click.BadParameter(str(error)) from None


topic_mode = click.option(
    "--topic-mode",
    "modes",
    multiple=True,
    metavar="TOPIC=on|shadow|off",
    callback=_modes,
    help="Switch a topic; * means all. May be given several times.",
)


def _loaded(settings: Settings, modes: dict[str, Mode]) -> Content:
    return load_content(settings.hooks_dir, settings.site_file, _asked(settings, modes))


def _asked(settings: Settings, modes: dict[str, Mode]) -> dict[str, Mode]:
    """What environment and command line ask of the topics; what is asked last holds."""
    return {x: mode for x, mode in settings.topic_modes.items() if x not in modes} | modes


def _show_content(content: Content, say: Callable[[str], object] = click.echo) -> None:
    say(f"content {content.about.version} {content.hash[:12]} from {content.folder}")
    for change in content.overrides:
        say(f"  site: {change.key} is {change.here} (shipped: {change.shipped})")


@group.command(epilog="Without --open it needs trusted clients: docs/security.md.")
@click.option("--host", default="127.0.0.1", show_default=True)
@click.option("--port", default=8000, show_default=True, type=PORT)
@click.option("--workers", default=1, show_default=True, type=AT_LEAST_ONE)
@click.option(
    "--open",
    "is_open",
    is_flag=True,
    help="Serve without client authentication: loopback only, to loopback names only.",
)
@click.option("--demo", "with_fixtures", is_flag=True, hidden=True)
@click.option("--until-stdin-closes", "guarded", is_flag=True, hidden=True)
@click.option("--page-size", type=AT_LEAST_ONE, hidden=True)
@topic_mode
def serve(
    host: str,
    port: int,
    workers: int,
    is_open: bool,
    with_fixtures: bool,
    guarded: bool,
    page_size: int | None,
    modes: dict[str, Mode],
) -> None:
    """Serve the CDS services."""
    from cds_service.apart import Apart
    from cds_service.serving import LOOPBACK, end_when_closed, run
    from cds_service.standing import missing, opened, trusting

    if guarded:
        end_when_closed(sys.stdin.fileno())
    settings = read_settings()
    is_open = is_open or settings.open
    if is_open and host not in LOOPBACK:
        raise click.UsageError(f"--open serves loopback only; --host {host} is not.")
    if not is_open and (lacking := ", ".join(missing(settings))):
        raise click.UsageError(NOBODY_TO_TRUST.format(lacking))
    content = _loaded(settings, modes)
    checked = Apart(partial(_check_outgoing, content))
    url = f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"
    environ = _worker_settings(settings, url, modes, with_fixtures, page_size)
    # Until granian looks after signals: what is temporary ends with a server that is stopped.
    signal.signal(signal.SIGTERM, lambda number, _: sys.exit(128 + number))
    with opened(settings) if is_open else trusting(settings, content.topics()) as trust:
        say = partial(click.echo, err=settings.audit_file == STDOUT)  # which is the audit's then
        _show_content(content, say)
        for line in trust.says:
            say(line)
        bound = partial(say, f"{trust.kind} at {url}/cds-services")
        environ |= trust.environ
        checked.wait()
        run(host, port, workers, environ, bound, settings.metrics_address, content)


def _check_outgoing(content: Content) -> None:
    from cds_service.outgoing import check_outgoing

    check_outgoing(content)


def _worker_settings(
    settings: Settings,
    url: str,
    modes: dict[str, Mode],
    with_fixtures: bool,
    page_size: int | None,
) -> dict[str, str]:
    environ = {"CDS_PUBLIC_URL": " ".join(settings.public_urls) or url}
    if modes:
        asked = _asked(settings, modes).items()
        environ["CDS_TOPIC_MODES"] = " ".join(f"{topic}={mode}" for topic, mode in asked)
    if with_fixtures:
        environ["CDS_DEMO_URL"] = url
        environ["CDS_FHIR_SERVERS"] = " ".join((*settings.fhir_servers, f"{url}/fhir"))
    if page_size is not None:
        environ["CDS_DEMO_PAGE_SIZE"] = str(page_size)
    return environ


@group.command("config")
@click.option("--open", "is_open", is_flag=True, help="As serve --open would have it.")
@click.option("--json", "as_json", is_flag=True, help="Print it as JSON.")
@topic_mode
def show_config(is_open: bool, as_json: bool, modes: dict[str, Mode]) -> None:
    """Print what is in force and where it comes from: settings, clients, site file and topics;
    secrets are not shown.
    """
    from rich.console import Console

    from cds_service.in_force import in_force
    from cds_service.terminal import show_in_force

    settings = read_settings()
    if is_open:
        settings = replace(settings, open=True)
    found = in_force(settings, os.environ, _loaded(settings, modes), modes)
    if as_json:
        click.echo(msgspec.json.format(msgspec.json.encode(found), indent=2))
    else:
        show_in_force(Console(), msgspec.to_builtins(found))


@group.command()
def migrate() -> None:
    """Bring the store up to date."""
    from cds_service.store import Store

    store = Store(read_settings().store_url)
    try:
        before = store.schema()
        store.migrate(migrations_dir())
        click.echo(f"the store is at {store.schema()} (it was {before or 'empty'})")
    except StoreDown as error:
        raise CannotServe(f"{error.text} ({error.diagnostics})") from None
    finally:
        store.close()


@group.group()
def token() -> None:
    """Make a client's keys and tokens, as an EHR does: for tests and for a first day."""


def _algorithm(_: click.Context, __: click.Parameter, given: str) -> str:
    from cds_service.jwks import ALGORITHMS  # it takes a while to load

    if given not in ALGORITHMS:
        raise click.BadParameter(f"{given} is none of {', '.join(ALGORITHMS)}")
    return given


@token.command("keys")
@click.option("--algorithm", default="ES384", show_default=True, callback=_algorithm)
@click.option("--out", "folder", required=True, type=click.Path(file_okay=False, path_type=Path))
def make_keys(algorithm: str, folder: Path) -> None:
    """Make a key pair: a private key, and its public half added to jwks.json beside it."""
    from cds_service.minting import KEY_SET, NoKey, write_key

    try:
        file, kid = write_key(algorithm, folder)
    except (NoKey, OSError) as error:
        raise click.ClickException(str(error)) from None
    click.echo(f"kid {kid}\nprivate key {file}\npublic keys {folder / KEY_SET}")


@token.command()
@click.option(
    "--key",
    "key_file",
    required=True,
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    help="The private key file of token keys.",
)
@click.option("--issuer", required=True, help="Who the client says it is.")
@click.option("--audience", required=True, help="The URL that is called.")
@click.option("--tenant", help="The organisation within the client.")
@click.option("--subject", help="A further claim that some EHRs send.")
@click.option("--jku", default="", help="Where the client's public keys are.")
@click.option("--expires", default=300, show_default=True, type=int, help="In how many seconds.")
def mint(
    key_file: Path,
    issuer: str,
    audience: str,
    tenant: str | None,
    subject: str | None,
    jku: str,
    expires: int,
) -> None:
    """Print a token for one call of one URL."""
    from cds_service.minting import NoKey
    from cds_service.minting import mint as minted

    named = {"iss": issuer, "aud": audience, "tenant": tenant, "sub": subject}
    claims = {name: value for name, value in named.items() if value is not None}
    try:
        click.echo(minted(key_file, claims, expires, jku))
    except (NoKey, OSError) as error:
        raise click.ClickException(str(error)) from None


@group.command()
@click.option("--port", default=8000, show_default=True, type=PORT)
@click.option("--once", is_flag=True, help="Stop after the cards are printed.")
@click.option(
    "--page-size", type=AT_LEAST_ONE, help="Most resources on one page of the FHIR endpoint."
)
@topic_mode
def demo(port: int, once: bool, page_size: int | None, modes: dict[str, Mode]) -> None:
    """Serve the fixture patients and print their cards."""
    from rich.console import Console

    from cds_service.demonstration import running_server, show_patients

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


def _stay_up(console: "Console", url: str) -> None:
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


@group.command()
@click.argument(
    "folder", required=False, type=click.Path(exists=True, file_okay=False, path_type=Path)
)
@click.option(
    "--explain",
    "explained",
    metavar="ID",
    help="Only explain the vignette of this id, as it is here.",
)
@topic_mode
def check(folder: Path | None, explained: str | None, modes: dict[str, Mode]) -> None:
    """Check a content folder and run its vignettes; with a site file, list those it moves."""
    from cds_service.checking import moved_by_site, run_vignettes
    from cds_service.outgoing import check_outgoing

    settings = read_settings()
    folder, modes = folder or settings.hooks_dir, _asked(settings, modes)
    here = load_content(folder, settings.site_file, modes)
    _show_content(here)
    if explained is not None:
        _explain_vignette(here, explained)
        return
    shipped = load_content(folder)
    check_outgoing(shipped)
    outcomes = list(run_vignettes(shipped))
    failed = [x for x in outcomes if x.differences]
    for outcome in failed:
        _show_vignette("FAILED", outcome.vignette, outcome.differences)
    if here.overrides or modes:
        moved = moved_by_site(outcomes, here)
        for each in moved:
            _show_vignette("moved", each.vignette, each.changes)
        click.echo(f"{len(moved)} moved by the settings of this site")
    click.echo(f"{len(outcomes) - len(failed)} passed, {len(failed)} failed")
    sys.exit(1 if failed else 0)


def _show_vignette(word: str, vignette: Vignette, lines: Iterable[str]) -> None:
    click.echo(f"{word} {vignette.id}: {vignette.says}")
    for line in lines:
        click.echo(f"    {line}")


def _explain_vignette(content: Content, vignette_id: str) -> None:
    from rich.console import Console

    from cds_service.checking import explanations_of
    from cds_service.terminal import show_explanation

    try:
        for explanation in explanations_of(content, vignette_id):
            show_explanation(Console(), explanation)
    except CdsError as error:
        _fail(error)


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
    content, clock = _loaded(settings, modes), _clock(day)
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


@group.command()
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
    body = request_file.read()
    try:
        _refuse_charts(body)
        answer = answering.cards(_service_for(answering, body, service_id), body)
    except CdsError as error:
        _fail(error, body)
    click.echo(msgspec.json.format(msgspec.json.encode(answer), indent=2))


@group.command()
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
    body = request_file.read()
    try:
        _refuse_charts(body)
        explanation = answering.explain(_service_for(answering, body, service_id), body)
    except CdsError as error:
        _fail(error, body)
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


def _fail(error: CdsError, body: bytes = b"") -> Any:
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


# -- the store ---------------------------------------------------------------------------------


def _store(context: click.Context, _: click.Parameter, given: str | None) -> Any:
    """The store that is meant, not yet reached, until the command ends."""
    from cds_service.store import Store

    try:
        store = Store(given or read_settings().store_url)
    except ValueError as error:
        raise click.BadParameter(str(error)) from None
    context.call_on_close(store.close)
    if store.file is not None and not store.file.is_file():
        raise click.BadParameter(f"{store.where}: there is no such file")
    return store


store_option = click.option(
    "--store",
    callback=_store,
    metavar="URL",
    help="Which store; by default that of CDS_STORE.",
)


def _age(_: click.Context, __: click.Parameter, given: str) -> timedelta:
    found = re.fullmatch(r"(\d{1,5})d", given)
    if found is None:
        raise click.BadParameter(f"{given}: must be a number of days, such as 730d")
    return timedelta(days=int(found[1]))


@group.command()
@click.option("--from", "first", type=click.DateTime(["%Y-%m-%d"]), help="The first day (UTC).")
@click.option("--to", "last", type=click.DateTime(["%Y-%m-%d"]), help="The last day (UTC).")
@click.option("--format", "form", default="table", type=click.Choice(["table", "csv", "json"]))
@click.option("--feedback", "exported", is_flag=True, help="Print each item of feedback instead.")
@click.option("--comments", is_flag=True, help="With --feedback: with what users wrote.")
@store_option
def report(
    first: datetime | None,
    last: datetime | None,
    form: str,
    exported: bool,
    comments: bool,
    store: Any,
) -> None:
    """Print what became of the cards, by topic and content; no patient is in it."""
    from cds_service import report as reporting

    if comments and not exported:
        raise click.UsageError("--comments goes with --feedback.")
    days = reporting.Days(first and first.date(), last and last.date())
    store.check()
    if exported:
        click.echo(reporting.export(store, days, form, comments))
    else:
        click.echo(reporting.counted(store, days, form))


@group.command()
@click.option(
    "--older-than", "older", required=True, callback=_age, metavar="DAYS", help="Such as 730d."
)
@store_option
def purge(older: timedelta, store: Any) -> None:
    """Delete cards, feedback, comments, overrides and tallies that are older, and tokens whose time
    is over.
    """
    from cds_service import report as reporting

    store.check()
    for what, number in reporting.purge(store, datetime.now(UTC), older).items():
        click.echo(f"{number} {what}")
