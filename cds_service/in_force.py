"""What is in force and where it comes from, for `config`: no secret is in it."""

import re
from collections.abc import Iterator, Mapping
from pathlib import Path

from msgspec import Struct

from cds_service.clients import Client, read_clients
from cds_service.config import MEMBERS, Settings, given, is_service_link
from cds_service.content import Content
from cds_service.modes import EVERY, Mode
from cds_service.standing import missing

COMMAND_LINE, DEFAULT, SHIPPED = "command line", "default", "content"
_PASSWORD = re.compile(r"(://[^:/?#@\s]*):\S*@")  # to the last @: rather too much than too little
_PARAMETER = re.compile(r"([?&][^=&\s]*pass[^=&\s]*=)[^&\s]*", re.IGNORECASE)
# What the open server makes for itself.
_MADE_BY_OPEN = {
    "CDS_STORE": "a temporary file",
    "CDS_PATIENT_SECRET_FILE": "random bytes",
    "CDS_PUBLIC_URL": "as started",
}


class SettingInForce(Struct):
    """One setting; `origin` is "environment", "default", "command line", or two of them."""

    name: str
    value: str
    origin: str


class ClientInForce(Struct):
    """What is agreed with a client."""

    name: str
    issuer: str
    failures: str
    rate: str
    modes: dict[str, Mode]


class SiteChange(Struct):
    """One thing that the site file changes."""

    key: str
    here: str
    shipped: str


class TopicInForce(Struct):
    """A topic's mode, for clients with which nothing else is agreed."""

    topic: str
    mode: Mode
    origin: str


class InForce(Struct):
    """All that is in force; `ignored` are names that Kubernetes has set, `lacking` the settings
    without which `serve` does not start.
    """

    content: dict[str, str]
    settings: list[SettingInForce]
    clients: list[ClientInForce]
    site: list[SiteChange]
    topics: list[TopicInForce]
    ignored: list[str]
    lacking: list[str]


def in_force(
    settings: Settings, environ: Mapping[str, str], content: Content, modes: Mapping[str, Mode]
) -> InForce:
    """What a server would run with; `modes` are those of the command line. Raises ContentError for
    what is wrong in the clients file.
    """
    file = settings.clients_file
    clients = read_clients(file, content.topics()) if file and not settings.open else ()
    about = {"version": content.about.version, "hash": content.hash, "folder": str(content.folder)}
    return InForce(
        content=about,
        settings=[*_settings(settings, given(environ), modes)],
        clients=[_client(x) for x in clients],
        site=[SiteChange(x.key, x.here, x.shipped) for x in content.overrides],
        topics=[*_topics(settings, content, modes)],
        ignored=sorted(x for x, value in environ.items() if is_service_link(x, value)),
        lacking=[] if settings.open else [*missing(settings)],
    )


def masked(text: str) -> str:
    """The text without the passwords of the URLs in it."""
    return _PARAMETER.sub(r"\1***", _PASSWORD.sub(r"\1:***@", text))


def _settings(
    settings: Settings, said: Mapping[str, str], modes: Mapping[str, Mode]
) -> Iterator[SettingInForce]:
    for name, member in MEMBERS.items():
        value, origin = getattr(settings, member), "environment" if name in said else DEFAULT
        if name == "CDS_TOPIC_MODES" and modes:
            value = {**value, **modes}
            origin = f"{origin}, {COMMAND_LINE}" if name in said else COMMAND_LINE
        elif name == "CDS_OPEN" and settings.open and said.get(name) != "1":
            origin = COMMAND_LINE
        if name == "CDS_METRICS_ADDRESS" and value is not None:
            value = ":".join(map(str, value))
        shown = "off" if name == "CDS_PEER_RATE" and value is None else _shown(value)
        if settings.open and origin == DEFAULT:
            shown = _MADE_BY_OPEN.get(name, shown)
        if isinstance(value, bytes) and value:
            shown = f"{len(value)} bytes from {said[name]}"
        yield SettingInForce(name, masked(shown), origin)


def _shown(value: object) -> str:
    """A value as it would be written in the environment; "none" for nothing."""
    if isinstance(value, bool):
        return str(int(value))
    if isinstance(value, float):
        return f"{value:g}"
    if isinstance(value, Mapping):
        value = tuple(f"{x}={y}" for x, y in value.items())
    if isinstance(value, tuple):
        value = " ".join(map(str, value))
    if isinstance(value, Path):
        return str(value)
    return "none" if value in (None, "", b"") else str(value)


def _client(client: Client) -> ClientInForce:
    return ClientInForce(
        name=client.name,
        issuer=masked(client.issuer),
        failures="quiet" if client.quiet else "strict",
        rate=str(client.rate or "any"),
        modes=dict(client.modes),
    )


def _topics(
    settings: Settings, content: Content, modes: Mapping[str, Mode]
) -> Iterator[TopicInForce]:
    asked = (
        (COMMAND_LINE, modes),
        ("CDS_TOPIC_MODES", settings.topic_modes),
        ("site file", content.site.modes),
    )
    for topic, mode in content.modes.items():
        origin = next((x for x, some in asked if topic in some or EVERY in some), SHIPPED)
        yield TopicInForce(topic, mode, origin)
