"""Settings of this deployment, read from CDS_* variables once; an unknown name refuses to start."""

import os
import re
import ssl
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from ipaddress import ip_network
from pathlib import Path
from typing import Any

from cds_service.addresses import Network
from cds_service.audit import STDOUT
from cds_service.errors import ContentError, did_you_mean
from cds_service.logs import LEVELS
from cds_service.modes import Mode, topic_and_mode
from cds_service.rates import Rate, rate_of

DEFAULT_PEER_RATE = Rate(100, "second")
_HERE = Path(__file__).resolve().parent


@dataclass(frozen=True, slots=True)
class Settings:
    """What the deployment decides; what is clinical lies in the content, what a site maps in its
    site file.
    """

    hooks_dir: Path = field(default_factory=lambda: _beside("hooks"))
    site_file: Path | None = None
    fhir_servers: tuple[str, ...] = ()
    fetch_seconds: float = 2.0
    answer_seconds: float = 10.0
    max_body_bytes: int = 20_000_000
    cors_origins: tuple[str, ...] = ("*",)
    open: bool = False
    topic_modes: Mapping[str, Mode] = field(default_factory=dict)
    public_urls: tuple[str, ...] = ()
    clients_file: Path | None = None
    protect_discovery: bool = False
    peer_rate: Rate | None = DEFAULT_PEER_RATE
    proxies: tuple[Network, ...] = ()
    store_url: str = "sqlite:///cds-service.sqlite"
    patient_secret: bytes = field(default=b"", repr=False)
    ca_bundle: Path | None = None
    https_proxy: str = field(default="", repr=False)  # it may hold a password
    audit_file: str = ""
    log_level: str = "info"
    metrics_address: tuple[str, int] | None = None
    demo_url: str = ""
    demo_page_size: int | None = None

    @property
    def public_url(self) -> str:
        """The first of the server's own addresses, "" when none is known."""
        return next(iter(self.public_urls), "")


def _beside(name: str) -> Path:
    """A folder of the product: beside an editable install, else the copy in the wheel."""
    beside = _HERE.parent / name
    return beside if beside.is_dir() else _HERE / "_content" / name


def fixtures_dir() -> Path:
    """The folder of synthetic patients."""
    return _beside("fixtures")


def migrations_dir() -> Path:
    """The folder of the store's migrations."""
    return _beside("migrations")


def read_settings(environ: Mapping[str, str] | None = None) -> Settings:
    """The settings of the environment; raises ContentError for an unknown CDS_ name or a value that
    does not fit.
    """
    values: dict[str, Any] = {}
    for name, text in given(os.environ if environ is None else environ).items():
        key, read = _VARIABLES[name]
        try:
            values[key] = read(text)
        except OSError as error:
            why = f"does not fit: {text}: {error.strerror}"
            raise ContentError("environment", name, why) from None
        except ValueError as error:
            raise ContentError("environment", name, f"does not fit: {error}") from error
    return Settings(**values)


def given(environ: Mapping[str, str]) -> dict[str, str]:
    """The settings that are given, as they are written; raises ContentError for an unknown CDS_
    name, unless Kubernetes has set it.
    """
    found = {name: value for name, value in environ.items() if name.startswith("CDS_") and value}
    found = {name: value for name, value in found.items() if not is_service_link(name, value)}
    for name in sorted(found):
        if name not in _VARIABLES:
            why = f"is no setting{did_you_mean(name, MEMBERS)}; there are {', '.join(MEMBERS)}"
            raise ContentError("environment", name, why)
    return found


def is_service_link(name: str, value: str) -> bool:
    """Whether Kubernetes has set it, as it does in every container for each Service: one called cds
    or cds-anything has names that begin as ours do.
    """
    return any(shape.match(name) and said.match(value) for shape, said in _SERVICE_LINKS)


_LINK = r"CDS(_[A-Z0-9_]+)?"
_LINK_PORT = rf"{_LINK}_PORT_\d+_(TCP|UDP|SCTP)"
_IP = r"[\da-f.:]+\Z"
# Each with what its value looks like, so that CDS_PORT=8000 is not taken for one.
_SERVICE_LINKS = [
    (re.compile(rf"{shape}\Z"), re.compile(value))
    for shape, value in (
        (f"{_LINK}_SERVICE_HOST", _IP),
        (f"{_LINK}_SERVICE_PORT(_[A-Z0-9_]+)?", r"\d+\Z"),
        (f"{_LINK}_PORT", "(tcp|udp|sctp)://"),
        (_LINK_PORT, "(tcp|udp|sctp)://"),
        (f"{_LINK_PORT}_PROTO", r"(tcp|udp|sctp)\Z"),
        (f"{_LINK_PORT}_PORT", r"\d+\Z"),
        (f"{_LINK_PORT}_ADDR", _IP),
    )
]


def _words(text: str) -> tuple[str, ...]:
    return tuple(text.replace(",", " ").split())


def _servers(text: str) -> tuple[str, ...]:
    for one in _words(text):
        if not re.fullmatch(r"https?://[^/\s?#]+(/[^\s?#]*)?", one):
            raise ValueError("must be http(s) base URLs, separated by blanks")
    return _words(text)


