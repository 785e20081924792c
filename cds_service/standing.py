"""What a server stands on before it starts: either trusted clients, or nobody but this machine, and
in both cases a store and a secret.
"""

import os
import secrets
from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from tempfile import TemporaryDirectory
from urllib.parse import urlsplit

from msgspec import Struct

from cds_service.apart import Apart
from cds_service.audit import STDOUT, AuditFile
from cds_service.clients import is_loopback, read_clients
from cds_service.config import Settings, migrations_dir
from cds_service.errors import CannotServe, StoreDown
from cds_service.store import SCHEMA, Store

_STORE, _SECRET = "CDS_STORE", "CDS_PATIENT_SECRET_FILE"


class Standing(Struct, frozen=True):
    """What kind of server it is, what to say of it, and what to add to its workers' settings."""

    kind: str
    says: tuple[str, ...]
    environ: Mapping[str, str]


@contextmanager
def trusting(settings: Settings, topics: Collection[str]) -> Iterator[Standing]:
    """A server for the clients of the clients file, once nothing is `missing`; raises CannotServe,
    and ContentError for what is wrong in that file. Only `topics` can be switched for a client.
    """
    assert settings.clients_file is not None
    clients = read_clients(settings.clients_file, topics)
    for url in settings.public_urls:
        parts = urlsplit(url)
        if parts.scheme != "https" and not is_loopback(parts.hostname or ""):
            raise CannotServe(f"CDS_PUBLIC_URL: {url} must be https, since it is not loopback")
    _prepare_store(settings.store_url)
    discovery = "with a token only" if settings.protect_discovery else "open to everybody"
    yield Standing(
        "server for trusted clients",
        (
            *(f"trusts {x}" for x in clients),
            f"is called at {' '.join(settings.public_urls)}; discovery is {discovery}",
            _audit(settings) or "no audit: CDS_AUDIT_FILE is not set",
        ),
        {"CDS_OPEN": "0"},
    )


def missing(settings: Settings) -> Iterator[str]:
    """The settings without which nobody can be trusted."""
    for name, given in (
        ("CDS_CLIENTS_FILE", settings.clients_file),
        ("CDS_PUBLIC_URL", settings.public_urls),
        (_SECRET, settings.patient_secret),
    ):
        if not given:
            yield name


@contextmanager
def opened(settings: Settings) -> Iterator[Standing]:
    """A server for this machine alone; its store and secret, where none are named, end with it."""
    with TemporaryDirectory(prefix="cds-service-") as folder:
        environ = {"CDS_OPEN": "1"}
        store = settings.store_url
        if not os.environ.get(_STORE):
            store = environ[_STORE] = f"sqlite:///{folder}/cds-service.sqlite"
        if not settings.patient_secret:
            secret = Path(folder, "patient-secret")
            secret.write_bytes(secrets.token_bytes(32))
            environ[_SECRET] = str(secret)
        _prepare_store(store)
        unused = "CDS_CLIENTS_FILE is not used: --open asks nobody" if settings.clients_file else ""
        says = tuple(x for x in (unused, _audit(settings)) if x)
        yield Standing("open server without client authentication", says, environ)


def _audit(settings: Settings) -> str:
    """Where the audit goes, "" for nowhere; raises CannotServe when it cannot go there."""
    name = settings.audit_file
    if not name:
        return ""
    try:
        AuditFile(name).check()
    except OSError as error:
        raise CannotServe(f"CDS_AUDIT_FILE: {name} cannot be written: {error.strerror}") from None
    return f"audit in {'the standard output' if name == STDOUT else name}"


def _make_private(file: Path) -> None:
    """A store that is made is its owner's alone, and SQLite gives its journal the same rights."""
    with suppress(OSError):  # said when the store is opened
        file.touch(mode=0o600, exist_ok=True)


def _prepare_store(url: str) -> None:
    """Makes a SQLite store, or brings it up to date: it is this server's own. Others may be shared
    with servers of another version, and are migrated by who looks after them.
    """
    store = Store(url)
    try:
        if store.is_sqlite:
            _make_private(Path(url.removeprefix("sqlite:///")))
            if not (schema := store.schema()):
                store.create()
            elif schema != SCHEMA:
                store.close()  # no connection of SQLite's may go along into another process
                Apart(lambda _: store.migrate(migrations_dir())).wait()
        store.check()
    except StoreDown as error:
        raise CannotServe(f"CDS_STORE: {store.where}: {error.diagnostics}") from None
    finally:
        store.close()
