"""create_app(): the routes and the one error handler. What Flask does otherwise than CDS Hooks
wants is replaced here.
"""

import logging
import re
import time
from collections.abc import Callable, Iterable
from datetime import UTC, datetime
from functools import cache
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit
from uuid import uuid4

import msgspec
from flask import Flask, Response, g, request
from werkzeug.exceptions import HTTPException
from werkzeug.routing import BaseConverter

from cds_service import openapi
from cds_service.addresses import Network
from cds_service.answering import Answering
from cds_service.auth import Authenticator
from cds_service.call_record import CallRecord
from cds_service.cards import not_evaluated
from cds_service.client_keys import Ways
from cds_service.clients import Caller, Client, read_clients
from cds_service.config import Settings
from cds_service.content import Content
from cds_service.discovery import discovery
from cds_service.errors import (
    CdsError,
    NotAllowed,
    NotJson,
    StoreDown,
    TooLarge,
    UnknownPage,
    UnknownTopic,
    WrongMediaType,
)
from cds_service.feedback import MOST_BYTES, Feedback, parse_feedback
from cds_service.fhir_client import FhirClient, open_servers
from cds_service.fhir_endpoint import FhirEndpoint
from cds_service.issued import IssuedCards
from cds_service.loading import load_content
from cds_service.logs import places
from cds_service.metrics import CONTENT_TYPE, Metrics
from cds_service.observing import Observing, Readiness
from cds_service.open_pages import add_open_pages, prefers_html
from cds_service.overrides import Overrides
from cds_service.page_headers import HTML, TO_READ
from cds_service.rates import Limits, address_of
from cds_service.store import Store
from cds_service.turns import Turns

if TYPE_CHECKING:
    from cds_service.topic_pages import Page, Pages

JSON = "application/json"
# Bytes of a body, some 1,800 results, that take a twentieth of a second: such calls have a line of
# their own, in which none of the others stands.
LARGE = 1_000_000
MOST_READ_ON = 64_000_000  # bytes of a body that is refused, and not kept
_MEDIA_TYPES = ("application/json", "application/fhir+json")
_LOOPBACK = re.compile(r"(localhost|127(\.\d{1,3}){3}|\[::1\])(:\d{1,5})?\Z", re.IGNORECASE)
_REQUEST_ID = re.compile(r"[A-Za-z0-9._-]{1,64}\Z")
_ENCODING = re.compile(r"[a-z0-9-]{1,16}\Z")
_PROTECTED = re.compile(r"/(cds-services|explain)/")
_PROTECTED_ALL = re.compile(r"/cds-services\Z|/(cds-services|explain)/")
_CALL = "call"
_FORWARDED = re.compile(r"(x-)?forwarded(-|\Z)", re.IGNORECASE)
log = logging.getLogger("cds_service")


class _RestOfPath(BaseConverter):
    """Everything after the prefix, slashes included, or nothing."""

    regex = ".*?"
    part_isolating = False


class _OneSlash:
    """WSGI middleware: `//` and a trailing slash mean what they would without; a redirect would
    break a preflight.
    """

    def __init__(self, app: Callable[..., Iterable[bytes]]) -> None:
        self._app = app

    def __call__(self, environ: dict[str, Any], start_response: Any) -> Iterable[bytes]:
        path = re.sub("/{2,}", "/", environ.get("PATH_INFO") or "/")
        environ["PATH_INFO"] = path.rstrip("/") or "/"
        return self._app(environ, start_response)


class _OnePiece:
    """WSGI middleware: an answer is one piece, which granian sends at once; of head and body apart,
    a server that is told to stop may send the head alone.
    """

    def __init__(self, app: Callable[..., Any]) -> None:
        self._app = app

    def __call__(self, environ: dict[str, Any], start_response: Any) -> list[bytes]:
        answer = self._app(environ, start_response)
        try:
            return [b"".join(answer)]
        finally:
            answer.close()


