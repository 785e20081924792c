"""GET from the CDS client's FHIR server: several queries at once, every page, one deadline.

The server's address and its links come from outside, so only the servers of the caller's issuer
are contacted, at addresses that may be called, and a token goes nowhere but below the base URL it
was given for.
"""

import logging
import re
import socket
import threading
import time
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor, wait
from contextlib import AbstractContextManager, suppress
from contextvars import ContextVar
from http.client import HTTPException
from http.cookiejar import DefaultCookiePolicy
from pathlib import Path
from typing import Any, Literal
from urllib.parse import unquote, urljoin, urlsplit

import msgspec
import requests
from msgspec import Struct
from requests.adapters import HTTPAdapter
from urllib3 import HTTPConnectionPool
from urllib3.connection import HTTPConnection, HTTPSConnection
from urllib3.exceptions import HTTPError, NewConnectionError
from urllib3.util import Retry

from cds_service.addresses import EVERYWHERE, AddressRefused, Network, Resolve, dial
from cds_service.clients import ANYBODY, Caller, FhirServer
from cds_service.resources import is_overfull
from cds_service.turns import Room

_PORTS = {"http": 80, "https": 443}
_ENCODINGS = {"", "identity", "gzip", "x-gzip"}
_TOKEN = re.compile(r"[\x21-\x7e]+")


class Fetched(Struct, frozen=True):
    """What one query brought; `why` is empty when answered, and never holds a URL, id or token."""

    state: Literal["answered", "failed", "incomplete"]
    pages: tuple[bytes, ...]
    why: str


class _Stopped(Exception):
    """The rest of a query cannot be had; the text says why."""


class _Link(msgspec.Struct):
    relation: str | None = None
    url: str | None = None


class _Page(msgspec.Struct, rename="camel"):
    resource_type: str
    link: msgspec.Raw = msgspec.Raw(b"null")


_PAGE = msgspec.json.Decoder(_Page)
_LINKS = msgspec.json.Decoder(list[_Link] | None)
_UNREADABLE = (msgspec.DecodeError, UnicodeDecodeError, RecursionError)


# Scheme, host, port and path segments, the same for every spelling of a URL.
_Place = tuple[str, ...]
_Headers = Mapping[str, str | bytes]


def _prepared(url: str, headers: _Headers | None = None) -> requests.PreparedRequest | None:
    """A GET as it will be sent; None for a URL that requests would not send to."""
    prepared = requests.PreparedRequest()
    try:
        prepared.prepare("GET", url, headers=headers)
    except ValueError:
        return None
    return prepared


def _place(request: requests.PreparedRequest) -> _Place | None:
    """Where a request goes; None: not to be called."""
    try:
        parts = urlsplit(request.url or "")
        port = parts.port
    except ValueError:
        return None
    path = unquote(parts.path).replace("\\", "/").rstrip("/").split("/")
    user_or_dots = "@" in parts.netloc or "." in path or ".." in path
    if parts.scheme not in _PORTS or not parts.hostname or user_or_dots:
        return None
    return parts.scheme, parts.hostname, str(port or _PORTS[parts.scheme]), *path


def _place_of_base(url: str) -> _Place | None:
    """Where a FHIR server lies; None for what is no base URL."""
    request = None if "?" in url or "#" in url else _prepared(url)
    return None if request is None else _place(request)


