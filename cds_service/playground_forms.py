"""What the forms of the playground ask: a hook is fired, a card reported on, a fixture saved."""

import json
from collections.abc import Sequence
from datetime import UTC, datetime
from functools import cached_property
from http import HTTPStatus
from typing import Any
from urllib.parse import urlsplit

from flask import Flask, Response, g, request
from markupsafe import Markup
from msgspec.structs import replace

from cds_service.answering import Answering
from cds_service.cards import OVERRIDE_REASONS
from cds_service.config import Settings, fixtures_dir
from cds_service.content import Content
from cds_service.errors import CdsError, NotAllowed, StoreDown, TooLarge, WrongMediaType
from cds_service.fhir_endpoint import FhirEndpoint
from cds_service.page_headers import HTML, WITH_FORM
from cds_service.playground import Answered, Chosen, Fired, Playground
from cds_service.playground_page import NO_REASON, PlaygroundPage, Shown
from cds_service.trend_page import svg

_FORMS = ("application/x-www-form-urlencoded", "multipart/form-data")
_FILE_TAKEN = "A text was pasted and a file chosen: the file was taken."
_FIRED_AGAIN = "The hook was fired again."
_CHOOSE = "Not set aside yet: choose a reason, or that no reason is given."
_NO_STORE = "This server was started without a store, so nothing can be reported to it."


def refuse_foreign_forms() -> None:
    """Raises NotAllowed for a form on a page of another site: a browser would send it."""
    origin = request.headers.get("Origin")
    if origin is not None and origin.lower() != f"{request.scheme}://{request.host}".lower():
        raise NotAllowed("A form on a page of another site is not taken.")