def create_app(
    settings: Settings,
    now: Callable[[], datetime] = lambda: datetime.now(UTC),
    demo: FhirEndpoint | None = None,
    content: Content | None = None,
) -> Flask:
    """The WSGI application; raises ContentError when the content is wrong. `demo` adds a FHIR
    endpoint at /fhir, `content` is that of the settings (None: not read yet).
    """
    content = content or _content(settings)
    clients = _trusted(settings, content)
    fetcher = _fetcher(settings, clients)
    metrics = Metrics(content.override_reasons)
    metrics.content(content.about.version, content.hash)
    issued = _issued(settings, metrics)
    answering = _answering(settings, content, fetcher, issued, now)
    app = Flask("cds_service", static_folder=None)
    app.url_map.converters["rest"] = _RestOfPath
    app.wsgi_app = _OneSlash(_OnePiece(app.wsgi_app))  # type: ignore[method-assign]
    trust = None if settings.open else _authenticator(settings, clients, now)
    observing = Observing(settings, content, metrics)
    _add_guards(app, settings, answering, trust, _limits(settings, clients), observing)
    _add_services(app, settings, answering)
    _add_feedback(app, settings, answering)
    _add_topics(app, content, urlsplit(settings.public_url).path)
    _add_health(app, content, None if issued is None else Readiness(issued.store, metrics))
    if settings.metrics_address is None:
        _add_metrics(app, metrics)
    if demo is not None:
        _add_fhir(app, demo)
    _add_index(app, settings, answering, demo)
    _add_errors(app)
    return app


def _content(settings: Settings) -> Content:
    return load_content(settings.hooks_dir, settings.site_file, settings.topic_modes)


def _fetcher(settings: Settings, clients: tuple[Client, ...]) -> FhirClient:
    """Reads for each client its own FHIR servers; the open server those of the settings."""
    servers = {x.issuer: x.fhir_servers for x in clients}
    if settings.open:
        servers[""] = open_servers(settings.fhir_servers)
    return FhirClient(servers, ca_file=settings.ca_bundle, https_proxy=settings.https_proxy)


def _issued(settings: Settings, metrics: Metrics) -> IssuedCards | None:
    """Where answers are noted; None without a secret: patients are kept under it only."""
    if not settings.patient_secret:
        return None

    def tell(works: bool, dropped: int) -> None:
        if works:
            metrics.store_works()
        else:
            metrics.store_failed("cards")
        metrics.dropped(dropped)

    return IssuedCards(Store(settings.store_url), settings.patient_secret, tell)


def _answering(
    settings: Settings,
    content: Content,
    fetcher: FhirClient,
    issued: IssuedCards | None,
    now: Callable[[], datetime],
) -> Answering:
    return Answering(
        content,
        fetcher,
        settings.fetch_seconds,
        now,
        settings.public_url,
        issued,
        _overrides(settings, issued, now),
    )


def _overrides(
    settings: Settings, issued: IssuedCards | None, now: Callable[[], datetime]
) -> Overrides | None:
    """What was set aside; on the open server a card is shown again as often as it is asked for."""
    if issued is None:
        return None
    return Overrides(issued.store, issued.secret, now, with_repeats=not settings.open)


# -- before and after every call ---------------------------------------------------------------


def _trusted(settings: Settings, content: Content) -> tuple[Client, ...]:
    """The clients of the file; the open server knows none."""
    if settings.clients_file is None or settings.open:
        return ()
    return read_clients(settings.clients_file, content.topics())


def _authenticator(
    settings: Settings, clients: tuple[Client, ...], now: Callable[[], datetime]
) -> Authenticator:
    ways = Ways(settings.ca_bundle, settings.https_proxy)
    return Authenticator(clients, settings.public_urls, Store(settings.store_url), now, ways)


# How the routes are called in audit, metrics and log, by the function that answers.
_ROUTES = {
    "call": "service",
    "explain": "explain",
    "hear": "feedback",
    "discover": "discovery",
    "list_topics": "topics",
    "show_topic": "topics",
    "describe": "openapi",
    "fhir": "fhir",
    "index": "page",
    "fire": "page",
    "show_docs": "page",
}
_ASKED_ALL_THE_TIME = ("live", "ready", "show_metrics")  # and of nobody's chart: not in the log


def _begun(content: Content, settings: Settings) -> CallRecord:
    """The record of the request that has come in."""
    given = request.headers.get("X-Request-ID", "")
    asked = (request.view_args or {}).get("service_id", "")
    return CallRecord(
        request_id=given if _REQUEST_ID.match(given) else str(uuid4()),
        route=_ROUTES.get(request.endpoint or "", "other"),
        peer=_peer(settings.proxies),
        service=asked if content.find(asked) is not None else "",
        ends=time.monotonic() + settings.answer_seconds,
    )


