"""The checks that every answer passes through find out whatever breaks a rule."""

import json
from collections.abc import Callable
from copy import deepcopy
from typing import Any

import pytest
from flask import Flask, Response
from flask.testing import FlaskClient

from tests.exchanges import JSON, SERVICE, Json, send
from tests.invariants import ABOUT_ORDERS, drafts_of, faults, violations

Whole = Callable[[str], Json]
Spoil = Callable[[Json], object]
ALL = "lytic-lesion-raised-alp"  # two cards, five suggestions
CODING = {"system": "https://alp-review.example/CodeSystem/topics", "code": "x", "display": "x"}
LINK = {"label": "x", "url": "https://x.example/launch", "type": "smart"}
HEAD = {"Content-Type": JSON, "X-Request-ID": "a", "Cache-Control": "no-store"}


def card(**members: object) -> Spoil:
    return lambda x: x["cards"][0].update(members)


def link(**members: object) -> Spoil:
    return card(links=[{**LINK, **members}])


def suggestion(**members: object) -> Spoil:
    return lambda x: x["cards"][0]["suggestions"][0].update(members)


def action(**members: object) -> Spoil:
    return lambda x: x["cards"][0]["suggestions"][0]["actions"][0].update(members)


SPOILT: dict[str, Spoil] = {
    "JSN-02": card(links=[]),
    "JSN-04": lambda x: x["cards"][0]["overrideReasons"][0].update(display=" "),
    "JSN-05": action(resource='{"resourceType":"ServiceRequest"}'),
    "JSN-09": lambda x: x["cards"][0]["source"].update(Label="x"),
    "RSP-01": lambda x: x.update(cards={}),
    "RSP-04": lambda x: x.update(more=1),
    "RSP-06": lambda x: x["cards"].reverse(),
    "SYS-02": lambda x: x.update(systemActions=[{"type": "create"}]),
    "EXT-01": lambda x: x.update(extension=[{"url": "x"}]),
    "EXT-02": card(extension={"more": 1}),
    "EXT-02 of an answer": lambda x: x.update(extension={ABOUT_ORDERS: ["MedicationRequest/d1"]}),
    "EXT-05": card(extension={ABOUT_ORDERS: "MedicationRequest/d1"}),
    "EXT-05 without its type": card(extension={ABOUT_ORDERS: ["d1"]}),
    "EXT-05 twice": card(extension={ABOUT_ORDERS: ["MedicationRequest/d1"] * 2}),
    "CAR-01": card(summary="x" * 140),
    "CAR-01 in JavaScript": card(summary="\U0001f44d" * 70),
    "CAR-01 on two lines": card(summary="x\ny"),
    "CAR-02": card(summary="{val}"),
    "CAR-03": card(detail=["x"]),
    "CAR-04": card(detail="<b>x"),
    "CAR-05": card(indicator="hard-stop"),
    "CAR-06": lambda x: x["cards"][0].pop("source"),
    "CAR-07": lambda x: x["cards"][0].update(uuid=x["cards"][1]["uuid"]),
    "CAR-08": lambda x: x["cards"][0].pop("selectionBehavior"),
    "CAR-09": card(selectionBehavior="all"),
    "CAR-10": card(suggestions={"label": "x"}),
    "CAR-11": card(overrideReasons=CODING),
    "CAR-12": card(links=LINK),
    "CAR-13": card(expires="2026"),
    "SRC-01": lambda x: x["cards"][0]["source"].update(label=" "),
    "SRC-02": lambda x: x["cards"][0]["source"].update(url="/topics/x"),
    "SRC-03": lambda x: x["cards"][0]["source"].update(icon="x.png"),
    "SRC-04": lambda x: x["cards"][0]["source"].update(topic=[CODING]),
    "SUG-01": suggestion(label="x"),
    "SUG-02": suggestion(uuid="1"),
    "SUG-03": suggestion(isRecommended="yes"),
    "SUG-04": suggestion(actions=[]),
    "SUG-05": suggestion(actionSelectionBehavior="any"),
    "ACT-01": action(type="CREATE"),
    "ACT-02": lambda x: x["cards"][0]["suggestions"][0]["actions"][0].pop("description"),
    "ACT-03": lambda x: x["cards"][0]["suggestions"][0]["actions"][0].pop("resource"),
    "ACT-06": lambda x: next(drafts_of(x)).pop("intent"),
    "ACT-08": lambda x: [draft.update(id="x") for draft in drafts_of(x)],
    "OVR-01": lambda x: x["cards"][0]["overrideReasons"][0].pop("display"),
    "OVR-02": lambda x: x["cards"][0]["overrideReasons"].append(
        deepcopy(x["cards"][0]["overrideReasons"][0])
    ),
    "LNK-01": card(links=[{"label": "x", "url": "https://x.example"}]),
    "LNK-02": link(type="relative"),
    "LNK-03": link(url="/launch"),
    "LNK-04": link(url="https://x.example/launch?iss=https%3A%2F%2Fehr.example"),
    "LNK-05": link(type="absolute", appContext="x"),
    "LNK-06": link(appContext={"x": 1}),
    "LNK-07": link(autolaunchable="true"),
    "COD-01": lambda x: x["cards"][0]["source"]["topic"].pop("system"),
    "COD-01 with a version": lambda x: x["cards"][0]["source"]["topic"].update(version="1"),
}


