"""`config` and `check`: what is in force, and whether it is right."""

import os
import sys
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path

import click
import msgspec

from cds_service.command_options import asked, loaded, show_content, topic_mode
from cds_service.config import read_settings
from cds_service.content import Content
from cds_service.errors import CdsError
from cds_service.loading import load_content
from cds_service.modes import Mode
from cds_service.request_commands import fail
from cds_service.vignette_rows import Vignette


@click.command()
@click.option("--open", "is_open", is_flag=True, help="As serve --open would have it.")
@click.option("--json", "as_json", is_flag=True, help="Print it as JSON.")
@topic_mode
def config(is_open: bool, as_json: bool, modes: dict[str, Mode]) -> None:
    """Print what is in force and where it comes from: settings, clients, site file and topics;
    secrets are not shown.
    """
    from rich.console import Console

    from cds_service.in_force import in_force
    from cds_service.terminal import show_in_force

    settings = read_settings()
    if is_open:
        settings = replace(settings, open=True)
    found = in_force(settings, os.environ, loaded(settings, modes), modes)
    if as_json:
        click.echo(msgspec.json.format(msgspec.json.encode(found), indent=2))
    else:
        show_in_force(Console(), msgspec.to_builtins(found))


@click.command()
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
    from cds_service.outgoing import check_drafts, check_files

    settings = read_settings()
    folder, modes = folder or settings.hooks_dir, asked(settings, modes)
    here = load_content(folder, settings.site_file, modes)
    show_content(here)
    if explained is not None:
        _explain_vignette(here, explained)
        return
    shipped = load_content(folder)
    check_files(shipped.folder)
    check_drafts(shipped.orders)
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
        fail(error)
