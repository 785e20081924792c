"""EHRs for the tests: their keys, the server that publishes these, the tokens they sign, and the
product that trusts them, in a process of its own.
"""

import json
import ssl
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from datetime import datetime
from functools import partial
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from uuid import uuid4

import jwt
import msgspec
from jwt.utils import base64url_encode
from werkzeug.test import TestResponse

from cds_service.app import create_app
from cds_service.config import migrations_dir, read_settings
from cds_service.minting import make_key
from cds_service.store import Store
from tests.exchanges import SERVICE, now, send
from tests.loopback import Running, running

Json = dict[str, Any]
BASE = "https://cds.example.org/alp"  # what a proxy would be called by
OTHER_BASE = "https://cds.example.net"


class Key:
    """A key pair under an id."""

    def __init__(self, algorithm: str = "ES384", kid: str = "", **members: object) -> None:
        self.private, self.public = make_key(algorithm)
        named = {"kid": kid} if kid else {}
        self.private |= named
        self.public |= {**named, **members}

    @property
    def kid(self) -> str:
        return str(self.private["kid"])

    @property
    def header(self) -> Json:
        return {"alg": self.private["alg"], "typ": "JWT", "kid": self.kid}

    def sign(self, message: bytes, algorithm: str) -> bytes:
        of = jwt.get_algorithm_by_name(algorithm)
        return of.sign(message, jwt.PyJWK(self.private, algorithm=algorithm).key)


def part(value: Json | bytes) -> bytes:
    return base64url_encode(value if isinstance(value, bytes) else json.dumps(value).encode())


def claims(issuer: str, path: str = SERVICE, **others: object) -> Json:
    """What a good token says; a claim that is None is left out."""
    now = int(time.time())
    said = {
        "iss": issuer,
        "aud": BASE + path,
        "iat": now,
        "exp": now + 300,
        "jti": str(uuid4()),
        **others,
    }
    return {name: value for name, value in said.items() if value is not None}


def token(key: Key, said: Json | bytes, **header: object) -> str:
    """A token with that header and those claims, whatever they are, signed with the key."""
    head = {name: x for name, x in {**key.header, **header}.items() if x is not None}
    message = part(head) + b"." + part(said)
    algorithm = str(key.private["alg"])
    return (message + b"." + part(key.sign(message, algorithm))).decode()


# -- the server that publishes keys --------------------------------------------------------------


@dataclass
class KeyServer:
    """Key sets by path; `faults` by path replace their answers, `hits` counts who asked."""

    url: str
    sets: dict[str, list[Json]] = field(default_factory=dict)
    faults: dict[str, Callable[["Publishing"], object]] = field(default_factory=dict)
    hits: Counter[str] = field(default_factory=Counter)
    released: threading.Event = field(default_factory=threading.Event)

    def publish(self, path: str, *keys: Key | Json) -> str:
        """The URL of a path that now shows these keys."""
        self.sets[path] = [x.public if isinstance(x, Key) else x for x in keys]
        return self.url + path


class Publishing(BaseHTTPRequestHandler):
    def __init__(self, keys: KeyServer, *arguments: object) -> None:
        self.keys = keys
        super().__init__(*arguments)  # type: ignore[arg-type]  # as socketserver calls it

    def do_GET(self) -> None:
        self.keys.hits[self.path] += 1
        with suppress(ConnectionError):
            if self.path in self.keys.faults:
                self.keys.faults[self.path](self)
            else:
                self.give(json.dumps({"keys": self.keys.sets[self.path]}).encode())

    def give(self, body: bytes, status: int = 200, **headers: str) -> None:
        self.send_response(status)
        for name, value in {"Content-Length": str(len(body)), **headers}.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *arguments: object) -> None:
        pass


@contextmanager
def publishing(certificate: Path | None = None, key: Path | None = None) -> Iterator[KeyServer]:
    """A server of keys until the end of the block; over TLS where it has a certificate."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), BaseHTTPRequestHandler)
    if certificate is not None:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(certificate, key)
        server.socket = context.wrap_socket(server.socket, server_side=True)
    scheme = "http" if certificate is None else "https"
    server.daemon_threads, server.block_on_close = True, False
    keys = KeyServer(f"{scheme}://127.0.0.1:{server.server_address[1]}")
    server.RequestHandlerClass = partial(Publishing, keys)
    thread = threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True)
    thread.start()
    try:
        yield keys
    finally:
        keys.released.set()
        server.shutdown()
        server.server_close()
        thread.join()


# -- the product ---------------------------------------------------------------------------------


def client_row(issuer: str, modes: Mapping[str, str] | None = None, **members: object) -> str:
    """A client of the clients file."""
    said = {"name": issuer.rpartition("/")[2], "issuer": issuer, **members}
    lines = ["[[client]]", *(f"{x} = {json.dumps(y)}" for x, y in said.items())]
    if modes is not None:
        lines += ["[client.modes]", *(f'"{x}" = {json.dumps(y)}' for x, y in modes.items())]
    return "\n".join([*lines, ""])


def settings_in(folder: Path, rows: Sequence[str], **others: str) -> dict[str, str]:
    """What `serve` needs to trust these clients; the store is a file of the folder."""
    (folder / "clients.toml").write_text("\n".join(rows), "utf-8")
    (folder / "secret").write_bytes(b"s" * 32)
    return {
        "CDS_CLIENTS_FILE": str(folder / "clients.toml"),
        "CDS_PATIENT_SECRET_FILE": str(folder / "secret"),
        "CDS_PUBLIC_URL": f"{BASE} {OTHER_BASE}",
        "CDS_STORE": f"sqlite:///{folder}/store.sqlite",
        "CDS_PEER_RATE": "off",  # all tests call from one address
        **others,
    }


@contextmanager
def trusting(
    folder: Path, rows: Sequence[str], *arguments: str, **others: str
) -> Iterator[Running]:
    """A server that trusts these clients, in a process of its own."""
    with running(*arguments, is_open=False, **settings_in(folder, rows, **others)) as server:
        yield server


class Hospital:
    """The product in this process, trusting the clients of these rows, at a clock that can be set;
    they all sign with one key.
    """

    def __init__(self, folder: Path, *rows: str, **others: str) -> None:
        self.at = now()
        self.key = Key(kid="hospital")
        (folder / "keys.json").write_bytes(key_set(self.key))
        self.settings = read_settings(settings_in(folder, rows, **others))
        self.store = Store(self.settings.store_url)
        self.store.migrate(migrations_dir())
        self.client = create_app(self.settings, now=self.now).test_client()

    def now(self) -> datetime:
        return self.at

    def token(self, issuer: str, path: str = SERVICE, **others: object) -> str:
        """A good token of a client, by the clock that is set."""
        issued = int(self.at.timestamp())
        times: Json = {"iat": issued, "exp": issued + 300}
        return token(self.key, claims(issuer, path, **{**times, **others}))

    def ask(
        self, issuer: str, body: Json | str | bytes, path: str = SERVICE, **headers: str
    ) -> TestResponse:
        """The answer to a client's call."""
        given = {"Authorization": f"Bearer {self.token(issuer, path)}", **headers}
        return send(self.client, body, path, **given)


def key_set(*keys: Key | Json) -> bytes:
    return msgspec.json.encode({"keys": [x.public if isinstance(x, Key) else x for x in keys]})
