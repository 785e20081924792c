"""One port, one server: a port that is taken is refused in a sentence, and no process outlives the
one that started it.
"""

import http.client
import json
import os
import re
import shutil
import signal
import socket
import subprocess
from contextlib import suppress
from pathlib import Path

import pytest
import requests

from tests.exchanges import EXPLAIN, SERVICE, request
from tests.loopback import (
    ROOT,
    below,
    clean_environment,
    command,
    ended,
    free_port,
    has_ended,
    running,
    wait_until,
)

TAKEN = re.compile(r"cds-service: \S+ port \d+ cannot be served: another program has it; .*\n\Z")


def refused(result: "subprocess.CompletedProcess[str]") -> bool:
    return result.returncode == 2 and bool(TAKEN.fullmatch(result.stderr))


@pytest.mark.parametrize("address", ["127.0.0.1", "0.0.0.0", "::1", "::"])
@pytest.mark.parametrize("shares", [False, True])
def test_a_port_that_another_program_has_is_refused_in_one_sentence(
    address: str, shares: bool
) -> None:
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    with socket.socket(family) as other:
        other.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, int(shares))
        try:
            other.bind((address, 0))
        except OSError:
            pytest.skip("this machine has no IPv6")
        other.listen()
        result = ended("serve", "--open", "--port", str(other.getsockname()[1]))
    assert refused(result), result.stderr
    assert "http://" not in result.stdout


@pytest.mark.parametrize("arguments", [("serve", "--open"), ("demo", "--once"), ("demo",)])
def test_a_second_server_on_the_port_is_refused_and_the_first_answers_on(
    arguments: tuple[str, ...],
) -> None:
    with running() as first:
        result = ended(*arguments, "--port", str(first.port))
        assert refused(result), result.stderr
        assert "http://" not in result.stdout
        assert requests.get(f"{first.url}/livez", timeout=10).ok


def test_of_two_servers_started_together_one_serves() -> None:
    port = str(free_port())
    both = [
        subprocess.Popen(
            command("serve", "--open", "--port", port),
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            cwd=ROOT,
            env=clean_environment(),
        )
        for _ in range(2)
    ]
    try:
        wait_until(lambda: any(x.poll() is not None for x in both), "both of them serve")
        [second] = [x for x in both if x.poll() is not None]
        [first] = [x for x in both if x is not second]
        assert second.returncode == 2 and second.stderr is not None
        assert TAKEN.fullmatch(second.stderr.read())
        assert first.stdout is not None
        assert any("/cds-services" in line for line in first.stdout)
        assert requests.get(f"http://127.0.0.1:{port}/livez", timeout=10).ok
    finally:
        for process in both:
            process.terminate()
            process.communicate(timeout=20)


def test_a_port_may_be_served_again_at_once_although_connections_of_before_linger() -> None:
    with running() as first, first.connect() as caller:
        caller.sendall(b"GET /livez HTTP/1.1\r\nHost: localhost\r\n\r\n")
        assert caller.recv(1)
        first.process.terminate()
        first.process.wait(20)
        assert caller.recv(65_536)
    port = str(first.port)
    process = subprocess.Popen(
        command("serve", "--open", "--port", port),
        stdout=subprocess.PIPE,
        text=True,
        cwd=ROOT,
        env=clean_environment(),
    )
    try:
        assert process.stdout is not None
        assert any("/cds-services" in line for line in process.stdout)
    finally:
        process.terminate()
        process.communicate(timeout=20)


def test_the_url_is_said_once_it_answers() -> None:
    port = free_port()
    process = subprocess.Popen(
        command("serve", "--open", "--host", "localhost", "--port", str(port)),
        stdout=subprocess.PIPE,
        text=True,
        cwd=ROOT,
        env=clean_environment(),
    )
    try:
        assert process.stdout is not None
        [said] = [next(x for x in process.stdout if "http" in x)]
        url = f"http://localhost:{port}/cds-services"
        assert url in said
        assert requests.get(url.replace("localhost", "127.0.0.1"), timeout=10).ok
    finally:
        process.terminate()
        process.communicate(timeout=20)


