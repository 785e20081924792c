"""The pages that only the open server has; with app the only importer of flask."""

from collections.abc import Mapping
from pathlib import Path
from urllib.parse import urlsplit

from flask import Flask, Response, request

from cds_service.answering import Answering
from cds_service.config import Settings, fixtures_dir
from cds_service.content import Content
from cds_service.errors import TooLarge
from cds_service.fhir_endpoint import FhirEndpoint
from cds_service.topic_pages import HTML
from cds_service.what_if import WhatIf
from cds_service.what_if_page import WhatIfPage

MOST_QUERY = 16_000  # bytes; every field of the what-if form takes about a third
_STATIC = Path(__file__).resolve().parent / "static"
_PAGES = (("/", "Playground"), ("/topics", "Topics"), ("/what-if", "What if"), ("/docs", "API"))
_POLICY = (
    "default-src 'none'",
    "style-src 'self'",
    "script-src 'self'",
    "img-src 'self'",
    "connect-src 'self'",
    "form-action 'self'",
    "base-uri 'none'",
    "frame-ancestors 'none'",
)
HEADERS: Mapping[str, str] = {
    "Content-Security-Policy": "; ".join(_POLICY),
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
}


def add_open_pages(
    app: Flask,
    settings: Settings,
    answering: Answering,
    content: Content,
    demo: FhirEndpoint | None,
) -> None:
    """Adds the pages of the open server to an application."""
    _add_what_if(app, settings, answering, content)


def _add_static(app: Flask, name: str, mimetype: str) -> None:
    def give() -> Response:
        body = (_STATIC / name).read_bytes()
        return Response(body, mimetype=mimetype, headers=HEADERS)

    app.add_url_rule(f"/static/{name}", f"static {name}", give)


def _add_what_if(app: Flask, settings: Settings, answering: Answering, content: Content) -> None:
    patients, prefix = fixtures_dir() / "patients", urlsplit(settings.public_url).path
    page = WhatIfPage(WhatIf(content, answering.now, patients), prefix)
    _add_static(app, "what-if.css", "text/css")
    _add_static(app, "what-if.mjs", "text/javascript")

    @app.get("/what-if")
    def show_what_if() -> Response:
        rules = {x.rule for x in app.url_map.iter_rules()}
        links = [x for x in _PAGES if x[0] in rules]
        status, html = page.html(_query(), links)
        return Response(html, status=status, mimetype=HTML, headers=HEADERS)

    @app.get("/what-if.toml")
    def give_site_file() -> Response:
        taken = {"Content-Disposition": 'attachment; filename="site.toml"'}
        text = page.toml(_query())
        return Response(text, mimetype="text/plain", headers={**HEADERS, **taken})


def _query() -> dict[str, str]:
    """The query, the first of each name; raises TooLarge for one that no form of ours sends."""
    if len(request.query_string) > MOST_QUERY:
        raise TooLarge(f"The query is over {MOST_QUERY} bytes.")
    return request.args.to_dict()
