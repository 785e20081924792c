"""Who may call: every token that must be refused is, every token that must be taken is, by a real
server with real keys. docs/security.md says the rules.
"""

import hashlib
import hmac
import json
import re
import shutil
import subprocess
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from uuid import uuid4

import jwt
import pytest
import requests
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from hypothesis import given as for_each
from hypothesis import settings
from hypothesis import strategies as st

from cds_service.app import create_app
from cds_service.auth import Authenticator
from cds_service.client_keys import MAX_AGE, MAX_AGE_ON_ERROR, PublishedKeys, Ways
from cds_service.clients import Caller, Client
from cds_service.config import Settings, migrations_dir, read_settings
from cds_service.errors import NotAuthenticated
from cds_service.jwks import Key as JwkKey
from cds_service.jwks import KeySet, read_key_set
from cds_service.standing import _make_private
from cds_service.store import Store
from tests.exchanges import EXPLAIN, SERVICE, Json, as_bytes, request
from tests.invariants import faults
from tests.loopback import Running, counting, ended
from tests.trust import (
    BASE,
    OTHER_BASE,
    Key,
    KeyServer,
    Publishing,
    claims,
    client_row,
    key_set,
    part,
    publishing,
    settings_in,
    token,
    trusting,
)

requirement = pytest.mark.requirement
REFUSED = (
    b'{"resourceType":"OperationOutcome","issue":[{"severity":"error","code":"login",'
    b'"details":{"text":"Unauthorized"}}]}'
)
MAIN, OTHER, RETRIES = "https://ehr.example", "https://other.example", "https://retries.example"
SANDBOX = {
    "kty": "EC",
    "crv": "P-384",
    "kid": "44823f3d-0b01-4a6c-a80e-b9d3e8a7226f",
    "use": "sig",
    "alg": "ES384",
    "x": "dw_JGR8nB2I6XveNxUOl2qk699ZPLM2nYI5STSdiEl9avAkrm3CkfYMbrrjr8laB",
    "y": "Sm3mLE-n1zYNla_aiE3cb3nZsL51RbC7ysw3q8aJLxGm-hx79RPMYpITDjp7kgzy",
}
# CDS Hooks 2.0, "Trusting CDS Clients", the example: public key and the token that it verifies.
EXAMPLE = {
    "kty": "EC",
    "use": "sig",
    "crv": "P-384",
    "kid": "example-kid",
    "x": "46SDH7Znh821wblCBglA61sNE9ZrHYKKt3qRtRTmSXyOI_FIGBLWrWa0GPUkDCEk",
    "y": "XMcRuuoGW7CXjQdy-F5i3FeBE0x9hPLdeFdSoDd3ELmx404tLX0VRRcqzAsPhXcI",
    "alg": "ES384",
}
EXAMPLE_TOKEN = (
    "eyJhbGciOiJFUzM4NCIsInR5cCI6IkpXVCIsImtpZCI6ImV4YW1wbGUta2lkIiwiamt1IjoiaHR0cHM6Ly9maGlyLWVo"
    "ci5leGFtcGxlLmNvbS9qd2tfdXJpIn0.eyJpc3MiOiJodHRwczovL2ZoaXItZWhyLmV4YW1wbGUuY29tLyIsInN1YiI6"
    "ImNsaWVudF9pZCIsImF1ZCI6Imh0dHBzOi8vY2RzLmV4YW1wbGUub3JnL2Nkcy1zZXJ2aWNlcy9zb21lLXNlcnZpY2Ui"
    "LCJleHAiOjE0MjI1Njg4NjAsImlhdCI6MTMxMTI4MDk3MCwianRpIjoiZWUyMmIwMjEtZTFiNy00NjExLWJhNWItOGVl"
    "YzZhMzNhYzFlIiwidGVuYW50IjoiMmRkZDZjM2EtOGU5YS00NGM2LWEzMDUtNTIxMTFhZDMwMmEyIn0.CUFPkplnWd6Y"
    "GIvzoHolWCQBDsCL8QtTWKGg_QFpS169WrqDGzktRi-_we6-6rVzbjerU27ZKww_SW0-b9RTz-dPJNcqsueMio8r6EqX"
    "UXhbLm_ch3XFSbDlGHDl_tqo"
)


# -- one server for most ---------------------------------------------------------------------------


@dataclass(frozen=True)
class World:
    """A server, the keys of those it trusts, and the server that publishes them."""

    server: Running
    keys: KeyServer
    main: Key
    rsa: Key
    other: Key
    stranger: Key

    @property
    def jku(self) -> str:
        return f"{self.keys.url}/main.json"


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    folder = tmp_path_factory.mktemp("trust")
    main, rsa, other = Key(kid="a+b/c=="), Key("RS384"), Key("ES256")
    for_encryption = Key(kid="for-encryption", use="enc")
    for_other_algorithm = Key("RS384", kid="for-rs256", alg="RS256")
    with publishing() as keys:
        jku = keys.publish("/main.json", main, rsa, for_encryption, for_other_algorithm)
        (folder / "other.json").write_bytes(key_set(other, Key("PS256", kid="ps"), main))
        others: Json = {"algorithms": ["ES256", "PS256"], "tenants": ["north", "south"]}
        rows = [
            client_row(MAIN, jku=jku, insecure_jku=True),
            client_row(OTHER, keys="other.json", audiences=["urn:cds:ours"], **others),
            client_row(RETRIES, jku=jku, insecure_jku=True, jti="accepted-again", max_lifetime=60),
        ]
        with trusting(folder, rows) as server:
            KEPT.update(encryption=for_encryption, algorithm=for_other_algorithm)
            yield World(server, keys, main, rsa, other, Key(kid="a+b/c=="))


KEPT: dict[str, Key] = {}  # keys that are published and must not be used


def ask(
    server: Running, given: str | None, path: str = SERVICE, method: str = "POST", **headers: str
) -> requests.Response:
    """An answer, once it breaks no rule that all answers keep."""
    head = {} if given is None else {"Authorization": f"Bearer {given}"}
    head |= {"Content-Type": "application/json", "Origin": "https://ehr.example", **headers}
    body = as_bytes(request()) if method == "POST" else b""
    answer = requests.request(method, server.url + path, data=body, headers=head, timeout=20)
    assert faults(method, path, answer.status_code, answer.headers, answer.content) == []
    return answer


def refused(answer: requests.Response) -> bool:
    """Whether an answer is the one 401 there is."""
    head = answer.headers
    return (
        (answer.status_code, answer.content) == (401, REFUSED)
        and (head["WWW-Authenticate"], head["Content-Type"]) == ("Bearer", "application/json")
        and head["Access-Control-Allow-Origin"] == "*"
        and bool(head["X-Request-ID"])
    )


