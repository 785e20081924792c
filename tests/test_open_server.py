"""The open server: it answers its own machine only, and `serve` refuses to be opened by mistake."""

import json
import re
import shutil
import socket
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import requests
from flask.testing import FlaskClient

from cds_service.app import create_app
from cds_service.config import Settings
from tests.exchanges import (
    FIRES,
    GRANT,
    SERVICE,
    SERVICES,
    Json,
    as_bytes,
    drop,
    now,
    put,
    request,
    send,
)
from tests.invariants import cards_of, faults, strict_json
from tests.loopback import ROOT, Running, ended, running

requirement = pytest.mark.requirement
LIMIT = 40_000


# -- who is answered ---------------------------------------------------------------------------


@pytest.mark.parametrize(
    "host",
    [
        *("localhost", "LOCALHOST", "localhost:8000", "127.0.0.1", "127.0.0.1:65535"),
        *("127.8.9.10", "[::1]", "[::1]:8000"),
    ],
)
def test_loopback_names_are_answered(client: FlaskClient, host: str) -> None:
    assert send(client, request(), Host=host).status_code == 200


STRANGERS = (
    *("ehr.example.org", "ehr.example.org:8000", "localhost.example.org", "127.0.0.1.nip.io"),
    *("localhost:8000.example.org", "127.0.0.1:8000@example.org", "1127.0.0.1", "10.0.0.1"),
    *("0.0.0.0", "[::]", "[::ffff:10.0.0.1]", "localhost ", "localhost\t.org", "-", "localhost,x"),
)


@requirement("ERR-01", "ERR-02", "COR-03")
@pytest.mark.parametrize("host", STRANGERS)
def test_another_host_name_is_refused_on_every_path(client: FlaskClient, host: str) -> None:
    for method, path in (
        *(("GET", x) for x in ("/cds-services", "/livez", "/openapi.json", "/nope")),
        *(("POST", x) for x in (SERVICE, "/explain/alp-review")),
        ("OPTIONS", SERVICE),
    ):
        answer = client.open(path, method=method, headers={"Host": host})
        assert (answer.status_code, answer.mimetype) == (403, "application/json"), path
        assert strict_json(answer.data)["issue"][0]["code"] == "forbidden"
        assert answer.headers["Access-Control-Allow-Origin"] == "*"
        assert answer.headers["X-Request-ID"]


@pytest.mark.parametrize(
    "name",
    [
        *("Forwarded", "X-Forwarded-For", "X-Forwarded-Host", "X-Forwarded-Proto"),
        *("X-Forwarded-Port", "X-Forwarded-Prefix", "X-Forwarded-Server", "x-forwarded-for"),
    ],
)
def test_a_request_through_a_proxy_is_refused(client: FlaskClient, name: str) -> None:
    for value in ("127.0.0.1", "localhost", ""):
        answer = client.get("/cds-services", headers={name: value})
        assert (answer.status_code, answer.mimetype) == (403, "application/json")


def test_a_server_that_is_not_open_answers_behind_a_proxy() -> None:
    client = create_app(Settings(), now=now).test_client()
    headers = {"Host": "cds.example.org", "X-Forwarded-For": "10.0.0.1"}

    assert client.get("/cds-services", headers=headers).status_code == 200


# -- how it is started -------------------------------------------------------------------------


@requirement("SEC-02")
@pytest.mark.parametrize(
    ("arguments", "settings", "said"),
    [
        (["serve"], {}, "--open"),
        (["serve", "--host", "0.0.0.0"], {}, "--open"),
        (["serve", "--open", "--host", "0.0.0.0"], {}, "0.0.0.0"),
        (["serve", "--open", "--host", "::"], {}, "::"),
        (["serve", "--host", "cds.example.org"], {"CDS_OPEN": "1"}, "cds.example.org"),
        (["serve", "--open"], {"CDS_FHIR_SERVER": "https://x.example"}, "CDS_FHIR_SERVER"),
        (["serve", "--open"], {"CDS_OPEN": "yes"}, "CDS_OPEN"),
        (["serve", "--open"], {"CDS_FETCH_SECONDS": "soon"}, "CDS_FETCH_SECONDS"),
        (["serve", "--open"], {"CDS_FETCH_SECONDS": "nan"}, "CDS_FETCH_SECONDS"),
        (["serve", "--open"], {"CDS_MAX_BODY_BYTES": "0"}, "CDS_MAX_BODY_BYTES"),
        (["serve", "--open"], {"CDS_HOOKS_DIR": "/nowhere"}, "CDS_HOOKS_DIR"),
        (["serve", "--open"], {"CDS_SITE_FILE": "/nowhere"}, "CDS_SITE_FILE"),
        (["serve", "--open"], {"CDS_TOPIC_MODES": "x=shadow"}, "x"),
        (["serve", "--open"], {"CDS_FHIR_SERVERS": "ftp://x"}, "CDS_FHIR_SERVERS"),
        (["serve", "--open", "--topic-mode", "nope=off"], {}, "nope"),
        (["serve", "--open", "--topic-mode", "lowAlpPersistent=quiet"], {}, "shadow"),
    ],
    ids=lambda x: " ".join(map(str, x)) if not isinstance(x, str) else "",
)
def test_what_is_wrong_at_the_start_is_one_sentence_and_exit_code_2(
    arguments: list[str], settings: dict[str, str], said: str
) -> None:
    result = ended(*arguments, **settings)

    assert result.returncode == 2
    assert said in result.stderr and "Traceback" not in result.stderr