@pytest.mark.parametrize("of", ["serve --open", "demo --once"])
@pytest.mark.parametrize("option", ["--port 0", "--port 65536", "--port -1", "--port http"])
def test_a_port_that_is_none_is_refused(of: str, option: str) -> None:
    result = ended(*of.split(), *option.split())
    assert result.returncode == 2
    assert "--port" in result.stderr and "Traceback" not in result.stderr


@pytest.mark.parametrize("option", ["--workers 0", "--workers -1"])
def test_a_server_without_workers_is_refused(option: str) -> None:
    result = ended("serve", "--open", *option.split())
    assert result.returncode == 2
    assert "--workers" in result.stderr and "Traceback" not in result.stderr


def test_an_address_that_cannot_be_served_is_one_sentence() -> None:
    held = free_port()
    code = (
        "from cds_service.cli import main; import cds_service.serving as s, sys;"
        "s.LOOPBACK = (*s.LOOPBACK, '192.0.2.1');"
        f"sys.argv = ['x', 'serve', '--open', '--host', '192.0.2.1', '--port', '{held}']; main()"
    )
    result = subprocess.run(
        [*command()[:1], "-c", code], capture_output=True, text=True, env=clean_environment()
    )
    assert result.returncode == 2
    assert result.stderr.count("\n") == 1 and "192.0.2.1" in result.stderr


def test_workers_end_when_their_server_is_killed() -> None:
    with running("--workers", "2") as server:
        workers = server.children()
        assert len(workers) == 2
        server.process.kill()
        server.process.wait(20)
        wait_until(lambda: all(map(has_ended, workers)), "a worker outlives its server")


def test_workers_hold_nothing_of_what_only_the_start_needs() -> None:
    with running() as server:
        (worker,) = server.children()
        assert "pydantic_core" not in Path(f"/proc/{worker}/maps").read_text("utf-8")


@pytest.mark.parametrize("levels", [950, 9_500, 9_950, 100_000])
def test_json_as_deep_as_it_is_read_at_all_ends_no_worker(levels: int) -> None:
    deep = '{"a":' * levels + "1" + "}" * levels
    asked = request()
    asked["prefetch"]["others"] = "@"
    body = json.dumps(asked).replace('"@"', deep)
    kind = {"Content-Type": "application/json"}
    with running() as server:
        workers = server.children()
        for path in (SERVICE, EXPLAIN, f"{SERVICE}/feedback"):
            answer = requests.post(f"{server.url}{path}", body, headers=kind, timeout=60)
            assert answer.status_code in (200, 400, 422)
        page = requests.post(f"{server.url}/", {"pasted": body}, timeout=60)
        assert page.status_code in (200, 400)
        assert server.children() == workers


@pytest.mark.parametrize(
    ("path", "kind", "status"),
    [
        (SERVICE, "application/json", 413),
        (f"{SERVICE}/feedback", "application/json", 413),
        (EXPLAIN, "text/plain", 415),
        ("/cds-services/nope", "application/json", 404),
    ],
)
@pytest.mark.parametrize("in_chunks", [False, True])
def test_a_client_that_sends_all_before_it_reads_gets_to_see_why_it_is_refused(
    path: str, kind: str, status: int, in_chunks: bool
) -> None:
    with running() as server:
        for _ in range(3):
            body = (b" " * 1_000_000 for _ in range(40)) if in_chunks else b" " * 40_000_000
            # One that sends all before it reads; urllib3 reads in the end whatever comes.
            client = http.client.HTTPConnection("127.0.0.1", server.port, timeout=60)
            client.request(
                *("POST", path, body, {"Content-Type": kind}),
                encode_chunked=in_chunks,
            )
            assert client.getresponse().status == status
            client.close()


def test_a_client_that_asks_first_whether_it_may_send_is_refused_at_once() -> None:
    asking = "Host: localhost\r\nContent-Type: application/json\r\nExpect: 100-continue\r\n"
    with running() as server, socket.create_connection(("127.0.0.1", server.port), 60) as client:
        head = f"POST {SERVICE} HTTP/1.1\r\n{asking}Content-Length: 40000000\r\n\r\n"
        client.sendall(head.encode())
        assert client.recv(100).startswith(b"HTTP/1.1 413 ")