def words(server: Running) -> list[str]:
    return [x["reason"] for x in server.logged("token refused")]


# -- tokens that are taken -------------------------------------------------------------------------


@requirement("JWT-03", "JWT-04", "JWT-06", "JWT-07", "SEC-05")
def test_a_good_token_is_taken_under_every_algorithm_of_its_client(world: World) -> None:
    for issuer, key, tenant in (
        (MAIN, world.main, None),
        (MAIN, world.rsa, None),
        (OTHER, world.other, "north"),
    ):
        answer = ask(world.server, token(key, claims(issuer, tenant=tenant)))
        assert answer.status_code == 200 and answer.json()["cards"] is not None


GOOD: dict[str, Callable[[World], str]] = {
    "an audience among others": lambda w: token(
        w.main, claims(MAIN, aud=["https://x.example", f"{BASE}{SERVICE}"])
    ),
    "the second public address": lambda w: token(w.main, claims(MAIN, aud=OTHER_BASE + SERVICE)),
    "a doubled slash, as the Sandbox types it": lambda w: token(
        w.main, claims(MAIN, aud=f"{BASE}/cds-services//alp-review")
    ),
    "its own jku": lambda w: token(w.main, claims(MAIN), jku=w.jku),
    "an audience agreed on": lambda w: token(
        w.other, claims(OTHER, tenant="south", aud="urn:cds:ours")
    ),
    "a jku beside configured keys": lambda w: token(
        w.other, claims(OTHER, tenant="north"), jku="https://x.example/jwks.json"
    ),
    "claims of others, and a start that is past": lambda w: token(
        w.main, claims(MAIN, nbf=int(time.time()) - 5, sub="client-id", epic={"x": [1]})
    ),
    "a key in the header that is not looked at": lambda w: token(
        w.main, claims(MAIN), jwk=w.stranger.public, x5c=["MIIB"], x5u="https://x.example/x"
    ),
    "times with fractions, half a second ahead": lambda w: token(
        w.main, claims(MAIN, iat=time.time() + 0.5, exp=time.time() + 300.5)
    ),
    "an id of 5000 letters": lambda w: token(w.main, claims(MAIN, jti=uuid4().hex + "j" * 5000)),
    "any tenant where none is listed": lambda w: token(w.main, claims(MAIN, tenant="somewhere")),
}


@requirement("JWT-08", "JWT-09", "JWT-13", "JWT-14", "SEC-06")
@pytest.mark.parametrize("name", GOOD)
def test_a_token_of_another_form_that_is_right_is_taken(world: World, name: str) -> None:
    answer = ask(world.server, GOOD[name](world), Host="another.example")
    assert answer.status_code == 200, world.server.output[-300:]


@requirement("SEC-05", "JWT-08", "FBK-10")
def test_explain_and_what_lies_below_a_service_ask_for_a_token_of_their_own(world: World) -> None:
    for path in (EXPLAIN, f"{SERVICE}/feedback", "/cds-services/nothing", "/explain/nothing"):
        assert refused(ask(world.server, None, path))
        assert refused(ask(world.server, token(world.main, claims(MAIN)), path))
        answer = ask(world.server, token(world.main, claims(MAIN, path)), path)
        assert answer.status_code != 401
        assert path == EXPLAIN or answer.status_code in (400, 404, 422)


@requirement("SEC-05")
@pytest.mark.parametrize("scheme", ["bearer ", "BEARER ", "Bearer  "])
def test_the_scheme_may_be_written_in_any_case(world: World, scheme: str) -> None:
    given = {"Authorization": scheme + token(world.main, claims(MAIN))}
    assert ask(world.server, None, **given).status_code == 200


# -- tokens that are refused -----------------------------------------------------------------------


def symmetric(w: World) -> str:
    """Signed with the public key, as if it were a shared secret."""
    public = jwt.PyJWK(w.main.public).key
    secret = public.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
    message = part({**w.main.header, "alg": "HS256"}) + b"." + part(claims(MAIN))
    return (message + b"." + part(hmac.digest(secret, message, hashlib.sha256))).decode()


def unsigned(name: str) -> Callable[[World], str]:
    return lambda w: (
        part({**w.main.header, "alg": name}) + b"." + part(claims(MAIN)) + b"."
    ).decode()


def now(seconds: int) -> int:
    return int(time.time()) + seconds


def of_main(word: str, **changes: Any) -> tuple[str, Callable[[World], str]]:
    return word, lambda w: token(w.main, claims(MAIN, **changes))


def head(word: str, **changes: object) -> tuple[str, Callable[[World], str]]:
    return word, lambda w: token(w.main, claims(MAIN), **changes)


def bad(word: str, make: Callable[[World], str]) -> tuple[str, Callable[[World], str]]:
    return word, make


