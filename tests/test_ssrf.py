"""Whatever a request, a name, a link or the environment says: nobody is called who may not be, the
explanation says why, and the call is answered 412, or without what was to be fetched.
"""

import json
import socket
import ssl
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from ipaddress import ip_address, ip_network
from itertools import chain, repeat
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
import requests
from flask import Flask
from msgspec.structs import replace

from cds_service.addresses import EVERYWHERE, Resolve, is_allowed
from cds_service.answering import Answering
from cds_service.call_record import CallRecord
from cds_service.clients import ANYBODY, Caller
from cds_service.clients import FhirServer as Server
from cds_service.config import Settings
from cds_service.content import Content
from cds_service.errors import CdsError
from cds_service.fhir_client import FhirClient
from cds_service.fhir_endpoint import FhirEndpoint, FixturePatient
from cds_service.loading import load_content
from tests.exchanges import EXPLAIN, GRANT, SERVICE, TODAY, Json, now
from tests.invariants import cards_of
from tests.loopback import (
    FhirServer,
    certificate_for,
    counting,
    ended,
    links_to,
    proxying,
    redirects_to,
    running,
    serving,
)

requirement = pytest.mark.requirement
Whole = Callable[[str], Json]
WARNED = "low-alp-persistent"
NAME = "fhir.hospital.test"
EHR = Caller("https://ehr.example")
OTHER = Caller("https://other.example")
HERE = (ip_network("127.0.0.1/32"),)


# -- who is dialled ----------------------------------------------------------------------------


class _Dialled:
    """Every network address that this process dials, noted by the interpreter itself."""

    def __init__(self) -> None:
        self.addresses: list[tuple[str, int]] | None = None

    def hook(self, event: str, arguments: tuple[Any, ...]) -> None:
        if event == "socket.connect" and self.addresses is not None:
            address = arguments[1]
            if isinstance(address, tuple):
                self.addresses.append((address[0], address[1]))


_dialled = _Dialled()


@pytest.fixture(scope="module", autouse=True)
def _noting() -> None:
    sys.addaudithook(_dialled.hook)  # stays until the process ends, and notes nothing by then


@pytest.fixture
def dialled(_noting: None) -> Iterator[list[tuple[str, int]]]:
    found: list[tuple[str, int]] = []
    _dialled.addresses = found
    yield found
    _dialled.addresses = None


def test_what_is_dialled_is_seen(dialled: list[tuple[str, int]]) -> None:
    with counting() as (url, callers), socket.socket() as caller:
        caller.connect(("127.0.0.1", urlsplit(url).port))
    assert dialled == [("127.0.0.1", urlsplit(url).port)] and len(callers) == 1


# -- calls -------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def content() -> Content:
    return load_content(Settings().hooks_dir)


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return certificate_for(tmp_path_factory.mktemp("tls"), f"DNS:{NAME}", "DNS:localhost")


@dataclass
class Secured:
    """A FHIR server over TLS, and the names that its callers asked for in the handshake."""

    fhir: FhirServer
    names: list[str | None]

    @property
    def port(self) -> int:
        return int(urlsplit(self.fhir.base).port or 0)


@contextmanager
def secured(
    certificate: Path, patients: dict[str, FixturePatient], name: str = NAME
) -> Iterator[Secured]:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate)
    names: list[str | None] = []
    context.sni_callback = lambda _, asked, __: names.append(asked)
    with serving(lambda base: FhirEndpoint([patients[WARNED].bundle], base), name, context) as fhir:
        yield Secured(fhir, names)


@pytest.fixture
def hospital(certificate: Path, patients: dict[str, FixturePatient]) -> Iterator[Secured]:
    with secured(certificate, patients) as server:
        yield server


def names(*answers: Sequence[str]) -> Resolve:
    """Resolves every name to the first addresses, the next time to the second, then to the last."""
    each = chain(answers, repeat(answers[-1]))

    def resolve(host: str, port: int, *_: object, **__: object) -> Sequence[tuple[Any, ...]]:
        return [_found(address, port) for address in next(each)]

    return resolve