class _Run:
    """One fetch under way: its deadline, the bytes still allowed, the networks it may call beside
    public ones, the sockets its threads use.
    """

    def __init__(
        self, seconds: float, max_bytes: int, networks: tuple[Network, ...], resolve: Resolve
    ) -> None:
        self.networks = networks
        self.resolve = resolve
        self._ends = time.monotonic() + seconds
        self._bytes_left = max_bytes
        self._sockets: dict[int, socket.socket] = {}
        self._lock = threading.Lock()

    def left(self) -> float:
        """Seconds until the deadline; zero or less when it has passed."""
        return self._ends - time.monotonic()

    def take(self, size: int) -> bool:
        """Count bytes received by any of the queries; False when they are too many."""
        with self._lock:
            self._bytes_left -= size
            return self._bytes_left >= 0

    def watch(self, sock: socket.socket) -> None:
        """Note the socket this thread is about to use. TimeoutError: the deadline has passed."""
        with self._lock:
            if self.left() <= 0:
                sock.close()
                raise TimeoutError
            self._sockets[threading.get_ident()] = sock

    def unwatch(self) -> None:
        """Forget this thread's socket: the next to use it may be another fetch."""
        with self._lock:
            self._sockets.pop(threading.get_ident(), None)

    def stop(self) -> None:
        """End the fetch now and wake every thread that waits for the server."""
        with self._lock:
            self._ends = min(self._ends, time.monotonic())
            for sock in self._sockets.values():
                with suppress(OSError):
                    # SSLSocket.shutdown would take the TLS layer from the thread that is reading.
                    socket.socket.shutdown(sock, socket.SHUT_RDWR)


_run: ContextVar[_Run] = ContextVar("_run")


class _Connection(HTTPConnection):
    """A connection to a checked address that tells the running fetch which socket it is about to
    use.
    """

    def _new_conn(self) -> socket.socket:
        run = _run.get()
        # What lies behind a proxy is looked up by the proxy; its own address the operator gave.
        networks = EVERYWHERE if self.proxy is not None else run.networks
        options = self.socket_options or ()
        try:
            sock = dial(
                self._dns_host, self.port, networks, run.left, resolve=run.resolve, options=options
            )
        except OSError as error:
            raise NewConnectionError(self, type(error).__name__) from None
        run.watch(sock)
        sock.settimeout(max(run.left(), 0.001))  # a TLS handshake comes next
        return sock

    def request(self, *args: Any, **kwargs: Any) -> None:
        if self.sock is not None:  # kept alive, or wrapped in TLS since it was made
            _run.get().watch(self.sock)
        super().request(*args, **kwargs)


class _TLSConnection(_Connection, HTTPSConnection):
    """The same over TLS."""


class _Adapter(HTTPAdapter):
    def get_connection_with_tls_context(self, *args: Any, **kwargs: Any) -> HTTPConnectionPool:
        pool = super().get_connection_with_tls_context(*args, **kwargs)
        assert isinstance(pool, HTTPConnectionPool)
        pool.ConnectionCls = _TLSConnection if pool.scheme == "https" else _Connection
        return pool

    def close(self) -> None:
        for manager in (self.poolmanager, *self.proxy_manager.values()):
            pools = manager.pools
            for pool in [pools[key] for key in list(pools.keys())]:
                pool.close()  # clear() alone leaves that to the garbage collector
        super().close()


class _Http(requests.Session):
    """What is alike in all requests: nothing of the environment, no cookies, one proxy at most."""

    def __init__(self, ca_file: Path | None, https_proxy: str, adapter: Callable[[], _Adapter]):
        super().__init__()
        self.trust_env = False
        self.verify = str(ca_file) if ca_file is not None else True
        self.proxies = {"https": https_proxy} if https_proxy else {}
        self.cookies.set_policy(DefaultCookiePolicy(allowed_domains=[]))
        self.headers.update({"Accept": "application/fhir+json", "Accept-Encoding": "gzip"})
        for scheme in _PORTS:
            self.mount(f"{scheme}://", adapter())

    def get_redirect_target(self, resp: requests.Response) -> None:
        """None: requests reads the whole body of a redirect, even of one it is not to follow."""


# urllib3 logs URLs, which hold patient ids. A logger's filter does not reach the loggers below it.
for _name in [name for name in logging.Logger.manager.loggerDict if name.startswith("urllib3")]:
    logging.getLogger(_name).addFilter(lambda _: _run.get(None) is None)


def open_servers(urls: Sequence[str]) -> tuple[FhirServer, ...]:
    """The servers of the open server, which may lie in any network."""
    return tuple(FhirServer(url, EVERYWHERE) for url in urls)


class _Listed(Struct, frozen=True):
    """A server of the list: where it lies, what reads it, and the room for who does."""

    server: FhirServer
    place: _Place
    http: _Http
    room: Room

    def has(self, request: requests.PreparedRequest) -> bool:
        """Whether a request stays below the base URL."""
        place = _place(request)
        return place is not None and place[: len(self.place)] == self.place


