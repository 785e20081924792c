"""Limits: how often a peer and a client may call, and how long a call may wait for its answer."""

from concurrent.futures import ThreadPoolExecutor
from ipaddress import ip_network
from pathlib import Path
from typing import Any

import pytest
import requests
from hypothesis import given, settings
from hypothesis import strategies as st

from cds_service.app import create_app
from cds_service.cards import NOT_EVALUATED
from cds_service.config import Settings
from cds_service.errors import TooOften
from cds_service.rates import MOST_KEYS, Limits, Rate, Window, peer_of, rate_of
from tests.exchanges import (
    EXPLAIN,
    SERVICE,
    as_bytes,
    changed,
    drop,
    now,
    put,
    request,
    send,
)
from tests.loopback import FhirServer, ended, hangs
from tests.test_openapi import check
from tests.trust import Hospital, Key, claims, client_row, key_set, settings_in, token, trusting

requirement = pytest.mark.requirement
MAIN, OTHER = "https://ehr.example", "https://other.example"


# -- rates -------------------------------------------------------------------------------------


@pytest.mark.parametrize("text", ["1/second", "50/second", "1200/minute", "100000/hour"])
def test_a_rate_is_written_as_it_is_read(text: str) -> None:
    assert str(rate_of(text)) == text


@pytest.mark.parametrize(
    "text",
    [
        "",
        "50",
        "0/second",
        "-1/second",
        "50/day",
        "50 / second",
        "1.5/second",
        "100001/hour",
        "\u0661/hour",
    ],
)
def test_what_is_no_rate_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="50/second"):
        rate_of(text)


class Clock:
    """A clock that is set by hand."""

    def __init__(self) -> None:
        self.at = 1000.0

    def __call__(self) -> float:
        return self.at


STEPS = st.lists(st.integers(0, 40), max_size=60)


@settings(deadline=None)
@given(st.integers(1, 5), STEPS)
def test_no_window_holds_more_and_a_call_that_waited_is_let_in(
    calls: int, steps: list[int]
) -> None:
    clock, taken = Clock(), list[float]()
    window = Window(Rate(calls, "minute"), clock)
    for step in steps:
        clock.at += step
        wait = window.take("a")
        in_window = [x for x in taken if x > clock.at - 60]
        assert (wait > 0) == (len(in_window) == calls)
        if wait:
            assert wait == in_window[0] + 60 - clock.at
            assert window.wait("a") == wait
            clock.at += wait
            assert window.take("a") == 0
        taken.append(clock.at)


def test_one_key_is_not_counted_for_another_and_who_is_gone_is_forgotten() -> None:
    clock = Clock()
    window = Window(Rate(1, "second"), clock)
    assert window.take("a") == 0 and window.take("b") == 0 and window.take("a") > 0
    for n in range(MOST_KEYS + 5):
        window.take(f"peer {n}")
    assert len(window._calls) == MOST_KEYS
    clock.at += 1
    window.take("a")
    assert [*window._calls] == ["a"]


def test_what_is_counted_at_once_is_counted_once() -> None:
    window = Window(Rate(100, "hour"))
    with ThreadPoolExecutor(8) as threads:
        waits = [*threads.map(lambda _: window.take("a"), range(400))]
    assert waits.count(0) == 100


# -- peers -------------------------------------------------------------------------------------

PROXIES = tuple(map(ip_network, ("10.0.0.0/8", "fd00::/8")))


