"""Real servers on this machine: a FHIR server that can be made to fail, a port that only counts who
calls, and the product itself in a process of its own.
"""

import json
import multiprocessing
import os
import shutil
import ssl
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from functools import partial
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from random import SystemRandom
from socket import SHUT_WR, create_connection, create_server, socket
from socketserver import StreamRequestHandler, ThreadingTCPServer
from typing import Any
from urllib.parse import unquote

import pytest
import requests

from cds_service.fhir_endpoint import FhirEndpoint
from tests import commands

ROOT = Path(__file__).resolve().parent.parent
SECONDS_TO_START = 30
_WARM = multiprocessing.get_context("forkserver")
_WARM.set_forkserver_preload(["__main__", "tests.commands", *commands.MODULES])

Fault = Callable[["_Answering", bytes], None]


@dataclass(frozen=True)
class Asked:
    """One request that a server received."""

    method: str
    path: str
    authorization: str | None
    accept: str
    host: str = ""


@dataclass
class FhirServer:
    """A FHIR endpoint behind HTTP; `faults` by resource type replace its answers."""

    base: str
    endpoint: FhirEndpoint
    faults: dict[str, Fault] = field(default_factory=dict)
    asked: list[Asked] = field(default_factory=list)
    released: threading.Event = field(default_factory=threading.Event)

    @property
    def types(self) -> list[str]:
        """The resource types that were asked for, in order of arrival."""
        return [x.path.removeprefix("/fhir/").split("?")[0].split("/")[0] for x in self.asked]

    def reset(self) -> None:
        """Forgets what was asked and lets every answer that hangs end."""
        self.released.set()
        self.released = threading.Event()
        self.faults.clear()
        self.asked.clear()


class _Answering(BaseHTTPRequestHandler):
    """Speaks HTTP/1.0, so that no connection outlives its answer."""

    disable_nagle_algorithm = True  # head and body are two writes, 40 ms apart otherwise

    def __init__(self, fhir: FhirServer, *arguments: object) -> None:
        self.fhir = fhir
        super().__init__(*arguments)  # type: ignore[arg-type]  # as socketserver calls it

    def do_GET(self) -> None:
        authorization, accept = self.headers.get("Authorization"), self.headers.get("Accept", "")
        host = self.headers.get("Host", "")
        self.fhir.asked.append(Asked(self.command, self.path, authorization, accept, host))
        path, _, query = self.path.partition("?")
        path = unquote(path.removeprefix("/fhir/"))
        status, body = self.fhir.endpoint.answer("GET", path, query)
        fault = self.fhir.faults.get(path.split("/")[0])
        with suppress(ConnectionError):  # whoever hangs up first
            if fault is None:
                self.give(body, status)
            else:
                fault(self, body)

    def give(self, body: bytes, status: int = 200, **headers: str) -> None:
        self.send_response(status)
        for name, value in {"Content-Length": str(len(body)), **headers}.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *arguments: object) -> None:
        pass


# -- faults ------------------------------------------------------------------


def hangs(to: _Answering, body: bytes) -> None:
    to.fhir.released.wait(10)


def drips(to: _Answering, body: bytes) -> None:
    to.send_response(200)
    to.send_header("Content-Length", str(len(body)))
    to.end_headers()
    for n in range(len(body)):
        to.wfile.write(body[n : n + 1])
        if to.fhir.released.wait(0.05):
            return


def refuses(status: int) -> Fault:
    return lambda to, body: to.give(b"<h1>no</h1>", status)


