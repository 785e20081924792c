"""What the routes of the pages answer, to whom, with which headers; nothing where they are off."""

import json
import re
from datetime import UTC, datetime
from html import unescape
from io import BytesIO
from pathlib import Path
from typing import Any

import pytest
from flask.testing import FlaskClient
from sqlalchemy import select
from werkzeug.test import TestResponse

from cds_service.app import create_app
from cds_service.config import Settings, fixtures_dir, migrations_dir
from cds_service.fhir_endpoint import FhirEndpoint, load_patients
from cds_service.modes import Mode
from cds_service.store import FEEDBACK, Store
from tests.exchanges import (
    LOW,
    SERVICE,
    TODAY,
    Json,
    draft,
    now,
    request,
    selecting,
    signing,
)
from tests.invariants import strict_json

HTML = {"Accept": "text/html,application/xhtml+xml,*/*;q=0.8"}
FIRED = "/?patient=low-alp-persistent&service=alp-review"
POLICY = {
    "default-src 'none'",
    "style-src 'self'",
    "script-src 'self'",
    "img-src 'self'",
    "connect-src 'self'",
    "form-action 'self'",
    "base-uri 'none'",
    "frame-ancestors 'none'",
}
STATIC = {"/static/playground.css": "text/css", "/static/playground.mjs": "text/javascript"}


DEEP = '{"contained":[' * 400 + "1" + "]}" * 400


def fire(client: FlaskClient, body: Json | str | None = None, **form: Any) -> TestResponse:
    headers = {**HTML, **form.pop("headers", {})}
    if body is not None:
        form["pasted"] = body if isinstance(body, str) else json.dumps(body)
    return client.post("/", data=form, content_type="multipart/form-data", headers=headers)


def ordered(hook: str, entries: Any) -> Json:
    """A fixture that holds nothing but an order."""
    drafts = {"resourceType": "Bundle", "entry": entries}
    order = {"says": "", "hook": hook, "expect": [], "draftOrders": drafts}
    return {"asOf": "2026-01-01", "bundle": {}, "orders": [order]}


# -- who gets which ----------------------------------------------------------------------------


@pytest.mark.parametrize("accept", [None, "*/*", "application/json", "application/json, text/html"])
def test_the_list_stays_json_for_whoever_does_not_prefer_a_page(
    client: FlaskClient, accept: str | None
) -> None:
    answer = client.get("/", headers={"Accept": accept} if accept else {})
    assert (answer.status_code, answer.mimetype) == (200, "application/json")
    assert answer.get_json()["discovery"] == "/cds-services"


@pytest.mark.parametrize("path", ["/", FIRED, "/?patient=nobody", "/?service=nope&patient=x"])
def test_a_page_has_a_strict_policy_and_is_not_kept(client: FlaskClient, path: str) -> None:
    answer = client.get(path, headers=HTML)
    assert answer.status_code == (404 if "nobody" in path or "nope" in path else 200)
    assert answer.mimetype == "text/html"
    assert set(answer.headers["Content-Security-Policy"].split("; ")) == POLICY
    assert answer.headers["X-Content-Type-Options"] == "nosniff"
    assert answer.headers["Cache-Control"] == "no-store"
    assert answer.headers["Vary"] == "Accept"


def test_the_page_has_no_style_or_script_of_its_own(client: FlaskClient) -> None:
    html = client.get(FIRED, headers=HTML).get_data(as_text=True)
    assert " style=" not in html and "<style" not in html and " on" + "click" not in html
    assert html.count("<script") == 1 == html.count('<script type="module" src="/static/')
    assert "//" not in "".join(x.split('"')[0] for x in html.split(' src="')[1:])


@pytest.mark.parametrize("path", STATIC)
def test_what_the_page_needs_comes_from_here(client: FlaskClient, path: str) -> None:
    answer = client.get(path)
    assert (answer.status_code, answer.mimetype) == (200, STATIC[path])
    assert answer.headers["X-Content-Type-Options"] == "nosniff"