# -- a server in a process of its own ----------------------------------------------------------


@pytest.fixture(scope="module")
def server() -> Iterator[Running]:
    with running(CDS_MAX_BODY_BYTES=str(LIMIT)) as process:
        yield process


def call(
    server: Running, method: str, path: str, body: Json | bytes = b"", **headers: str
) -> requests.Response:
    """An answer of a real server, once it breaks no rule that all answers keep."""
    url, data = server.url + path, as_bytes(body)
    answer = requests.request(method, url, data=data, headers=headers, timeout=10)
    found = faults(method, path, answer.status_code, answer.headers, answer.content)
    assert found == []
    return answer


def post(server: Running, body: Json | bytes, **headers: str) -> requests.Response:
    typed = {"Content-Type": "application/json", **headers}
    return call(server, "POST", SERVICE, body, **typed)


@requirement("DSC-01", "REQ-01", "RSP-01")
def test_a_real_server_answers(server: Running) -> None:
    answer = post(server, request())

    assert (answer.status_code, answer.headers["Content-Type"]) == (200, "application/json")
    assert cards_of(answer.json()) == FIRES
    found = call(server, "GET", "/cds-services").json()
    assert [x["id"] for x in found["services"]] == SERVICES


def test_serve_prints_the_folder_and_the_hash_of_its_content(server: Running) -> None:
    version = call(server, "GET", "/version").json()

    assert version["content"]["hash"][:12] in server.output
    assert version["content"]["version"] in server.output
    assert str(ROOT / "hooks") in server.output
    assert server.url in server.output


def spoken(server: Running, message: bytes) -> tuple[int, dict[str, str], bytes]:
    """Status, headers and body of the answer to bytes sent as they are."""
    with server.connect() as sock:
        sock.sendall(message)
        answer = b""
        while part := sock.recv(65_536):
            answer += part
    head, _, body = answer.partition(b"\r\n\r\n")
    first, *lines = head.decode("latin-1").split("\r\n")
    pairs = (line.partition(": ")[::2] for line in lines)
    return int(first.split()[1]), {name.lower(): value for name, value in pairs}, body


def message(method: str, path: str, *headers: str, body: bytes = b"") -> bytes:
    lines = [f"{method} {path} HTTP/1.1", "Connection: close", *headers, "", ""]
    return "\r\n".join(lines).encode() + body


def chunked(body: bytes, size: int = 1000) -> bytes:
    parts = [body[n : n + size] for n in range(0, len(body), size)]
    return b"".join(b"%x\r\n%b\r\n" % (len(x), x) for x in parts) + b"0\r\n\r\n"


TYPED = ("Host: localhost", "Content-Type: application/json")


@requirement("REQ-15")
@pytest.mark.parametrize(("size", "status"), [(LIMIT, 200), (LIMIT + 1, 413), (3 * LIMIT, 413)])
def test_a_chunked_body_is_measured_as_it_arrives(server: Running, size: int, status: int) -> None:
    plain = json.dumps(request())
    body = (plain[:-1] + " " * (size - len(plain)) + "}").encode()
    head = (*TYPED, "Transfer-Encoding: chunked")
    found, headers, said = spoken(server, message("POST", SERVICE, *head, body=chunked(body)))

    assert (found, headers["content-type"]) == (status, "application/json")
    if status == 200:
        assert b'"cards":[{' in said


