"""What a call costs grows as its chart does, and no faster, whatever the chart is full of. It is
counted in steps of the interpreter, so that no machine decides.
"""

import json
import sys
import tracemalloc
from collections.abc import Callable
from functools import cache
from types import FrameType
from typing import Any

import pytest
from flask.testing import FlaskClient
from werkzeug.test import TestResponse

from bench.payloads import PATIENT, Size, chart
from cds_service.answering import Answering
from cds_service.app import create_app
from cds_service.call_record import CallRecord
from cds_service.config import Settings
from cds_service.deliveries import DEEPEST
from cds_service.errors import Overloaded
from cds_service.explanation import MOST_ASIDE
from cds_service.loading import load_content
from cds_service.resources import MOST_OBJECTS, CodeableConcept
from cds_service.terminology import LONGEST_READ
from tests.exchanges import (
    EXPLAIN,
    FIRES,
    SELECT,
    SERVICE,
    SIGN,
    TODAY,
    Json,
    as_bytes,
    draft,
    now,
    problem,
    request,
    selecting,
    send,
    signing,
)
from tests.invariants import cards_of

EHR = "https://ehr.example.org/fhir"
SUBJECT = {"reference": f"Patient/{PATIENT}"}


@cache
def answering() -> Answering:
    return Answering(load_content(Settings().hooks_dir), None, 1.0, now)


# -- charts that are full of one thing -------------------------------------------------------------


def readings(count: int, **changed: Any) -> list[Json]:
    """So many low ALPs, each changed alike."""
    _, results, _ = chart(Size("readings", count, 0, 0), True, TODAY)
    return [{**x, **changed} for x in results]


def readings_without_code(count: int) -> list[Json]:
    named = readings(count, code={"text": "Alkaline phosphatase"})
    return [*readings(4), *({**x, "id": f"n{n}"} for n, x in enumerate(named))]