def test_a_server_that_is_not_open_has_no_page() -> None:
    client = create_app(Settings(), now=now).test_client()
    for path in ("/", FIRED):
        answer = client.get(path, headers=HTML)
        assert (answer.status_code, answer.mimetype) == (404, "application/json")
    assert client.get("/").get_json()["discovery"] == "/cds-services"
    assert fire(client, request(LOW)).status_code == 405
    assert {client.get(x).status_code for x in STATIC} == {404}


# -- who may send a form -----------------------------------------------------------------------


@pytest.mark.parametrize(
    "origin",
    [
        *("https://evil.example", "null", "", "http://localhost:1", "https://localhost"),
        *("http://localhost.evil.example", "http://127.0.0.1", "http://x@localhost"),
    ],
)
def test_a_form_of_another_site_is_refused(client: FlaskClient, origin: str) -> None:
    answer = fire(client, request(LOW), headers={"Origin": origin})
    assert answer.status_code == 403
    assert strict_json(answer.data)["issue"][0]["code"] == "forbidden"


@pytest.mark.parametrize("origin", [None, "http://localhost"])
def test_our_own_form_is_taken(client: FlaskClient, origin: str | None) -> None:
    answer = fire(client, request(LOW), headers={"Origin": origin} if origin else {})
    assert answer.status_code == 200
    assert 'data-topic="lowAlpPersistent"' in answer.get_data(as_text=True)


@pytest.mark.parametrize("content_type", ["application/json", "text/plain", ""])
def test_what_is_no_form_is_415(client: FlaskClient, content_type: str) -> None:
    answer = client.post("/", data=b"{}", content_type=content_type, headers=HTML)
    assert (answer.status_code, answer.mimetype) == (415, "application/json")


def test_a_page_is_answered_to_loopback_names_only(client: FlaskClient) -> None:
    for headers in ({"Host": "ehr.example.org"}, {"X-Forwarded-For": "127.0.0.1"}):
        answer = client.get(FIRED, headers={**HTML, **headers})
        assert (answer.status_code, answer.mimetype) == (403, "application/json")


# -- what is sent ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("body", "status", "said"),
    [
        ("", 400, "Nothing was pasted, and no file was chosen."),
        ("[" * 100_000, 400, "The body must be one JSON object."),
        ("null", 400, "The body must be one JSON object."),
        (
            {"resourceType": "Bundle", "entry": [{"resource": {"resourceType": "Patient"}}]},
            422,
            "id",
        ),
        ({"resourceType": "Bundle", "entry": "x"}, 422, "entry has no Patient"),
        ({"asOf": "soon", "bundle": {}}, 422, "asOf must be a day"),
        ({"asOf": "2026-01-01", "bundle": []}, 422, "bundle has no Patient"),
        ({"asOf": "2026-01-01", "bundle": {"entry": [5, {"resource": 5}]}}, 422, "no Patient"),
        ({"asOf": "2026-01-01", "bundle": {}, "orders": 5}, 422, "orders: Expected"),
        ({"asOf": "2026-01-01", "bundle": {}, "orders": [{}]}, 422, "orders: Object missing"),
        (ordered("patient-view", []), 422, "orders[0].hook must be one of order-select"),
        (ordered("order-sign", [{"resource": {"id": "x"}}]), 422, "a resource with an id"),
        (ordered("order-sign", [5]), 422, "a resource with an id"),
        (ordered("order-sign", 5), 422, "a resource with an id"),
    ],
    ids=lambda x: str(x)[:30],
)
def test_what_is_wrong_is_said_with_the_status_of_the_service(
    client: FlaskClient, body: Json | str, status: int, said: str
) -> None:
    answer = fire(client, body)
    assert (answer.status_code, answer.mimetype) == (status, "text/html")
    assert said in answer.get_data(as_text=True).split('role="alert"')[1]


@pytest.mark.parametrize("levels", [800, 2_000, 9_800])  # which is too many depends on Python
def test_a_fixture_as_deep_as_it_is_read_at_all_is_no_defect(
    client: FlaskClient, levels: int
) -> None:
    deep = '{"contained":' * levels + "1" + "}" * levels
    entry = json.dumps([{"resource": {"resourceType": "Patient", "id": "p1", "x": None}}])
    fixture = '{"asOf":"2026-01-01","bundle":{"entry":' + entry.replace("null", deep) + "}}"
    answer = fire(client, fixture)
    assert answer.status_code in (200, 400, 422) and answer.mimetype == "text/html"


