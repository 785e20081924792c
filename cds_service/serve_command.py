"""`serve`: checks everything once, then runs the server."""

import gc
import signal
import sys
from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, Any

import click

from cds_service.apart import Apart
from cds_service.command_options import AT_LEAST_ONE, PORT, asked, loaded, show_content, topic_mode
from cds_service.modes import Mode

if TYPE_CHECKING:
    from cds_service.config import Settings

NOBODY_TO_TRUST = (
    "{}: not set, and nobody can be trusted (docs/security.md says how). "
    "Use --open to serve this machine only, without client authentication."
)


@click.command(epilog="Without --open it needs trusted clients: docs/security.md.")
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
    checked = _begin()
    from cds_service.audit import STDOUT
    from cds_service.config import read_settings
    from cds_service.serving import end_when_closed, run
    from cds_service.standing import opened, trusting

    if guarded:
        end_when_closed(sys.stdin.fileno())
    settings = read_settings()
    is_open = is_open or settings.open
    _refuse_to_serve_anybody(is_open, host, settings)
    checked.tell(settings.hooks_dir)
    content = loaded(settings, modes)
    checked.tell(content.orders)
    url = f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"
    environ = _worker_settings(settings, url, modes, with_fixtures, page_size)
    # Until granian looks after signals: what is temporary ends with a server that is stopped.
    signal.signal(signal.SIGTERM, lambda number, _: sys.exit(128 + number))
    with opened(settings) if is_open else trusting(settings, content.topics()) as trust:
        say = partial(click.echo, err=settings.audit_file == STDOUT)  # which is the audit's then
        show_content(content, say)
        for line in trust.says:
            say(line)
        bound = partial(say, f"{trust.kind} at {url}/cds-services")
        environ |= trust.environ
        checked.wait()
        run(host, port, workers, environ, bound, settings.metrics_address, content)


def _begin() -> Apart:
    """Begins the check of what is sent, which imports for as long as this process does."""
    gc.disable()  # until all is read, since nothing of it goes away; `run` enables it
    click.get_current_context().call_on_close(gc.enable)
    return Apart(_check_outgoing)


def _refuse_to_serve_anybody(is_open: bool, host: str, settings: "Settings") -> None:
    from cds_service.serving import LOOPBACK
    from cds_service.standing import missing

    if is_open and host not in LOOPBACK:
        raise click.UsageError(f"--open serves loopback only; --host {host} is not.")
    if not is_open and (lacking := ", ".join(missing(settings))):
        raise click.UsageError(NOBODY_TO_TRUST.format(lacking))


def _check_outgoing(told: Callable[[], Any]) -> None:
    """Told the folder of the content, then its orders."""
    from cds_service.outgoing import check_drafts, check_files

    check_files(told())
    check_drafts(told())


def _worker_settings(
    settings: "Settings",
    url: str,
    modes: dict[str, Mode],
    with_fixtures: bool,
    page_size: int | None,
) -> dict[str, str]:
    environ = {"CDS_PUBLIC_URL": " ".join(settings.public_urls) or url}
    if modes:
        switched = asked(settings, modes).items()
        environ["CDS_TOPIC_MODES"] = " ".join(f"{topic}={mode}" for topic, mode in switched)
    if with_fixtures:
        environ["CDS_DEMO_URL"] = url
        environ["CDS_FHIR_SERVERS"] = " ".join((*settings.fhir_servers, f"{url}/fhir"))
    if page_size is not None:
        environ["CDS_DEMO_PAGE_SIZE"] = str(page_size)
    return environ