BAD: dict[str, tuple[str, Callable[[World], str]]] = {
    "JWT-01 alg none": bad("algorithm", unsigned("none")),
    "JWT-01 alg None": bad("algorithm", unsigned("None")),
    "JWT-01 alg NONE": bad("algorithm", unsigned("NONE")),
    "JWT-01 no alg": head("header", alg=None),
    "JWT-01 no signature": bad(
        "signature", lambda w: token(w.main, claims(MAIN)).rpartition(".")[0] + "."
    ),
    "JWT-02 HS256 with the public key": bad("algorithm", symmetric),
    "JWT-03 an algorithm that is not the client's": bad(
        "algorithm", lambda w: token(Key("ES256", kid=w.main.kid), claims(MAIN))
    ),
    "JWT-03 RS384 said of a key for ES384": head("unknown-key", alg="RS384"),
    "JWT-04 no kid": head("header", kid=None),
    "JWT-04 an empty kid": head("header", kid=""),
    "JWT-04 a kid that is no text": head("malformed", kid=7),
    "JWT-05 another typ": head("typ", typ="at+jwt"),
    "JWT-05 no typ": head("header", typ=None),
    "JWT-07 an issuer that is not listed": bad(
        "unlisted-issuer", lambda w: token(w.stranger, claims("https://evil.example"))
    ),
    "JWT-07 an issuer but for a slash": bad(
        "unlisted-issuer", lambda w: token(w.main, claims(f"{MAIN}/"))
    ),
    "JWT-07 no issuer": of_main("no-issuer", iss=None),
    "JWT-07 an issuer that is no text": of_main("no-issuer", iss=[MAIN]),
    "JWT-07 another client's issuer": bad("algorithm", lambda w: token(w.other, claims(MAIN))),
    "JWT-07 a key of its own under the id": bad(
        "signature", lambda w: token(w.stranger, claims(MAIN))
    ),
    "JWT-07 signed by another client": bad(
        "unknown-key", lambda w: token(w.rsa, claims(OTHER, tenant="north"), alg="PS256")
    ),
    "SEC-06 a jwk in the header": bad(
        "signature", lambda w: token(w.stranger, claims(MAIN), jwk=w.stranger.public)
    ),
    "JWT-08 another service": of_main("audience", aud=f"{BASE}/cds-services/other"),
    "JWT-08 discovery": of_main("audience", aud=f"{BASE}/cds-services"),
    "JWT-08 the address alone": of_main("audience", aud=BASE),
    "JWT-08 the address it was called by": bad(
        "audience", lambda w: token(w.main, claims(MAIN, aud=w.server.url + SERVICE))
    ),
    "JWT-08 http": of_main("audience", aud=BASE.replace("https", "http") + SERVICE),
    "JWT-08 no audience": of_main("claims", aud=None),
    "JWT-08 a list without us": of_main("audience", aud=["https://x.example", BASE]),
    "JWT-08 an empty list": of_main("audience", aud=[]),
    "JWT-08 no text": of_main("claims", aud={"url": BASE + SERVICE}),
    "JWT-08 what another client agreed on": of_main("audience", aud="urn:cds:ours"),
    "JWT-10 no exp": of_main("claims", exp=None),
    "JWT-10 exp in words": bad("claims", lambda w: token(w.main, claims(MAIN, exp=str(now(60))))),
    "JWT-10 exp true": of_main("claims", exp=True),
    "JWT-10 exp NaN": of_main("malformed", exp=float("nan")),
    "JWT-10 an hour ago": bad(
        "expired", lambda w: token(w.main, claims(MAIN, iat=now(-3900), exp=now(-3600)))
    ),
    "JWT-11 no iat": of_main("claims", iat=None),
    "JWT-11 iat in an hour": bad(
        "from-the-future", lambda w: token(w.main, claims(MAIN, iat=now(3600), exp=now(3900)))
    ),
    "JWT-11 exp in two hours": bad(
        "long-lived", lambda w: token(w.main, claims(MAIN, exp=now(7200)))
    ),
    "JWT-11 over its own limit": bad(
        "long-lived", lambda w: token(w.main, claims(RETRIES, exp=now(130)))
    ),
    "JWT-11 without end": of_main("malformed", exp=float("inf")),
    "JWT-12 no jti": of_main("claims", jti=None),
    "JWT-12 an empty jti": of_main("no-jti", jti=""),
    "JWT-12 a jti that is no text": of_main("claims", jti=17),
    "JWT-13 a tenant that is not listed": bad(
        "tenant", lambda w: token(w.other, claims(OTHER, tenant="west"))
    ),
    "JWT-13 no tenant where some are listed": bad(
        "tenant", lambda w: token(w.other, claims(OTHER))
    ),
    "JWT-13 a tenant that is no text": of_main("claims", tenant=["north"]),
    "JWT-13 a tenant with a sign that no store can hold": of_main("tenant", tenant="a\0b"),
    "JWT-13 a tenant of 256 letters": of_main("tenant", tenant="x" * 256),
    "JWT-14 a start in an hour": bad(
        "not-yet", lambda w: token(w.main, claims(MAIN, nbf=now(3600)))
    ),
    "JWT-17 a key for encryption": bad(
        "unknown-key", lambda w: token(KEPT["encryption"], claims(MAIN))
    ),
    "JWT-17 a key for another algorithm": bad(
        "unknown-key", lambda w: token(KEPT["algorithm"], claims(MAIN))
    ),
    "JWT-01 a critical header": head("malformed", crit=["exp"], exp=1),
    "JWT-01 a payload outside": head("malformed", b64=False, crit=["b64"]),
    "JWT-01 claims that are a list": bad("no-issuer", lambda w: token(w.main, b"[]")),
    "JWT-01 claims that are no JSON": bad("malformed", lambda w: token(w.main, b"{")),
    "JWT-01 a header that is no JSON": bad("malformed", lambda w: f"{part(b'{').decode()}.e30.AA"),
    "JWT-01 two parts": bad("malformed", lambda w: "e30.e30"),
    "JWT-01 a word": bad("malformed", lambda w: "Zyxmark"),
    "JWT-01 too long": bad(
        "no-bearer-token", lambda w: token(w.main, claims(MAIN, x="x" * 16_000))
    ),
    "JWT-01 two tokens": bad(
        "no-bearer-token", lambda w: ", Bearer ".join([token(w.main, claims(MAIN))] * 2)
    ),
}


@requirement(
    *("JWT-01", "JWT-02", "JWT-03", "JWT-04", "JWT-05", "JWT-07", "JWT-08", "JWT-10", "JWT-11"),
    *("JWT-12", "JWT-13", "JWT-14", "JWT-16", "JWT-17", "SEC-02", "SEC-04", "SEC-06"),
    *("ERR-01", "ERR-02", "ERR-03", "COR-03"),
)
@pytest.mark.parametrize("name", BAD)
def test_a_bad_token_gets_the_one_401_and_the_log_a_word(world: World, name: str) -> None:
    word, make = BAD[name]
    before = len(words(world.server))
    given = make(world)
    assert refused(ask(world.server, given))
    assert words(world.server)[before:] == [word]
    assert given not in world.server.output


@requirement("SEC-02", "SEC-10", "ERR-03")
def test_without_a_token_nothing_below_the_services_tells_what_is_there(world: World) -> None:
    for path in (SERVICE, "/cds-services/none", "/explain/none", f"{SERVICE}/", f"/{SERVICE}"):
        for method in ("POST", "GET", "PUT", "DELETE"):
            assert refused(ask(world.server, None, path, method))
    for given in ("", "Basic dXNlcjpwYXNz", "Bearer", "Bearer ", "Bearer a b", "Token x"):
        assert refused(ask(world.server, None, Authorization=given))
    broken = {"Content-Type": "text/plain", "Content-Length": "17"}
    assert refused(ask(world.server, None, **broken))


@requirement("SEC-10")
def test_the_caller_is_asked_for_before_the_body_is_there(world: World) -> None:
    lines = ("Host: x", "Content-Type: application/json", "Content-Length: 1000", "", "")
    with world.server.connect() as sock:
        sock.sendall("\r\n".join((f"POST {SERVICE} HTTP/1.1", *lines)).encode())
        assert sock.recv(65_536).startswith(b"HTTP/1.1 401 ")