def test_a_request_that_breaks_the_schema_fails_its_check(client: FlaskClient) -> None:
    body = request(LOW)
    del body["hookInstance"]
    html = fire(client, body).get_data(as_text=True)
    [checks] = [x for x in html.split('<ul class="checks">')[1:]]
    failed, *held = checks.split("</section>")[0].split('<span class="check ')[1:]
    assert failed.startswith("bad") and "&#39;hookInstance&#39; is a required property" in failed
    assert [x.partition('"')[0] for x in held] == ["good"]


def test_a_number_of_very_many_digits_is_json_all_the_same(client: FlaskClient) -> None:
    body = json.dumps(request(LOW) | {"extension": {"x": "@"}}).replace('"@"', "9" * 5000)
    answer = fire(client, body)
    assert answer.status_code == 200
    assert "it is no JSON" not in answer.get_data(as_text=True)


@pytest.mark.parametrize("text", ["\u202e", "\u2066x", "\x9b31m", "\u200b", "\ue000", "\ufeff"])
def test_a_character_that_is_not_seen_stands_as_its_escape(client: FlaskClient, text: str) -> None:
    body = request(LOW)
    body["prefetch"]["patient"]["name"] = [{"family": f"Müller{text}"}]
    html = fire(client, json.dumps(body, ensure_ascii=False)).get_data(as_text=True)
    shown = html.split('name="request"')[1]
    assert text not in shown
    assert f"Müller{json.dumps(text)[1:-1]}" in shown.split("</textarea>")[0]
    curl = shown.split('id="curl"')[1].split("</pre>")[0]
    assert curl.isascii() and f"M\\u00fcller{json.dumps(text)[1:-1]}" in curl


def test_a_file_of_any_bytes_is_answered_as_the_service_would(client: FlaskClient) -> None:
    for sent in (
        b"\xff\xfe\x00",
        b"\x00" * 10,
        b'{"hook": "\xff"}',
        json.dumps(request(LOW)).encode(),
    ):
        called = client.post(SERVICE, data=sent, content_type="application/json")
        answer = fire(client, file=(BytesIO(sent), "x.json"))
        assert answer.status_code == called.status_code


@pytest.mark.parametrize(
    ("sent", "said"),
    [
        (b'{"a": "\xc3\xa4\xff"}', "Line 1, column 9: not a character of UTF-8."),
        (b'{\n"a": 1,\n\xff}', "Line 3, column 1: not a character of UTF-8."),
        (b"{\n\n  x", "Line 3, column 3: "),
        (b"", "Nothing was pasted"),
        (b'{"a": ' + b"9" * 5000 + b",}", "Line 1, column 500"),
    ],
)
def test_a_text_that_is_no_json_is_refused_with_the_place(
    client: FlaskClient, sent: bytes, said: str
) -> None:
    html = fire(client, file=(BytesIO(sent), "x.json")).get_data(as_text=True)
    assert said in unescape(html.split('role="alert"')[1].split("</section>")[0])


def test_a_hook_that_nobody_answers_is_refused_unless_a_service_is_chosen(
    client: FlaskClient,
) -> None:
    body = request(LOW) | {"hook": "patient-greet"}
    answer = fire(client, body)
    alert = answer.get_data(as_text=True).split('role="alert"')[1].split("</section>")[0]
    assert answer.status_code == 422 and "Not fired" in alert
    assert "hook is none of patient-view, order-select, order-sign" in alert
    chosen = fire(client, body, service="alp-review").get_data(as_text=True)
    assert "hook must be patient-view" in chosen


def test_of_a_file_and_a_pasted_text_it_is_said_which_was_taken(client: FlaskClient) -> None:
    sent = json.dumps(request(LOW)).encode()
    html = fire(client, "{}", file=(BytesIO(sent), "x.json")).get_data(as_text=True)
    assert 'data-topic="lowAlpPersistent"' in html
    assert "the file was taken" in status_of(html)
    pasted = unescape(html.split('<textarea id="pasted"')[1].split(">\n", 1)[1].split("<")[0])
    assert pasted == sent.decode()
    for alone in (fire(client, request(LOW)), fire(client, file=(BytesIO(sent), "x.json"))):
        assert "the file was taken" not in alone.get_data(as_text=True)


