"""Runs the server: checks everything once in the parent, then starts the workers, each with the
same settings.
"""

import gc
import multiprocessing
import os
import signal
import socket
import sys
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from datetime import UTC, datetime
from errno import EADDRINUSE, EADDRNOTAVAIL, EAFNOSUPPORT
from threading import Thread

from flask import Flask
from granian import Granian
from granian.constants import Interfaces

from cds_service.app import create_app
from cds_service.config import fixtures_dir, read_settings
from cds_service.content import Content
from cds_service.errors import CannotServe
from cds_service.fhir_endpoint import FhirEndpoint, load_patients
from cds_service.logs import write_logs
from cds_service.metrics import Exposed, counted_together

# A worker's threads. One is taken for as long as a caller takes to send a body and for as long as a
# FHIR server takes; one call is computed at a time (turns). Those that idle end by themselves.
THREADS = 64
# Bytes of stack for each, those of a main thread: JSON that is nested as deeply as Python 3.12 and
# 3.13 let it be takes four million, and granian's threads have two.
STACK = 8 * 1024 * 1024
NEW_OBJECTS = 20_000  # that are held before Python looks for rings among them: some MB
SECONDS_TO_END = 8  # a worker may miss the signal while it starts; shorter than `demo` waits
LOOPBACK = ("127.0.0.1", "localhost", "::1")
_content: Content | None = None  # the parent's, whose workers have the same
_NOT_HERE = (EADDRNOTAVAIL, EAFNOSUPPORT)  # a machine without IPv6


def application() -> Flask:
    """The WSGI application of one worker, by the environment that its parent set."""
    _end_with_the_parent()
    settings = read_settings()
    write_logs(settings.log_level)
    demo = None
    if settings.demo_url:
        patients = load_patients(fixtures_dir() / "patients", datetime.now(UTC).date())
        bundles = (patient.bundle for patient in patients)
        demo = FhirEndpoint(bundles, f"{settings.demo_url}/fhir", settings.demo_page_size)
    app = create_app(settings, demo=demo, content=_content)
    _spare_the_collector()
    return app


def _spare_the_collector() -> None:
    """Content stays as long as the worker, and a call leaves no rings of objects behind: looking
    for them after every few calls found nothing and took a tenth of the time.
    """
    gc.collect()
    gc.freeze()
    gc.set_threshold(NEW_OBJECTS, 10, 10)


def _end_with_the_parent() -> None:
    """A worker whose parent was killed ends too: nobody else would ever stop it."""
    parent = multiprocessing.parent_process()
    if parent is None:
        return  # under another WSGI server, which looks after its own

    def wait() -> None:
        parent.join()
        os._exit(1)

    Thread(target=wait, daemon=True).start()


def run(
    host: str,
    port: int,
    workers: int,
    environ: Mapping[str, str],
    bound: Callable[[], object],
    metrics_address: tuple[str, int] | None = None,
    content: Content | None = None,
) -> None:
    """Serves until it is told to stop; `environ` is added to the workers' environment, `bound` is
    called once the port answers, and `content` is what they answer with (None: they read it by
    their settings). Raises CannotServe when the port, or the address of the metrics, cannot be had.
    """
    global _content
    _content = content
    claim = _claimed(host, port)
    os.environ.update(environ)
    if multiprocessing.get_start_method() == "forkserver":  # since Python 3.14, on Linux
        # Workers have what was read here, and share its memory.
        multiprocessing.set_start_method("fork", force=True)
    # What was read stays: the collector of a worker need not look at it, nor copy its pages so.
    gc.freeze()
    gc.enable()
    with counted_together():
        exposed = _exposed(metrics_address)
        try:
            _serve(host, port, workers, bound, exposed)
        finally:
            claim.close()
            if exposed is not None:
                exposed.server_close()


def _exposed(address: tuple[str, int] | None) -> Exposed | None:
    if address is None:
        return None
    try:
        return Exposed(*address)
    except OSError as error:
        why = error.strerror or type(error).__name__
        raise CannotServe(f"CDS_METRICS_ADDRESS: {address[0]} port {address[1]}: {why}") from None


def _serve(
    host: str, port: int, workers: int, bound: Callable[[], object], exposed: Exposed | None
) -> None:
    address = "127.0.0.1" if host == "localhost" else host  # granian resolves no names
    os.environ["RUST_MIN_STACK"] = str(STACK)
    server = Granian(
        "cds_service.serving:application",
        factory=True,
        interface=Interfaces.WSGI,
        address=address,
        port=port,
        workers=workers,
        blocking_threads=THREADS,
        websockets=False,
        log_enabled=False,
        respawn_failed_workers=True,
        workers_kill_timeout=SECONDS_TO_END,
    )
    server.on_startup(Thread(target=_await_bound, args=(address, port, bound), daemon=True).start)
    if exposed is not None:
        server.on_startup(exposed.start)
    try:
        server.serve()
    except (OSError, RuntimeError) as error:
        raise CannotServe(f"{host} port {port} cannot be served: {_first_line(error)}") from None


def _claimed(host: str, port: int) -> socket.socket:
    """What keeps a second server of ours from the port, until it is closed; raises CannotServe when
    somebody has it.

    The workers share the port by SO_REUSEPORT, with which any number of servers would share it.
    """
    claim = socket.socket(socket.AF_UNIX)
    addresses = ("127.0.0.1", "::1") if host in LOOPBACK else (host,)
    try:
        if sys.platform == "linux":  # a name that no file has and that ends with its processes
            claim.bind(f"\0cds-service port {port}")
        for address in addresses:
            _try(address, port)
    except OSError as error:
        claim.close()
        if error.errno == EADDRINUSE:
            why = "another program has it; choose another with --port, or stop that one"
        else:
            why = error.strerror or type(error).__name__
        raise CannotServe(f"{host} port {port} cannot be served: {why}") from None
    return claim


def _try(address: str, port: int) -> None:
    """Raises OSError when somebody listens there; connections that have ended are no hindrance."""
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    try:
        with socket.socket(family) as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind((address, port))
    except OSError as error:
        if error.errno not in _NOT_HERE or family == socket.AF_INET:
            raise


def _await_bound(address: str, port: int, bound: Callable[[], object]) -> None:
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    while True:
        with socket.socket(family) as caller:
            if caller.connect_ex((address, port)) == 0:
                break
        time.sleep(0.05)
    with suppress(BrokenPipeError):  # nobody listens any more
        bound()


def _first_line(error: Exception) -> str:
    return str(error).partition("\n")[0]


def end_when_closed(descriptor: int) -> None:
    """Ends this process as a SIGTERM would once the other end of a pipe is closed, be it that the
    process at that end was killed.
    """

    def wait() -> None:
        while os.read(descriptor, 1024):
            pass
        os.kill(os.getpid(), signal.SIGTERM)

    Thread(target=wait, daemon=True).start()