@requirement("REQ-15", "ERR-02")
def test_a_declared_length_over_the_limit_is_413(server: Running) -> None:
    head = (*TYPED, f"Content-Length: {LIMIT + 1}")
    status, headers, _ = spoken(server, message("POST", SERVICE, *head, body=b" " * (LIMIT + 1)))

    assert (status, headers["content-type"]) == (413, "application/json")


@pytest.mark.parametrize(
    ("head", "status"),
    [
        (("Host: localhost",), 200),
        (("Host: ehr.example.org",), 403),
        (("Host: localhost", "Forwarded: for=10.0.0.1"), 403),
        (("Host: localhost", "x-forwarded-for: 127.0.0.1"), 403),
        (("Host: localhost", "X-Forwarded-Port: 80"), 403),
        (("Host: localhost", "Host: ehr.example.org"), None),
    ],
)
def test_a_real_request_of_a_stranger_is_refused_in_json(
    server: Running, head: tuple[str, ...], status: int | None
) -> None:
    found, headers, body = spoken(server, message("GET", "/cds-services", *head))

    assert found == status if status else found in (400, 403)
    if found == 403:
        assert headers["content-type"] == "application/json" and json.loads(body)


@requirement("COR-02")
@pytest.mark.parametrize("path", ["//cds-services", "/cds-services//alp-review", f"{SERVICE}/"])
def test_a_real_preflight_is_not_redirected(server: Running, path: str) -> None:
    head = ("Host: localhost", "Origin: https://a.example", "Access-Control-Request-Method: POST")
    status, headers, _ = spoken(server, message("OPTIONS", path, *head))

    assert status == 204
    assert headers["access-control-allow-origin"] == "*"
    assert "content-type" not in headers


@requirement("FHR-03", "FHR-04", "SEC-07", "ERR-04")
def test_a_real_server_prints_nothing_of_a_call(server: Running) -> None:
    body = request()
    for change in (
        put("context.patientId", "Zyxmark-1"),
        put("prefetch.patient.id", "Zyxmark-1"),
        put("fhirServer", "http://127.0.0.1:9/Zyxmark"),
        put("fhirAuthorization", {**GRANT, "access_token": "Zyxmark"}),
        drop("prefetch.results"),
    ):
        change(body)

    token = "Bearer Zyxmark"
    assert post(server, body, Authorization=token).status_code == 412
    assert post(server, as_bytes(body)[:-3], Authorization=token).status_code == 400
    assert "Zyxmark" not in server.output


# -- workers -----------------------------------------------------------------------------------


def test_two_workers_answer() -> None:
    with running("--workers", "2") as server:
        began, deadline = server.cpu_ticks(), time.monotonic() + 10
        assert len(began) == 2
        while not all(now - then > 4 for now, then in zip(server.cpu_ticks(), began, strict=True)):
            assert time.monotonic() < deadline, "one of the workers does nothing"
            with ThreadPoolExecutor(8) as threads:
                found = list(threads.map(lambda _: post(server, request()).json(), range(40)))
            assert {cards_of(x) for x in found} == {FIRES}
            assert len({x["cards"][0]["uuid"] for x in found}) == 40


def test_topic_modes_reach_the_workers() -> None:
    for asked, environ in (("*=shadow", ""), ("extremeAlp=off", "lowAlpPersistent=shadow")):
        with running("--topic-mode", asked, CDS_TOPIC_MODES=environ) as server:
            assert post(server, request()).json() == {"cards": []}


@requirement("DSC-03", "JSN-02")
def test_content_without_services_is_an_empty_list_of_services(tmp_path: Path) -> None:
    shutil.copytree(ROOT / "hooks", tmp_path / "hooks")
    for family in (tmp_path / "hooks").glob("*/service.toml"):
        shutil.rmtree(family.parent)
    with running(CDS_HOOKS_DIR=str(tmp_path / "hooks")) as server:
        answer = call(server, "GET", "/cds-services")
        assert (answer.status_code, answer.content) == (200, b'{"services":[]}')
        assert post(server, request()).status_code == 404


def has_ipv6() -> bool:
    try:
        socket.create_server(("::1", 0), family=socket.AF_INET6).close()
    except OSError:
        return False
    return True


@pytest.mark.skipif(not has_ipv6(), reason="this machine has no IPv6")
def test_an_ipv6_address_is_served_and_printed_as_a_url() -> None:
    with running("--host", "::1", at="[::1]") as server:
        assert cards_of(post(server, request()).json()) == FIRES
        assert re.search(r"http://\[::1\]:\d+/cds-services", server.output)