def test_the_icon_that_browsers_ask_for_is_no_error_on_the_open_server(
    client: FlaskClient,
) -> None:
    assert (client.get("/favicon.ico").status_code, client.get("/favicon.ico").data) == (204, b"")
    closed = create_app(Settings(), now=now).test_client()
    assert closed.get("/favicon.ico").status_code == 404


def test_a_body_over_the_limit_is_413() -> None:
    client = create_app(Settings(open=True, max_body_bytes=2000), now=now).test_client()
    answer = fire(client, {"x": "x" * 2000})
    assert (answer.status_code, answer.mimetype) == (413, "text/html")
    assert "over 2000 bytes" in answer.get_data(as_text=True)


def test_a_form_may_be_as_large_as_a_body(client: FlaskClient) -> None:
    large = request(LOW)
    large["prefetch"]["results"]["entry"][0]["resource"]["note"] = [{"text": "x" * 900_000}]
    text = json.dumps(large)
    encoded = client.post("/", data={"pasted": text}, headers=HTML)
    assert encoded.status_code == 200
    head = b'--x\r\nContent-Disposition: form-data; name="file"; filename="x"\r\n\r\n'
    sent = head + text.encode() + b"\r\n--x--\r\n"
    kind = "multipart/form-data; boundary=x"
    assert client.post("/", data=sent, content_type=kind, headers=HTML).status_code == 200


def test_a_service_that_is_chosen_is_called_whatever_the_hook(client: FlaskClient) -> None:
    answer = fire(client, request(LOW), service="antiresorptive-safety-sign")
    assert answer.status_code == 422
    assert "hook must be order-sign" in answer.get_data(as_text=True)


# -- what is taken along -----------------------------------------------------------------------


def saved(client: FlaskClient, body: Json) -> Json:
    found: Json = json.loads(fire(client, body, save="fixture").data)
    return found


def test_of_several_drafts_the_selected_ones_are_what_is_ordered(client: FlaskClient) -> None:
    body = selecting(draft(1), draft(2), selections=["MedicationRequest/d2"])
    del body["context"]["draftOrders"]["entry"][0]["fullUrl"]
    fixture = saved(client, body)
    [order] = fixture["orders"]
    assert [x["resource"]["id"] for x in order["draftOrders"]["entry"]] == ["d2"]
    assert "d1" in [x["resource"].get("id") for x in fixture["bundle"]["entry"]]


@pytest.mark.parametrize("change", ["context", "draftOrders", "entry", "id"])
def test_what_was_refused_is_saved_as_far_as_it_goes(client: FlaskClient, change: str) -> None:
    body = signing(draft(1))
    context = body["context"]
    if change == "context":
        body["context"] = 5
    elif change == "draftOrders":
        context["draftOrders"] = "x"
    elif change == "entry":
        context["draftOrders"]["entry"] = {"resource": 5}
    else:
        del context["draftOrders"]["entry"][0]["resource"]["id"]
    [order] = saved(client, body)["orders"]
    found = [x["resource"]["id"] for x in order["draftOrders"]["entry"]]
    assert found == (["draft-1"] if change == "id" else [])


def test_an_order_whose_id_is_no_text_is_saved_with_one(client: FlaskClient) -> None:
    body = selecting(draft(1), selections=["MedicationRequest/d1"])
    body["context"]["draftOrders"]["entry"][0]["resource"]["id"] = ["d1"]
    [order] = saved(client, body)["orders"]
    assert [x["resource"]["id"] for x in order["draftOrders"]["entry"]] == ["draft-1"]


@pytest.mark.parametrize(
    ("number", "kept"), [("1e400", "1e400"), ("-9" + "9" * 5000, None), ("28.5", 28.5), ("28", 28)]
)
def test_a_number_that_python_cannot_hold_is_saved_as_its_text(
    client: FlaskClient, number: str, kept: object
) -> None:
    body = request(LOW)
    value = body["prefetch"]["results"]["entry"][0]["resource"]["valueQuantity"]
    value["value"] = "@"
    answer = fire(client, json.dumps(body).replace('"@"', number), save="fixture")
    entries = strict_json(answer.data)["bundle"]["entry"]
    found = [x["resource"].get("valueQuantity", {}).get("value") for x in entries]
    assert (number if kept is None else kept) in found


