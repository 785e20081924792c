"""nginx as shipped, in front of a server of this machine: only its addresses, its certificates and
the places that it writes to are others.
"""

import os
import shutil
import ssl
import subprocess
from collections.abc import Iterator, Mapping
from contextlib import closing, contextmanager
from dataclasses import dataclass
from http.client import HTTPSConnection
from pathlib import Path
from socket import create_connection

import pytest
from requests.structures import CaseInsensitiveDict

from tests.invariants import faults, strict_json
from tests.loopback import ROOT, free_port, wait_until

SHIPPED = ROOT / "deploy" / "nginx"


@dataclass(frozen=True)
class Answer:
    """What came back."""

    status: int
    headers: CaseInsensitiveDict[str]
    body: bytes

    @property
    def text(self) -> str:
        """The words of a refusal."""
        found: str = strict_json(self.body)["issue"][0]["details"]["text"]
        return found


@dataclass(frozen=True)
class Nginx:
    """An nginx that listens on loopback."""

    port: int
    folder: Path
    certificate: Path

    @property
    def logs(self) -> str:
        """All that it has written."""
        return "".join((self.folder / x).read_text("utf-8") for x in ("access.log", "error.log"))

    def trusted(self, certificate: Path | None = None) -> ssl.SSLContext:
        """What a caller needs that trusts it, and that shows a certificate of its own."""
        context = ssl.create_default_context(cafile=self.certificate)
        if certificate is not None:
            context.load_cert_chain(certificate)
        return context

    def connect(self, peer: str = "127.0.0.1") -> ssl.SSLSocket:
        """A connection over TLS, from an address of loopback."""
        plain = create_connection(("127.0.0.1", self.port), 20, source_address=(peer, 0))
        return self.trusted().wrap_socket(plain, server_hostname="127.0.0.1")

    def call(
        self,
        method: str,
        path: str,
        body: bytes | Iterator[bytes] | None = None,
        headers: Mapping[str, str] | None = None,
        *,
        peer: str = "127.0.0.1",
        tls: ssl.SSLContext | None = None,
    ) -> Answer:
        """What is answered; fails when that breaks a rule of all answers."""
        tls = self.trusted() if tls is None else tls
        caller = HTTPSConnection(
            "127.0.0.1", self.port, context=tls, timeout=20, source_address=(peer, 0)
        )
        with closing(caller):
            caller.request(method, path, body, {**(headers or {})})
            found = caller.getresponse()
            answer = Answer(found.status, CaseInsensitiveDict(found.getheaders()), found.read())
        broken = faults(method, path, answer.status, answer.headers, answer.body)
        assert not broken, f"{method} {path}: {answer.status} {broken} {answer.body!r}"
        return answer


@contextmanager
def nginx(
    folder: Path,
    upstream: int,
    certificate: Path,
    *,
    clients: Path | None = None,
    changes: Mapping[str, str] | None = None,
) -> Iterator[Nginx]:
    """nginx before a port, until the end of the block; `clients` are the authorities whose
    certificates it asks callers for, `changes` what else is to read otherwise. Skips without nginx.
    """
    binary = shutil.which("nginx", path=f"{os.environ['PATH']}:/usr/sbin")
    if binary is None:
        pytest.skip("nginx is not installed (Debian: nginx)")
    port = free_port()
    (folder / "etc" / "tls").mkdir(parents=True)
    (folder / "etc" / "cds-service.d").mkdir()
    for name in ("tls.crt", "tls.key"):
        shutil.copy(certificate, folder / "etc" / "tls" / name)
    places = {
        "cds-service:8000": f"127.0.0.1:{upstream}",
        "listen 8443 ssl": f"listen 127.0.0.1:{port} ssl",
        "/etc/nginx/": f"{folder}/etc/",
        "/tmp/nginx": f"{folder}/nginx",
        "/dev/stdout": f"{folder}/access.log",
        "error_log stderr": f"error_log {folder}/error.log",
    }
    _write(folder / "nginx.conf", SHIPPED / "nginx.conf", {**(changes or {}), **places})
    if clients is not None:
        shutil.copy(clients, folder / "etc" / "tls" / "clients.crt")
        asking = "client-certificates.conf"
        _write(
            folder / "etc" / "cds-service.d" / asking,
            SHIPPED / asking,
            {"/etc/nginx/": f"{folder}/etc/"},
        )
    user = "user root; " if os.geteuid() == 0 else ""
    with _running([binary, "-c", str(folder / "nginx.conf"), "-g", f"{user}daemon off;"], port):
        yield Nginx(port, folder, certificate)


def _write(to: Path, shipped: Path, changes: Mapping[str, str]) -> None:
    text = shipped.read_text("utf-8")
    for old, new in changes.items():
        assert old in text, f"{shipped.name} says nothing of {old}"
        text = text.replace(old, new)
    to.write_text(text, "utf-8")


@contextmanager
def _running(command: list[str], port: int) -> Iterator[None]:
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    try:
        wait_until(lambda: process.poll() is not None or _listens(port), "nginx does not listen")
        assert process.poll() is None, process.stdout and process.stdout.read()
        yield
    finally:
        process.terminate()
        try:
            process.communicate(timeout=20)
        except subprocess.TimeoutExpired:
            process.kill()
            process.communicate()


def _listens(port: int) -> bool:
    try:
        create_connection(("127.0.0.1", port), 1).close()
    except OSError:
        return False
    return True
