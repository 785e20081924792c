"""The service under gunicorn, as deploy/gunicorn.conf.py has it, answers as under granian."""

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import requests

from tests.exchanges import SERVICE, as_bytes, request
from tests.invariants import faults
from tests.loopback import (
    ROOT,
    children_of,
    clean_environment,
    ended,
    free_port,
    has_ended,
    wait_until,
)
from tests.trust import Key, claims, client_row, key_set, settings_in, token

EHR = "https://ehr.example"
CONFIG = ROOT / "deploy" / "gunicorn.conf.py"


@pytest.fixture(scope="module")
def key() -> Key:
    return Key()


@pytest.fixture(scope="module")
def served(key: Key, tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[str, int]]:
    """The URL of a gunicorn and its pid; it must end when it is told to."""
    folder: Path = tmp_path_factory.mktemp("gunicorn")
    (folder / "keys.json").write_bytes(key_set(key))
    settings = settings_in(folder, [client_row(EHR, keys="keys.json")])
    assert ended("migrate", **settings).returncode == 0
    address = f"127.0.0.1:{free_port()}"
    command = ["-m", "gunicorn", "--config", str(CONFIG), "--bind", address]
    with (folder / "log").open("wb") as log:
        process = subprocess.Popen(
            [sys.executable, *command, "cds_service.serving:application()"],
            stdout=log,
            stderr=log,
            cwd=folder,
            env=clean_environment(**settings),
        )
    try:
        wait_until(lambda: _answers(address), "gunicorn does not answer")
        yield f"http://{address}", process.pid
        process.send_signal(signal.SIGTERM)
        assert process.wait(20) == 0
    finally:
        process.kill()
        process.wait()


def _answers(address: str) -> bool:
    try:
        return requests.get(f"http://{address}/readyz", timeout=20).ok
    except requests.ConnectionError:
        return False


def call(url: str, bearer: str) -> int:
    """The status of a call; fails when the answer breaks a rule of all answers."""
    headers = {"Content-Type": "application/json", "Authorization": f"Bearer {bearer}"}
    answer = requests.post(url + SERVICE, as_bytes(request()), headers=headers, timeout=20)
    assert faults("POST", SERVICE, answer.status_code, answer.headers, answer.content) == []
    return answer.status_code


def test_a_call_is_answered_and_its_token_is_used_up_for_every_worker(
    served: tuple[str, int], key: Key
) -> None:
    bearer = token(key, claims(EHR))
    assert [call(served[0], bearer) for _ in range(9)] == [200, *(8 * [401])]


def test_a_token_of_15_000_characters_is_taken(served: tuple[str, int], key: Key) -> None:
    bearer = token(key, claims(EHR, filler="a" * 11_000))
    assert 14_000 < len(bearer) < 16_000 and call(served[0], bearer) == 200


def test_a_worker_that_ends_is_replaced(served: tuple[str, int], key: Key) -> None:
    url, pid = served
    wait_until(lambda: len(children_of(pid)) == 2, "there are not two workers")
    first = children_of(pid)[0]
    os.kill(first, signal.SIGKILL)
    wait_until(lambda: has_ended(first) and len(children_of(pid)) == 2, "no worker is started anew")
    assert call(url, token(key, claims(EHR))) == 200