# -- whose call it was --------------------------------------------------------------------------


def facts(html: str) -> dict[str, str]:
    """What stands in the row of facts over an answer."""
    row = html.split('<dl class="facts">')[1].split("</dl>")[0]
    pairs = [x.split("</dt><dd>") for x in row.split("<dt>")[1:]]
    return {name: re.sub(r"<[^>]+>", "", said).strip() for name, said in pairs}


def sent_by(html: str) -> str:
    return unescape(html.split('<textarea id="request"')[1].split(">\n", 1)[1].split("<")[0])


def test_a_fixture_patient_is_named_with_age_sex_and_story(keeping: FlaskClient) -> None:
    html = keeping.get(FIRED, headers=HTML).get_data(as_text=True)
    [chart] = [x for x in load_patients(fixtures_dir() / "patients", TODAY) if x.rank == 1]
    assert facts(html)["Patient"] == "low-alp-persistent"
    sex = chart.patient["gender"]
    assert re.fullmatch(rf"\d\d years, {sex}", facts(html)["Age and sex"])
    assert unescape(html.split('<p class="story">')[1].split("</p>")[0]) == chart.story
    path = FIRED.replace("alp-review", "antiresorptive-safety-sign")
    html = keeping.get(path, headers=HTML).get_data(as_text=True)
    assert chart.orders[1].says in unescape(html.split('<p class="story">')[1].split("</p>")[0])


def test_a_request_that_is_fired_again_is_still_the_stored_patient(keeping: FlaskClient) -> None:
    html = keeping.get(FIRED, headers=HTML).get_data(as_text=True)
    again = {"patient": "low-alp-persistent", "service": "alp-review"}
    html = fire(keeping, **again, request=sent_by(html)).get_data(as_text=True)
    assert facts(html)["Patient"] == "low-alp-persistent"
    assert "/what-if?patient=low-alp-persistent" in html and "sandbox.cds-hooks.org" in html


def test_an_edited_request_is_said_to_be_edited_and_leads_to_no_other_chart(
    keeping: FlaskClient,
) -> None:
    html = keeping.get(FIRED, headers=HTML).get_data(as_text=True)
    edited = re.sub(r'"gender": "\w+"', '"gender": "other"', sent_by(html))
    again = {"patient": "low-alp-persistent", "service": "alp-review"}
    html = fire(keeping, **again, request=edited).get_data(as_text=True)
    assert facts(html)["Patient"] == "low-alp-persistent, edited"
    assert facts(html)["Age and sex"].endswith("other")
    assert "/what-if?patient" not in html and "sandbox.cds-hooks.org" not in html
    assert "The request was edited." in html and '<p class="story">' not in html


def test_pasted_data_is_nobody_stored(keeping: FlaskClient) -> None:
    html = fire(keeping, request(LOW)).get_data(as_text=True)
    assert "Patient" not in facts(html) and re.fullmatch(
        r"68 years, female", facts(html)["Age and sex"]
    )
    assert "/what-if?patient" not in html
    assert "not a chart that was pasted" in html and "cds-service demo" not in html


@pytest.mark.parametrize(
    ("born", "said"),
    [
        ("2026-11-24", "0 days"),
        ("2026-11-23", "1 day"),
        ("2026-09-20", "2 months"),
        ("2025-05-25", "17 months"),
        ("2024-11-24", "2 years"),
        ("1979", "46 or 47 years"),
        ("1979-11", "46 or 47 years"),
        ("1979-08", "47 years"),
        ("2026", "0 years"),
        ("2027-01-01", ""),
        ("soon", ""),
        (5, ""),
    ],
)
def test_the_age_is_said_as_it_is_asked_of_a_patient(
    client: FlaskClient, born: object, said: str
) -> None:
    body = request(LOW)
    body["prefetch"]["patient"]["birthDate"] = born
    html = fire(client, body).get_data(as_text=True)
    assert facts(html)["Age and sex"] == ", ".join(filter(None, [said, "female"]))


# -- silence -----------------------------------------------------------------------------------

