"""nginx as shipped, before a server that trusts its clients: what is reached over TLS, what is
refused in whose words, what is logged, and that callers who do not send on hold up nobody else.
"""

import json
import re
import resource
import socket
import ssl
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from http.client import HTTPConnection
from pathlib import Path

import pytest

from tests.exchanges import GRANT, SERVICE, as_bytes, request
from tests.invariants import faults, strict_json
from tests.loopback import Running, certificate_for, counting, free_port, wait_until
from tests.proxies import SHIPPED, Answer, Nginx, nginx
from tests.trust import BASE, Key, claims, client_row, key_set, token, trusting

requirement = pytest.mark.requirement
EHR = "https://ehr.example"
FEEDBACK = f"{SERVICE}/feedback"
ITEM = {"card": "c", "outcome": "accepted", "acceptedSuggestions": [{"id": "s"}]}
REPORT = json.dumps({"feedback": [ITEM | {"outcomeTimestamp": "2026-05-04T09:31:07Z"}]}).encode()
TYPED = {"Content-Type": "application/json"}
OTHER_PEER = "127.0.0.2"


@dataclass(frozen=True)
class Hospital:
    """A server, and the key of the EHR that it trusts."""

    server: Running
    key: Key
    certificate: Path

    def bearer(self, path: str, **others: object) -> dict[str, str]:
        """The headers of a call, with a token of its own."""
        return TYPED | {"Authorization": f"Bearer {token(self.key, claims(EHR, path, **others))}"}

    def call(self, to: Nginx, path: str = SERVICE, body: bytes = b"", peer: str = "") -> Answer:
        """A good call through nginx."""
        body = body or as_bytes(request())
        return to.call("POST", path, body, self.bearer(path), peer=peer or "127.0.0.1")


@pytest.fixture(scope="module")
def hospital(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Hospital]:
    key, folder = Key(), tmp_path_factory.mktemp("hospital")
    certificate = certificate_for(tmp_path_factory.mktemp("tls"), "IP:127.0.0.1")
    (folder / "keys.json").write_bytes(key_set(key))
    with trusting(folder, [client_row(EHR, keys="keys.json")], "--workers", "1") as server:
        yield Hospital(server, key, certificate)


@pytest.fixture(scope="module")
def proxy(hospital: Hospital, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Nginx]:
    folder = tmp_path_factory.mktemp("nginx")
    with nginx(folder, hospital.server.port, hospital.certificate) as started:
        yield started


# -- TLS ---------------------------------------------------------------------------------------

Version = ssl.TLSVersion


def only(proxy: Nginx, version: ssl.TLSVersion) -> ssl.SSLContext:
    """A caller of one version; as lax about the older ones as OpenSSL can be."""
    context = proxy.trusted()
    context.set_ciphers("ALL:@SECLEVEL=0")
    context.minimum_version = context.maximum_version = version
    return context


@requirement("SEC-01", "DSC-19")
@pytest.mark.parametrize("version", [Version.TLSv1_2, Version.TLSv1_3])
def test_everything_is_reached_over_tls_1_2_and_1_3(
    hospital: Hospital, proxy: Nginx, version: ssl.TLSVersion
) -> None:
    tls = only(proxy, version)
    listed = proxy.call("GET", "/cds-services", tls=tls)
    called = proxy.call("POST", SERVICE, as_bytes(request()), hospital.bearer(SERVICE), tls=tls)
    heard = proxy.call("POST", FEEDBACK, REPORT, hospital.bearer(FEEDBACK), tls=tls)

    assert [x.status for x in (listed, called, heard)] == [200, 200, 200]
    assert strict_json(listed.body)["services"] and "cards" in strict_json(called.body)
    for answer in (listed, called, heard):
        assert answer.headers["Strict-Transport-Security"].startswith("max-age=")


@requirement("SEC-01", "DSC-19")
@pytest.mark.filterwarnings("ignore:ssl.TLSVersion:DeprecationWarning")
@pytest.mark.parametrize("version", [Version.TLSv1, Version.TLSv1_1])
def test_older_tls_is_refused(
    hospital: Hospital, proxy: Nginx, tmp_path: Path, version: ssl.TLSVersion
) -> None:
    with pytest.raises(ssl.SSLError):
        proxy.call("GET", "/cds-services", tls=only(proxy, version))

    lax = {
        "ssl_protocols TLSv1.2": "ssl_protocols TLSv1 TLSv1.1 TLSv1.2",
        "ssl_ciphers ": "ssl_ciphers ALL:@SECLEVEL=0:",
    }
    with nginx(tmp_path, hospital.server.port, hospital.certificate, changes=lax) as other:
        # The caller could have come in: it is the configuration that keeps it out.
        assert other.call("GET", "/cds-services", tls=only(other, version)).status == 200


