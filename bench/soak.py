"""python -m bench.soak: a server under mixed load for minutes, with one fault after the other, and
whether it bore them; writes its part of docs/testing.md and the plot of its memory.
"""

import argparse
import platform
import shutil
import signal
import ssl
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from datetime import date
from importlib.metadata import version
from pathlib import Path
from threading import Event, Thread

import requests

from bench.any_patient import AnyPatient
from bench.faults import CLOCK, FAULTS, Fault, Place, set_clock
from bench.marked import rewrite
from bench.measuring import machine
from bench.mixed_load import ISSUER, MixedLoad
from bench.servers import megabytes
from bench.soak_page import page, plot
from bench.soak_report import Happened, Report, judged
from tests.loopback import ROOT, certificate_for, serving
from tests.test_metrics import scraped
from tests.trust import Key, client_row, key_set, trusting

WORKERS = 2
_SAMPLE = 2.0  # seconds between two looks at memory
_LEAST_REST = 3.0  # seconds after each fault
_MOST_MINUTES = 60.0


def soak(minutes: float) -> Report:
    """What became of a server in so many minutes."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        key = Key(kid="soak")
        (folder / "keys.json").write_bytes(key_set(key))
        certificate = certificate_for(folder, "IP:127.0.0.1")
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(certificate)
        with ExitStack() as up:
            fhir = up.enter_context(serving(AnyPatient, tls=context))
            row = client_row(ISSUER, keys="keys.json")
            row += f'[[client.fhir_server]]\nurl = "{fhir.base}"\nnetworks = ["127.0.0.0/8"]\n'
            settings = {
                "CDS_CA_BUNDLE": str(certificate),
                "CDS_AUDIT_FILE": str(folder / "audit.ndjson"),
                **wrong_clock(folder),
            }
            server = up.enter_context(
                trusting(folder, [row], "--workers", str(WORKERS), **settings)
            )
            return _soaked(Place(server, folder, fhir), key, minutes)


def wrong_clock(folder: Path) -> dict[str, str]:
    """The environment of a server whose wall clock can be set by a file."""
    library = folder / "wall_clock.so"
    source = ROOT / "bench" / "wall_clock.c"
    options = ["-shared", "-fPIC", "-O2", "-Wall", "-Werror"]
    subprocess.run(["cc", *options, "-o", library, source, "-ldl"], check=True, timeout=60)
    set_clock(folder / CLOCK, 0)
    return {"LD_PRELOAD": str(library), "WALL_CLOCK": str(folder / CLOCK)}


def _soaked(place: Place, key: Key, minutes: float) -> Report:
    load = MixedLoad(place.server.url, place.fhir.base, key)
    memory: dict[int, list[tuple[float, float]]] = {}
    peaks: dict[int, float] = {}
    happened: list[Happened] = []
    began = time.monotonic()
    with load.running(), _watching(place, memory, peaks):
        least = sum(x.least for x in FAULTS) + _LEAST_REST * (len(FAULTS) + 1)
        more = max(0.0, 60 * minutes - least)
        rest = _LEAST_REST + more / (len(FAULTS) + 1) * 0.6
        longer = more * 0.4 / len(FAULTS)
        time.sleep(rest)
        for fault in FAULTS:
            happened.append(_injected(place, fault, longer, rest))
            print(f"{fault.name}: over after {time.monotonic() - began:.0f} s", flush=True)
    return judged(
        day=str(date.today()),
        made_with=f"{machine()}; python {platform.python_version()}, granian {version('granian')}",
        began=began,
        ended=time.monotonic(),
        happened=happened,
        became=load.became,
        memory=memory,
        peaks=peaks,
    )


def _injected(place: Place, fault: Fault, longer: float, rest: float) -> Happened:
    """A fault, and the calm after it."""
    before = fault.shows.value(scraped(place.server.url))
    began = time.monotonic()
    with fault.during(place):
        time.sleep(fault.least + longer)
    ended = time.monotonic()
    place.fhir.asked.clear()
    time.sleep(rest)
    shown = fault.shows.value(scraped(place.server.url)) - before
    return Happened(fault.name, str(fault.shows), shown, began, ended)


@contextmanager
def _watching(
    place: Place, memory: dict[int, list[tuple[float, float]]], peaks: dict[int, float]
) -> Iterator[None]:
    """Notes the workers' memory by pid until the end of the block."""
    finished = Event()

    def watch() -> None:
        while not finished.wait(_SAMPLE):
            for pid in place.workers():
                try:
                    held, peak = megabytes(pid, "VmRSS"), megabytes(pid, "VmHWM")
                except (OSError, ValueError):
                    continue  # it has ended meanwhile
                memory.setdefault(pid, []).append((time.monotonic(), held))
                peaks[pid] = peak

    thread = Thread(target=watch)
    thread.start()
    try:
        yield
    finally:
        finished.set()
        thread.join()


def main() -> None:
    """Ends with 1 when a fault was not borne, with a sentence when something is missing."""
    parser = argparse.ArgumentParser(prog="make soak ARGS=…", description=__doc__)
    parser.add_argument("--minutes", type=float, default=10, help="at least one")
    parser.add_argument("--docs", type=Path, default=ROOT / "docs", help="where the page lies")
    asked = parser.parse_args()
    if not 1 <= asked.minutes <= _MOST_MINUTES:
        parser.error(f"from 1 to {_MOST_MINUTES:.0f} minutes")
    if missing := [x for x in ("cc", "openssl") if shutil.which(x) is None]:
        sys.exit(f"soak: missing: {', '.join(missing)}; on Debian: apt-get install gcc openssl")
    signal.signal(signal.SIGTERM, lambda number, _: sys.exit(128 + number))  # servers end with it
    try:
        report = soak(asked.minutes)
    except requests.RequestException as error:
        sys.exit(f"soak: the server is gone: {type(error).__name__}")
    rewrite(asked.docs / "testing.md", "make soak", page(report))
    (asked.docs / "soak.svg").write_text(plot(report), "utf-8")
    print(page(report))
    if report.faults:
        sys.exit(1)


if __name__ == "__main__":
    main()