NOTHING = "No card: the chart was looked at, and there is nothing to say."
NO_ORDER = "No card: no order was read in this request, so none was looked at."


def silence(html: str) -> list[str]:
    """What stands in the panel in place of cards."""
    said = html.split('<div class="none">')[1].split("</div>")[0]
    return [unescape(x.partition("</p>")[0]) for x in said.split("<p>")[1:]]


def test_silence_over_data_that_cannot_be_used_is_no_all_clear(client: FlaskClient) -> None:
    path = "/?patient=alp-unknown-unit&service=alp-review"
    said = silence(client.get(path, headers=HTML).get_data(as_text=True))
    assert NOTHING not in said
    [line] = [x for x in said if "no all-clear" in x]
    assert re.match(r"No card, and that is no all-clear: (1 topic lacks|\d+ topics lack) ", line)


def test_a_topic_that_is_off_lacks_nothing() -> None:
    codes = json.loads(
        create_app(Settings(), now=now).test_client().get("/topics?format=json").data
    )
    off: dict[str, Mode] = {x["code"]: "off" for x in codes["topics"]}
    client = create_app(Settings(open=True, topic_modes=off), now=now).test_client()
    path = "/?patient=alp-unknown-unit&service=alp-review"
    assert "no all-clear" not in client.get(path, headers=HTML).get_data(as_text=True)


@pytest.mark.parametrize(
    ("exchange", "is_read"),
    [
        ("order-select-dstu2", False),
        ("order-sign-another-patient", False),
        ("order-select-sandbox-tab-again", False),
        ("order-select-sandbox-imaging", True),
    ],
)
def test_a_hook_of_orders_says_when_no_order_was_read(
    client: FlaskClient, exchange: str, is_read: bool
) -> None:
    body = (fixtures_dir() / "exchanges" / exchange / "request.json").read_text()
    said = silence(fire(client, body).get_data(as_text=True))
    assert (NO_ORDER in said, NOTHING in said) == (not is_read, is_read)


def test_an_order_hook_of_a_chart_without_an_order_says_so(client: FlaskClient) -> None:
    path = "/?patient=extreme-alp&service=antiresorptive-safety-sign"
    assert NO_ORDER in silence(client.get(path, headers=HTML).get_data(as_text=True))


def test_silence_over_a_chart_that_was_read_says_so_plainly(client: FlaskClient) -> None:
    path = "/?patient=cancer-normal-alp&service=antiresorptive-safety-sign"
    assert silence(client.get(path, headers=HTML).get_data(as_text=True)) == [NOTHING]


def test_what_was_refused_is_not_called_unanswered(client: FlaskClient) -> None:
    html = fire(client, request(LOW) | {"context": {}}).get_data(as_text=True)
    assert silence(html) == ["Refused, so no cards."]


# -- a Bundle ----------------------------------------------------------------------------------


def test_an_odd_entry_of_a_bundle_costs_that_entry(client: FlaskClient) -> None:
    [chart] = [x for x in load_patients(fixtures_dir() / "patients", TODAY) if x.rank == 1]
    bundle = {**chart.bundle, "type": "searchset"}
    bundle["entry"] = [5, None, {}, {"resource": []}, {"resource": {"resourceType": "Odd"}}]
    bundle["entry"] += chart.bundle["entry"]
    html = fire(client, bundle).get_data(as_text=True)
    assert '<article class="card warning" data-topic="lowAlpPersistent">' in html


def test_the_drafts_of_a_bundle_are_the_draft_orders_of_an_order_hook(client: FlaskClient) -> None:
    [chart] = [x for x in load_patients(fixtures_dir() / "patients", TODAY) if x.rank == 1]
    drafts = chart.orders[1].draft_orders["entry"]
    bundle = {**chart.bundle, "entry": [*chart.bundle["entry"], *drafts]}
    html = fire(client, bundle, service="antiresorptive-safety-sign").get_data(as_text=True)
    assert '<article class="card' in html
    none = fire(client, chart.bundle, service="antiresorptive-safety-sign")
    assert none.status_code == 200 and "<article" not in none.get_data(as_text=True)