def _checked(server: FhirServer, issuer: str) -> _Place:
    """The place of a server; raises ValueError for one that may not be listed."""
    place = _place_of_base(server.url)
    if place is None:
        raise ValueError("a FHIR server is no http(s) base URL")
    if issuer and place[0] != "https":
        raise ValueError("a FHIR server of a client is no https base URL")
    return place


class FhirClient:
    """Reads from the FHIR servers of each issuer; any number of threads may use it at once.
    `at_once` of them have a place at a server, whoever calls, and `waiting` may wait for one; each
    sends it at most `parallel` queries.

    The issuer "" is the open server's, which alone may read over http and without a token.
    `ca_file` is a PEM file of authorities to trust instead of the public ones, `https_proxy` the
    proxy for https, `resolve` looks names up. ValueError: a server is no FHIR base URL.
    """

    def __init__(
        self,
        servers: Mapping[str, Sequence[FhirServer]],
        *,
        max_bytes: int = 20_000_000,
        max_pages: int = 500,
        parallel: int = 8,
        at_once: int = 8,
        waiting: int = 24,
        ca_file: Path | None = None,
        https_proxy: str = "",
        resolve: Resolve = socket.getaddrinfo,
    ) -> None:
        count = sum(map(len, servers.values()))
        # A connection kept alive may turn out to be closed: once more, at once, on another.
        again = Retry(1, connect=0, redirect=0, status=0, other=0, respect_retry_after_header=False)
        # One session for each set of networks: a kept connection must not serve an issuer whose
        # networks do not name the address that it was made to.
        self._http = {
            server.networks: _Http(
                ca_file, https_proxy, lambda: _Adapter(count, 4 * parallel, again)
            )
            for listed in servers.values()
            for server in listed
        }
        rooms: defaultdict[_Place, Room] = defaultdict(lambda: Room(at_once, waiting))
        self._listed = {
            (issuer, place): _Listed(server, place, self._http[server.networks], rooms[place])
            for issuer, listed in servers.items()
            for server in listed
            for place in [_checked(server, issuer)]
        }
        self._max_bytes = max_bytes
        self._max_pages = max_pages
        self._parallel = parallel
        self._resolve = resolve

    def allows(self, base: str, caller: Caller = ANYBODY) -> bool:
        """Whether `base` is one of the caller's servers, however it is spelled."""
        return self._find(base, caller) is not None

    def refusal(self, base: str, caller: Caller, subject: str | None) -> str:
        """Why the server at `base` is not called for the caller, "" when it is; `subject` is that
        of the fhirAuthorization, None without one.
        """
        listed = self._find(base, caller)
        if listed is None:
            return "the FHIR server is not listed"
        if caller.issuer and subject is None:
            return "no fhirAuthorization for the FHIR server"
        if listed.server.subject and listed.server.subject != subject:
            return "registered under another subject"
        return ""

    def _find(self, base: str, caller: Caller) -> _Listed | None:
        place = _place_of_base(base)
        return None if place is None else self._listed.get((caller.issuer, place))

    def place(self, base: str, caller: Caller, seconds: float) -> AbstractContextManager[None]:
        """A place among those who read the server for the block; raises Overloaded when none is
        free within `seconds`. ValueError: `base` is not allowed.
        """
        return self._allowed(base, caller).room.place(seconds)

    def _allowed(self, base: str, caller: Caller) -> _Listed:
        listed = self._find(base, caller)
        if listed is None:
            raise ValueError("the FHIR server is not allowed")
        return listed

    def fetch(
        self,
        base: str,
        queries: Mapping[str, str],
        *,
        token: str | None,
        seconds: float,
        caller: Caller = ANYBODY,
    ) -> dict[str, Fetched]:
        """What each query brought within `seconds`, by key. ValueError: `base` is not allowed."""
        listed = self._allowed(base, caller)
        if token is not None and not _TOKEN.fullmatch(token):
            return {key: Fetched("failed", (), "unusable token") for key in queries}
        headers = dict(listed.http.headers)
        if token is not None:
            headers["Authorization"] = f"Bearer {token}"
        run = _Run(seconds, self._max_bytes, listed.server.networks, self._resolve)
        pages: dict[str, list[bytes]] = {key: [] for key in queries}
        at_once = max(1, min(self._parallel, len(queries)))
        threads = ThreadPoolExecutor(at_once, "fhir-client", _run.set, (run,))
        try:
            jobs = {
                key: threads.submit(self._collect, listed, query, headers, pages[key])
                for key, query in queries.items()
            }
            wait(jobs.values(), timeout=max(run.left(), 0))
            ends = {key: job.result() if job.done() else "timed out" for key, job in jobs.items()}
        finally:
            run.stop()
            threads.shutdown(wait=False, cancel_futures=True)
        return {key: _fetched(pages[key], why) for key, why in ends.items()}

    def close(self) -> None:
        """Close the connections that were kept alive."""
        for http in self._http.values():
            http.close()

    def _collect(self, listed: _Listed, query: str, headers: _Headers, pages: list[bytes]) -> str:
        """Add the query's pages to `pages`; the answer is why some are missing, else empty."""
        root = listed.server.url.rstrip("/") + "/"
        followed: set[str] = set()
        url: str | None = root + query.lstrip("/")
        try:
            while url is not None:
                if url in followed or len(followed) >= self._max_pages:
                    return "too many pages"
                request = _prepared(url, headers)
                if request is None or not listed.has(request):
                    return "next page at another origin" if pages else "outside the base URL"
                followed.add(url)
                body = _get(listed.http, request)
                page = _read(body)
                pages.append(body)
                url = _next(root, page)
        except _Stopped as stopped:
            return str(stopped)
        return ""


