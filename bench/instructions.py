"""python -m bench.instructions: counts the instructions that a call takes, floor and product, and
writes them into docs/performance.md.

Valgrind counts what a process executes, so that neither the machine's hour nor what else runs is in
it; the server, its threads and the kernel are not in it either.
"""

import os
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from datetime import date
from itertools import product
from pathlib import Path

from bench.marked import rewrite
from bench.measuring import versions
from bench.payloads import payloads
from bench.servers import FLOOR, OURS, WentWrong
from tests.loopback import ROOT, clean_environment

_TARGETS = (FLOOR.name, OURS.name)
# What the calls after the first few take is what one takes: caches are filled, pages are touched.
_FEW, _MANY = 30, 90
_SECONDS = 300
_COUNTED = re.compile(r"I\s+refs:\s+([\d,]+)")


def main() -> None:
    """Ends with 1 and a sentence when valgrind is missing or an answer is wrong."""
    if shutil.which("valgrind") is None:
        sys.exit("instructions: valgrind is missing; on Debian: apt-get install valgrind")
    page = ROOT / "docs" / "performance.md"
    names = [x.name for x in payloads(date.today())]
    try:
        found = counted(names)
    except (WentWrong, subprocess.TimeoutExpired) as error:
        sys.exit(f"instructions: {error}")
    rewrite(page, "make instructions", table(found))
    print(f"{page} is written")


def counted(names: Iterable[str]) -> dict[tuple[str, str], float]:
    """Millions of instructions of a call, by target and payload; raises WentWrong when an answer is
    wrong.
    """
    asked = [*product(_TARGETS, names)]
    with ThreadPoolExecutor(os.cpu_count()) as at_once:
        few = [at_once.submit(_executed, *x, _FEW) for x in asked]
        many = [at_once.submit(_executed, *x, _MANY) for x in asked]
        return {
            x: (more.result() - less.result()) / (_MANY - _FEW) / 1e6
            for x, less, more in zip(asked, few, many, strict=True)
        }


def _executed(target: str, payload: str, calls: int) -> int:
    """The instructions of a process that makes so many calls."""
    with tempfile.TemporaryDirectory() as folder:
        log = Path(folder) / "valgrind"
        counter = ("valgrind", "--tool=cachegrind", "--cache-sim=no", f"--log-file={log}")
        done = subprocess.run(
            [
                *(*counter, f"--cachegrind-out-file={folder}/out"),
                *(sys.executable, "-m", "bench.one_caller", target, payload, str(calls)),
            ],
            env=clean_environment(TMPDIR=folder, PYTHONHASHSEED="0"),
            cwd=ROOT,
            capture_output=True,
            text=True,
            timeout=_SECONDS,
            check=False,
        )
        found = _COUNTED.search(log.read_text("utf-8", "replace")) if log.exists() else None
        if done.returncode or found is None:
            raise WentWrong(f"{target}, {payload}: {done.stderr[-500:] or done.returncode}")
        return int(found[1].replace(",", ""))


def table(found: dict[tuple[str, str], float]) -> str:
    """The text between the marks."""
    taken = ", ".join(f"{name} {x}" for name, x in versions().items() if name != "healthchain")
    lines = [
        f"Counted on {date.today()}; {taken}.\n",
        "| chart | floor, millions | cds-service, millions | floor / cds-service |",
        "|---|---:|---:|---:|",
    ]
    for name in dict.fromkeys(payload for _, payload in found):
        floor, ours = (found[target, name] for target in _TARGETS)
        lines.append(f"| {name} | {floor:.2f} | {ours:.2f} | {floor / ours:.3f} |")
    return "\n".join(lines)


if __name__ == "__main__":
    main()