def a_chart_with(note: str) -> tuple[str, str]:
    """A request and the Bundle of its chart, whose results all have a note, as it is written."""
    body = request(LOW)
    for entry in body["prefetch"]["results"]["entry"]:
        entry["resource"]["note"] = "@"
    entries = [{"resource": body["prefetch"]["patient"]}, *body["prefetch"]["results"]["entry"]]
    bundle = {"resourceType": "Bundle", "type": "collection", "entry": entries}
    asked, chart = (json.dumps(x).replace('"@"', note) for x in (body, bundle))
    return asked, chart


@pytest.mark.parametrize("which", [0, 1], ids=["a request", "a Bundle"])
@pytest.mark.parametrize("note", [r'[{"text":"\ud800"}]', '[{"x":1e400}]', DEEP])
def test_an_odd_note_costs_no_card(client: FlaskClient, note: str, which: int) -> None:
    answer = fire(client, a_chart_with(note)[which])
    assert answer.status_code == 200
    assert answer.get_data(as_text=True).count('<article class="card') == 1


def test_what_is_nested_very_deeply_is_shown_without_its_blanks(client: FlaskClient) -> None:
    plain, deep = (len(fire(client, a_chart_with(x)[1]).data) for x in ("[]", DEEP))
    assert deep - plain < 200 * len(DEEP)


# -- feedback ----------------------------------------------------------------------------------


def test_without_a_store_the_page_says_why_there_are_no_buttons(client: FlaskClient) -> None:
    html = client.get(FIRED, headers=HTML).get_data(as_text=True)
    assert "started without a store" in html
    assert 'name="override"' not in html and 'name="accept"' not in html


@pytest.fixture
def keeping(tmp_path: Path) -> FlaskClient:
    """The open server with a store, and a FHIR endpoint with the fixture patients."""
    url = f"sqlite:///{tmp_path}/store.sqlite"
    Store(url).migrate(migrations_dir())
    bundles = [x.bundle for x in load_patients(fixtures_dir() / "patients", TODAY)]
    settings = Settings(
        open=True, store_url=url, patient_secret=b"x" * 32, public_urls=("http://localhost",)
    )
    endpoint = FhirEndpoint(bundles, "http://localhost/fhir")
    return create_app(settings, now=lambda: datetime.now(UTC), demo=endpoint).test_client()


def buttons(html: str, name: str) -> list[str]:
    return [x.split('"')[0] for x in html.split(f'name="{name}" value="')[1:]]


def test_feedback_that_the_service_refuses_is_said(keeping: FlaskClient) -> None:
    page = keeping.get(FIRED, headers=HTML).get_data(as_text=True)
    [value] = buttons(page, "override")
    card = value.split()[0]
    comment = {f"comment-{card}": "x" * 5000, f"reason-{card}": "later"}
    answer = fire(keeping, json.dumps(request(LOW)), override=value, **comment)
    assert "The feedback was not taken: The feedback breaks CDS Hooks" in answer.get_data(
        as_text=True
    )


def set_aside(client: FlaskClient, path: str, **fields: str) -> str:
    """The page after the first card of a page was set aside; `reason` is what was chosen."""
    page = client.get(path, headers=HTML).get_data(as_text=True)
    [value] = buttons(page, "override")
    chosen = {f"reason-{value.split()[0]}": x for x in fields.values()}
    again = {"request": sent_by(page), "service": "alp-review", "override": value, **chosen}
    return fire(client, **again).get_data(as_text=True)


def status_of(html: str) -> str:
    return unescape(html.split('role="status">')[1].split("</div>")[0])


EXTREME = "/?patient=extreme-alp&service=alp-review"


def test_no_reason_is_chosen_before_somebody_does(keeping: FlaskClient) -> None:
    page = keeping.get(EXTREME, headers=HTML).get_data(as_text=True)
    options = page.split('<select id="reason-')[1].split("</select>")[0].split("<option ")[1:]
    assert options[0].startswith('value="">choose a reason<')
    assert "no reason given" in options[-1] and "selected" not in "".join(options)