@requirement("SEC-10")
def test_a_known_caller_is_told_what_is_wrong(world: World) -> None:
    path = "/cds-services/none"
    assert ask(world.server, token(world.main, claims(MAIN, path)), path).status_code == 404
    given = {"Authorization": f"Bearer {token(world.main, claims(MAIN))}"}
    url = world.server.url + SERVICE
    answer = requests.post(url, b"{", headers={**given, "Content-Type": "application/json"})
    assert answer.status_code == 400


@requirement("DSC-21", "COR-02", "SEC-02")
def test_pages_health_discovery_and_preflights_need_no_token(world: World) -> None:
    for path in ("/", "/cds-services", "/livez", "/readyz", "/version", "/openapi.json"):
        assert requests.get(world.server.url + path, timeout=20).status_code == 200
    for path in ("/topics", "/topics/lowAlpPersistent", "/static/topics.css"):
        assert requests.get(world.server.url + path, timeout=60).status_code == 200
    for path in (SERVICE, EXPLAIN, "/cds-services", f"{SERVICE}/feedback"):
        asked = {"Access-Control-Request-Method": "POST", "Origin": "https://ehr.example"}
        answer = requests.options(world.server.url + path, headers=asked, timeout=20)
        assert answer.status_code == 204
        assert "Authorization" in answer.headers["Access-Control-Allow-Headers"]


def test_a_proxy_is_normal_where_clients_are_trusted(world: World) -> None:
    given = token(world.main, claims(MAIN))
    proxied = {"Host": "cds.example.org", "X-Forwarded-For": "10.0.0.1", "Forwarded": "for=x"}
    assert ask(world.server, given, **proxied).status_code == 200


@requirement("DSC-20", "SEC-05", "JWT-08")
def test_discovery_asks_for_a_token_where_it_is_to(tmp_path: Path) -> None:
    key = Key()
    (tmp_path / "keys.json").write_bytes(key_set(key))
    rows = [client_row(MAIN, keys="keys.json")]
    with trusting(tmp_path, rows, CDS_PROTECT_DISCOVERY="1") as server:
        for path in ("/cds-services", "//cds-services/"):
            assert refused(ask(server, None, path, "GET"))
        for given in (token(key, claims(MAIN)), token(key, claims(MAIN, "/explain"))):
            assert refused(ask(server, given, "/cds-services", "GET"))
        good = token(key, claims(MAIN, "/cds-services/"))
        assert ask(server, good, "/cds-services/", "GET").json()["services"]
        for path in ("/", "/livez", "/openapi.json", "/topics"):
            assert requests.get(server.url + path, timeout=60).status_code == 200
        assert "with a token only" in server.output and f"trusts ehr.example ({MAIN})" in (
            server.output
        )


# -- times, to the second --------------------------------------------------------------------------


NOON = 1_795_608_000


def times(**claimed: float) -> Json:
    return {"iat": NOON, "exp": NOON + 300, **claimed}


@requirement("JWT-10", "JWT-11", "JWT-14")
@pytest.mark.parametrize(
    ("claimed", "status"),
    [
        (times(iat=NOON - 300, exp=NOON - 60), 401),
        (times(iat=NOON - 300, exp=NOON - 59), 200),
        (times(iat=NOON + 60), 200),
        (times(iat=NOON + 61), 401),
        (times(nbf=NOON + 60), 200),
        (times(nbf=NOON + 60.5), 401),
        (times(exp=NOON + 3660), 200),
        (times(exp=NOON + 3661), 401),
        (times(exp=NOON + 1e300), 401),
        (times(iat=-1e300), 401),
        (times(iat=NOON + 0.5, exp=10**400), 401),
        (times(iat=-(10**400), exp=NOON + 0.5), 401),
        (times(nbf=10**400), 401),
    ],
)
def test_the_edges_of_a_tokens_time(tmp_path: Path, claimed: Json, status: int) -> None:
    key = Key()
    (tmp_path / "keys.json").write_bytes(key_set(key))
    settings = read_settings(settings_in(tmp_path, [client_row(MAIN, keys="keys.json")]))
    Store(settings.store_url).migrate(migrations_dir())
    app = create_app(settings, now=lambda: datetime.fromtimestamp(NOON, UTC))
    given = {"Authorization": f"Bearer {token(key, claims(MAIN, **claimed))}"}
    answer = app.test_client().post(SERVICE, json=request(), headers=given)
    assert answer.status_code == status


@requirement("JWT-11")
@pytest.mark.parametrize(("age", "taken"), [(86_400, True), (86_401, False)])
def test_a_token_of_more_than_a_day_ago_is_refused_however_long_it_may_last(
    tmp_path: Path, age: int, taken: bool
) -> None:
    key = Key()
    client = Client(MAIN, MAIN, keys=read_key_set(key_set(key)), max_lifetime=10**6)
    store = Store(f"sqlite:///{tmp_path}/store.sqlite")
    store.migrate(migrations_dir())
    clock = datetime.fromtimestamp(NOON, UTC)
    trust = Authenticator([client], [BASE], store, lambda: clock, Ways())
    given = f"Bearer {token(key, claims(MAIN, iat=NOON - age, exp=NOON + 60))}"
    if taken:
        assert trust.caller(given, SERVICE) == Caller(MAIN)
    else:
        with pytest.raises(NotAuthenticated):
            trust.caller(given, SERVICE)


@requirement("JWT-18")
def test_the_token_printed_in_the_specification_verifies_and_has_expired(tmp_path: Path) -> None:
    public = jwt.PyJWK(EXAMPLE).key
    keys = KeySet((JwkKey("example-kid", frozenset(("ES384",)), public),))
    issuer, path = "https://fhir-ehr.example.com/", "/cds-services/some-service"
    client = Client("example", issuer, keys=keys, max_lifetime=4 * 366 * 86_400)
    store = Store(f"sqlite:///{tmp_path}/store.sqlite")
    store.migrate(migrations_dir())
    clock = datetime(2011, 7, 22, tzinfo=UTC)
    trust = Authenticator([client], ["https://cds.example.org"], store, lambda: clock, Ways())
    given = f"Bearer {EXAMPLE_TOKEN}"
    tenant = "2ddd6c3a-8e9a-44c6-a305-52111ad302a2"
    assert trust.caller(given, path) == Caller(issuer, tenant)
    clock = datetime(2026, 1, 1, tzinfo=UTC)
    with pytest.raises(NotAuthenticated):
        trust.caller(given, path)


# -- used once -------------------------------------------------------------------------------------