def _found(address: str, port: int) -> tuple[Any, ...]:
    if ":" in address:
        return (socket.AF_INET6, socket.SOCK_STREAM, 6, "", (address, port, 0, 0))
    return (socket.AF_INET, socket.SOCK_STREAM, 6, "", (address, port))


@dataclass(frozen=True)
class Told:
    """What a call was answered with, and what its explanation says of each key."""

    status: int
    cards: tuple[str, ...]
    why: dict[str, str]


class Asking:
    """Calls answered for one caller, whose issuer has one server."""

    def __init__(
        self, content: Content, server: Server, caller: Caller = EHR, **options: Any
    ) -> None:
        self._caller = caller
        self._fhir = FhirClient({caller.issuer: [server]}, **options)
        self._answering = Answering(content, self._fhir, 10, now)

    def told(self, body: Json, caller: Caller | None = None) -> Told:
        caller = self._caller if caller is None else caller
        text = json.dumps(body).encode()
        try:
            status = 200
            self._answering.cards("alp-review", text, CallRecord(caller=caller))
        except CdsError as error:
            status = error.status
        found = self._answering.explain("alp-review", text, CallRecord(caller=caller))
        assert found["status"] == status
        why = {x["key"]: x["why"] for x in found["data"] if "why" in x}
        return Told(status, cards_of(found), why)

    def close(self) -> None:
        self._fhir.close()


Ask = Callable[..., Asking]


@pytest.fixture
def ask(content: Content) -> Iterator[Ask]:
    made: list[Asking] = []

    def make(server: Server, **options: Any) -> Asking:
        made.append(Asking(content, server, **options))
        return made[-1]

    yield make
    for each in made:
        each.close()


def lacking(whole: Whole, base: str, *keys: str, **grant: object) -> Json:
    """A request that leaves some keys to be fetched with a token; without keys, all of them."""
    body = {**whole(WARNED), "fhirServer": base, "fhirAuthorization": {**GRANT, **grant}}
    body["prefetch"] = {k: v for k, v in body["prefetch"].items() if keys and k not in keys}
    return body


def refused(asking: Asking, whole: Whole, base: str, why: str, **grant: object) -> None:
    """A call of which nothing is fetched: 412 with nothing sent, a card without the problem list
    when that alone was not sent; the explanation says why.
    """
    nothing = asking.told(lacking(whole, base, **grant))
    assert nothing.status == 412
    assert why in nothing.why["patient"] and why in nothing.why["alp"]
    some = asking.told(lacking(whole, base, "conditions", **grant))
    assert (some.status, some.cards) == (200, ("lowAlpPersistent info",))
    assert why in some.why["conditions"]


# -- addresses ---------------------------------------------------------------------------------

LOOPBACK = ("127.0.0.1", "127.8.8.8", "::1")
UNSPECIFIED = ("0.0.0.0", "0.1.2.3", "::")
LINK_LOCAL = ("169.254.10.10", "fe80::1")
PRIVATE = ("10.0.0.5", "172.16.0.1", "172.31.255.255", "192.168.1.1", "100.64.0.1", "198.18.0.1")
UNIQUE_LOCAL = ("fc00::1", "fd12:3456::1", "fec0::1")
MULTICAST = ("224.0.0.1", "239.1.2.3", "ff02::1", "ff0e::1")
RESERVED = ("240.0.0.1", "255.255.255.255", "192.0.2.1", "2001:db8::1", "5f00::1", "4000::1")
STANDING_FOR = (
    *("::ffff:127.0.0.1", "::ffff:10.0.0.5", "::127.0.0.1"),
    *("64:ff9b::7f00:1", "64:ff9b::a00:5", "64:ff9b:1::808:808", "2002:7f00:1::", "2002:a00:5::1"),
)
NOT_PUBLIC = (
    *(*LOOPBACK, *UNSPECIFIED, *LINK_LOCAL, *PRIVATE),
    *(*UNIQUE_LOCAL, *MULTICAST, *RESERVED, *STANDING_FOR),
)
PUBLIC = ("8.8.8.8", "93.184.215.14", "2606:4700::1111", "::ffff:8.8.8.8", "64:ff9b::808:808")
METADATA = (
    *("169.254.169.254", "fd00:ec2::254", "168.63.129.16", "100.100.100.200", "fd20:ce::254"),
    *("::ffff:169.254.169.254", "64:ff9b::a9fe:a9fe", "64:ff9b:1::a9fe:a9fe", "2002:a9fe:a9fe::"),
)