def _get(http: requests.Session, request: requests.PreparedRequest) -> bytes:
    run = _run.get()
    left = max(run.left(), 0.001)  # none left: the connection refuses
    try:
        with http.send(request, stream=True, timeout=left, allow_redirects=False) as got:
            return _body(run, got)
    except AddressRefused:
        raise _Stopped("address not allowed") from None
    # ValueError: what the standard library makes of a malformed header or chunk.
    except (requests.RequestException, HTTPError, HTTPException, OSError, ValueError):
        raise _Stopped("timed out" if run.left() <= 0 else "connection failed") from None
    finally:
        run.unwatch()


def _body(run: _Run, response: requests.Response) -> bytes:
    """The decoded body of a 200, read part by part: a few bytes may stand for very many."""
    if 300 <= response.status_code < 400:
        raise _Stopped("redirect not followed")
    if response.status_code != requests.codes.ok:
        raise _Stopped(f"HTTP {response.status_code}")
    if response.headers.get("Content-Encoding", "").strip().lower() not in _ENCODINGS:
        raise _Stopped("unknown content encoding")
    parts: list[bytes] = []
    for part in response.raw.stream(65_536, decode_content=True):
        if not run.take(len(part)):
            raise _Stopped("too large")
        parts.append(part)
    return b"".join(parts)


def _read(body: bytes) -> _Page:
    if is_overfull(body):
        raise _Stopped("too large")
    try:
        page = _PAGE.decode(body)
    except _UNREADABLE:
        raise _Stopped("not JSON") from None
    if page.resource_type == "OperationOutcome":
        raise _Stopped("OperationOutcome")
    return page


def _next(root: str, page: _Page) -> str | None:
    """The URL of the page after this one; None when this is the last, or no Bundle."""
    if page.resource_type != "Bundle":
        return None
    try:
        links = _LINKS.decode(page.link) or []
        urls = [link.url or "" for link in links if link.relation == "next"]
        if "" in urls:
            raise _Stopped("unreadable page links")
        return urljoin(root, urls[0]) if urls else None
    except (*_UNREADABLE, ValueError):
        raise _Stopped("unreadable page links") from None


def _fetched(pages: Sequence[bytes], why: str) -> Fetched:
    if not why:
        return Fetched("answered", tuple(pages), "")
    return Fetched("incomplete" if pages else "failed", tuple(pages), why)