@requirement("SEC-01", "DSC-19")
@pytest.mark.parametrize("path", ["/cds-services", SERVICE, FEEDBACK])
def test_plain_http_gets_no_data_and_is_told_why(
    hospital: Hospital, proxy: Nginx, path: str
) -> None:
    caller = HTTPConnection("127.0.0.1", proxy.port, timeout=20)
    caller.request("POST", path, as_bytes(request()), hospital.bearer(path))
    found = caller.getresponse()
    body = found.read()
    caller.close()

    assert found.status == 400 and faults("POST", path, 400, dict(found.getheaders()), body) == []
    assert strict_json(body)["issue"][0]["details"]["text"] == "This port is for https."


@requirement("SEC-01")
def test_there_is_no_other_port() -> None:
    listens = re.findall(r"^\s*listen\s.*", (SHIPPED / "nginx.conf").read_text("utf-8"), re.M)
    assert [x.strip() for x in listens] == ["listen 8443 ssl;"]


@requirement("REQ-07")
def test_a_fhir_server_over_plain_http_is_not_called(hospital: Hospital, proxy: Nginx) -> None:
    with counting() as (url, callers):
        body = request() | {"fhirServer": f"{url}/fhir", "fhirAuthorization": GRANT}
        body.pop("prefetch")
        answer = hospital.call(proxy, body=as_bytes(body))
    assert answer.status == 412 and callers == []


# -- client certificates -----------------------------------------------------------------------


@pytest.fixture(scope="module")
def asking(hospital: Hospital, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Nginx]:
    """nginx that asks for a certificate, and the one that it takes beside it."""
    folder = tmp_path_factory.mktemp("asking")
    own = certificate_for(folder, "DNS:ehr.example")
    started = nginx(folder, hospital.server.port, hospital.certificate, clients=own)
    with started as found:
        yield found


@requirement("SEC-03")
def test_with_client_certificates_a_caller_without_one_is_refused(
    hospital: Hospital, asking: Nginx
) -> None:
    for method, path in (("GET", "/cds-services"), ("POST", SERVICE), ("GET", "/openapi.json")):
        body = as_bytes(request()) if method == "POST" else None
        answer = asking.call(method, path, body, hospital.bearer(path))
        assert (answer.status, answer.text) == (403, "A client certificate is needed."), path
    assert asking.call("GET", "/refused").status == 404


@requirement("SEC-03")
def test_with_client_certificates_a_stranger_s_is_refused(
    hospital: Hospital, asking: Nginx, tmp_path: Path
) -> None:
    stranger = asking.trusted(certificate_for(tmp_path, "DNS:ehr.example"))
    for path in ("/cds-services", "/livez"):
        answer = asking.call("GET", path, None, hospital.bearer(path), tls=stranger)
        assert (answer.status, answer.text) == (400, "The client certificate is not accepted.")


@requirement("SEC-03", "SEC-05")
def test_with_client_certificates_the_token_is_asked_for_too(
    hospital: Hospital, asking: Nginx
) -> None:
    known = asking.trusted(asking.folder / "both.pem")
    body = as_bytes(request())
    assert asking.call("POST", SERVICE, body, hospital.bearer(SERVICE), tls=known).status == 200
    assert asking.call("POST", SERVICE, body, TYPED, tls=known).status == 401


def test_with_client_certificates_health_is_told_to_anybody(asking: Nginx) -> None:
    assert [asking.call("GET", x).status for x in ("/livez", "/readyz")] == [200, 200]


# -- what passes through -----------------------------------------------------------------------


@requirement("SEC-05", "JWT-08", "JWT-09")
def test_the_token_is_asked_for_and_made_out_to_the_public_address(
    hospital: Hospital, proxy: Nginx
) -> None:
    body = as_bytes(request())
    seen_here = f"https://127.0.0.1:{proxy.port}{SERVICE}"

    assert proxy.call("POST", SERVICE, body, TYPED).status == 401
    assert proxy.call("POST", SERVICE, body, hospital.bearer(SERVICE, aud=seen_here)).status == 401
    good = hospital.bearer(SERVICE, aud=BASE + SERVICE)
    assert proxy.call("POST", SERVICE, body, good).status == 200
    assert proxy.call("POST", SERVICE, body, good).status == 401  # used before


def test_the_id_of_a_request_passes_and_stands_in_the_log(hospital: Hospital, proxy: Nginx) -> None:
    given = hospital.bearer(SERVICE) | {"X-Request-ID": "from-the-ehr.7"}
    assert proxy.call("POST", SERVICE, b"{}", given).headers["X-Request-ID"] == "from-the-ehr.7"
    made = proxy.call("GET", "/cds-services").headers["X-Request-ID"]
    odd = proxy.call("GET", "/livez", None, {"X-Request-ID": "Jane Doe"}).headers["X-Request-ID"]

    assert "Jane" not in odd
    told = {x["request_id"]: x for x in entries(proxy, 3)}
    assert told["from-the-ehr.7"]["path"] == SERVICE and told["from-the-ehr.7"]["status"] == 422
    assert told[made]["path"] == "/cds-services" and odd in told