def _peer(proxies: tuple[Network, ...]) -> str:
    forwarded = request.headers.get("X-Forwarded-For", "")
    return address_of(request.remote_addr or "", forwarded, proxies)


def _limits(settings: Settings, clients: tuple[Client, ...]) -> Limits:
    of_clients = {x.issuer: x.rate for x in clients if x.rate is not None}
    return Limits(settings.peer_rate, of_clients, settings.proxies)


def _add_guards(
    app: Flask,
    settings: Settings,
    answering: Answering,
    trust: Authenticator | None,
    limits: Limits,
    observing: Observing,
) -> None:
    protected = _PROTECTED_ALL if settings.protect_discovery else _PROTECTED

    @app.before_request
    def guard() -> Response | None:
        g.record = _begun(answering.content, settings)
        if trust is None:
            _refuse_strangers()
        if request.method == "OPTIONS":
            return _nothing()
        if trust is not None and protected.match(request.path):
            g.record.doing = "token"
            with g.record.phase("auth"):
                _admit(trust, limits)
            g.record.doing = g.record.route
        return None

    @app.after_request
    def complete(response: Response) -> Response:
        g.record.end(response.status_code)
        if request.method == "POST":
            observing.count(g.record)
        if request.endpoint not in _ASKED_ALL_THE_TIME:
            observing.say(g.record)
        response.headers["X-Request-ID"] = g.record.request_id
        _allow_origin(response, settings.cors_origins)
        if settings.open and request.method == "OPTIONS":
            _allow_private_network(response)
        if request.method == "POST":
            response.headers["Cache-Control"] = "no-store"
        return response


def _admit(trust: Authenticator, limits: Limits) -> None:
    """Settles who calls, and that it may call now. A token that comes too often is not used up, and
    one that was used before counts for nothing.
    """
    limits.admit_peer(request.remote_addr or "", request.headers.get("X-Forwarded-For", ""))

    def known(caller: Caller) -> None:
        g.record.caller = caller  # is answered as agreed with it, whatever comes after
        limits.check_client(caller.issuer)

    trust.caller(request.headers.get("Authorization", ""), request.path, known)
    limits.count_client(g.record.caller.issuer)


def _nothing() -> Response:
    response = Response(status=204)
    del response.headers["Content-Type"]
    return response


def _refuse_strangers() -> None:
    """The open server knows no caller, so it answers only its own machine: no proxy, no foreign
    Host name.
    """
    if any(_FORWARDED.match(name) for name in request.headers.keys()):  # noqa: SIM118  # pairs
        raise NotAllowed("The open server answers no proxy.")
    if not _LOOPBACK.match(request.headers.get("Host", "")):
        raise NotAllowed("The open server answers loopback names only.")


def _allow_origin(response: Response, origins: tuple[str, ...]) -> None:
    """CORS on every answer, errors and preflights included (Fetch standard; no credentials)."""
    origin = request.headers.get("Origin")
    if "*" in origins:
        response.headers["Access-Control-Allow-Origin"] = "*"
    else:
        response.headers.add("Vary", "Origin")
        if origin is None or origin not in origins:
            return
        response.headers["Access-Control-Allow-Origin"] = origin
    response.headers["Access-Control-Expose-Headers"] = "X-Request-ID, Retry-After"
    if request.method == "OPTIONS":
        response.headers["Access-Control-Allow-Methods"] = "GET, POST, OPTIONS"
        response.headers["Access-Control-Allow-Headers"] = (
            "Authorization, Content-Type, X-Request-ID"
        )
        response.headers["Access-Control-Max-Age"] = "600"


def _allow_private_network(response: Response) -> None:
    """A page of the internet may call this machine: older Chrome asks with this header, the open
    server is there for it.
    """
    if request.headers.get("Access-Control-Request-Private-Network") == "true":
        response.headers["Access-Control-Allow-Private-Network"] = "true"


# -- routes ------------------------------------------------------------------------------------


def _json(answer: object, status: int = 200) -> Response:
    return Response(msgspec.json.encode(answer), status=status, mimetype=JSON)


