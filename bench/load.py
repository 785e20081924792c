"""Load from wrk, and what it measured."""

import json
import math
import subprocess
import tempfile
from pathlib import Path

import msgspec

from bench.payloads import Payload
from bench.servers import Server, WentWrong

_SCRIPT = Path(__file__).with_name("post.lua")
_LEAST_CALLS = 5  # of one connection: where an answer takes long, the run takes longer
_SECONDS_FOR_ONE = 60  # an answer that takes longer is an error


class Run(msgspec.Struct, frozen=True):
    """One run: calls a second, milliseconds of latency, milliseconds of computing a call over all
    workers, and how many calls failed.
    """

    target: str
    workers: int
    payload: str
    connections: int
    rate: float
    p50: float
    p95: float
    p99: float
    cpu: float
    errors: int


def measured(
    server: Server, workers: int, payload: Payload, connections: int, seconds: int
) -> Run | None:
    """A run of so many seconds, between two answers that were right. None where the callers in a
    row would wait longer than the run lasts; raises WentWrong when an answer is not right.
    """
    one = min(server.check(payload), server.check(payload))
    if one * connections / workers > 2 * seconds and connections > 1:
        return None
    server.settle()
    lasts = seconds if connections > 1 else max(seconds, math.ceil(_LEAST_CALLS * one))
    before = server.cpu_seconds()
    told = _wrk(server.url, payload.body, connections, lasts)
    used = server.cpu_seconds() - before
    server.settle()
    server.check(payload)
    calls = max(told["requests"], 1)
    return Run(
        server.target.name,
        workers,
        payload.name,
        connections,
        rate=told["requests"] / (told["duration"] / 1e6),
        p50=told["p50"] / 1e3,
        p95=told["p95"] / 1e3,
        p99=told["p99"] / 1e3,
        cpu=1e3 * used / calls,
        errors=told["errors"],
    )


def _wrk(url: str, body: bytes, connections: int, seconds: int) -> dict[str, int]:
    with tempfile.NamedTemporaryFile() as file:
        file.write(body)
        file.flush()
        options = ["--threads", "1", "--connections", str(connections), "--latency"]
        limits = ["--duration", f"{seconds}s", "--timeout", f"{_SECONDS_FOR_ONE}s"]
        script = ["--script", str(_SCRIPT), url, "--", file.name]
        told = subprocess.run(
            ["wrk", *options, *limits, *script],
            capture_output=True,
            text=True,
            timeout=seconds + _SECONDS_FOR_ONE,
            check=False,
        )
    if told.returncode:
        raise WentWrong(f"wrk: {told.stderr or told.stdout}")
    found: dict[str, int] = json.loads(told.stdout.splitlines()[-1])
    return found
