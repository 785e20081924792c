"""The command line: what can be asked of the product from a shell. Each command is a function in a
module of its kind.
"""

import io
import sys
from importlib import import_module

import click

from cds_service.errors import CannotServe, ContentError, StoreDown

_MODULES = {
    "serve": "serve_command",
    "demo": "demo_command",
    "check": "content_commands",
    "config": "content_commands",
    "evaluate": "request_commands",
    "explain": "request_commands",
    "migrate": "store_commands",
    "report": "store_commands",
    "purge": "store_commands",
    "token": "token_commands",
}


class _Commands(click.Group):
    """Imports the module of the command that is asked for: all of them take half a second."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return sorted(_MODULES)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in _MODULES:
            return None
        module = import_module(f"cds_service.{_MODULES[cmd_name]}")
        command: click.Command = getattr(module, cmd_name)
        return command


@click.group(cls=_Commands, context_settings={"help_option_names": ["-h", "--help"]})
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