def test_the_rate_of_a_peer_is_that_of_the_caller_whatever_it_says_of_itself(
    hospital: Hospital, tmp_path: Path
) -> None:
    (tmp_path / "server").mkdir()
    (tmp_path / "server" / "keys.json").write_bytes(key_set(hospital.key))
    (tmp_path / "nginx").mkdir()
    rows = [client_row(EHR, keys="keys.json")]
    limits = {"CDS_PROXIES": "127.0.0.1/32", "CDS_PEER_RATE": "3/hour"}
    with (
        trusting(tmp_path / "server", rows, "--workers", "1", **limits) as server,
        nginx(tmp_path / "nginx", server.port, hospital.certificate) as proxy,
    ):
        for n, expected in enumerate((401, 401, 401, 429)):
            others = {"X-Forwarded-For": f"192.0.2.{n}", "X_Forwarded_For": f"198.51.100.{n}"}
            answer = proxy.call("POST", SERVICE, b"{}", TYPED | others)
            assert answer.status == expected
        assert answer.headers["Retry-After"]
        assert hospital.call(proxy, peer=OTHER_PEER).status == 200


def entries(proxy: Nginx, at_least: int) -> list[dict[str, object]]:
    """The lines of the access log; nginx writes each after its answer."""
    log = proxy.folder / "access.log"
    wait_until(lambda: len(log.read_text("utf-8").splitlines()) >= at_least, "nothing is logged")
    return [strict_json(x.encode()) for x in log.read_text("utf-8").splitlines()]


# -- what nginx refuses by itself --------------------------------------------------------------

OVER = 20_000_001


@pytest.mark.parametrize(
    "path", ["/metrics", "//metrics", "/metrics/", "/%6detrics", "/x/../metrics", "/metrics?a=b"]
)
def test_metrics_are_not_for_outside(proxy: Nginx, path: str) -> None:
    answer = proxy.call("GET", path)
    assert (answer.status, answer.text) == (404, "There is nothing here.")


@requirement("ERR-01", "COR-03")
@pytest.mark.parametrize(
    ("status", "method", "path", "body", "headers"),
    [
        (413, "POST", SERVICE, b"a" * 1000, {"Content-Length": str(OVER)}),
        (413, "POST", SERVICE, b"%x\r\na" % OVER, {"Transfer-Encoding": "chunked"}),
        (414, "GET", "/" + "a" * 40_000, None, {}),
        (431, "GET", "/livez", None, {"Authorization": "a" * 40_000}),
        (405, "TRACE", "/livez", None, {}),
        (400, "GET", "/livez", None, {"Content-Length": "abc"}),
        (501, "POST", SERVICE, b"", {"Transfer-Encoding": "gzip"}),
    ],
)
def test_what_nginx_refuses_it_refuses_as_the_service_would(
    proxy: Nginx,
    status: int,
    method: str,
    path: str,
    body: bytes | None,
    headers: dict[str, str],
) -> None:
    answer = proxy.call(method, path, body, TYPED | headers | {"Origin": "https://ehr.example"})

    assert answer.status == status
    assert answer.headers["Access-Control-Allow-Origin"] == "*"
    assert len(answer.headers["X-Request-ID"]) == 32


@requirement("ERR-01")
def test_a_service_that_is_down_or_silent_is_503_s_kin_in_json(
    hospital: Hospital, tmp_path: Path
) -> None:
    (tmp_path / "down").mkdir()
    with nginx(tmp_path / "down", free_port(), hospital.certificate) as down:
        answer = down.call("POST", SERVICE, b"{}", TYPED)
    assert (answer.status, answer.text) == (502, "The service cannot be reached at present.")

    (tmp_path / "silent").mkdir()
    hasty = {"proxy_read_timeout 30s": "proxy_read_timeout 1s"}
    with (
        socket.create_server(("127.0.0.1", 0)) as listener,
        nginx(
            tmp_path / "silent", listener.getsockname()[1], hospital.certificate, changes=hasty
        ) as silent,
    ):
        answer = silent.call("POST", SERVICE, b"{}", TYPED)
    assert (answer.status, answer.text) == (504, "The service did not answer in time.")