@pytest.mark.parametrize(
    ("address", "forwarded", "peer"),
    [
        ("192.0.2.1", "", "192.0.2.1"),
        ("192.0.2.1", "198.51.100.9", "192.0.2.1"),  # no proxy of ours says so
        ("::ffff:192.0.2.1", "", "192.0.2.1"),
        ("2001:db8:1:2:3::4", "", "2001:db8:1:2::/64"),
        ("2001:db8:1:2:ffff::1", "", "2001:db8:1:2::/64"),
        ("10.0.0.1", "", "10.0.0.1"),
        ("10.0.0.1", "198.51.100.9", "198.51.100.9"),
        ("::ffff:10.0.0.1", "198.51.100.9", "198.51.100.9"),
        ("fd00::1", "198.51.100.9", "198.51.100.9"),
        ("10.0.0.1", "203.0.113.7, 198.51.100.9", "198.51.100.9"),  # the first is anybody's
        ("10.0.0.1", "203.0.113.7, 198.51.100.9, 10.2.2.2", "198.51.100.9"),
        ("10.0.0.1", "10.1.1.1, 10.2.2.2", "10.1.1.1"),
        ("10.0.0.1", "198.51.100.9:4711", "198.51.100.9"),
        ("10.0.0.1", "[2001:db8:1:2::9]:4711", "2001:db8:1:2::/64"),
        ("10.0.0.1", "2001:db8:1:2::9", "2001:db8:1:2::/64"),
        ("10.0.0.1", "unknown", "10.0.0.1"),
        ("10.0.0.1", "198.51.100.9, unknown", "10.0.0.1"),
        ("10.0.0.1", "198.51.100.9,", "10.0.0.1"),
        ("10.0.0.1", "999.1.1.1", "10.0.0.1"),
        ("unix:", "198.51.100.9", "unix:"),
        ("", "", ""),
    ],
)
def test_a_call_is_counted_under_who_made_it(address: str, forwarded: str, peer: str) -> None:
    assert peer_of(address, forwarded, PROXIES) == peer


@given(st.text(max_size=40), st.text(max_size=80))
def test_whatever_a_proxy_says_counts_as_somebody(address: str, forwarded: str) -> None:
    assert isinstance(peer_of(address, forwarded, PROXIES), str)
    assert isinstance(peer_of("10.0.0.1", forwarded, PROXIES), str)


def test_a_peer_is_told_when_to_come_again_and_others_are_let_in() -> None:
    clock = Clock()
    limits = Limits(Rate(2, "minute"), {}, PROXIES, clock)
    for _ in range(2):
        limits.admit_peer("10.0.0.1", "198.51.100.9")
    clock.at += 29.5
    with pytest.raises(TooOften) as refused:
        limits.admit_peer("10.0.0.1", "198.51.100.9")
    assert (refused.value.retry_after, refused.value.diagnostics) == (31, "at most 2/minute")
    limits.admit_peer("10.0.0.1", "198.51.100.8")
    clock.at += 30.5
    limits.admit_peer("10.0.0.1", "198.51.100.9")


# -- by the server -----------------------------------------------------------------------------


def row(issuer: str, **members: Any) -> str:
    return client_row(issuer, keys="keys.json", **members)


@requirement("ERR-01", "ERR-06")
def test_a_peer_that_calls_too_often_is_refused_before_its_token_is_read(tmp_path: Path) -> None:
    key = Key()
    (tmp_path / "keys.json").write_bytes(key_set(key))
    limits = {"CDS_PEER_RATE": "3/hour", "CDS_PROXIES": "127.0.0.0/8"}
    with trusting(tmp_path, [row(MAIN)], **limits) as server:

        def ask(forwarded: str | None, given: str | None = None) -> requests.Response:
            headers = {"X-Forwarded-For": forwarded} if forwarded else {}
            given = given or token(key, claims(MAIN))
            headers |= {"Authorization": f"Bearer {given}", "Content-Type": "application/json"}
            body = as_bytes(request())
            return requests.post(server.url + SERVICE, body, headers=headers, timeout=20)

        assert [ask("198.51.100.9", "nonsense").status_code for _ in range(2)] == [401, 401]
        assert ask("192.0.2.1, 198.51.100.9").status_code == 200
        kept = token(key, claims(MAIN))
        refused = ask("198.51.100.9", kept)
        assert refused.status_code == 429
        assert 3500 < int(refused.headers["Retry-After"]) <= 3600
        issue = refused.json()["issue"][0]
        assert (issue["code"], issue["diagnostics"]) == ("throttled", "at most 3/hour")
        assert ask("198.51.100.8", kept).status_code == 200  # it was not used up
        for path in ("/livez", "/cds-services", "/topics", "/openapi.json"):
            for _ in range(5):
                headers = {"X-Forwarded-For": "198.51.100.9"}
                assert requests.get(server.url + path, headers=headers, timeout=20).ok
        assert [ask(None).status_code for _ in range(4)] == [200, 200, 200, 429]