@requirement("JWT-12")
def test_a_token_is_used_once_whichever_worker_takes_it_and_after_a_restart(
    tmp_path: Path,
) -> None:
    key = Key()
    (tmp_path / "keys.json").write_bytes(key_set(key))
    rows = [client_row(MAIN, keys="keys.json")]
    used = []
    with trusting(tmp_path, rows, "--workers", "2") as server:
        assert len(server.children()) == 2
        for _ in range(8):
            used.append(token(key, claims(MAIN)))
            found = [ask(server, used[-1]).status_code for _ in range(6)]
            assert sorted(found) == [200, *[401] * 5] and found[0] == 200
    with trusting(tmp_path, rows) as server:
        assert all(refused(ask(server, x)) for x in used)
        assert set(words(server)) == {"used-before"}


@requirement("JWT-12", "JWT-15")
def test_of_one_token_sent_twice_at_once_one_is_taken_by_four_workers(tmp_path: Path) -> None:
    key = Key()
    (tmp_path / "keys.json").write_bytes(key_set(key))
    with (
        trusting(tmp_path, [client_row(MAIN, keys="keys.json")], "--workers", "4") as server,
        ThreadPoolExecutor(4) as threads,
    ):
        assert len(server.children()) == 4
        for _ in range(25):
            given = token(key, claims(MAIN))
            found = [x.status_code for x in threads.map(lambda _, x=given: ask(server, x), "abcd")]
            assert sorted(found) == [200, 401, 401, 401]
        assert min(server.cpu_ticks()) > 0


@requirement("JWT-15")
def test_a_token_that_is_refused_is_not_used_up(world: World) -> None:
    said = claims(OTHER, tenant="north")
    good = token(world.other, said)
    for worse in (
        token(world.other, {**said, "tenant": "west"}),
        token(world.other, {**said, "aud": BASE}),
        token(world.other, {**said, "exp": now(-100)}),
        token(Key("ES256", kid=world.other.kid), said),
    ):
        assert refused(ask(world.server, worse))
    assert ask(world.server, good).status_code == 200
    assert refused(ask(world.server, good))


def test_the_same_id_of_two_issuers_is_two_tokens(world: World) -> None:
    jti = str(uuid4())
    for issuer, key in ((MAIN, world.main), (OTHER, world.other)):
        given = token(key, claims(issuer, jti=jti, tenant="north"))
        assert ask(world.server, given).status_code == 200


@requirement("JWT-12")
def test_a_client_that_retries_may_send_a_token_again_where_that_is_agreed(world: World) -> None:
    given = token(world.main, claims(RETRIES, exp=now(50)))
    assert [ask(world.server, given).status_code for _ in range(3)] == [200] * 3


@requirement("JWT-12", "ERR-04")
def test_without_its_store_a_server_takes_no_token_and_says_nothing_of_it(tmp_path: Path) -> None:
    key = Key()
    (tmp_path / "keys.json").write_bytes(key_set(key))
    settings = read_settings(settings_in(tmp_path, [client_row(MAIN, keys="keys.json")]))
    client = create_app(settings).test_client()  # nobody has made the tables
    for given, status in ((token(key, claims(MAIN)), 503), (token(Key(), claims(MAIN)), 401)):
        head = {"Authorization": f"Bearer {given}"}
        answer = client.post(SERVICE, json=request(), headers=head)
        assert answer.status_code == status
        assert "token" not in answer.text.lower() and MAIN not in answer.text


def test_what_has_expired_is_forgotten(tmp_path: Path) -> None:
    store = Store(f"sqlite:///{tmp_path}/store.sqlite")
    store.migrate(migrations_dir())
    assert store.use_token("i", "t", 1000) and not store.use_token("i", "t", 1000)
    store.forget_tokens(1000)
    assert not store.use_token("i", "t", 1000)
    store.forget_tokens(1001)
    assert store.use_token("i", "t", 1000)


# -- published keys --------------------------------------------------------------------------------


@requirement("SEC-04", "SEC-06")
def test_a_jku_that_is_not_the_clients_is_never_read(world: World) -> None:
    with counting() as (url, callers):
        for header in (
            {"jku": f"{url}/jwks.json"},
            {"jku": f"{world.jku}#x"},
            {"x5u": url, "jku": world.jku.replace("127.0.0.1", "localhost")},
        ):
            for key in (world.main, world.stranger):
                assert refused(ask(world.server, token(key, claims(MAIN), **header)))
        given = token(world.main, claims(MAIN), x5u=url)
        assert ask(world.server, given).status_code == 200
    assert callers == []
    assert words(world.server).count("unlisted-jku") >= 6


@pytest.fixture(scope="module")
def rotating(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Running, KeyServer]]:
    """A server that trusts one issuer for each path of a server of keys."""
    names = ("rotated", "guessed", "down", "hangs", "moved", "long", "wrong", "example", "drips")
    with publishing() as keys:
        rows = [client_row(f"https://{x}", jku=f"{keys.url}/{x}", insecure_jku=True) for x in names]
        with trusting(tmp_path_factory.mktemp("keys"), rows) as server:
            yield server, keys


def called(server: Running, name: str, key: Key) -> int:
    answer = ask(server, token(key, claims(f"https://{name}")))
    assert answer.status_code == 200 or refused(answer)
    return answer.status_code


@requirement("JWT-04")
def test_a_new_key_is_looked_for_once_and_one_that_is_gone_is_gone(
    rotating: tuple[Running, KeyServer],
) -> None:
    server, keys = rotating
    old, new = Key(), Key("RS384")
    keys.publish("/rotated", old)
    assert [called(server, "rotated", old) for _ in range(3)] == [200] * 3
    assert keys.hits["/rotated"] == 1
    keys.publish("/rotated", new)
    assert [called(server, "rotated", new) for _ in range(3)] == [200] * 3
    assert called(server, "rotated", old) == 401
    assert keys.hits["/rotated"] == 2


@requirement("JWT-04")
def test_a_hundred_unknown_keys_are_looked_for_at_most_once(
    rotating: tuple[Running, KeyServer],
) -> None:
    server, keys = rotating
    good = Key()
    keys.publish("/guessed", good)
    assert called(server, "guessed", good) == 200
    with ThreadPoolExecutor(8) as threads:
        bads = threads.map(lambda n: called(server, "guessed", Key(kid=f"k{n}")), range(100))
        assert set(bads) == {401}
    assert called(server, "guessed", good) == 200
    assert keys.hits["/guessed"] <= 2


@requirement("JWT-17")
def test_keys_are_kept_while_their_server_is_down(rotating: tuple[Running, KeyServer]) -> None:
    server, keys = rotating
    key = Key()
    keys.publish("/down", key)
    assert called(server, "down", key) == 200
    keys.faults["/down"] = lambda to: to.give(b"", 503)
    assert called(server, "down", Key()) == 401  # looks, in vain
    assert called(server, "down", key) == 200
    assert keys.hits["/down"] == 2


