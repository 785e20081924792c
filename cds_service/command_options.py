"""What the commands share: options, and the content that is meant by them."""

from collections.abc import Callable
from typing import TYPE_CHECKING

import click

from cds_service.modes import Mode, topic_and_mode

if TYPE_CHECKING:
    from cds_service.config import Settings
    from cds_service.content import Content

PORT = click.IntRange(1, 65535)
AT_LEAST_ONE = click.IntRange(min=1)


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


def loaded(settings: "Settings", modes: dict[str, Mode]) -> "Content":
    """The content of the settings, topics switched as environment and command line ask."""
    from cds_service.loading import load_content  # `serve` has something to begin before

    return load_content(settings.hooks_dir, settings.site_file, asked(settings, modes))


def asked(settings: "Settings", modes: dict[str, Mode]) -> dict[str, Mode]:
    """What environment and command line ask of the topics; what is asked last holds."""
    return {x: mode for x, mode in settings.topic_modes.items() if x not in modes} | modes


def show_content(content: "Content", say: Callable[[str], object] = click.echo) -> None:
    """Says what is served, and what of it the site has changed."""
    say(f"content {content.about.version} {content.hash[:12]} from {content.folder}")
    for change in content.overrides:
        say(f"  site: {change.key} is {change.here} (shipped: {change.shipped})")
