"""python -m bench: measures, and writes docs/performance.md and its plot."""

import argparse
import shutil
import signal
import sys
from pathlib import Path

import msgspec

from bench.figures import Figures
from bench.marked import rewrite
from bench.measuring import bench
from bench.page import page
from bench.plot import plot
from bench.servers import PEER_PYTHON, WentWrong
from tests.loopback import ROOT

KEPT = ROOT / "build" / "bench.json"
MOST_SECONDS, MOST_MINUTES = 10, 30


def main() -> None:
    """Ends with 1 and a sentence when something is missing or went wrong."""
    asked = _asked()
    signal.signal(signal.SIGTERM, lambda number, _: sys.exit(128 + number))  # servers end with it
    if asked.again:
        figures = msgspec.json.decode(KEPT.read_bytes(), type=Figures)
    else:
        _look_for_tools()
        try:
            figures = bench(asked.seconds, asked.minutes)
        except WentWrong as error:
            sys.exit(f"bench: {error}")
        KEPT.parent.mkdir(exist_ok=True)
        KEPT.write_bytes(msgspec.json.format(msgspec.json.encode(figures)))
    write(figures, asked.docs)
    print(f"{asked.docs / 'performance.md'} is written, after {figures.minutes:.1f} minutes")


def write(figures: Figures, docs: Path) -> None:
    """Writes the bench's part of the page, and the plot."""
    rewrite(docs / "performance.md", "make bench", page(figures))
    (docs / "performance.svg").write_text(plot(figures), "utf-8")


def _asked() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="make bench ARGS=…", description=__doc__)
    parser.add_argument("--seconds", type=int, default=2, help="how long a run lasts")
    parser.add_argument("--minutes", type=float, default=9, help="after these no run is begun")
    parser.add_argument("--docs", type=Path, default=ROOT / "docs", help="where the page lies")
    again = "write the page anew from the figures of the last bench, build/bench.json"
    parser.add_argument("--again", action="store_true", help=again)
    asked = parser.parse_args()
    if not 1 <= asked.seconds <= MOST_SECONDS or not 0 < asked.minutes <= MOST_MINUTES:
        parser.error(f"at most {MOST_SECONDS} seconds a run and {MOST_MINUTES} minutes in all")
    return asked


def _look_for_tools() -> None:
    if shutil.which("wrk") is None:
        sys.exit("bench: wrk is missing; on Debian: apt-get install wrk")
    if not PEER_PYTHON.exists():
        sys.exit("bench: bench/.venv is missing; `make bench` makes it")


if __name__ == "__main__":
    main()