@pytest.mark.parametrize("address", [*PUBLIC, *NOT_PUBLIC, *METADATA])
def test_public_addresses_are_called_others_where_a_network_names_them_metadata_never(
    address: str,
) -> None:
    found = ip_address(address)
    assert is_allowed(found, ()) is (address in PUBLIC)
    assert is_allowed(found, EVERYWHERE) is (address not in METADATA)
    assert is_allowed(found, [ip_network(address)]) is (address not in METADATA)


@pytest.mark.parametrize(
    ("address", "network", "allowed"),
    [
        ("10.20.30.40", "10.20.0.0/16", True),
        ("10.21.0.1", "10.20.0.0/16", False),
        ("::ffff:10.20.30.40", "10.20.0.0/16", True),
        ("64:ff9b::a14:1e28", "10.20.0.0/16", True),
        ("64:ff9b:1::a14:1e28", "64:ff9b:1::/48", True),
        ("fd12::1", "fd12::/16", True),
        ("fe80::1%eth0", "fe80::/10", True),
        ("fe80::1%eth0", "fd00::/8", False),
        ("fd00:ec2::254%eth0", "fd00::/8", False),
        ("127.0.0.1", "::/0", False),
    ],
)
def test_a_network_names_what_lies_in_it_and_what_stands_for_that(
    address: str, network: str, allowed: bool
) -> None:
    assert is_allowed(ip_address(address), [ip_network(network)]) is allowed


@requirement("FHR-06")
@pytest.mark.parametrize("address", [*NOT_PUBLIC, *METADATA])
def test_a_name_of_an_address_that_is_not_public_is_not_called(
    ask: Ask, whole: Whole, dialled: list[tuple[str, int]], address: str
) -> None:
    with counting() as (url, callers):
        base = f"https://{NAME}:{urlsplit(url).port}/fhir"
        asking = ask(Server(base), resolve=names([address]))
        refused(asking, whole, base, "address not allowed")
    assert (callers, dialled) == ([], [])


@requirement("FHR-06")
@pytest.mark.parametrize(
    "host",
    [
        *("127.0.0.1", "localhost", "127.1", "2130706433", "0x7f.1", "0177.0.0.1", "0.0.0.0", "0"),
        *("[::1]", "[::ffff:127.0.0.1]", "[::ffff:7f00:1]", "[::]", "127.0.0.1."),
    ],
)
def test_no_spelling_of_this_machine_is_called(
    ask: Ask, whole: Whole, dialled: list[tuple[str, int]], host: str
) -> None:
    with counting() as (url, callers):
        base = f"https://{host}:{urlsplit(url).port}/fhir"
        told = ask(Server(base)).told(lacking(whole, base))
        assert told.status == 412
        if told.why["alp"] != "connection failed":  # a spelling that is no name either
            assert told.why["alp"] == "address not allowed"
    assert (callers, dialled) == ([], [])


@requirement("FHR-06")
@pytest.mark.parametrize("caller", [EHR, ANYBODY])
@pytest.mark.parametrize("address", METADATA)
def test_metadata_is_not_called_even_where_every_network_may_be(
    ask: Ask, whole: Whole, dialled: list[tuple[str, int]], caller: Caller, address: str
) -> None:
    asking = ask(
        Server(f"https://{NAME}/fhir", EVERYWHERE), caller=caller, resolve=names([address])
    )
    refused(asking, whole, f"https://{NAME}/fhir", "address not allowed")
    assert dialled == []