@requirement("JWT-17", "SEC-06")
@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("hangs", "ReadTimeout"),
        ("moved", "HTTP 302"),
        ("long", "over 100000 bytes"),
        ("wrong", "has no list of keys"),
        ("drips", "not there within 3 s"),
    ],
)
def test_keys_that_cannot_be_had_in_time_and_size_are_not_waited_for(
    rotating: tuple[Running, KeyServer], name: str, said: str
) -> None:
    server, keys = rotating
    key = Key()
    body = key_set(key)

    def hang(to: Publishing) -> None:
        keys.released.wait(20)

    def drip(to: Publishing) -> None:
        to.send_response(200)
        to.end_headers()
        for _ in range(200):
            to.wfile.write(b" ")
            if keys.released.wait(0.1):
                return

    with counting() as (elsewhere, callers):
        keys.faults |= {
            "/hangs": hang,
            "/moved": lambda to: to.give(b"", 302, Location=f"{elsewhere}/jwks.json"),
            "/long": lambda to: to.give(body + b" " * 100_000),
            "/wrong": lambda to: to.give(b'{"keys": 1}'),
            "/drips": drip,
        }
        began = time.monotonic()
        assert called(server, name, key) == 401
        assert time.monotonic() - began < 8
        assert requests.get(f"{server.url}/livez", timeout=5).ok
    assert callers == []
    deadline = time.monotonic() + 10
    url = f"{keys.url}/{name}"
    while said not in [x["reason"] for x in server.logged("keys cannot be had") if x["url"] == url]:
        assert time.monotonic() < deadline, server.output[-500:]
        time.sleep(0.05)


@requirement("SEC-08")
def test_a_published_key_whose_private_half_anybody_has_is_not_used(
    rotating: tuple[Running, KeyServer],
) -> None:
    server, keys = rotating
    good = Key()
    keys.publish("/example", {**EXAMPLE, "kid": "x"}, SANDBOX, good)
    assert called(server, "example", good) == 200
    given = token(Key(kid="x"), claims("https://example"))
    assert refused(ask(server, given)) and words(server)[-1] == "unknown-key"
    assert "key 0 is that of the CDS Hooks specification, whose private half" in server.output
    assert "key 1 is that of the CDS Hooks Sandbox, whose private half" in server.output


@requirement("JWT-17")
def test_keys_are_read_anew_after_an_hour_and_forgotten_after_a_day_without() -> None:
    first, second = Key(kid="1"), Key(kid="2")
    clock = 0.0
    with publishing() as keys:
        found = PublishedKeys(keys.publish("/k", first), Ways(), lambda: clock)
        assert found.with_key("1").has("1") and keys.hits["/k"] == 1
        keys.publish("/k", second)
        clock = MAX_AGE - 1
        assert found.with_key("1").has("1") and keys.hits["/k"] == 1
        clock = MAX_AGE
        assert not found.with_key("1").has("1") and keys.hits["/k"] == 2
        keys.faults["/k"] = lambda to: to.give(b"", 500)
        read_at = clock
        for clock in (read_at + MAX_AGE, read_at + MAX_AGE_ON_ERROR - 11):  # noqa: B007
            assert found.with_key("2").has("2")
        asked = keys.hits["/k"]
        clock += 9.5
        assert found.with_key("2").has("2") and keys.hits["/k"] == asked  # not at every call
        clock = read_at + MAX_AGE_ON_ERROR
        assert found.with_key("2").keys == ()


# -- what a key set may hold -----------------------------------------------------------------------


@requirement("JWT-17", "SEC-08")
@pytest.mark.parametrize(
    ("members", "why"),
    [
        ({"use": "enc"}, "is not for signatures"),
        ({"key_ops": ["encrypt"]}, "is not for signatures"),
        ({"key_ops": "verify"}, "is not for signatures"),
        ({"kid": None}, "has no kid"),
        ({"kid": ""}, "has no kid"),
        ({"alg": "RS384"}, "another algorithm"),
        ({"alg": "none"}, "another algorithm"),
        ({"alg": ["ES384"]}, "another algorithm"),
        ({"crv": "secp256k1"}, "no known type"),
        ({"kty": "OKP", "crv": "Ed25519"}, "no known type"),
        ({"kty": "oct", "k": "c2VjcmV0"}, "no public key"),
        ({"d": "AQAB"}, "no public key"),
        ({"x": "AAAA"}, "cannot be read"),
        ({"x": 7}, "cannot be read"),
        ({"y": None}, "cannot be read"),
        ({"x": SANDBOX["x"], "y": SANDBOX["y"]}, "the CDS Hooks Sandbox"),
        ({"x": EXAMPLE["x"] + "=", "y": EXAMPLE["y"]}, "the CDS Hooks specification"),
    ],
)
def test_a_key_that_must_not_sign_is_left_out_and_named(members: Json, why: str) -> None:
    found = read_key_set(key_set(Key(), {**Key().public, **members}))
    assert len(found.keys) == 1
    [said] = found.refused
    assert said.startswith("key 1 ") and why in said


TEXTS = ("", "a", "AQAB", "====", "\0", "é", "P-384", "RSA", "EC", "oct", "RS384", "ES384", "sig")
ODD = st.sampled_from([*TEXTS, None, True, 0, 1.5, [], ["a"], {}, {"a": 1}])
SOME_KEYS = (Key().public, Key("RS384").public)
MEMBERS = st.sampled_from([*SOME_KEYS[0], *SOME_KEYS[1], "key_ops", "d"])


@settings(deadline=None)  # others use this machine too
@for_each(st.sampled_from(SOME_KEYS), st.dictionaries(MEMBERS, ODD, min_size=1, max_size=3))
def test_a_key_of_whatever_members_is_read_or_left_out(key: Json, members: Json) -> None:
    found = read_key_set(key_set({**key, **members}))
    assert len(found.keys) + len(found.refused) == 1


HEADER = st.sampled_from(["alg", "typ", "kid", "jku", "jwk", "crit", "b64"])
CLAIM = st.sampled_from(["iss", "aud", "exp", "iat", "nbf", "jti", "tenant"])
HUGE = st.sampled_from([10**400, -(10**400), 1e308, "x" * 5000])


@pytest.fixture(scope="module")
def trust(tmp_path_factory: pytest.TempPathFactory) -> tuple[Key, Authenticator]:
    key = Key()
    store = Store(f"sqlite:///{tmp_path_factory.mktemp('odd')}/store.sqlite")
    store.migrate(migrations_dir())
    client = Client(MAIN, MAIN, keys=read_key_set(key_set(key)))
    return key, Authenticator([client], [BASE], store, lambda: datetime.now(UTC), Ways())