class PlaygroundForms:
    """Answers what is asked of the playground; `links` names the other pages that there are."""

    def __init__(
        self,
        app: Flask,
        settings: Settings,
        answering: Answering,
        content: Content,
        demo: FhirEndpoint | None,
        links: Sequence[tuple[str, str]],
    ) -> None:
        self._app = app
        self._links = links
        self._answering = answering
        self._settings = settings
        self._silent_because = "" if answering.issued is not None else _NO_STORE
        folder = fixtures_dir() / "patients"
        self._url = settings.public_url
        self._playground = Playground(content, folder, self._url, demo, answering.today)

    @cached_property
    def _page(self) -> PlaygroundPage:
        """Made for the first who asks: that takes longer than the start."""
        return PlaygroundPage(self._playground, urlsplit(self._url).path)

    def show(self) -> Response:
        """The page; a patient in the query is fired at once."""
        chosen = Chosen(request.args.get("patient", ""), request.args.get("service", ""))
        return self._answer(chosen, b"") if chosen.patient else self._html(chosen, Shown())

    def posted(self) -> Response:
        """The page after a form: a request, a Bundle or a file is fired, feedback is given before;
        or the file of a fixture.
        """
        refuse_foreign_forms()
        if request.mimetype not in _FORMS:
            raise WrongMediaType("The body must be a form.")
        limit = self._settings.max_body_bytes
        if (request.content_length or 0) > limit:
            why = TooLarge(f"What was sent is over {limit} bytes.")
            return self._html(Chosen(), Shown(wrong=(why.text,)), why.status)
        request.max_content_length = request.max_form_memory_size = limit
        form, file = request.form, request.files.get("file")
        sent = file.read() if file is not None else b""
        again = form.get("request", "")
        pasted = form.get("pasted", "")
        notice = (_FILE_TAKEN,) if pasted.strip() and sent else ()
        pasted = sent.decode("utf-8", "replace") or pasted
        chosen = Chosen(form.get("patient", ""), form.get("service", ""), pasted)
        return self._answer(chosen, again.encode("utf-8", "replace") or sent, notice)

    def _answer(self, chosen: Chosen, sent: bytes, notice: tuple[str, ...] = ()) -> Response:
        try:
            _, service, body = self._playground.request_for(chosen, sent)
            notice += self._reported(f"/cds-services/{service.id}/feedback")
            notice += self._forgotten(service.id, body)
        except CdsError as error:
            g.record.note_error(error)
            wrong = (error.text, error.diagnostics)
            page = Shown(wrong=tuple(filter(None, wrong)), notice=notice)
            return self._html(chosen, page, error.status)
        fired = self._playground.fire(service, body, self._ask)
        if "save" in request.form:
            return self._saved(*self._playground.as_fixture(body, fired, self._ask))
        notice += self._changed(fired)
        trends = self._trends(service.id, body) if fired.answer.status == 200 else ()
        page = Shown(fired, fired.refused, notice, trends=trends)
        return self._html(chosen, page, fired.answer.status)

    def _trends(self, service_id: str, body: bytes) -> tuple[Markup, ...]:
        found = self._answering.trends(service_id, body)
        return tuple(svg(x, f"trend-{n}") for n, x in enumerate(found, 1))

    def _html(self, chosen: Chosen, shown: Shown, status: int = 200) -> Response:
        shown = replace(shown, silent_because=self._silent_because, links=self._links)
        body = self._page.html(chosen, shown)
        return Response(body, status=status, mimetype=HTML, headers=WITH_FORM)

    def _saved(self, name: str, body: bytes) -> Response:
        headers = {**WITH_FORM, "Content-Disposition": f'attachment; filename="{name}"'}
        return Response(body, mimetype="application/json", headers=headers)

    # -- calls ---------------------------------------------------------------------------------

    def _ask(self, path: str, body: bytes) -> Answered:
        """Calls a route of this server as a client would, through the same guards."""
        called = self._app.test_request_context(
            path,
            method="POST",
            data=body,
            base_url=f"{request.scheme}://{request.host}",
            content_type="application/json",
            headers={"Accept": "application/json"},
        )
        outer = g.record  # there is one g for both
        with called:
            response = self._app.full_dispatch_request()
            answer = response.get_data()
            seconds = dict(g.record.seconds)
        g.record = outer
        reason = HTTPStatus(response.status_code).phrase
        headers = tuple(response.headers.items())
        return Answered(response.status_code, reason, headers, answer, seconds)

    def _reported(self, path: str) -> tuple[str, ...]:
        """What became of the feedback in the form, nothing where there is none."""
        if _lacks_reason(request.form):
            return (_CHOOSE,)
        item = _feedback(request.form)
        if item is None:
            return ()
        answer = self._ask(path, json.dumps({"feedback": [item]}).encode())
        if answer.status != 200:
            return (f"The feedback was not taken: {answer.json['issue'][0]['details']['text']}",)
        return (f"Feedback taken: {item['outcome']}. {_FIRED_AGAIN}",)

    def _forgotten(self, service_id: str, body: bytes) -> tuple[str, ...]:
        """What became of the patient's overrides, nothing where nobody asked to forget them."""
        if "forget" not in request.form:
            return ()
        try:
            n = self._answering.forget(service_id, body)
        except StoreDown as error:
            return (f"Nothing was forgotten: {error.text}",)
        counted = f"{n} override{'' if n == 1 else 's'}"
        return (f"Forgotten: what was set aside for this patient ({counted}). {_FIRED_AGAIN}",)

    def _changed(self, fired: Fired) -> tuple[str, ...]:
        """What the answer to a card says now that it was reported on; nothing where none was."""
        topic = request.form.get("override", request.form.get("accept", "")).rpartition(" ")[2]
        seen = next((x for x in fired.topics if x.code == topic), None)
        if seen is None:
            return ()
        if seen.verdict == "fired":
            return (f"“{seen.title}” is shown as before.",)
        said = [f"“{seen.title}” is silent now. {seen.reason}"]
        if held := [f"“{x.title}”" for x in fired.topics if x.found.get("by") == topic]:
            said.append(f"It still holds back {', '.join(held)}.")
        return tuple(said)


def _lacks_reason(form: Any) -> bool:
    """Whether a card would be set aside though nobody chose why, or that there is no why."""
    card, pressed, _ = form.get("override", "").partition(" ")
    return bool(pressed) and not form.get(f"reason-{card}")


def _feedback(form: Any) -> dict[str, Any] | None:
    """The item of feedback that a button stands for; None without one."""
    item: dict[str, Any] = {"outcomeTimestamp": datetime.now(UTC).isoformat()}
    if accepted := form.get("accept"):
        card, _, rest = accepted.partition(" ")
        suggestions = [{"id": rest.partition(" ")[0]}]
        return {**item, "card": card, "outcome": "accepted", "acceptedSuggestions": suggestions}
    if overridden := form.get("override"):
        card = overridden.partition(" ")[0]
        reason: dict[str, Any] = {}
        code = form.get(f"reason-{card}")
        if code and code != NO_REASON:
            reason["reason"] = {"system": OVERRIDE_REASONS, "code": code}
        if comment := form.get(f"comment-{card}", "").strip():
            reason["userComment"] = comment
        given = {"overrideReason": reason} if reason else {}
        return {**item, "card": card, "outcome": "overridden", **given}
    return None