def test_a_page_and_the_calls_that_it_makes_are_each_told_once(
    client: FlaskClient, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level("INFO"):
        fire(client, request(LOW))
    told = [vars(x) for x in caplog.records if x.getMessage() == "answered"]
    assert [x["route"] for x in told] == ["service", "explain", "page"]
    assert len({x["request_id"] for x in told}) == 3


@pytest.mark.parametrize("fields", [{}, {"reason": ""}])
def test_a_card_is_not_set_aside_by_a_single_click(
    keeping: FlaskClient, fields: dict[str, str]
) -> None:
    html = set_aside(keeping, EXTREME, **fields)
    assert "choose a reason" in status_of(html)
    assert '<article class="card warning" data-topic="extremeAlp">' in html


def test_an_override_without_a_reason_is_sent_only_when_it_is_chosen(
    keeping: FlaskClient, tmp_path: Path
) -> None:
    said = status_of(set_aside(keeping, EXTREME, reason="no-reason-given"))
    assert "Feedback taken: overridden" in said and "is shown as before" in said
    with Store(f"sqlite:///{tmp_path}/store.sqlite").reading() as connection:
        kept = connection.execute(select(FEEDBACK.c.outcome, FEEDBACK.c.reason)).all()
    assert [tuple(x) for x in kept] == [("overridden", "")]


def test_a_card_that_is_set_aside_names_by_title_what_it_still_holds_back(
    keeping: FlaskClient,
) -> None:
    html = set_aside(keeping, EXTREME, reason="later")
    said = status_of(html)
    assert "is silent now" in said and "It still holds back “" in said
    shown = unescape(html.split('id="why"')[1].split('id="exchange"')[0])
    assert "held back by “" in shown
    reasons = [x.split("</span>")[0] for x in shown.split('<span class="reason">')[1:]]
    assert [x for x in [said, *reasons] if "extremeAlp" in x] == []


def test_what_holds_a_card_back_is_listed_and_can_be_forgotten(keeping: FlaskClient) -> None:
    html = set_aside(keeping, EXTREME, reason="later")
    listed = unescape(html.split('id="aside"')[1].split("</ul>")[0])
    assert re.search(r"<b>.+</b>: Set aside with \"Remind me later\"; silent until ", listed)
    other = set_aside(keeping, FIRED, reason="later")
    again = {"request": sent_by(html), "service": "alp-review", "forget": "overrides"}
    html = fire(keeping, **again).get_data(as_text=True)
    assert "Forgotten: what was set aside for this patient (1 override)." in status_of(html)
    assert '<article class="card warning" data-topic="extremeAlp">' in html
    assert 'id="aside"' not in html and 'id="aside"' in other
    assert 'id="aside"' in keeping.get(FIRED, headers=HTML).get_data(as_text=True)


def test_where_nothing_is_remembered_nothing_can_be_forgotten(client: FlaskClient) -> None:
    html = fire(client, request(LOW), forget="overrides").get_data(as_text=True)
    assert "(0 overrides)" in status_of(html)
    assert "Set aside for this patient" not in html


def test_what_cannot_be_forgotten_is_said_to_be_so(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path}/missing/store.sqlite"
    settings = Settings(open=True, store_url=url, patient_secret=b"x" * 32)
    answer = fire(create_app(settings, now=now).test_client(), request(LOW), forget="overrides")
    assert status_of(answer.get_data(as_text=True)).count("Nothing was forgotten: The store") == 1


@pytest.mark.parametrize("value", [" ", "x", "x y z", "<script>", "x" * 500])
def test_a_button_that_is_made_up_does_no_harm(keeping: FlaskClient, value: str) -> None:
    for name in ("accept", "override"):
        answer = fire(keeping, request(LOW), **{name: value})
        assert answer.status_code == 200
        assert "<script>" not in answer.get_data(as_text=True)


def test_the_sandbox_is_offered_where_a_fhir_endpoint_has_the_patient(
    client: FlaskClient, keeping: FlaskClient
) -> None:
    offered = "https://sandbox.cds-hooks.org/?fhirServiceUrl=http%3A%2F%2Flocalhost%2Ffhir"
    assert offered in keeping.get(FIRED, headers=HTML).get_data(as_text=True)
    assert offered not in fire(keeping, request(LOW)).get_data(as_text=True)
    assert "sandbox.cds-hooks.org" not in client.get(FIRED, headers=HTML).get_data(as_text=True)