@requirement("ERR-08", "JWT-16")
@settings(deadline=None)  # others use this machine too
@for_each(
    st.dictionaries(HEADER, ODD | HUGE, max_size=2), st.dictionaries(CLAIM, ODD | HUGE, max_size=2)
)
def test_a_token_of_whatever_header_and_claims_is_taken_or_refused(
    trust: tuple[Key, Authenticator], header: Json, said: Json
) -> None:
    key, authenticator = trust
    message = part({**key.header, **header}) + b"." + part({**claims(MAIN), **said})
    signed = message + b"." + part(key.sign(message, "ES384"))
    with suppress(NotAuthenticated):
        assert authenticator.caller(f"Bearer {signed.decode()}", SERVICE).issuer == MAIN


def test_keys_over_https_are_read_from_who_can_show_a_certificate(tmp_path: Path) -> None:
    if (openssl := shutil.which("openssl")) is None:
        pytest.skip("openssl is not installed")
    curve = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes"]
    name = ["-subj", "/CN=test", "-addext", "subjectAltName=IP:127.0.0.1"]
    files = ["-keyout", "key.pem", "-out", "cert.pem"]
    command = [openssl, "req", "-x509", *curve, *name, *files]
    subprocess.run(command, cwd=tmp_path, check=True, capture_output=True, timeout=20)
    with publishing(tmp_path / "cert.pem", tmp_path / "key.pem") as keys:
        url = keys.publish("/k", Key(kid="1"))
        assert url.startswith("https://")
        assert PublishedKeys(url, Ways()).with_key("1").keys == ()
        assert keys.hits["/k"] == 0
        assert PublishedKeys(url, Ways(tmp_path / "cert.pem")).with_key("1").has("1")


def test_a_short_rsa_key_is_left_out() -> None:
    from cryptography.hazmat.primitives.asymmetric import rsa

    from cds_service.jwks import public_jwk

    short = public_jwk(rsa.generate_private_key(65537, 1024).public_key())
    assert "2048" in read_key_set(key_set({**short, "kid": "x"})).refused[0]


@pytest.mark.parametrize("text", [b"", b"[]", b"{}", b'{"keys": {}}', b"\xff", b"[" * 100_000])
def test_what_is_no_key_set_is_refused(text: bytes) -> None:
    with pytest.raises(ValueError, match=r"has no list|is no JSON"):
        read_key_set(text)


# -- how it is started -----------------------------------------------------------------------------

JKU = "https://ehr.example/jwks.json"
WRONG: dict[str, tuple[str, str]] = {
    "an unknown key": (client_row(MAIN, jku=JKU, algorithm="ES384"), "algorithm"),
    "a name misspelt": (client_row(MAIN, jku=JKU).replace("issuer", "isuer"), "isuer"),
    "no issuer": ('[[client]]\nname = "x"\n', "issuer"),
    "neither jku nor keys": (client_row(MAIN), "either jku or keys"),
    "both": (client_row(MAIN, jku=JKU, keys="good.json"), "either jku or keys"),
    "plain http": (client_row(MAIN, jku="http://ehr.example/j"), "must be an https URL"),
    "plain http said to be right": (
        client_row(MAIN, jku="http://ehr.example/j", insecure_jku=True),
        "loopback only",
    ),
    "plain http to loopback, not said": (client_row(MAIN, jku="http://127.0.0.1/j"), "https"),
    "a user in the URL": (client_row(MAIN, jku="https://u@ehr.example/j"), "https URL"),
    "a name that begins like loopback": (
        client_row(MAIN, jku="http://127.0.0.1.nip.io/j", insecure_jku=True),
        "loopback only",
    ),
    "an algorithm that is none": (client_row(MAIN, jku=JKU, algorithms=["HS256"]), "HS256"),
    "the algorithm none": (client_row(MAIN, jku=JKU, algorithms=["none"]), "none is none of"),
    "no algorithm": (client_row(MAIN, jku=JKU, algorithms=[]), "algorithms"),
    "another jti": (client_row(MAIN, jku=JKU, jti="never"), "jti"),
    "a lifetime without end": (client_row(MAIN, jku=JKU, max_lifetime=10**6), "max_lifetime"),
    "an issuer of two lines": (client_row("https://a\nb", jku=JKU), "issuer"),
    "an issuer twice": (client_row(MAIN, jku=JKU) * 2, "stands twice"),
    "no clients": ("client = []", "client"),
    "an empty file": ("", "client"),
    "no TOML": ("[[client]", "TOML"),
    "no such file of keys": (client_row(MAIN, keys="nowhere.json"), "nowhere.json"),
    "a file of no keys": (client_row(MAIN, keys="empty.json"), "holds no key"),
    "the Sandbox's key": (client_row(MAIN, keys="sandbox.json"), "the CDS Hooks Sandbox"),
    "the specification's key": (client_row(MAIN, keys="example.json"), "specification"),
    "a private key": (client_row(MAIN, keys="private.json"), "no public key"),
    **{
        f"a FHIR server that is {what}": (
            client_row(MAIN, jku=JKU) + f'[[client.fhir_server]]\nurl = "{url}"\n',
            "fhir_server[0].url",
        )
        for what, url in {
            "none": "ehr",
            "not TLS": "http://f/fhir",
            "with a user": "https://u@f/fhir",
            "with a query": "https://f/fhir?a=b",
            "with dots": "https://f/fhir/../a",
            "at a port that is none": "https://f:99999/fhir",
        }.items()
    },
    "a network that is none": (
        client_row(MAIN, jku=JKU)
        + '[[client.fhir_server]]\nurl = "https://f"\nnetworks = ["10.0.0.1/8"]\n',
        "networks",
    ),
}