@requirement("FHR-06")
def test_an_address_that_may_not_be_called_is_skipped_for_one_that_may(
    ask: Ask,
    whole: Whole,
    dialled: list[tuple[str, int]],
    hospital: Secured,
    certificate: Path,
) -> None:
    resolve = names(["10.0.0.5", "::1", "127.0.0.1", "127.0.0.2"])
    asking = ask(Server(hospital.fhir.base, HERE), resolve=resolve, ca_file=certificate)
    told = asking.told(lacking(whole, hospital.fhir.base))
    assert (told.status, told.cards) == (200, ("lowAlpPersistent warning",))
    assert set(dialled) == {("127.0.0.1", hospital.port)}


def test_an_address_where_nobody_listens_is_passed_over(
    ask: Ask, whole: Whole, hospital: Secured, certificate: Path
) -> None:
    listed = Server(hospital.fhir.base, (ip_network("127.0.0.0/8"),))
    asking = ask(listed, resolve=names(["127.0.0.9", "127.0.0.1"]), ca_file=certificate)
    assert asking.told(lacking(whole, hospital.fhir.base)).status == 200


# -- names that change -------------------------------------------------------------------------


@requirement("FHR-06")
def test_the_address_that_was_checked_is_the_one_that_is_dialled(
    dialled: list[tuple[str, int]], hospital: Secured, certificate: Path
) -> None:
    """A name that leads elsewhere the second time is not looked up a second time."""
    with listening_at("127.0.0.2", hospital.port) as callers:
        fhir = FhirClient(
            {EHR.issuer: [Server(hospital.fhir.base, HERE)]},
            resolve=names(["127.0.0.1"], ["127.0.0.2"]),
            ca_file=certificate,
        )
        queries = {"q": f"Patient/{WARNED}"}
        got = fhir.fetch(hospital.fhir.base, queries, token="t", seconds=5, caller=EHR)
        fhir.close()
    assert got["q"].state == "answered"
    assert (dialled, callers()) == ([("127.0.0.1", hospital.port)], 0)


@requirement("FHR-06")
def test_a_name_that_leads_elsewhere_later_is_checked_again(
    ask: Ask,
    whole: Whole,
    dialled: list[tuple[str, int]],
    hospital: Secured,
    certificate: Path,
) -> None:
    with listening_at("127.0.0.2", hospital.port) as callers:
        resolve = names(["127.0.0.1"], ["127.0.0.2"])
        asking = ask(Server(hospital.fhir.base, HERE), resolve=resolve, ca_file=certificate)
        told = asking.told(lacking(whole, hospital.fhir.base))
    assert told.status == 412 and "address not allowed" in told.why.values()
    assert (dialled, callers()) == ([("127.0.0.1", hospital.port)], 0)


@contextmanager
def listening_at(address: str, port: int) -> Iterator[Callable[[], int]]:
    """Another address of this machine; how many connected to it, on exit."""
    count = 0
    try:
        listener = socket.create_server((address, port))
    except OSError:
        pytest.skip(f"this machine has no {address}")
    with listener:
        listener.setblocking(False)
        yield lambda: count
        with suppress(BlockingIOError):
            while True:
                listener.accept()[0].close()
                count += 1


# -- servers that are not the caller's ---------------------------------------------------------


@requirement("FHR-06", "FHR-01")
@pytest.mark.parametrize(
    "base",
    [
        "https://{name}:{other}/fhir",
        "https://127.0.0.1:{port}/fhir",
        "https://localhost:{port}/fhir",
        "https://user@{name}:{port}/fhir",
        "https://{name}:{port}@127.0.0.1:{other}/fhir",
        "https://{name}:{port}\\@127.0.0.1:{other}/fhir",
        "https://{name}.:{port}/fhir",
        "https://{name}:{port}/",
        "https://{name}:{port}/fhir/../admin",
        "https://{name}:{port}/fhir?x=",
        "http://{name}:{port}/fhir",
        "http://169.254.169.254/latest/meta-data",
        "file:///etc/passwd",
        "gopher://127.0.0.1:{other}/",
    ],
)
def test_a_server_that_is_not_the_caller_s_is_not_called(
    ask: Ask,
    whole: Whole,
    dialled: list[tuple[str, int]],
    hospital: Secured,
    certificate: Path,
    base: str,
) -> None:
    with counting() as (url, callers):
        base = base.format(name=NAME, port=hospital.port, other=urlsplit(url).port)
        listed = Server(hospital.fhir.base, EVERYWHERE)
        asking = ask(listed, resolve=names(["127.0.0.1"]), ca_file=certificate)
        refused(asking, whole, base, "the FHIR server is not listed")
    assert (callers, dialled, hospital.fhir.asked) == ([], [], [])


