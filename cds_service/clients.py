"""Who may call: the trusted clients of a file, and the caller of one call."""

import re
from collections import Counter
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from ipaddress import IPv4Network, IPv6Network, ip_address, ip_network
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal
from urllib.parse import urlsplit

import msgspec
from msgspec import Meta, Struct

from cds_service.errors import ContentError
from cds_service.modes import EVERY, Mode, unknown_topic
from cds_service.rates import Rate, rate_of
from cds_service.toml_files import read_toml

if TYPE_CHECKING:
    from cds_service.jwks import KeySet

_Said = Annotated[str, Meta(pattern=r"^[^\s\x00-\x1f\x7f]+\Z", max_length=2000)]
_Seconds = Annotated[int, Meta(ge=1, le=86_400)]
_BASE = re.compile(r"https://[^/\s?#@]+(/(?!\.{1,2}(/|\Z))[^/\s?#\\]*)*\Z")
_URL = re.compile(r"https?://[^/\s?#@]+(/[^\s?#]*)?(\?[^\s#]*)?\Z")


class FhirServer(Struct, frozen=True):
    """A FHIR server that may be read for a client: its base URL, the networks that its name may
    resolve to beside public ones, and the client id under which we are registered there ("": any).
    """

    url: str
    networks: tuple[IPv4Network | IPv6Network, ...] = ()
    subject: str = ""


@dataclass(frozen=True, slots=True)
class Caller:
    """Whose call it is: the issuer of its token and, where the token names one, the tenant. Both
    are "" for a caller of the open server.

    What is agreed with the client comes along: the `name` it has here, whether it is `quiet` (is
    never answered with an error), and the topics that are switched for it.
    """

    issuer: str = ""
    tenant: str = ""
    name: str = field(default="", compare=False)
    quiet: bool = field(default=False, compare=False)
    modes: Mapping[str, Mode] = field(default_factory=dict, compare=False)


ANYBODY = Caller()


@dataclass(frozen=True, slots=True)
class Client:
    """A trusted client. Its keys are published at `jku`, or are `keys` when that is "". No
    `audiences`: the URL called; no `tenants`: any. `quiet` and `modes` are as a Caller has
    them; no `rate`: it may call as often as it likes.
    """

    name: str
    issuer: str
    jku: str = ""
    keys: "KeySet | None" = None
    algorithms: tuple[str, ...] = ("ES384", "RS384")
    audiences: tuple[str, ...] = ()
    tenants: tuple[str, ...] = ()
    single_use: bool = True
    max_lifetime: int = 3600
    fhir_servers: tuple[FhirServer, ...] = ()
    quiet: bool = False
    modes: Mapping[str, Mode] = field(default_factory=dict)
    rate: Rate | None = None

    def __str__(self) -> str:
        keys = self.jku if self.keys is None else ", ".join(x.kid for x in self.keys.keys)
        said = [f"{self.name} ({self.issuer})", " ".join(self.algorithms), f"keys: {keys}"]
        said += ["failures: quiet"] if self.quiet else []
        said += [f"at most {self.rate}"] if self.rate else []
        said += [f"{topic}={mode}" for topic, mode in self.modes.items()]
        return ", ".join(said)

    def caller(self, tenant: str) -> Caller:
        """A caller of this client's, of that tenant ("": none is named)."""
        return Caller(self.issuer, tenant, self.name, self.quiet, self.modes)


# -- the file ----------------------------------------------------------------------------------


class _FhirServerRow(Struct, forbid_unknown_fields=True):
    url: _Said
    networks: list[str] = []
    subject: str = ""


class _ClientRow(Struct, forbid_unknown_fields=True):
    name: Annotated[str, Meta(min_length=1)]
    issuer: _Said
    jku: _Said = ""
    insecure_jku: bool = False
    keys: str = ""
    algorithms: Annotated[list[str], Meta(min_length=1)] = msgspec.field(
        default_factory=lambda: ["ES384", "RS384"]
    )
    audiences: list[_Said] = []
    tenants: list[_Said] = []
    jti: Literal["single-use", "accepted-again"] = "single-use"
    max_lifetime: _Seconds = 3600
    fhir_server: list[_FhirServerRow] = []
    failures: Literal["strict", "quiet"] = "strict"
    modes: dict[str, Mode] = {}
    rate: str = ""


class _ClientsFile(Struct, forbid_unknown_fields=True):
    client: Annotated[list[_ClientRow], Meta(min_length=1)]