def test_the_limit_of_peers_can_be_switched_off(tmp_path: Path) -> None:
    for rate, statuses in (("1/hour", [200, 429]), ("off", [200, 200])):
        here = Hospital(tmp_path, row(MAIN), CDS_PEER_RATE=rate)
        assert [here.ask(MAIN, request()).status_code for _ in range(2)] == statuses


def test_the_open_server_counts_nobody() -> None:
    client = create_app(Settings(open=True, peer_rate=Rate(1, "hour")), now=now).test_client()
    assert [send(client, request()).status_code for _ in range(3)] == [200, 200, 200]


@pytest.fixture
def hospital(tmp_path: Path) -> Hospital:
    rows = row(MAIN, rate="2/hour"), row(OTHER, rate="2/hour", failures="quiet")
    return Hospital(tmp_path, *rows)


@requirement("ERR-01", "JWT-15")
def test_a_client_that_calls_too_often_is_told_so_and_its_token_is_not_used_up(
    hospital: Hospital, tmp_path: Path
) -> None:
    answers = [hospital.ask(MAIN, request(), x).status_code for x in (SERVICE, EXPLAIN)]
    assert answers == [200, 200]
    kept = f"Bearer {hospital.token(MAIN)}"
    refused = send(hospital.client, request(), Authorization=kept)
    document = hospital.client.get("/openapi.json").get_json()
    found = check(document, refused, SERVICE)
    assert (refused.status_code, found["issue"][0]["code"]) == (429, "throttled")
    for path in (EXPLAIN, f"{SERVICE}/feedback", "/cds-services/nothing"):
        assert hospital.ask(MAIN, request(), path).status_code == 429
    again = create_app(hospital.settings, now=hospital.now).test_client()  # counts anew
    assert send(again, request(), Authorization=kept).status_code == 200
    assert send(again, request(), Authorization=kept).status_code == 401


def test_only_tokens_that_are_taken_count(hospital: Hospital) -> None:
    used = f"Bearer {hospital.token(MAIN)}"
    stranger = token(Key(kid="hospital"), claims(MAIN))
    told = [send(hospital.client, request(), Authorization=used).status_code for _ in range(4)]
    assert told == [200, 401, 401, 401]
    assert send(hospital.client, request(), Authorization=f"Bearer {stranger}").status_code == 401
    assert hospital.ask(MAIN, request()).status_code == 200
    assert hospital.ask(MAIN, request()).status_code == 429


def test_a_client_is_counted_by_itself_and_a_quiet_one_sees_no_429(hospital: Hospital) -> None:
    assert [hospital.ask(MAIN, request()).status_code for _ in range(3)] == [200, 200, 429]
    answers = [hospital.ask(OTHER, request()) for _ in range(3)]
    assert [x.status_code for x in answers] == [200, 200, 200]
    assert ["extension" in x.get_json() for x in answers] == [False, False, True]
    why = answers[2].get_json()["extension"][NOT_EVALUATED]
    assert (why["status"], why["code"]) == (429, "throttled")
    assert "Retry-After" not in answers[2].headers


@pytest.mark.parametrize("rate", ["often", "0/second", "50"])
def test_a_rate_that_is_none_stops_the_start_with_file_and_key(tmp_path: Path, rate: str) -> None:
    rows = [client_row(MAIN, jku="https://ehr.example/jwks.json", rate=rate)]
    result = ended("serve", **settings_in(tmp_path, rows))
    assert result.returncode == 2
    assert result.stderr.startswith("cds-service: clients.toml: client[0].rate: must be like")


# -- the time for an answer --------------------------------------------------------------------


@requirement("PRF-02", "FHR-08")
def test_fetching_ends_with_the_time_for_an_answer(fhir: FhirServer) -> None:
    body = changed(drop("prefetch.results"), put("fhirServer", fhir.base))
    fhir.faults["Observation"] = hangs
    limited = Settings(open=True, fhir_servers=(fhir.base,), fetch_seconds=60, answer_seconds=0.5)
    client = create_app(limited, now=now).test_client()
    explained = send(client, body, EXPLAIN).get_json()
    assert [x["why"] for x in explained["data"] if x["key"] == "alp"] == ["timed out"]
    assert send(client, body).status_code == 412