@requirement("FHR-06")
@pytest.mark.parametrize("caller", [OTHER, ANYBODY])
def test_the_server_of_one_issuer_is_not_called_for_another(
    ask: Ask, whole: Whole, hospital: Secured, certificate: Path, caller: Caller
) -> None:
    listed = Server(hospital.fhir.base, EVERYWHERE)
    asking = ask(listed, resolve=names(["127.0.0.1"]), ca_file=certificate)
    told = asking.told(lacking(whole, hospital.fhir.base), caller)
    assert (
        told.status == 412 and told.why["alp"] == "not supplied, and the FHIR server is not listed"
    )
    assert hospital.fhir.asked == []
    assert asking.told(lacking(whole, hospital.fhir.base)).status == 200


@requirement("FHR-06")
@pytest.mark.parametrize(
    ("lead", "why"),
    [(redirects_to, "redirect not followed"), (links_to, "next page at another origin")],
)
def test_a_server_cannot_lead_elsewhere(
    ask: Ask,
    whole: Whole,
    dialled: list[tuple[str, int]],
    hospital: Secured,
    certificate: Path,
    lead: Any,
    why: str,
) -> None:
    listed = Server(hospital.fhir.base, HERE)
    asking = ask(listed, resolve=names(["127.0.0.1"]), ca_file=certificate)
    with counting() as (elsewhere, callers):
        for kind in ("Patient", "Observation", "Condition"):
            hospital.fhir.faults[kind] = lead(f"{elsewhere}/fhir/{kind}")
        told = asking.told(lacking(whole, hospital.fhir.base, "alp"))
        assert (told.status, told.why["alp"]) == (412, why)
        told = asking.told(lacking(whole, hospital.fhir.base, "conditions"))
        assert (told.status, told.why["conditions"]) == (200, why)
    assert callers == [] and set(dialled) == {("127.0.0.1", hospital.port)}


# -- what a request must bring -----------------------------------------------------------------


@requirement("FHR-01")
def test_a_client_s_server_is_not_called_without_a_token(
    ask: Ask, whole: Whole, hospital: Secured, certificate: Path
) -> None:
    listed = Server(hospital.fhir.base, HERE)
    asking = ask(listed, resolve=names(["127.0.0.1"]), ca_file=certificate)
    body = lacking(whole, hospital.fhir.base)
    del body["fhirAuthorization"]
    told = asking.told(body)
    assert told.status == 412
    assert told.why["alp"] == "not supplied, and no fhirAuthorization for the FHIR server"
    assert hospital.fhir.asked == []


@requirement("FHR-12")
def test_a_token_of_another_subject_is_not_used(
    ask: Ask,
    whole: Whole,
    dialled: list[tuple[str, int]],
    hospital: Secured,
    certificate: Path,
) -> None:
    listed = Server(hospital.fhir.base, HERE, subject="our-client-id")
    asking = ask(listed, resolve=names(["127.0.0.1"]), ca_file=certificate)
    for subject in ("their-client-id", "OUR-CLIENT-ID", "our-client-id "):
        why = "registered under another subject"
        refused(asking, whole, hospital.fhir.base, why, subject=subject)
    assert (dialled, hospital.fhir.asked) == ([], [])

    told = asking.told(lacking(whole, hospital.fhir.base, subject="our-client-id"))
    assert told.status == 200 and hospital.fhir.asked != []


# -- the environment ---------------------------------------------------------------------------


