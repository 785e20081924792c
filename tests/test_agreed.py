"""What is agreed with a client: which topics are switched for it, and whether it may see errors."""

import json
import re
from datetime import datetime
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest
from flask.testing import FlaskClient

from cds_service.app import create_app
from cds_service.cards import NOT_EVALUATED
from cds_service.clients import Caller
from tests.exchanges import (
    EXPLAIN,
    FIRES,
    LOW,
    SERVER,
    SERVICE,
    Json,
    changed,
    drop,
    put,
    send,
    signing,
)
from tests.invariants import cards_of, violations
from tests.loopback import ROOT, ended
from tests.test_openapi import holds
from tests.trust import Hospital, client_row, settings_in

requirement = pytest.mark.requirement
STRICT, QUIET = "https://strict.example", "https://quiet.example"
SHADOW, ONE_OFF, ONE_ON = (f"https://{x}.example" for x in ("shadow", "one-off", "one-on"))
TOPIC, SIGN = "lowAlpPersistent", "/cds-services/antiresorptive-safety-sign"


def row(issuer: str, **members: Any) -> str:
    return client_row(issuer, keys="keys.json", **members)


def chart(*values: float) -> Json:
    """A chart that a user opens who has seen no card yet."""
    return changed(put("context.userId", f"Practitioner/{uuid4()}"), values=values or LOW)


@pytest.fixture(scope="module")
def hospital(tmp_path_factory: pytest.TempPathFactory) -> Hospital:
    return Hospital(
        tmp_path_factory.mktemp("agreed"),
        row(STRICT),
        row(QUIET, failures="quiet"),
        row(SHADOW, modes={"*": "shadow"}),
        row(ONE_OFF, modes={TOPIC: "off"}, failures="strict"),
        row(ONE_ON, modes={TOPIC: "on", "*": "off"}),
        CDS_MAX_BODY_BYTES="200000",
    )


# -- modes -------------------------------------------------------------------------------------


def verdict(hospital: Hospital, issuer: str) -> tuple[str, str]:
    explained = hospital.ask(issuer, chart(), EXPLAIN).get_json()["verdicts"]
    [found] = [x for x in explained if x["topic"] == TOPIC]
    return found["verdict"], found.get("by", "")


@pytest.mark.parametrize(
    ("issuer", "cards", "why"),
    [
        (STRICT, FIRES, ("fired", "")),
        (SHADOW, (), ("suppressed", "shadow")),
        (ONE_OFF, (), ("suppressed", "off")),
        (ONE_ON, FIRES, ("fired", "")),  # one topic is more than all, wherever it stands
    ],
)
def test_a_topic_is_switched_for_a_client_and_for_no_other(
    hospital: Hospital, issuer: str, cards: tuple[str, ...], why: tuple[str, str]
) -> None:
    assert cards_of(hospital.ask(issuer, chart()).get_json()) == cards
    assert verdict(hospital, issuer) == why


@pytest.mark.parametrize("mode", ["shadow", "off"])
def test_what_is_agreed_with_a_client_goes_before_site_file_and_command_line(
    tmp_path: Path, mode: str
) -> None:
    (tmp_path / "site.toml").write_text(f'[modes]\n{TOPIC} = "{mode}"\n', "utf-8")
    rows = row(STRICT), row(ONE_ON, modes={TOPIC: "on"})
    for others in (
        {"CDS_SITE_FILE": str(tmp_path / "site.toml")},
        {"CDS_TOPIC_MODES": f"{TOPIC}={mode}"},
    ):
        here = Hospital(tmp_path, *rows, **others)
        assert cards_of(here.ask(STRICT, chart()).get_json()) == ()
        assert cards_of(here.ask(ONE_ON, chart()).get_json()) == FIRES


@pytest.mark.parametrize(
    ("members", "said"),
    [
        ({"modes": {"lowAlpPersistnt": "on"}}, "client[0].modes.lowAlpPersistnt: is no topic; did"),
        ({"modes": {"lowAlpPersistnt": "on"}}, "did you mean lowAlpPersistent?"),
        ({"modes": {TOPIC: "loud"}}, f"client[0].modes.{TOPIC}: "),
        ({"failures": "silent"}, "client[0].failures: "),
    ],
)
def test_what_cannot_be_agreed_stops_the_start_with_file_and_key(
    tmp_path: Path, members: Json, said: str
) -> None:
    rows = [client_row(STRICT, jku="https://ehr.example/jwks.json", **members)]
    result = ended("serve", **settings_in(tmp_path, rows))
    assert result.returncode == 2
    assert result.stderr.startswith("cds-service: clients.toml: ") and said in result.stderr


def test_who_a_caller_is_does_not_depend_on_what_is_agreed_with_it() -> None:
    plain = Caller(QUIET, "north")
    agreed = Caller(QUIET, "north", "Main EHR", quiet=True, modes={"*": "off"})
    assert agreed == plain and hash(agreed) == hash(plain)


# -- failures ----------------------------------------------------------------------------------

NO_JSON, TOO_LARGE = b'{"hook": ', b" " * 200_001
LACKING = changed(drop("prefetch.results"))
BROKEN = changed(drop("context.userId"))
REFUSED: list[tuple[int, str, bytes | Json, dict[str, str]]] = [
    (400, "structure", NO_JSON, {}),
    (412, "incomplete", LACKING, {}),
    (412, "incomplete", changed(drop("prefetch"), put("fhirServer", SERVER)), {}),
    (413, "too-long", TOO_LARGE, {}),
    (415, "not-supported", chart(), {"Content_Type": "text/plain"}),
    (422, "invalid", BROKEN, {}),
]