@requirement("SEC-07")
def test_neither_log_holds_a_query_a_token_or_a_patient(hospital: Hospital, tmp_path: Path) -> None:
    secret, port = "Jane-Doe-4711", free_port()
    headers = {"Authorization": f"Bearer {secret}", "Referer": secret, "User-Agent": secret}
    (tmp_path / "up").mkdir()
    (tmp_path / "down").mkdir()
    with (
        nginx(tmp_path / "up", hospital.server.port, hospital.certificate) as up,
        nginx(tmp_path / "down", port, hospital.certificate) as down,
    ):
        for proxy in (up, down):
            for path in (f"{SERVICE}?patient={secret}", f"/Patient/{secret}", f"/{secret}/metrics"):
                body = json.dumps({"patient": secret}).encode()
                proxy.call("POST", path, body, headers)
                proxy.call("POST", path, body, headers | {"Content-Length": str(OVER)})
            lines = entries(proxy, 6)
            assert {x["path"] for x in lines} == {SERVICE, "other"}
            assert secret not in proxy.logs
    assert secret not in hospital.server.output


# -- callers that do not send on ---------------------------------------------------------------


@contextmanager
def many_files(number: int) -> Iterator[None]:
    """This process may open so many; skips where it may not."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if hard != resource.RLIM_INFINITY and hard < number:
        pytest.skip(f"a process may open {hard} files only")
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, number), hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


def half_a_call(hospital: Hospital) -> bytes:
    """A call that the service would take, up to the middle of its body."""
    headers = hospital.bearer(SERVICE) | {"Host": "localhost", "Content-Length": "1000"}
    head = [f"POST {SERVICE} HTTP/1.1", *(f"{x}: {y}" for x, y in headers.items()), "", ""]
    return "\r\n".join(head).encode() + b'{"hook": "'


def test_bodies_that_are_not_sent_on_hold_up_nobody_else(hospital: Hospital, proxy: Nginx) -> None:
    with ExitStack() as open_ones:
        slow = [open_ones.enter_context(proxy.connect()) for _ in range(100)]
        for caller in slow:
            caller.sendall(half_a_call(hospital))
        for _ in range(3):
            assert hospital.call(proxy, peer=OTHER_PEER).status == 200

        def is_full() -> bool:
            answer = proxy.call("GET", "/livez")
            return answer.status == 429 and answer.headers["Retry-After"] == "1"

        wait_until(is_full, "an address may have any number of requests under way")
        for caller in slow:
            caller.sendall(b"p")
        assert hospital.call(proxy, peer=OTHER_PEER).status == 200
    wait_until(lambda: hospital.call(proxy).status == 200, "an address stays locked out")


def test_a_body_that_stands_still_is_given_up(hospital: Hospital, tmp_path: Path) -> None:
    hasty = {"client_body_timeout 10s": "client_body_timeout 1s"}
    with (
        nginx(tmp_path, hospital.server.port, hospital.certificate, changes=hasty) as proxy,
        proxy.connect() as caller,
    ):
        caller.sendall(half_a_call(hospital))
        assert ended(caller)
        assert [x["status"] for x in entries(proxy, 1)] == [408]


def ended(caller: socket.socket) -> bool:
    """Whether the other end closes it, without a word, before the patience of the test does."""
    try:
        return caller.recv(100) == b""
    except ConnectionResetError:
        return True


def test_a_thousand_connections_that_idle_hold_up_nobody_else(
    hospital: Hospital, proxy: Nginx
) -> None:
    with many_files(2000), ExitStack() as open_ones:
        for _ in range(900):  # before the handshake
            bare = socket.create_connection(("127.0.0.1", proxy.port), 20)
            open_ones.enter_context(bare)
        for _ in range(100):  # after an answer
            caller = open_ones.enter_context(proxy.connect())
            caller.sendall(b"GET /livez HTTP/1.1\r\nHost: localhost\r\n\r\n")
            assert caller.recv(1)
        for peer in ("127.0.0.1", OTHER_PEER):
            assert hospital.call(proxy, peer=peer).status == 200


def test_a_body_of_50_mb_is_refused_and_holds_up_nobody_else(
    hospital: Hospital, proxy: Nginx
) -> None:
    head = f"POST {SERVICE} HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
    piece = b"f4240\r\n" + b" " * 1_000_000 + b"\r\n"
    with proxy.connect() as caller:
        caller.sendall(f"{head}Transfer-Encoding: chunked\r\n\r\n".encode())
        for _ in range(19):
            caller.sendall(piece)
        assert hospital.call(proxy).status == 200
        caller.sendall(2 * piece)
        assert caller.recv(100).startswith(b"HTTP/1.1 413 ")
        with suppress(OSError):  # it hangs up on what it has refused
            caller.sendall(29 * piece)
        assert hospital.call(proxy).status == 200
    answer = proxy.call("POST", SERVICE, b" ", TYPED | {"Content-Length": "50000000"})
    assert (answer.status, answer.text) == (413, "The body is over 20000000 bytes.")