@requirement("FHR-06")
def test_proxies_credentials_and_authorities_of_the_environment_are_nothing_to_us(
    ask: Ask,
    whole: Whole,
    hospital: Secured,
    certificate: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    netrc = tmp_path / "netrc"
    netrc.write_text(f"machine {NAME} login u password p\ndefault login u password p\n")
    netrc.chmod(0o600)
    monkeypatch.setenv("NETRC", str(netrc))
    listed = Server(hospital.fhir.base, HERE)
    with counting() as (elsewhere, callers):
        for name in ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY"):
            monkeypatch.setenv(name, elsewhere)
            monkeypatch.setenv(name.lower(), elsewhere)
        monkeypatch.delenv("NO_PROXY", raising=False)
        monkeypatch.delenv("no_proxy", raising=False)
        asking = ask(listed, resolve=names(["127.0.0.1"]), ca_file=certificate)
        assert asking.told(lacking(whole, hospital.fhir.base)).status == 200
        assert {x.authorization for x in hospital.fhir.asked} == {"Bearer opaque"}

        for name in ("REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE"):
            monkeypatch.setenv(name, str(certificate))
        trusting = ask(listed, resolve=names(["127.0.0.1"]))
        refused(trusting, whole, hospital.fhir.base, "connection failed")
    assert callers == []


@requirement("FHR-06")
def test_the_open_server_sends_no_credentials_of_the_environment(
    fetching_app: Flask,
    fhir: FhirServer,
    whole: Whole,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    netrc = tmp_path / "netrc"
    netrc.write_text("machine 127.0.0.1 login u password p\n")
    netrc.chmod(0o600)
    monkeypatch.setenv("NETRC", str(netrc))
    body = lacking(whole, fhir.base)
    del body["fhirAuthorization"]
    assert fetching_app.test_client().post(SERVICE, json=body).status_code == 200
    assert {x.authorization for x in fhir.asked} == {None}


# -- servers that are called -------------------------------------------------------------------


def test_a_listed_server_in_a_named_network_is_read_under_its_own_name(
    ask: Ask,
    whole: Whole,
    dialled: list[tuple[str, int]],
    hospital: Secured,
    certificate: Path,
) -> None:
    listed = Server(hospital.fhir.base, (ip_network("127.0.0.0/8"),))
    asking = ask(listed, resolve=names(["127.0.0.1"]), ca_file=certificate)
    told = asking.told(lacking(whole, hospital.fhir.base))
    assert (told.status, told.cards, told.why) == (200, ("lowAlpPersistent warning",), {})
    assert set(hospital.names) == {NAME}
    assert {x.host for x in hospital.fhir.asked} == {f"{NAME}:{hospital.port}"}
    assert set(dialled) == {("127.0.0.1", hospital.port)}


def test_the_certificate_must_be_the_name_s_though_the_address_is_dialled(
    ask: Ask, whole: Whole, patients: dict[str, FixturePatient], certificate: Path
) -> None:
    with secured(certificate, patients, "other.hospital.test") as server:
        asking = ask(
            Server(server.fhir.base, HERE), resolve=names(["127.0.0.1"]), ca_file=certificate
        )
        refused(asking, whole, server.fhir.base, "connection failed")
    assert server.fhir.asked == []


def test_a_bundle_of_authorities_is_read_by_the_server_that_is_started(
    whole: Whole, patients: dict[str, FixturePatient], certificate: Path
) -> None:
    with secured(certificate, patients, "localhost") as there:
        body = lacking(whole, there.fhir.base)
        with running(CDS_FHIR_SERVERS=there.fhir.base, CDS_FETCH_SECONDS="10") as here:
            told = requests.post(f"{here.url}{EXPLAIN}", json=body, timeout=20).json()
            assert told["status"] == 412
            assert {x.get("why") for x in told["data"]} == {"connection failed"}
            assert there.fhir.asked == []
        settings = {
            "CDS_FHIR_SERVERS": there.fhir.base,
            "CDS_FETCH_SECONDS": "10",
            "CDS_CA_BUNDLE": str(certificate),
        }
        with running(is_open=True, **settings) as here:
            answer = requests.post(f"{here.url}{SERVICE}", json=body, timeout=20)
            assert answer.status_code == 200 and answer.json()["cards"]


def test_https_goes_through_the_proxy_of_the_settings_which_looks_the_name_up(
    ask: Ask,
    whole: Whole,
    dialled: list[tuple[str, int]],
    hospital: Secured,
    certificate: Path,
) -> None:
    looked_up: list[str] = []

    def resolve(host: str, *arguments: Any, **options: Any) -> Sequence[tuple[Any, ...]]:
        looked_up.append(host)
        return socket.getaddrinfo(host, *arguments, **options)

    with proxying(hospital.port) as (proxy, asked):
        listed = Server(hospital.fhir.base)
        asking = ask(listed, resolve=resolve, ca_file=certificate, https_proxy=proxy)
        told = asking.told(lacking(whole, hospital.fhir.base))
        proxy_port = urlsplit(proxy).port
        assert {x for x in dialled if x[1] != hospital.port} == {("127.0.0.1", proxy_port)}
    assert (told.status, told.cards) == (200, ("lowAlpPersistent warning",))
    assert {tuple(x.split()[:2]) for x in asked} == {("CONNECT", f"{NAME}:{hospital.port}")}
    assert set(looked_up) == {"127.0.0.1"}
    assert set(hospital.names) == {NAME}


def test_the_proxy_of_the_settings_is_used_by_the_server_that_is_started(
    whole: Whole, fhir: FhirServer, patients: dict[str, FixturePatient], certificate: Path
) -> None:
    with (
        secured(certificate, patients) as there,
        proxying(there.port) as (proxy, asked),
        running(
            CDS_FHIR_SERVERS=f"{there.fhir.base} {fhir.base}",
            CDS_FETCH_SECONDS="10",
            CDS_CA_BUNDLE=str(certificate),
            CDS_HTTPS_PROXY=proxy,
        ) as here,
    ):
        for base in (there.fhir.base, fhir.base):
            body = lacking(whole, base)
            answer = requests.post(f"{here.url}{SERVICE}", json=body, timeout=20)
            assert answer.status_code == 200 and answer.json()["cards"]
        assert asked and not [x for x in asked if NAME not in x]


def test_the_command_line_reads_through_the_proxy_with_the_bundle_too(
    whole: Whole, hospital: Secured, certificate: Path, tmp_path: Path
) -> None:
    request = tmp_path / "request.json"
    request.write_text(json.dumps(lacking(whole, hospital.fhir.base)))
    with proxying(hospital.port) as (proxy, asked):
        done = ended(
            *("evaluate", str(request), "--fetch", "--as-of", str(TODAY)),
            CDS_FHIR_SERVERS=hospital.fhir.base,
            CDS_FETCH_SECONDS="10",
            CDS_CA_BUNDLE=str(certificate),
            CDS_HTTPS_PROXY=proxy,
        )
    assert done.returncode == 0, done.stderr
    assert cards_of(json.loads(done.stdout)) == ("lowAlpPersistent warning",)
    assert asked


def test_no_proxy_that_fails_is_gone_round(
    ask: Ask, whole: Whole, dialled: list[tuple[str, int]], hospital: Secured, certificate: Path
) -> None:
    with counting() as (proxy, _):
        pass
    listed = Server(hospital.fhir.base, EVERYWHERE)
    asking = ask(listed, resolve=names(["127.0.0.1"]), ca_file=certificate, https_proxy=proxy)
    refused(asking, whole, hospital.fhir.base, "connection failed")
    assert {x[1] for x in dialled} == {urlsplit(proxy).port}
    assert hospital.fhir.asked == []


def test_the_servers_of_a_client_are_https() -> None:
    listed = Server("https://fhir.example/r4", EVERYWHERE)
    FhirClient({EHR.issuer: [listed]})
    with pytest.raises(ValueError, match="https"):
        FhirClient({EHR.issuer: [listed, replace(listed, url="http://fhir.example/r4")]})