def _add_services(app: Flask, settings: Settings, answering: Answering) -> None:
    listed = msgspec.json.encode(discovery(answering.content))
    described = msgspec.json.encode(openapi.document(answering.content))
    small, large = Turns(), Turns()

    def turns(body: bytes) -> Turns:
        return large if len(body) > LARGE else small

    @app.get("/cds-services")
    def discover() -> Response:
        return Response(listed, mimetype=JSON)

    @app.post("/cds-services/<service_id>", endpoint=_CALL)
    def call(service_id: str) -> Response:
        body = _body(answering, service_id, settings.max_body_bytes)
        with g.record.in_turn(turns(body)):
            return _json(answering.cards(service_id, body, g.record))

    @app.post("/explain/<service_id>")
    def explain(service_id: str) -> Response:
        body = _body(answering, service_id, settings.max_body_bytes)
        with g.record.in_turn(turns(body)):
            return _json(answering.explain(service_id, body, g.record))

    @app.get("/openapi.json")
    def describe() -> Response:
        return Response(described, mimetype=JSON)


def _add_feedback(app: Flask, settings: Settings, answering: Answering) -> None:
    issued = answering.issued
    feedback = None if issued is None else Feedback(issued.store, issued, answering.now)
    limit = min(settings.max_body_bytes, MOST_BYTES)

    @app.post("/cds-services/<service_id>/feedback")
    def hear(service_id: str) -> Response:
        body = _body(answering, service_id, limit)
        if feedback is None:
            raise StoreDown("This server was started without a store.")
        g.record.feedback = heard = parse_feedback(body)
        return _json(feedback.take(service_id, heard, g.record.caller))


def _body(answering: Answering, service_id: str, limit: int) -> bytes:
    """The body that is for a service; raises CdsError, once what is left of the body was read."""
    try:
        answering.service(service_id)
        return _acceptable_body(limit)
    except CdsError:
        _read_on()
        raise


def _acceptable_body(limit: int) -> bytes:
    """The body, read to one byte past the limit: a chunked one is cut silently otherwise."""
    if request.mimetype not in _MEDIA_TYPES:
        raise WrongMediaType("The body must be application/json.")
    encoding = request.headers.get("Content-Encoding", "").strip().lower()
    if encoding not in ("", "identity"):
        named = encoding if _ENCODING.match(encoding) else "this"
        raise WrongMediaType(f"The body must not be encoded; {named} is not decoded here.")
    length = request.content_length or 0
    body = b"" if length > limit else request.stream.read(limit + 1)
    if max(length, len(body)) > limit:
        raise TooLarge(f"The body is over {limit} bytes.")
    if not body:
        raise NotJson("The body is empty.")
    return body


def _read_on() -> None:
    """Reads what is left of a body, up to a point: a client that sends all of it first would find
    the connection closed, and never see why. One that asked first (Expect) has sent nothing.
    """
    left = 0 if "Expect" in request.headers else MOST_READ_ON
    while left > 0 and (part := request.stream.read(64 * 1024)):
        left -= len(part)


def _add_topics(app: Flask, content: Content, prefix: str) -> None:
    @cache
    def pages() -> "Pages":
        """All pages, rendered for the first who asks: that takes longer than the start."""
        from cds_service.topic_pages import rendered

        return rendered(content, prefix)

    @app.get("/topics")
    def list_topics() -> Response:
        return _page(pages().listing)

    @app.get("/topics/<code>")
    def show_topic(code: str) -> Response:
        page = pages().topics.get(code)
        if page is None:
            raise UnknownTopic("No such topic.")
        return _page(page)

    @app.get("/static/topics.css")
    def style() -> Response:
        return Response(pages().style, mimetype="text/css", headers=TO_READ)


def _page(page: "Page") -> Response:
    """The page as HTML, or as JSON where that is asked for or preferred."""
    preferred = request.accept_mimetypes.best_match((HTML, JSON), default=HTML)
    as_json = preferred == JSON or request.args.get("format") == "json"
    body, mimetype = (page.json, JSON) if as_json else (page.html, HTML)
    return Response(body, mimetype=mimetype, headers={**TO_READ, "Vary": "Accept"})