def truncates(to: _Answering, body: bytes) -> None:
    to.give(body[: len(body) // 2])


def links_to(url: str) -> Fault:
    link = f'{{"resourceType":"Bundle","link":[{{"relation":"next","url":"{url}"}}]}}'
    return lambda to, body: to.give(link.encode())


def redirects_to(url: str) -> Fault:
    return lambda to, body: to.give(b"", 302, Location=url)


def says(text: bytes) -> Fault:
    return lambda to, body: to.give(text)


class _Server(ThreadingHTTPServer):
    request_queue_size = 128  # the five of the library cost a caller in parallel a second
    daemon_threads = True
    block_on_close = False


# -- servers ------------------------------------------------------------------


def certificate_for(folder: Path, *names: str) -> Path:
    """A certificate that is its own authority, with its key, in one file; skips without openssl."""
    openssl = shutil.which("openssl")
    if openssl is None:
        pytest.skip("openssl is not installed")
    curve = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes"]
    alternatives = ["-addext", f"subjectAltName={','.join(names)}"]
    made = ["-keyout", "key.pem", "-out", "cert.pem", "-subj", "/CN=test"]
    command = [openssl, "req", "-x509", *curve, *alternatives, *made]
    subprocess.run(command, cwd=folder, check=True, capture_output=True, timeout=20)
    both = folder / "both.pem"
    both.write_bytes(b"".join((folder / x).read_bytes() for x in ("key.pem", "cert.pem")))
    return both


@contextmanager
def serving(
    endpoint_at: Callable[[str], FhirEndpoint],
    name: str = "127.0.0.1",
    tls: ssl.SSLContext | None = None,
    port: int = 0,
) -> Iterator[FhirServer]:
    """A FHIR server of this machine until the end of the block; `name` is what its URLs call it,
    `port` any that is free where it is 0.
    """
    server = _Server(("127.0.0.1", port), BaseHTTPRequestHandler)
    scheme = "http" if tls is None else "https"
    base = f"{scheme}://{name}:{server.server_address[1]}/fhir"
    if tls is not None:  # the handshake is the first read, in the thread of that caller
        server.socket = tls.wrap_socket(
            server.socket, server_side=True, do_handshake_on_connect=False
        )
    fhir = FhirServer(base, endpoint_at(base))
    server.RequestHandlerClass = partial(_Answering, fhir)
    thread = threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True)
    thread.start()
    try:
        yield fhir
    finally:
        fhir.reset()
        server.shutdown()
        server.server_close()
        thread.join()


@contextmanager
def counting() -> Iterator[tuple[str, list[object]]]:
    """The URL of a port that answers nothing, and who connected to it, complete on exit."""
    callers: list[object] = []
    with create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
        try:
            yield f"http://127.0.0.1:{port}", callers
        finally:
            listener.setblocking(False)
            with suppress(BlockingIOError):
                while True:
                    caller, peer = listener.accept()
                    caller.close()
                    callers.append(peer)


@contextmanager
def proxying(to: int) -> Iterator[tuple[str, list[str]]]:
    """The URL of an HTTP proxy that tunnels every CONNECT to a port of this machine, and what it
    was asked.
    """
    asked: list[str] = []

    class Tunnel(StreamRequestHandler):
        def handle(self) -> None:
            asked.append(self.rfile.readline().decode("latin-1").strip())
            while self.rfile.readline().strip():
                pass
            self.wfile.write(b"HTTP/1.1 200 OK\r\n\r\n")
            with create_connection(("127.0.0.1", to), timeout=10) as target:
                back = threading.Thread(target=_copy, args=(target, self.request), daemon=True)
                back.start()
                _copy(self.request, target)
                back.join()

    server = _Proxy(("127.0.0.1", 0), Tunnel)
    thread = threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_address[1]}", asked
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


class _Proxy(ThreadingTCPServer):
    daemon_threads = True
    block_on_close = False


def _copy(source: socket, target: socket) -> None:
    with suppress(OSError):
        while piece := source.recv(65_536):
            target.sendall(piece)
        target.shutdown(SHUT_WR)


# -- the product ------------------------------------------------------------------