def test_outgoing_fhir_that_is_not_valid_stops_the_start(tmp_path: Path) -> None:
    hooks = tmp_path / "hooks"
    shutil.copytree(ROOT / "hooks", hooks)
    order = hooks / "shared" / "orders" / "ggt.json"
    whole = order.read_text("utf-8")
    order.write_text(whole.replace('"experimental": false', '"experimental": "perhaps"'), "utf-8")
    result = ended("serve", "--open", "--port", str(free_port()), CDS_HOOKS_DIR=str(hooks))
    assert result.returncode and "Traceback" not in result.stderr
    assert "shared/orders/ggt.json: experimental: is not valid FHIR R4" in result.stderr


@pytest.mark.parametrize("early", [True, False])
def test_what_is_temporary_ends_with_an_open_server(tmp_path: Path, early: bool) -> None:
    said = tmp_path / "output"
    with said.open("wb") as stream:
        process = subprocess.Popen(
            command("serve", "--open", "--port", str(free_port())),
            stdout=stream,
            cwd=ROOT,
            env=clean_environment(TMPDIR=str(tmp_path)),
        )
    try:
        wait_until(lambda: any(tmp_path.glob("cds-service-*")), "there is no temporary folder")
        if not early:
            wait_until(lambda: "/cds-services" in said.read_text("utf-8"), "it does not serve")
        process.terminate()
        process.wait(20)
        assert list(tmp_path.glob("cds-service-*")) == []
    finally:
        process.kill()
        process.wait(20)


# -- the demo ----------------------------------------------------------------------------------


# Whoever runs the tests in the background, or under nohup, hands down that these are ignored.
HEARS = ("env", "--default-signal=HUP,INT")


class Demo:
    """`cds-service demo` in a process of its own, with what it says."""

    def __init__(self, folder: Path, *arguments: str, before: tuple[str, ...] = HEARS) -> None:
        self.port = free_port()
        self._output = folder / "output"
        with self._output.open("wb") as stream:
            self.process = subprocess.Popen(
                [*before, *command("demo", "--port", str(self.port), *arguments)],
                stdout=stream,
                stderr=subprocess.STDOUT,
                cwd=ROOT,
                env=clean_environment(),
            )

    @property
    def output(self) -> str:
        return self._output.read_text("utf-8")

    def wait_until_it_says(self, text: str) -> None:
        wait_until(lambda: text in self.output, f"it does not say {text}")

    def end(self) -> None:
        for pid in (*below(self.process.pid), self.process.pid):
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        self.process.wait(20)


STAYS_UP = "The server stays up"


@pytest.mark.parametrize(
    ("sent", "arguments", "said"),
    [
        (signal.SIGTERM, (), STAYS_UP),
        (signal.SIGHUP, (), STAYS_UP),
        (signal.SIGINT, (), STAYS_UP),
        (signal.SIGKILL, (), STAYS_UP),
        (signal.SIGTERM, ("--once",), "content "),
        (signal.SIGKILL, ("--once",), "content "),
    ],
)
def test_however_the_demo_ends_its_server_ends_with_it(
    tmp_path: Path, sent: signal.Signals, arguments: tuple[str, ...], said: str
) -> None:
    demo = Demo(tmp_path, *arguments)
    try:
        demo.wait_until_it_says(said)
        wait_until(lambda: len(below(demo.process.pid)) == 2, "there is no server and worker")
        started = below(demo.process.pid)
        demo.process.send_signal(sent)
        code = demo.process.wait(20)
        wait_until(lambda: all(map(has_ended, started)), "a process outlives the demo")
        assert code == {signal.SIGINT: 0, signal.SIGKILL: -9}.get(sent, 128 + sent)
        assert "Traceback" not in demo.output
        with socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind(("127.0.0.1", demo.port))
    finally:
        demo.end()


def test_a_hang_up_that_is_to_be_ignored_is_ignored(tmp_path: Path) -> None:
    demo = Demo(tmp_path, before=("sh", "-c", 'trap "" HUP; exec "$@"', "sh"))
    try:
        demo.wait_until_it_says(STAYS_UP)
        demo.process.send_signal(signal.SIGHUP)
        demo.process.send_signal(signal.SIGTERM)
        assert demo.process.wait(20) == 128 + signal.SIGTERM
    finally:
        demo.end()