@requirement("SEC-04", "SEC-08", "JWT-02", "REQ-07")
@pytest.mark.parametrize("name", WRONG)
def test_a_clients_file_that_is_wrong_stops_the_start_with_file_and_key(
    tmp_path: Path, name: str
) -> None:
    row, said = WRONG[name]
    for file, keys in (
        ("good", [Key().public]),
        ("empty", []),
        ("sandbox", [SANDBOX]),
        ("example", [{**EXAMPLE, "kid": "another"}]),
        ("private", [Key().private]),
    ):
        (tmp_path / f"{file}.json").write_bytes(key_set(*keys))
    result = ended("serve", **settings_in(tmp_path, [row]))
    assert result.returncode == 2
    assert re.fullmatch(r"cds-service: clients\.toml: .*\n", result.stderr), result.stderr
    assert said in result.stderr


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"CDS_CLIENTS_FILE": ""}, "CDS_CLIENTS_FILE: not set"),
        ({"CDS_PUBLIC_URL": ""}, "CDS_PUBLIC_URL: not set"),
        ({"CDS_PATIENT_SECRET_FILE": ""}, "CDS_PATIENT_SECRET_FILE: not set"),
        ({"CDS_PUBLIC_URL": "http://cds.example.org"}, "must be https"),
        ({"CDS_PUBLIC_URL": f"{BASE} http://10.0.0.1"}, "http://10.0.0.1 must be https"),
        ({"CDS_STORE": "sqlite:////nowhere/at/all.sqlite"}, "CDS_STORE"),
        ({"CDS_STORE": "postgresql://u:Zyxmark@127.0.0.1:9/x"}, "CDS_STORE"),
    ],
)
@requirement("SEC-02")
def test_what_a_server_that_trusts_clients_lacks_stops_its_start(
    tmp_path: Path, change: dict[str, str], said: str
) -> None:
    result = ended("serve", **settings_in(tmp_path, [client_row(MAIN, jku=JKU)], **change))
    assert result.returncode == 2
    assert said in result.stderr
    assert "Traceback" not in result.stderr and "Zyxmark" not in result.stderr


def test_without_clients_nobody_is_answered_whatever_the_server() -> None:
    client = create_app(Settings()).test_client()
    for path in (SERVICE, EXPLAIN, "/cds-services/none"):
        assert client.post(path, json=request()).data == REFUSED


@requirement("SEC-05", "SEC-10")
def test_every_route_that_takes_a_body_lies_where_a_token_is_asked_for() -> None:
    app = create_app(Settings())
    posts = {x.rule for x in app.url_map.iter_rules() if "POST" in (x.methods or ())}
    assert posts >= {"/cds-services/<service_id>", "/explain/<service_id>"}
    assert [x for x in posts if not re.match(r"/(cds-services|explain)/", x)] == []


def test_the_store_that_is_made_is_for_its_owner_only(tmp_path: Path) -> None:
    _make_private(tmp_path / "store.sqlite")
    assert (tmp_path / "store.sqlite").stat().st_mode & 0o777 == 0o600


def test_the_store_is_made_at_the_start_and_migrated_by_hand(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path}/store.sqlite"
    for said in ("it was empty", "it was 0001"):
        result = ended("migrate", CDS_STORE=url)
        assert result.returncode == 0 and said in result.stdout
    Store(url).check()
    result = ended("migrate", CDS_STORE="sqlite:////nowhere/at/all.sqlite")
    assert result.returncode == 2 and "Traceback" not in result.stderr


# -- logs ------------------------------------------------------------------------------------------


@requirement("SEC-07", "JWT-16")
def test_no_token_is_in_any_log_even_at_debug(tmp_path: Path) -> None:
    key = Key(kid="Zyxkid")
    with publishing() as keys:
        rows = [client_row(MAIN, jku=keys.publish("/k", key), insecure_jku=True)]
        with trusting(tmp_path, rows, CDS_LOG_LEVEL="debug") as server:
            marks = {"tenant": "Zyxmark", "sub": "Zyxmark", "jti": "Zyxmark-1"}
            given = [
                token(key, claims(MAIN, **marks)),
                token(Key(kid="Zyxkid2"), claims(MAIN, **marks)),
                token(key, claims("https://Zyxmark.example")),
                token(key, claims(MAIN, **marks, nbf=now(1000))),
                "Zyxmark.Zyxmark.Zyxmark",
            ]
            assert [ask(server, x).status_code for x in given] == [200, *[401] * 4]
            assert "urllib3" in str(server.logged("said by a library"))  # it did listen
            assert "Zyx" not in server.output
            assert not any(piece in server.output for x in given for piece in x.split("."))
            [first, *_] = server.logged("token refused")
            assert (first["client"], first["reason"]) == ("ehr.example", "unknown-key")


# -- the parts that make tokens --------------------------------------------------------------------


@pytest.mark.parametrize("algorithm", ["ES256", "ES384", "ES512", "RS256", "RS384", "PS512"])
def test_keys_and_tokens_of_the_command_line_are_taken(tmp_path: Path, algorithm: str) -> None:
    made = ended("token", "keys", "--algorithm", algorithm, "--out", str(tmp_path / "k"))
    assert made.returncode == 0, made.stderr
    said = dict(x.rsplit(" ", 1) for x in made.stdout.splitlines())
    file = Path(said["private key"])
    assert file.stat().st_mode & 0o777 == 0o600 and said["kid"] in file.name
    keys = read_key_set(Path(said["public keys"]).read_bytes())
    assert [x.kid for x in keys.keys] == [said["kid"]] and keys.refused == ()
    arguments = ("--key", str(file), "--issuer", MAIN, "--audience", BASE + SERVICE)
    minted = ended("token", "mint", *arguments, "--tenant", "north", "--expires", "60")
    client = Client(MAIN, MAIN, keys=keys, algorithms=(algorithm,))
    store = Store(f"sqlite:///{tmp_path}/store.sqlite")
    store.migrate(migrations_dir())
    trust = Authenticator([client], [BASE], store, lambda: datetime.now(UTC), Ways())
    assert trust.caller(f"Bearer {minted.stdout.strip()}", SERVICE) == Caller(MAIN, "north")


def test_a_second_key_is_added_and_the_first_stays(tmp_path: Path) -> None:
    for n in (1, 2):
        assert ended("token", "keys", "--out", str(tmp_path)).returncode == 0
        found = read_key_set((tmp_path / "jwks.json").read_bytes())
        assert len({x.kid for x in found.keys}) == n
    assert len(list(tmp_path.glob("private-*"))) == 2


@pytest.mark.parametrize(
    "arguments",
    [
        ("keys", "--algorithm", "HS256", "--out", "x"),
        ("keys", "--algorithm", "none", "--out", "x"),
        ("keys",),
        ("mint", "--issuer", "i", "--audience", "a"),
        ("mint", "--key", "README.md", "--issuer", "i", "--audience", "a"),
        ("mint", "--key", "/nowhere", "--issuer", "i", "--audience", "a"),
    ],
)
def test_a_token_command_that_is_wrong_is_refused_in_words(arguments: tuple[str, ...]) -> None:
    result = ended("token", *arguments)
    assert result.returncode in (1, 2)
    assert result.stdout == "" and "Error" in result.stderr and "Traceback" not in result.stderr


def test_a_key_set_that_is_none_is_not_written_over(tmp_path: Path) -> None:
    (tmp_path / "jwks.json").write_text(json.dumps({"keys": 1}))
    result = ended("token", "keys", "--out", str(tmp_path))
    assert result.returncode == 1 and "is no key set" in result.stderr
    assert (tmp_path / "jwks.json").read_text() == json.dumps({"keys": 1})