def read_clients(path: Path, topics: Collection[str]) -> tuple[Client, ...]:
    """The clients of a file, at least one; raises ContentError naming file and key. Only `topics`
    can be switched.
    """
    rows = read_toml(path, _ClientsFile, path.parent).client
    for n, row in enumerate(rows):
        if wrong := unknown_topic(row.modes, topics):
            raise ContentError(path.name, f"client[{n}].modes.{wrong[0]}", wrong[1])
    clients = tuple(_client(path, n, row) for n, row in enumerate(rows))
    for issuer, times in Counter(x.issuer for x in clients).items():
        if times > 1:
            raise ContentError(path.name, "client", f"the issuer {issuer} stands twice")
    return clients


def _client(path: Path, number: int, row: _ClientRow) -> Client:
    from cds_service.jwks import ALGORITHMS  # it takes a while to load

    where = f"client[{number}]"
    if bool(row.jku) == bool(row.keys):
        raise ContentError(path.name, where, "needs either jku or keys")
    unknown = sorted(set(row.algorithms) - set(ALGORITHMS))
    if unknown:
        why = f"{unknown[0]} is none of {', '.join(ALGORITHMS)}"
        raise ContentError(path.name, f"{where}.algorithms", why)
    if row.jku or row.insecure_jku:
        _check_jku(path, where, row)
    return Client(
        name=row.name,
        issuer=row.issuer,
        jku=row.jku,
        keys=_keys(path, where, row.keys) if row.keys else None,
        algorithms=tuple(row.algorithms),
        audiences=tuple(row.audiences),
        tenants=tuple(row.tenants),
        single_use=row.jti == "single-use",
        max_lifetime=row.max_lifetime,
        fhir_servers=tuple(
            _fhir_server(path, f"{where}.fhir_server[{n}]", x)
            for n, x in enumerate(row.fhir_server)
        ),
        quiet=row.failures == "quiet",
        modes=_most_general_first(row.modes),
        rate=_rate(path, f"{where}.rate", row.rate) if row.rate else None,
    )


def _most_general_first(modes: Mapping[str, Mode]) -> dict[str, Mode]:
    """A table has no order: what is said of one topic holds against what is said of all."""
    return dict(sorted(modes.items(), key=lambda x: x[0] != EVERY))


def _rate(path: Path, where: str, text: str) -> Rate:
    try:
        return rate_of(text)
    except ValueError as error:
        raise ContentError(path.name, where, str(error)) from None


def _check_jku(path: Path, where: str, row: _ClientRow) -> None:
    """Keys that come over plain HTTP may be anybody's, unless they never leave this machine."""
    if not _URL.match(row.jku):
        raise ContentError(path.name, f"{where}.jku", "must be an https URL")
    parts = urlsplit(row.jku)
    if row.insecure_jku and not is_loopback(parts.hostname or ""):
        raise ContentError(path.name, f"{where}.insecure_jku", "is for loopback only")
    if parts.scheme != "https" and not row.insecure_jku:
        raise ContentError(path.name, f"{where}.jku", "must be an https URL")


def _is_base(url: str) -> bool:
    if not _BASE.match(url):
        return False
    try:
        urlsplit(url).port  # noqa: B018  # it is read when it is asked for
    except ValueError:
        return False
    return True


def is_loopback(host: str) -> bool:
    """Whether a host of a URL is this machine, by its name or address alone."""
    if host.lower() == "localhost":
        return True
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return False


def _keys(path: Path, where: str, file: str) -> "KeySet":
    """The keys of a JWKS file beside the clients file; one that nobody should trust refuses."""
    from cds_service.jwks import read_key_set

    where = f"{where}.keys"
    try:
        found = read_key_set((path.parent / file).read_bytes())
    except OSError as error:
        raise ContentError(path.name, where, f"{file}: {error.strerror}") from None
    except ValueError as error:
        raise ContentError(path.name, where, f"{file} {error}") from None
    if found.refused:
        raise ContentError(path.name, where, f"{file}: {found.refused[0]}")
    if not found.keys:
        raise ContentError(path.name, where, f"{file} holds no key")
    return found


def _fhir_server(path: Path, where: str, row: _FhirServerRow) -> FhirServer:
    if not _is_base(row.url):
        raise ContentError(path.name, f"{where}.url", "must be an https base URL")
    try:
        networks = tuple(map(ip_network, row.networks))
    except ValueError as error:
        raise ContentError(path.name, f"{where}.networks", str(error)) from None
    return FhirServer(row.url, networks, row.subject)