@pytest.mark.parametrize("rule", SPOILT)
def test_a_spoilt_answer_is_found_out(client: FlaskClient, whole: Whole, rule: str) -> None:
    answer = send(client, whole(ALL)).get_json()
    assert violations(answer) == [] and len(answer["cards"]) == 2
    SPOILT[rule](answer)

    assert [x for x in violations(answer) if rule.split()[0] in x]


@pytest.mark.parametrize(
    "more",
    [
        {"extension": {"org.example.shown": {"a": 1}}},
        {"extension": {ABOUT_ORDERS: ["MedicationRequest/d1", "MedicationRequest/d2"]}},
        {"links": [{**LINK, "appContext": "x", "autolaunchable": False}]},
    ],
)
def test_what_a_card_may_hold_is_no_fault(client: FlaskClient, whole: Whole, more: Json) -> None:
    answer = send(client, whole(ALL)).get_json()
    answer["cards"][0] |= more

    assert violations(answer) == []


SERVICES = {"services": [{"hook": "patient-view", "id": "x", "description": "x"}]}
OUTCOME = {"resourceType": "OperationOutcome", "issue": [{"severity": "error", "code": "invalid"}]}


def listing(**members: object) -> Any:
    return {"services": [SERVICES["services"][0] | members]}


def issue(**members: object) -> Any:
    return OUTCOME | {"issue": [{"severity": "error", "code": "invalid", **members}]}


@pytest.mark.parametrize(
    ("method", "path", "status", "value", "rule"),
    [
        ("GET", "/cds-services", 204, {}, "DSC-04"),
        ("GET", "/cds-services", 200, [], "DSC-02"),
        ("GET", "/cds-services", 200, listing(hook=5), "DSC-05"),
        ("GET", "//cds-services/", 200, listing(hook=5), "DSC-05"),
        ("GET", "/cds-services", 200, listing(id=" "), "DSC-06"),
        ("GET", "/cds-services", 200, listing(description=["x"]), "DSC-08"),
        ("GET", "/cds-services", 200, listing(title=5), "DSC-09"),
        ("GET", "/cds-services", 200, listing(prefetch={"x": 5}), "DSC-10"),
        ("GET", "/cds-services", 200, listing(prefetch={}), "JSN-02"),
        ("GET", "/cds-services", 200, listing(version="3.0.0"), "DSC-12"),
        ("GET", "/cds-services", 200, {**SERVICES, "more": 1}, "RSP-04"),
        ("POST", SERVICE, 202, {"cards": []}, "RSP-01"),
        ("POST", SERVICE, 200, OUTCOME, "RSP-01"),
        ("POST", SERVICE, 412, {**OUTCOME, "cards": []}, "ERR-06"),
        ("POST", SERVICE, 400, {"error": "x"}, "ERR-01"),
        ("POST", SERVICE, 400, issue(severity="bad"), "ERR-01"),
        ("POST", SERVICE, 400, issue(code="bad"), "ERR-01"),
        ("POST", SERVICE, 400, issue(details="x"), "ERR-01"),
        ("POST", SERVICE, 400, issue(diagnostics=""), "JSN-02"),
        ("POST", SERVICE, 500, issue(diagnostics="Traceback (most recent"), "ERR-04"),
        ("POST", "/explain/x", 200, {"cards": [{}]}, "CAR-01"),
    ],
)
def test_a_spoilt_body_is_found_out(
    method: str, path: str, status: int, value: object, rule: str
) -> None:
    found = faults(method, path, status, HEAD, json.dumps(value).encode())

    assert [x for x in found if rule in x]


@pytest.mark.parametrize(
    ("head", "body", "rule"),
    [
        ({"X-Request-ID": ""}, b'{"cards":[]}', "ERR-07"),
        ({"Cache-Control": "max-age=60"}, b'{"cards":[]}', "RSP-05"),
        ({"Content-Type": "text/html"}, b'{"cards":[]}', "ERR-02"),
        ({}, b'\xef\xbb\xbf{"cards":[]}', "JSN-01"),
        ({}, b'{"cards":[],"cards":[]}', "JSN-06"),
        ({}, b'{"cards":[],"x":NaN}', "JSN-06"),
        ({}, b"", "JSN-01"),
    ],
)
def test_spoilt_bytes_are_found_out(head: dict[str, str], body: bytes, rule: str) -> None:
    assert faults("POST", SERVICE, 200, HEAD, b'{"cards":[]}') == []
    assert [x for x in faults("POST", SERVICE, 200, {**HEAD, **head}, body) if rule in x]


def test_the_client_of_every_test_finds_them_out() -> None:
    app = Flask("x")
    app.add_url_rule("/", view_func=lambda: Response("<html>", mimetype="text/html"))

    with pytest.raises(AssertionError, match="ERR-02"):
        app.test_client().get("/")
