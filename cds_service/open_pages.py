"""The routes of the pages of an open server: the playground at `/`, what-if and the API page, with
their style sheets and scripts. What makes them is imported for the first who asks.
"""

from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, cast
from urllib.parse import urlsplit

from flask import Flask, Response, request

from cds_service.answering import Answering
from cds_service.config import Settings, fixtures_dir
from cds_service.content import Content
from cds_service.errors import TooLarge
from cds_service.fhir_endpoint import FhirEndpoint
from cds_service.page_headers import HTML, WITH_FORM

if TYPE_CHECKING:
    from cds_service.api_page import ApiPage
    from cds_service.playground_forms import PlaygroundForms
    from cds_service.what_if_page import WhatIfPage

_STATIC = Path(__file__).resolve().parent / "static"
_MOST_QUERY = 16_000  # bytes; every field of the what-if form takes about a third
_OTHER_PAGES = (("/topics", "Topics"), ("/what-if", "What if"), ("/docs", "API"))


def add_open_pages(
    app: Flask,
    settings: Settings,
    answering: Answering,
    content: Content,
    demo: FhirEndpoint | None,
) -> None:
    """Adds the pages to an open server; `/` stays JSON for whoever does not prefer HTML."""
    _add_what_if(app, settings, answering)

    @cache
    def forms() -> "PlaygroundForms":
        from cds_service.playground_forms import PlaygroundForms

        return PlaygroundForms(app, settings, answering, content, demo, _links(app))

    listed = cast("Callable[[], Response]", app.view_functions["index"])

    def show() -> Response:
        return forms().show() if prefers_html() else listed()

    app.view_functions["index"] = show

    @app.post("/")
    def fire() -> Response:
        return forms().posted()

    @app.get("/favicon.ico")
    def icon() -> Response:
        return Response(status=204)  # browsers ask for it whatever a page says

    _add_file(app, "playground.css", "text/css")
    _add_file(app, "playground.mjs", "text/javascript")
    _add_file(app, "trend.css", "text/css")
    _add_docs(app, settings.public_url, content)


def _add_docs(app: Flask, public_url: str, content: Content) -> None:
    @cache
    def page() -> "ApiPage":
        from cds_service.api_page import ApiPage

        return ApiPage(content, urlsplit(public_url).path, fixtures_dir() / "exchanges")

    @app.get("/docs")
    def show_docs() -> Response:
        url = public_url or request.host_url.rstrip("/")
        body = page().html(url, (("/", "Playground"), *_links(app)))
        return Response(body, mimetype=HTML, headers=WITH_FORM)

    _add_file(app, "docs.css", "text/css")
    _add_file(app, "docs.mjs", "text/javascript")


def _links(app: Flask) -> tuple[tuple[str, str], ...]:
    """The other pages that there are."""
    rules = {x.rule for x in app.url_map.iter_rules()}
    return tuple(x for x in _OTHER_PAGES if x[0] in rules)


def prefers_html() -> bool:
    """Whether the caller would rather read a page; one that takes anything would not."""
    return request.accept_mimetypes.best_match(("application/json", HTML)) == HTML


def _add_file(app: Flask, name: str, mimetype: str) -> None:
    body = (_STATIC / name).read_bytes()
    headers = {x: WITH_FORM[x] for x in ("Content-Security-Policy", "X-Content-Type-Options")}

    @app.get(f"/static/{name}", endpoint=name)
    def static_file() -> Response:
        return Response(body, mimetype=mimetype, headers=headers)


# -- what if -----------------------------------------------------------------------------------


def _add_what_if(app: Flask, settings: Settings, answering: Answering) -> None:
    @cache
    def page() -> "WhatIfPage":
        from cds_service.what_if import WhatIf
        from cds_service.what_if_page import WhatIfPage

        what_if = WhatIf(answering.content, answering.now, fixtures_dir() / "patients")
        return WhatIfPage(what_if, urlsplit(settings.public_url).path)

    _add_file(app, "what-if.css", "text/css")
    _add_file(app, "what-if.mjs", "text/javascript")

    @app.get("/what-if")
    def show_what_if() -> Response:
        status, html = page().html(_query(), (("/", "Playground"), *_links(app)))
        return Response(html, status=status, mimetype=HTML, headers=WITH_FORM)

    @app.get("/what-if.toml")
    def give_site_file() -> Response:
        taken = {"Content-Disposition": 'attachment; filename="site.toml"'}
        text = page().toml(_query())
        return Response(text, mimetype="text/plain", headers={**WITH_FORM, **taken})


def _query() -> dict[str, str]:
    """The query, the first of each name; raises TooLarge for one that no form of ours sends."""
    if len(request.query_string) > _MOST_QUERY:
        raise TooLarge(f"The query is over {_MOST_QUERY} bytes.")
    return request.args.to_dict()