def _add_health(app: Flask, content: Content, readiness: Readiness | None) -> None:
    version = {
        "version": content.software_version,
        "content": {"version": content.about.version, "hash": content.hash},
        "fhir": "4.0.1",
        "cds-hooks": "2.0.1",
    }

    @app.get("/livez")
    def live() -> Response:
        return _json({"status": "ok"})

    @app.get("/readyz")
    def ready() -> Response:
        if readiness is not None:
            readiness.check()
        return _json({"status": "ok"})

    @app.get("/version")
    def show_version() -> Response:
        return _json(version)


def _add_metrics(app: Flask, metrics: Metrics) -> None:
    @app.get("/metrics")
    def show_metrics() -> Response:
        return Response(metrics.text(), content_type=CONTENT_TYPE)


def _add_fhir(app: Flask, endpoint: FhirEndpoint) -> None:
    @app.route("/fhir", defaults={"path": ""}, methods=["GET", "POST"])
    @app.route("/fhir/<rest:path>", methods=["GET", "POST"])
    def fhir(path: str) -> Response:
        status, body = endpoint.answer(
            request.method,
            path,
            request.query_string.decode("latin-1"),
            request.get_data(),
            request.headers.get("Prefer", ""),
        )
        response = Response(body, status=status, mimetype="application/fhir+json")
        if status == 405:
            response.headers["Allow"] = "GET, HEAD, OPTIONS"
        return response


def _add_index(
    app: Flask, settings: Settings, answering: Answering, demo: FhirEndpoint | None
) -> None:
    """What there is here, for whoever opens the bare address; on the open server also as a page."""
    services = [service.id for _, service in answering.content.services()]
    paths = {
        "discovery": "/cds-services",
        **{f"service {x}": f"/cds-services/{x}" for x in services},
        **{f"feedback {x}": f"/cds-services/{x}/feedback" for x in services},
        **{f"explanation {x}": f"/explain/{x}" for x in services},
        "topics": "/topics",
        "openapi": "/openapi.json",
        "version": "/version",
        **({"fhir": "/fhir", "patients": "/fhir/Patient"} if demo is not None else {}),
    }
    listed = {name: f"{settings.public_url}{path}" for name, path in paths.items()}

    @app.get("/")
    def index() -> Response:
        if prefers_html():
            raise UnknownPage("There is no page here.")
        return _json(listed)

    if settings.open:
        add_open_pages(app, settings, answering, answering.content, demo)


# -- errors ------------------------------------------------------------------------------------


def _refused(status: int, code: str, text: str, diagnostics: str = "") -> Response:
    """An OperationOutcome; of a call whose client is never sent an error, that nothing was
    evaluated. Who calls, and for what, is settled before.
    """
    if g.record.caller.quiet and request.endpoint == _CALL and status not in (401, 403, 404):
        return _json(not_evaluated(status, code, text, diagnostics))
    return _outcome(status, code, text, diagnostics)


def _outcome(status: int, code: str, text: str, diagnostics: str = "") -> Response:
    issue = {"severity": "error", "code": code, "details": {"text": text}}
    if diagnostics:
        issue["diagnostics"] = diagnostics
    return _json({"resourceType": "OperationOutcome", "issue": [issue]}, status)


_HTTP_CODES = {404: "not-found", 405: "not-supported", 413: "too-long", 415: "not-supported"}


def _add_errors(app: Flask) -> None:
    @app.errorhandler(CdsError)
    def refused(error: CdsError) -> Response:
        g.record.note_error(error)
        response = _refused(error.status, error.code, error.text, error.diagnostics)
        if response.status_code == 401:
            response.headers["WWW-Authenticate"] = "Bearer"
        if response.status_code == error.status and error.retry_after is not None:
            response.headers["Retry-After"] = str(error.retry_after)
        return response

    @app.errorhandler(HTTPException)
    def http_error(error: HTTPException) -> Response:
        status = error.code or 500
        g.record.error = code = _HTTP_CODES.get(status, "processing")
        response = _refused(status, code, error.name)
        for name, value in error.get_headers(request.environ):
            if name == "Allow":
                response.headers[name] = value
        return response

    @app.errorhandler(Exception)
    def defect(error: Exception) -> Response:
        # The places only: an exception's message may quote what the patient's data made fail.
        g.record.note_error(error)
        found = {"error": type(error).__name__, "places": places(error.__traceback__)}
        log.error("defect", extra={"request_id": g.record.request_id, **found})
        return _refused(500, "exception", "The server failed; the fault is on its side.")