@requirement("EXT-01", "EXT-02", "RSP-01", "RSP-04")
@pytest.mark.parametrize(("status", "code", "body", "headers"), REFUSED)
def test_a_quiet_client_is_told_in_an_extension_what_others_are_told_as_an_error(
    hospital: Hospital, status: int, code: str, body: Any, headers: dict[str, str]
) -> None:
    loud = hospital.ask(STRICT, body, **headers)
    assert loud.status_code == status
    issue = loud.get_json()["issue"][0]
    reason = f"{issue['details']['text']} {issue.get('diagnostics', '')}".strip()

    quiet = hospital.ask(QUIET, body, **headers)

    assert quiet.status_code == 200 and quiet.mimetype == "application/json"
    why = {"status": status, "code": code, "reason": reason}
    assert quiet.get_json() == {"cards": [], "extension": {NOT_EVALUATED: why}}
    described = hospital.client.get("/openapi.json").get_json()
    answers = described["paths"][SERVICE]["post"]["responses"]["200"]["content"]
    schema = answers["application/json"]["schema"]
    assert holds(described, schema, quiet.get_json()) == []
    for spoilt in ({NOT_EVALUATED: {"status": 412}}, {"other": why}, {}):
        assert holds(described, schema, {"cards": [], "extension": spoilt}) != []


def test_the_answer_is_the_one_that_is_documented(hospital: Hospital) -> None:
    page = (ROOT / "docs" / "protocol.md").read_text("utf-8").partition("\n## Deviations\n")[2]
    [shown] = re.findall(r"```json\n(.*?)```", page, re.S)
    assert json.loads(shown) == hospital.ask(QUIET, LACKING).get_json()


@requirement("ERR-05")
def test_the_reason_names_the_keys_and_nothing_of_the_patient(hospital: Hospital) -> None:
    body = changed(drop("prefetch.results"), put("context.patientId", "Zyxmark"))
    body["prefetch"]["patient"] |= {"id": "Zyxmark", "name": [{"family": "Zyxmark"}]}
    answer = hospital.ask(QUIET, body)
    assert "alp" in answer.get_json()["extension"][NOT_EVALUATED]["reason"]
    assert "Zyxmark" not in answer.get_data(as_text=True)


def test_a_quiet_client_is_answered_as_any_other_where_nothing_failed(hospital: Hospital) -> None:
    for body, path in (
        (chart(), SERVICE),
        (chart(71, 68), SERVICE),
        (signing(), SIGN),
    ):
        told = [hospital.ask(x, body, path).get_json() for x in (STRICT, QUIET)]
        assert set(told[1]) == {"cards"} and violations(told[1]) == []
        assert cards_of(told[0]) == cards_of(told[1])


@requirement("SEC-10", "JWT-16", "REQ-15")
def test_who_calls_and_for_what_is_settled_loudly(hospital: Hospital) -> None:
    assert send(hospital.client, chart()).status_code == 401
    stale = hospital.token(QUIET, exp=int(hospital.at.timestamp()) - 61)
    assert send(hospital.client, NO_JSON, Authorization=f"Bearer {stale}").status_code == 401
    used = f"Bearer {hospital.token(QUIET)}"
    assert send(hospital.client, chart(), Authorization=used).status_code == 200
    assert send(hospital.client, NO_JSON, Authorization=used).status_code == 401
    assert hospital.ask(QUIET, chart(), "/cds-services/nothing").status_code == 404
    assert hospital.client.get(SERVICE).status_code == 401  # without a token


@pytest.mark.parametrize(
    ("path", "body", "status"),
    [
        (EXPLAIN, NO_JSON, 400),
        (EXPLAIN, BROKEN, 422),
        (f"{SERVICE}/feedback", NO_JSON, 400),
        (f"{SERVICE}/feedback", b'{"feedback": {}}', 422),
    ],
)
def test_only_calls_of_services_are_answered_quietly(
    hospital: Hospital, path: str, body: bytes | Json, status: int
) -> None:
    assert hospital.ask(QUIET, body, path).status_code == status


class Breaking:
    """A clock that fails once it has been looked at so often."""

    def __init__(self, at: datetime, times: int) -> None:
        self.at, self.left = at, times

    def __call__(self) -> datetime:
        self.left -= 1
        if self.left < 0:
            raise ValueError("Zyxmark")
        return self.at


def test_a_defect_is_kept_from_a_quiet_client_and_not_from_the_log(
    hospital: Hospital, caplog: pytest.LogCaptureFixture
) -> None:
    def told(issuer: str) -> Any:
        # Looked at twice for the token, of which the second is for the sweep.
        client: FlaskClient = create_app(
            hospital.settings, now=Breaking(hospital.at, 2)
        ).test_client()
        given = {"Authorization": f"Bearer {hospital.token(issuer)}"}
        return send(client, chart(), **given)

    assert told(STRICT).status_code == 500
    quiet = told(QUIET)
    assert quiet.status_code == 200
    why = quiet.get_json()["extension"][NOT_EVALUATED]
    assert (why["status"], why["code"]) == (500, "exception")
    defects = [vars(x)["error"] for x in caplog.records if x.msg == "defect"]
    assert "Zyxmark" not in json.dumps(why) and defects == ["ValueError"] * 2


def test_a_store_that_is_down_is_no_error_for_a_quiet_client(tmp_path: Path) -> None:
    here = Hospital(tmp_path, row(STRICT), row(QUIET, failures="quiet"))
    here.store.close()
    for file in tmp_path.glob("store.sqlite*"):
        file.unlink()
    assert here.ask(STRICT, chart()).status_code == 503
    why = here.ask(QUIET, chart()).get_json()["extension"][NOT_EVALUATED]
    assert (why["status"], why["code"]) == (503, "transient")
