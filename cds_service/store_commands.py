"""`migrate`, `report` and `purge`: what is done with the store."""

import re
from datetime import UTC, datetime, timedelta
from typing import Any

import click

from cds_service import report as reporting
from cds_service.config import migrations_dir, read_settings
from cds_service.errors import CannotServe, StoreDown
from cds_service.store import Store


@click.command()
def migrate() -> None:
    """Bring the store up to date."""
    store = Store(read_settings().store_url)
    try:
        before = store.schema()
        store.migrate(migrations_dir())
        click.echo(f"the store is at {store.schema()} (it was {before or 'empty'})")
    except StoreDown as error:
        raise CannotServe(f"{error.text} ({error.diagnostics})") from None
    finally:
        store.close()


def _store(context: click.Context, _: click.Parameter, given: str | None) -> Any:
    """The store that is meant, not yet reached, until the command ends."""
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


@click.command()
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
    if comments and not exported:
        raise click.UsageError("--comments goes with --feedback.")
    days = reporting.Days(first and first.date(), last and last.date())
    store.check()
    if exported:
        click.echo(reporting.export(store, days, form, comments))
    else:
        click.echo(reporting.counted(store, days, form))


@click.command()
@click.option(
    "--older-than", "older", required=True, callback=_age, metavar="DAYS", help="Such as 730d."
)
@store_option
def purge(older: timedelta, store: Any) -> None:
    """Delete cards, feedback, comments, overrides and tallies that are older, and tokens whose time
    is over.
    """
    store.check()
    for what, number in reporting.purge(store, datetime.now(UTC), older).items():
        click.echo(f"{number} {what}")