def readings_beside_others(count: int) -> list[Json]:
    _, results, _ = chart(Size("both", count // 2, count // 2, 0), True, TODAY)
    return results


def problems(count: int, **code: Any) -> list[Json]:
    _, results, found = chart(Size("problems", 4, 0, count), True, TODAY)
    return [*results, *({**x, "code": code} if code else x for x in found)]


def drugs(count: int, text: str) -> list[Json]:
    _, results, _ = chart(Size("drugs", 4, 0, 0), True, TODAY)
    drug = {"resourceType": "MedicationRequest", "status": "active", "intent": "order"}
    named = {"subject": SUBJECT, "medicationCodeableConcept": {"text": text}}
    days = (f"{TODAY.year - 1 - n % 3}-{1 + n % 12:02}-15" for n in range(count))
    found = [drug | named | {"id": f"m{n}", "authoredOn": x} for n, x in enumerate(days)]
    return [*results, *found]


def drugs_by_reference(count: int) -> list[Json]:
    found = drugs(count, "")
    for drug in found[4:]:
        del drug["medicationCodeableConcept"]
        drug["medicationReference"] = {"reference": f"Medication/of-{drug['id']}"}
        named = {"resourceType": "Medication", "id": f"of-{drug['id']}"}
        found.append(named | {"code": {"text": "Alendronic acid 70 mg"}})
    return found


def orders(count: int) -> list[Json]:
    _, results, _ = chart(Size("orders", 4, 0, 0), True, TODAY)
    order = {"resourceType": "ServiceRequest", "status": "active", "intent": "order"}
    spep = {"code": {"coding": [{"system": "http://loinc.org", "code": "24351-9"}]}}
    found = order | spep | {"subject": SUBJECT, "authoredOn": str(TODAY)}
    return [*results, *({**found, "id": f"s{n}"} for n in range(count))]


def reports(count: int) -> list[Json]:
    _, results, _ = chart(Size("reports", 4, 0, 0), True, TODAY)
    report = {"resourceType": "DiagnosticReport", "status": "final", "subject": SUBJECT}
    said = {"code": {"text": "CT abdomen"}, "conclusion": "A lytic lesion of the iliac bone."}
    found = report | said | {"effectiveDateTime": str(TODAY)}
    return [*results, *({**found, "id": f"r{n}"} for n in range(count))]


def readings_and_crp(count: int) -> list[Json]:
    _, results, _ = chart(Size("both", count, 0, 0), True, TODAY)
    crp = {"coding": [{"system": "http://loinc.org", "code": "1988-5"}]}
    value = {"value": 1, "unit": "mg/L"}
    return [
        *results,
        *(x | {"id": f"c{x['id']}", "code": crp, "valueQuantity": value} for x in results),
    ]


def readings_and_stays(count: int) -> list[Json]:
    return [*readings(count), *stays(count)[4:]]


def stays(count: int) -> list[Json]:
    _, results, _ = chart(Size("stays", 4, 0, 0), True, TODAY)
    stay = {"resourceType": "Encounter", "status": "finished", "subject": SUBJECT}
    found = stay | {
        "class": {"code": "IMP"},
        "period": {"start": "2026-01-01", "end": "2026-01-09"},
    }
    return [*results, *({**found, "id": f"e{n}"} for n in range(count))]


FURLONGS = {"value": 29, "unit": "furlong"}
CHARTS: dict[str, Callable[[int], list[Json]]] = {
    "readings": readings,
    "readings beside others": readings_beside_others,
    "readings in an odd unit": lambda n: readings(n, valueQuantity=FURLONGS),
    "readings of somebody else": lambda n: readings(n, subject={"reference": "Patient/other"}),
    "readings of one day": lambda n: readings(n, effectiveDateTime=f"{TODAY}T08:00:00Z"),
    "readings without code": readings_without_code,
    "problems": problems,
    "myeloma": lambda n: problems(n, text="Multiple myeloma"),
    "bone pain": lambda n: problems(n, text="Bone pain in the back for weeks"),
    "alendronate": lambda n: drugs(n, "Alendronic acid 70 mg"),
    "metformin": lambda n: drugs(n, "Metformin 500 mg"),
    "drugs by reference": drugs_by_reference,
    "orders": orders,
    "reports": reports,
    "readings and CRP": readings_and_crp,
    "readings and stays": readings_and_stays,
    "stays": stays,
}


def body(resources: list[Json]) -> bytes:
    patient, _, _ = chart(Size("", 0, 0, 0), True, TODAY)
    kinds = dict.fromkeys(x["resourceType"] for x in resources)
    bundles = {
        kind: {
            "resourceType": "Bundle",
            "type": "searchset",
            "entry": [
                {"fullUrl": f"{EHR}/{kind}/{x['id']}", "resource": x}
                for x in resources
                if x["resourceType"] == kind
            ],
        }
        for kind in kinds
    }
    call = {
        "hook": "patient-view",
        "hookInstance": "d1577c69-dfbe-44ad-ba6d-3e05e953b2ea",
        "context": {"userId": "Practitioner/dr1", "patientId": PATIENT},
        "prefetch": {"patient": patient, **bundles},
    }
    return json.dumps(call).encode()


def diagnostics(answer: TestResponse) -> str:
    said: str = answer.get_json()["issue"][0].get("diagnostics", "")
    return said


# -- counting --------------------------------------------------------------------------------------


def steps(run: Callable[[], object]) -> int:
    """How many steps the interpreter makes for it."""
    found = 0

    def count(frame: FrameType, event: str, argument: object) -> Callable[..., Any]:
        nonlocal found
        frame.f_trace_opcodes = True
        found += event == "opcode"
        return count

    before = sys.gettrace()
    sys.settrace(count)
    try:
        run()
    finally:
        sys.settrace(before)
    return found


def drafted(count: int) -> bytes:
    """So many prescriptions about to be signed, each for a problem of its own."""
    prescriptions = [
        {**draft(n), "reasonReference": [{"reference": f"Condition/c{n}"}]} for n in range(count)
    ]
    call = signing(*prescriptions)
    for_them = [{"resource": problem(n, "69896004", "Gout")} for n in range(count)]
    call["prefetch"]["conditions"]["entry"] += for_them
    return as_bytes(call)


def selected(count: int) -> bytes:
    names = [f"MedicationRequest/d{n}" for n in range(count)]
    return as_bytes(selecting(*map(draft, range(count)), selections=names))


def unread_types(count: int) -> bytes:
    """So many values of a prefetch, each of another type that is not read."""
    call = json.loads(body(readings(4)))
    call["prefetch"] |= {f"k{n}": {"resourceType": spelled(n)} for n in range(count)}
    return as_bytes(call)


def spelled(number: int) -> str:
    return "".join(chr(ord("A") + int(x)) for x in str(number))


def viewing(resources: Callable[[int], list[Json]]) -> Callable[[int], bytes]:
    return lambda count: body(resources(count))


def service(path: str) -> str:
    return path.rpartition("/")[2]


CALLS: dict[str, tuple[str, Callable[[int], bytes]]] = {
    **{name: (service(SERVICE), viewing(resources)) for name, resources in CHARTS.items()},
    "types that are not read": (service(SERVICE), unread_types),
    "drafts": (service(SIGN), drafted),
    "selected drafts": (service(SELECT), selected),
}


@pytest.mark.parametrize("ask", ["cards", "explain"])
@pytest.mark.parametrize("full_of", CALLS)
def test_twice_as_much_of_one_thing_takes_no_more_than_twice_the_steps(
    full_of: str, ask: str
) -> None:
    asked, call = CALLS[full_of]

    def taken(count: int) -> int:
        sent = call(count)
        return steps(lambda: getattr(answering(), ask)(asked, sent))

    taken(60)  # what is made once for all calls
    few, some, many = (taken(x) for x in (60, 120, 240))
    # Twice as much more for twice as many more; what goes as the square takes four times as much.
    assert few < some < many
    assert many - some < 2.4 * (some - few)


ODD: dict[str, Json] = {
    "value": {"valueQuantity": {"value": "29", "unit": "U/L"}},
    "status": {"status": ["final"]},
    "subject": {"subject": f"Patient/{PATIENT}"},
    "code": {"code": {"coding": {"system": "http://loinc.org", "code": "6768-6"}}},
}


@pytest.mark.parametrize("element", ODD)
def test_an_odd_entry_takes_no_more_steps_than_ten_others(element: str) -> None:
    """Where one entry of an EHR is odd, all of them are."""

    def taken(count: int, **changed: Any) -> int:
        sent = body(readings(count, **changed))
        return steps(lambda: answering().cards(service(SERVICE), sent))

    def each(**changed: Any) -> int:
        return taken(120, **changed) - taken(60, **changed)

    each(), each(**ODD[element])  # what is made once for all calls
    assert each(**ODD[element]) < 10 * each()


# -- what only a hostile client sends: each once took minutes, or gigabytes ------------------------


def compact(call: Json, *, context: str = "", prefetch: str = "") -> bytes:
    """A call with members put before those of its context and of its prefetch."""
    text = json.dumps(call, separators=(",", ":"))
    text = text.replace('"context":{', f'"context":{{{context}', 1)
    return text.replace('"prefetch":{', f'"prefetch":{{{prefetch}', 1).encode()


def test_many_names_of_which_one_comes_twice_are_refused_for_it(client: FlaskClient) -> None:
    names = "".join(f'"x{n}":1,' for n in range(300_000))
    assert cards_of(send(client, compact(request(), context=names)).get_json()) == FIRES
    answer = send(client, compact(request(), context=f'{names}"x299999":1,'))
    assert (answer.status_code, diagnostics(answer)) == (400, "context has a name twice")


def test_many_values_of_a_prefetch_are_answered(client: FlaskClient) -> None:
    call = request()
    empty = {"resourceType": "Bundle", "type": "searchset", "id": "x" * 40}
    call["prefetch"] |= {f"k{n}": empty for n in range(100_000)}
    assert cards_of(send(client, call).get_json()) == FIRES


def test_values_that_begin_alike_are_told_apart(client: FlaskClient) -> None:
    entry = {"resource": {"resourceType": "Organization", "id": "x" * 40}}
    bundle = {"resourceType": "Bundle", "type": "searchset", "id": "x" * 40}
    call = request()
    alike = [[entry, n] for n in range(40_000)]
    call["prefetch"] |= {"a": bundle | {"entry": alike}, "b": [entry] * 150_000}
    assert cards_of(send(client, compact(call)).get_json()) == FIRES
    twice = send(client, compact(call, context='"userId":"x",'))
    assert diagnostics(twice) == "context has a name twice"


@pytest.mark.parametrize("path", [SERVICE, EXPLAIN])
@pytest.mark.parametrize("empty", ["{}", "[]"])
def test_more_objects_than_any_chart_has_are_too_large(
    client: FlaskClient, path: str, empty: str
) -> None:
    def sent(count: int) -> TestResponse:
        entries = ",".join([empty] * count)
        bundle = f'"many":{{"resourceType":"Bundle","entry":[{entries}]}},'
        return send(client, compact(request(), prefetch=bundle), path)

    others = sum(compact(request()).count(x) for x in (b"{", b"[")) + 2
    assert sent(MOST_OBJECTS - others).status_code == 200
    refused = sent(MOST_OBJECTS - others + 1)
    assert refused.status_code == 413
    assert "more objects and lists" in refused.get_json()["issue"][0]["details"]["text"]


def in_bundles(depth: int) -> bytes:
    bundle: Json = {"resourceType": "Bundle", "entry": []}
    bundle["entry"] = [{"resource": x} for x in readings(4)]
    for _ in range(depth):
        bundle = {"resourceType": "Bundle", "entry": [{"resource": bundle}]}
    call = json.loads(body([]))
    call["prefetch"]["results"] = bundle
    return as_bytes(call)


def test_bundles_are_read_in_so_many_others(client: FlaskClient) -> None:
    assert cards_of(send(client, in_bundles(DEEPEST)).get_json()) == FIRES
    for depth in (DEEPEST + 1, 300):
        deeper = send(client, in_bundles(depth), EXPLAIN).get_json()
        whys = {skipped["why"] for key in deeper["data"] for skipped in key["skipped"]}
        assert "in too many Bundles, not read" in whys


def test_what_a_bundle_in_bundles_was_read_from_is_not_kept() -> None:
    call = json.loads(in_bundles(DEEPEST))
    call["prefetch"]["results"]["text"] = "x"
    inner = call["prefetch"]["results"]
    while inner["entry"][0]["resource"]["resourceType"] == "Bundle":
        inner = inner["entry"][0]["resource"]
    inner["entry"] += [{"resource": {"resourceType": "Basic", "x": [{}] * 20_000}}]
    sent = as_bytes(call)
    tracemalloc.start()
    answering().cards("alp-review", sent)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 4 * 20_000 * 64 + 3 * len(sent)


@pytest.mark.parametrize(
    "said",
    [
        "1" * 300_000,
        "zoledron " * 30_000,
        "early loss " * 30_000,
        "lytic lesion familial " * 20_000,
    ],
)
def test_words_without_end_are_read_in_time(client: FlaskClient, said: str) -> None:
    call = signing()
    drug = draft() | {"dosageInstruction": [{"text": said, "route": {"text": said}}]}
    call["context"]["draftOrders"]["entry"] = [{"resource": drug}]
    call["prefetch"]["conditions"]["entry"] += [{"resource": problem(9, "x", said)}]
    report = {"resourceType": "DiagnosticReport", "id": "r", "status": "final", "subject": SUBJECT}
    report |= {"effectiveDateTime": "2026-11-01", "code": {"text": "CT"}, "conclusion": said}
    call["prefetch"]["reports"] = {"resourceType": "Bundle", "entry": [{"resource": report}]}
    steroid = draft(8, "Prednisone") | {"status": "active", "authoredOn": "2026-11-01"}
    steroid |= {"dosageInstruction": [{"text": said}]}
    call["prefetch"]["drugs"] = {"resourceType": "Bundle", "entry": [{"resource": steroid}]}
    assert send(client, call, SIGN).status_code == 200
    view = call | {"hook": "patient-view", "context": request()["context"]}
    assert send(client, view).status_code == 200


def test_a_draft_for_many_contained_reasons_is_read(client: FlaskClient) -> None:
    gout = {"resourceType": "Condition", "id": "a", "code": {"text": "Gout"}}
    many = {"contained": [gout] * 10_000, "reasonReference": [{"reference": "#a"}] * 10_000}
    assert send(client, signing(draft() | many), SIGN).status_code == 200


def test_an_endless_id_is_not_told_of_every_question(client: FlaskClient) -> None:
    call = request()
    for entry in call["prefetch"]["results"]["entry"]:
        entry["resource"]["id"] += "x" * 100_000
    answer = send(client, call, EXPLAIN)
    assert answer.status_code == 200
    assert len(answer.data) < 2 * len(as_bytes(call))


@pytest.mark.parametrize(
    ("odd", "keys"), [({"id": 5}, {"alp", "labs"}), ({"subject": {"reference": "Group/g"}}, {"*"})]
)
def test_what_was_skipped_is_listed_up_to_a_point(
    client: FlaskClient, odd: Json, keys: set[str]
) -> None:
    call = request()
    some = [{"resourceType": "Observation", "id": f"z{n}"} | odd for n in range(MOST_ASIDE + 7)]
    call["prefetch"]["results"]["entry"] += [{"resource": x} for x in some]
    rows = [x for x in send(client, call, EXPLAIN).get_json()["data"] if "unlisted" in x]
    assert {x["key"] for x in rows} == keys
    assert {(len(x["skipped"]), x["unlisted"]) for x in rows} == {(MOST_ASIDE, 7)}


def test_of_an_endless_name_the_beginning_is_read() -> None:
    terms = answering().content.families[0].knowledge.terminology
    blank = "x " * (LONGEST_READ // 2)
    known = CodeableConcept(text=f"bone pain {blank}")
    beyond = CodeableConcept(text=f"{blank}bone pain")
    assert terms.of_concept(known) and not terms.of_concept(beyond)


@pytest.mark.parametrize("ask", ["cards", "explain"])
@pytest.mark.parametrize(
    "full_of", [problems, lambda n: drugs(n, "Alendronic acid"), reports, orders]
)
def test_a_chart_is_read_no_longer_than_there_is_time_for_an_answer(
    full_of: Callable[[int], list[Json]], ask: str
) -> None:
    looked_at = 0

    class Late(CallRecord):
        """Whose time is over once so many entries were looked at."""

        def bound(self) -> Callable[[], None]:
            def go_on() -> None:
                nonlocal looked_at
                looked_at += 1
                if looked_at > 3:
                    raise Overloaded("late")

            return go_on

    with pytest.raises(Overloaded):
        getattr(answering(), ask)("alp-review", body(full_of(9)), Late())
    assert looked_at == 4


def test_a_chart_that_takes_too_long_is_a_503_and_one_that_came_late_is_none(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    late = create_app(Settings(open=True, answer_seconds=1e-9), now=now).test_client()
    monkeypatch.setattr("cds_service.call_record.LEAST_SECONDS", 60)
    assert send(late, request()).status_code == 200
    monkeypatch.setattr("cds_service.call_record.LEAST_SECONDS", 0)
    answer = send(late, request())
    assert answer.status_code == 503
    assert answer.headers["Retry-After"] == "1"
    text = answer.get_json()["issue"][0]["details"]["text"]
    assert text == "The server could not answer in time."