def _addresses(text: str) -> tuple[str, ...]:
    for one in _words(text):
        if not re.fullmatch(r"https?://[^/\s?#@]+(/[^\s?#]*)?", one):
            raise ValueError("must be http(s) base URLs without query, fragment or user")
    return tuple(one.rstrip("/") for one in _words(text))


def _peer_rate(text: str) -> Rate | None:
    return None if text == "off" else rate_of(text)


def _networks(text: str) -> tuple[Network, ...]:
    return tuple(map(ip_network, _words(text)))


def _store(text: str) -> str:
    """A SQLite store is a file: what lives in one worker's memory the others cannot see."""
    if not re.fullmatch(r"sqlite:///(?!:memory:)\S+|postgresql://\S+", text):
        raise ValueError("must be sqlite:///FILE or postgresql://USER@HOST/NAME")
    return text


def _secret(text: str) -> bytes:
    secret = _file(text).read_bytes()
    if len(secret) < 32:
        raise ValueError(f"{text} holds fewer than 32 bytes")
    return secret


def _count(text: str) -> int:
    number = int(text)
    if number < 1:
        raise ValueError("must be at least 1")
    return number


def _folder(text: str) -> Path:
    path = Path(text)
    if not path.is_dir():
        raise ValueError(f"{text} is no folder")
    return path


def _file(text: str) -> Path:
    path = Path(text)
    if not path.is_file():
        raise ValueError(f"{text} is no file")
    return path


def _certificates(text: str) -> Path:
    path = _file(text)
    try:
        ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT).load_verify_locations(path)
    except OSError:
        raise ValueError(f"{text} holds no certificates in PEM") from None
    return path


def _proxy(text: str) -> str:
    # No word of the value: it may hold a password.
    if not re.fullmatch(r"http://([^/\s?#@]+@)?[^/\s?#@]+/?", text):
        raise ValueError("must be http://host:port of a proxy that tunnels (CONNECT)")
    return text.rstrip("/")


def _audit(text: str) -> str:
    """A file that is there or can be made, or "-"."""
    if text != STDOUT and not Path(text).parent.is_dir():
        raise ValueError(f"{Path(text).parent} is no folder")
    return text


def _level(text: str) -> str:
    if text.lower() not in LEVELS:
        raise ValueError(f"must be one of {', '.join(LEVELS)}")
    return text.lower()


def _address(text: str) -> tuple[str, int]:
    host, colon, port = text.rpartition(":")
    if not colon or not host or not port.isdecimal() or not 0 < int(port) < 65536:
        raise ValueError("must be HOST:PORT, such as 127.0.0.1:9464")
    return host.strip("[]"), int(port)


def _positive(text: str) -> float:
    number = float(text)
    if not 0 < number < 3600:
        raise ValueError("must be seconds above 0 and below 3600")
    return number


def _bytes(text: str) -> int:
    number = int(text)
    if number < 1024:
        raise ValueError("must be at least 1024")
    return number


def _yes(text: str) -> bool:
    if text not in ("0", "1"):
        raise ValueError("must be 0 or 1")
    return text == "1"


def _modes(text: str) -> dict[str, Mode]:
    return dict(map(topic_and_mode, _words(text)))


_VARIABLES: dict[str, tuple[str, Callable[[str], Any]]] = {
    "CDS_HOOKS_DIR": ("hooks_dir", _folder),
    "CDS_SITE_FILE": ("site_file", _file),
    "CDS_FHIR_SERVERS": ("fhir_servers", _servers),
    "CDS_FETCH_SECONDS": ("fetch_seconds", _positive),
    "CDS_ANSWER_SECONDS": ("answer_seconds", _positive),
    "CDS_CA_BUNDLE": ("ca_bundle", _certificates),
    "CDS_HTTPS_PROXY": ("https_proxy", _proxy),
    "CDS_MAX_BODY_BYTES": ("max_body_bytes", _bytes),
    "CDS_CORS_ORIGINS": ("cors_origins", _words),
    "CDS_OPEN": ("open", _yes),
    "CDS_TOPIC_MODES": ("topic_modes", _modes),
    "CDS_PUBLIC_URL": ("public_urls", _addresses),
    "CDS_CLIENTS_FILE": ("clients_file", _file),
    "CDS_PROTECT_DISCOVERY": ("protect_discovery", _yes),
    "CDS_PEER_RATE": ("peer_rate", _peer_rate),
    "CDS_PROXIES": ("proxies", _networks),
    "CDS_STORE": ("store_url", _store),
    "CDS_PATIENT_SECRET_FILE": ("patient_secret", _secret),
    "CDS_AUDIT_FILE": ("audit_file", _audit),
    "CDS_LOG_LEVEL": ("log_level", _level),
    "CDS_METRICS_ADDRESS": ("metrics_address", _address),
    "CDS_DEMO_URL": ("demo_url", str),  # where the fixture patients are served
    "CDS_DEMO_PAGE_SIZE": ("demo_page_size", _count),
}
# How `demo` tells its own workers; nobody else sets these.
_SET_BY_DEMO = ("CDS_DEMO_URL", "CDS_DEMO_PAGE_SIZE")
# The member of Settings that each name sets.
MEMBERS = {name: key for name, (key, _) in _VARIABLES.items() if name not in _SET_BY_DEMO}