def clean_environment(**settings: str) -> dict[str, str]:
    """This process's environment with these CDS_* settings and no other."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith("CDS_")}
    return kept | settings


def command(*arguments: str) -> list[str]:
    return [sys.executable, "-m", "cds_service", *arguments]


def ended(*arguments: str, **settings: str) -> "subprocess.CompletedProcess[str]":
    """What a command said and ended with, in a process of its own that has imported it already:
    there are some 150 of them, and Python would take a second for each.
    """
    with tempfile.TemporaryDirectory() as folder:
        said = [Path(folder) / name for name in ("stdout", "stderr")]
        environment = clean_environment(**settings)
        process = _WARM.Process(target=commands.run, args=(arguments, environment, ROOT, *said))
        process.start()
        process.join(SECONDS_TO_START)
        if process.exitcode is None:
            process.kill()
            process.join()
            raise subprocess.TimeoutExpired(arguments, SECONDS_TO_START)
        output, errors = (x.read_text("utf-8") for x in said)
        return subprocess.CompletedProcess(arguments, process.exitcode, output, errors)


@dataclass
class Running:
    """A server in a process of its own."""

    url: str
    port: int
    process: "subprocess.Popen[bytes]"
    _output: Path

    @property
    def output(self) -> str:
        """What it has printed so far, on both streams."""
        return self._output.read_text(encoding="utf-8")

    def logged(self, event: str) -> list[dict[str, Any]]:
        """The lines of its log about an event."""
        lines = [json.loads(x) for x in self.output.splitlines() if x.startswith('{"at"')]
        return [x for x in lines if x["event"] == event]

    def children(self) -> list[int]:
        """The pids of its workers."""
        return children_of(self.process.pid)

    def cpu_ticks(self) -> list[int]:
        """What each worker has worked so far, in hundredths of a second."""
        stats = [Path(f"/proc/{pid}/stat").read_text("ascii") for pid in self.children()]
        counted = [x.rpartition(")")[2].split() for x in stats]
        return [int(x[11]) + int(x[12]) for x in counted]

    def connect(self) -> socket:
        return create_connection(("127.0.0.1", self.port), timeout=10)


def children_of(pid: int) -> list[int]:
    """The pids of a process's children, none when it has ended."""
    try:
        found = Path(f"/proc/{pid}/task/{pid}/children").read_text("ascii")
    except FileNotFoundError:
        return []
    return [int(x) for x in found.split()]


def below(pid: int) -> list[int]:
    """The pids of all that a process has started, and they in turn."""
    return [x for child in children_of(pid) for x in (child, *below(child))]


def has_ended(pid: int) -> bool:
    """Whether a process is gone, or only waits for a parent to notice."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_text("ascii", "replace")
    except (FileNotFoundError, ProcessLookupError):
        return True
    return stat.rpartition(")")[2].split()[0] == "Z"


def wait_until(is_so: Callable[[], bool], otherwise: str) -> None:
    """Returns once it is so; fails, saying what is otherwise, when it does not come to be."""
    deadline = time.monotonic() + SECONDS_TO_START
    while not is_so():
        assert time.monotonic() < deadline, otherwise
        time.sleep(0.05)


def free_port() -> int:
    """A port at which nobody listens, of those that no connection to others is given meanwhile."""
    while True:
        port = SystemRandom().randrange(15_000, 32_000)
        with socket() as probe, suppress(OSError):
            probe.bind(("127.0.0.1", port))
            return port


@contextmanager
def running(
    *arguments: str, at: str = "127.0.0.1", is_open: bool = True, **settings: str
) -> Iterator[Running]:
    """`cds-service serve`, open unless told, on a free port, called at a host of a URL; ended by
    its pid.
    """
    port = free_port()
    opened = ("--open",) if is_open else ()
    with tempfile.TemporaryDirectory() as folder:
        output = Path(folder) / "output"
        with output.open("wb") as stream:
            process = subprocess.Popen(
                command("serve", *opened, "--port", str(port), *arguments),
                stdout=stream,
                stderr=subprocess.STDOUT,
                cwd=ROOT,
                # What it leaves behind when it is killed goes with the folder.
                env=clean_environment(**settings) | {"TMPDIR": folder},
            )
        server = Running(f"http://{at}:{port}", port, process, output)
        try:
            _wait_until_live(server)
            yield server
        finally:
            process.terminate()
            try:
                process.wait(10)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()


def _wait_until_live(server: Running) -> None:
    deadline = time.monotonic() + SECONDS_TO_START
    while time.monotonic() < deadline:
        assert server.process.poll() is None, server.output
        try:
            if requests.get(f"{server.url}/livez", timeout=2).ok:
                return
        except requests.ConnectionError:
            time.sleep(0.05)
    raise AssertionError(f"no answer within {SECONDS_TO_START} s: {server.output}")
