"""What a site may change: each table works and is listed; a key that does not exist is refused."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from cds_service.answering import Answering
from cds_service.content import Content
from cds_service.errors import ContentError
from cds_service.loading import load_content
from tests.exchanges import EXPLAIN, Json, add, ago, bundle, changed, now, put, request

HOOKS = Path(__file__).resolve().parents[1] / "hooks"
SERVICE = EXPLAIN.rsplit("/", 1)[1]
LOCAL = "https://hospital.example/codes"
At = Callable[[str], Content]


@pytest.fixture
def at(tmp_path: Path) -> At:
    """The content under a site file."""

    def load(text: str) -> Content:
        site = tmp_path / "site.toml"
        site.write_text(text, "utf-8")
        return load_content(HOOKS, site)

    return load


def explained(content: Content, body: Json) -> Json:
    answering = Answering(content, None, 1.0, now)
    found: Json = answering.explain(SERVICE, json.dumps(body).encode())
    return found


def topics(content: Content, body: Json) -> list[str]:
    return [x["source"]["topic"]["code"] for x in explained(content, body)["cards"]]


def drafts(content: Content, body: Json) -> list[Json]:
    """The suggested orders of every card."""
    return [
        action["resource"]
        for card in explained(content, body)["cards"]
        for suggestion in card.get("suggestions", [])
        for action in suggestion["actions"]
    ]


def source(content: Content, body: Json, key: str) -> Json:
    found: Json = next(x for x in explained(content, body)["data"] if x["key"] == key)
    return found


def results(coding: Json | None, text: str) -> Json:
    """A request whose low ALP results carry one coding, or a text only."""
    body = request()
    for entry in body["prefetch"]["results"]["entry"][:4]:
        entry["resource"]["code"] = {"coding": [coding] if coding else [], "text": text}
    return body


def raised(*more: Json) -> Json:
    """A request with a raised ALP and no GGT."""
    body = request((260.0, 240.0))
    body["prefetch"]["mine"] = bundle(more)
    return body


def test_without_a_site_file_nothing_is_overridden() -> None:
    content = load_content(HOOKS)
    assert content.overrides == ()
    assert topics(content, request()) == ["lowAlpPersistent"]
    assert topics(content, raised()) == ["raisedAlpSourceUnknown"]


def test_an_empty_site_file_changes_nothing_but_the_hash(at: At) -> None:
    content = at("")
    assert content.overrides == ()
    assert topics(content, request()) == ["lowAlpPersistent"]


# -- each table --------------------------------------------------------------------------------


def test_a_prefetch_key_of_the_site_answers_ours(at: At) -> None:
    plain, site = load_content(HOOKS), at('[prefetch]\nresults = "alp"\n')
    empty = changed(put("prefetch.results", {"resourceType": "Bundle", "type": "searchset"}))
    assert source(plain, request(), "alp")["by"] == "inferred"
    assert source(site, request(), "alp")["by"] == "prefetch"
    assert explained(plain, empty)["status"] == 412
    assert explained(site, empty)["status"] == 200


def test_our_own_prefetch_key_still_answers_beside_the_site_s(at: At) -> None:
    body = request()
    body["prefetch"]["alp"] = body["prefetch"].pop("results")
    assert topics(at('[prefetch]\nresults = "alp"\n'), body) == ["lowAlpPersistent"]


def test_a_local_laboratory_code_is_read_and_asked_for(at: At) -> None:
    body = results({"system": LOCAL, "code": "AP-7"}, "AP")
    assert explained(load_content(HOOKS), body)["status"] == 412
    site = at(f'[codes.obs-alp-total]\ncodings = [{{ system = "{LOCAL}", code = "AP-7" }}]\n')
    assert topics(site, body) == ["lowAlpPersistent"]
    templates = {x.name: x.template for x in site.families[0].keys.keys}
    assert "hospital.example/codes%7CAP-7" in templates["alp"]
    assert "AP-7" not in templates["labs"]


def test_a_local_laboratory_text_is_read(at: At) -> None:
    body = results(None, "AP (Serum)")
    assert explained(load_content(HOOKS), body)["status"] == 412
    assert topics(at('[codes.obs-alp-total]\ntexts = ["AP (Serum)"]\n'), body) == [
        "lowAlpPersistent"
    ]


CONDITION: Json = {
    "resourceType": "Condition",
    "id": "x",
    "subject": {"reference": "Patient/p1"},
    "recordedDate": ago(2000),
}
DRUG: Json = {
    "resourceType": "MedicationRequest",
    "id": "m",
    "status": "active",
    "intent": "order",
    "subject": {"reference": "Patient/p1"},
    "authoredOn": ago(900),
}


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("Morbus Rathbun", "Morbus Rathbun"),
        ("HPP (adult)", "HPP (adult), seen by genetics"),
        ("Dx. 17", "Dx. 17"),
        ("ALPL+", "ALPL+"),
    ],
)
def test_a_local_text_for_a_diagnosis_is_read_as_it_stands(at: At, text: str, said: str) -> None:
    known = {**CONDITION, "code": {"text": said}}
    body = changed(add("prefetch.conditions.entry", {"resource": known}))
    assert topics(load_content(HOOKS), body) == ["lowAlpPersistent"]
    assert topics(at(f'[codes.cond-hpp]\ntexts = ["{text}"]\n'), body) == []


def test_a_local_text_matches_whole_words_and_no_negated_ones(at: At) -> None:
    site = at('[codes.cond-hpp]\ntexts = ["HPP"]\n')
    for said, expected in (("HPP", []), ("No HPP", ["lowAlpPersistent"]), ("HPPD", None)):
        known = {**CONDITION, "code": {"text": said}}
        body = changed(add("prefetch.conditions.entry", {"resource": known}))
        assert topics(site, body) == (["lowAlpPersistent"] if expected is None else expected)


def test_what_ships_is_still_recognised_beside_local_codes_and_texts(at: At) -> None:
    site = at(
        f'[codes.cond-hpp]\ntexts = ["HPP"]\ncodings = [{{ system = "{LOCAL}", code = "1" }}]'
    )
    for code in (
        {"text": "Adult hypophosphatasia"},
        {"coding": [{"system": "http://snomed.info/sct", "code": "20756002"}]},
        {"coding": [{"system": LOCAL, "code": "1"}]},
    ):
        known = {**CONDITION, "code": code}
        assert topics(site, changed(add("prefetch.conditions.entry", {"resource": known}))) == []


def test_a_local_drug_code_is_read(at: At) -> None:
    drug = {**DRUG, "medicationCodeableConcept": {"coding": [{"system": LOCAL, "code": "F70"}]}}
    body = changed(put("prefetch.drugs", bundle([drug])))
    assert topics(load_content(HOOKS), body) == ["lowAlpPersistent"]
    site = at(f'[codes.med-bisphosphonate]\ncodings = [{{ system = "{LOCAL}", code = "F70" }}]\n')
    assert topics(site, body) == []


def test_an_order_is_drafted_with_the_site_s_codings(at: At) -> None:
    site = at(f'[orders.ggt]\ncodings = [{{ system = "{LOCAL}", code = "LAB9" }}]\ntext = "GGT, s"')
    [plain] = drafts(load_content(HOOKS), raised())
    assert plain["code"]["coding"][0]["system"] == "http://loinc.org"
    [draft] = drafts(site, raised())
    assert draft["code"] == {"coding": [{"system": LOCAL, "code": "LAB9"}], "text": "GGT, s"}


@pytest.mark.parametrize(
    ("system", "code"),
    [(LOCAL, "LAB9"), ("urn:oid:2.16.840.1.113883.6.1", "99999-9")],
)
def test_an_order_placed_with_the_site_s_coding_is_on_order(at: At, system: str, code: str) -> None:
    placed = {
        "resourceType": "ServiceRequest",
        "id": "s",
        "status": "active",
        "intent": "order",
        "authoredOn": ago(3),
        "subject": {"reference": "Patient/p1"},
        "code": {"coding": [{"system": system, "code": code}]},
    }
    site = at(f'[orders.ggt]\ncodings = [{{ system = "{system}", code = "{code}" }}]\n')
    assert topics(load_content(HOOKS), raised(placed)) == ["raisedAlpSourceUnknown"]
    assert topics(site, raised(placed)) == []


def test_an_order_that_is_not_orderable_here_is_no_suggestion(at: At) -> None:
    all_of_them = [x["id"] for x in drafts(load_content(HOOKS), request())]
    fewer = [x["id"] for x in drafts(at("[orders]\nmagnesium = false\n"), request())]
    assert fewer == [x for x in all_of_them if "magnesium" not in x] != all_of_them
    assert drafts(at("[orders]\nggt = false\n"), raised()) == []


@pytest.mark.parametrize(
    ("values", "offered"),
    [((29, 29, 34, 34), True), ((29, 34, 34, 34), False), ((29, 30, 30, 30), False)],
)
def test_without_a_plp_test_the_gene_test_is_offered_from_two_clearly_low_readings(
    at: At, values: tuple[float, ...], offered: bool
) -> None:
    body = request(values)
    for entry in body["prefetch"]["results"]["entry"]:
        if entry["resource"].get("valueQuantity", {}).get("unit") == "U/L":
            limits = {"low": {"value": 35, "unit": "U/L"}, "high": {"value": 104, "unit": "U/L"}}
            entry["resource"]["referenceRange"] = [limits]
    here = [x["id"] for x in drafts(at("[orders]\nplp = false\n"), body)]
    assert here and any("alpl" in x for x in here) is offered
    assert not any("alpl" in x["id"] for x in drafts(load_content(HOOKS), body))


@pytest.mark.parametrize(
    ("name", "most", "more"),
    [
        ("repeat_after", "73050", "73051"),
        ("infant_age", "73050", "1e9"),
        ("adult_age", "200", "201"),
    ],
)
def test_no_limit_is_longer_than_200_years(at: At, name: str, most: str, more: str) -> None:
    assert explained(at(f"[limits]\n{name} = {most}\n"), request())["status"] == 200
    with pytest.raises(ContentError, match=rf"limits\.{name}: must be at most {most}"):
        at(f"[limits]\n{name} = {more}\n")


@pytest.mark.parametrize("five", ["5", '{ value = 5, unit = "1" }'])
def test_a_limit_of_the_site_moves_cards(at: At, five: str) -> None:
    assert topics(at(f"[limits]\nfewest_low_readings = {five}\n"), request()) == []
    assert topics(at("[limits]\nfewest_low_readings = 4\n"), request()) == ["lowAlpPersistent"]


@pytest.mark.parametrize("mode", ["shadow", "off"])
def test_a_mode_of_the_site_holds_a_topic_back(at: At, mode: str) -> None:
    found = explained(at(f'[modes]\nlowAlpPersistent = "{mode}"\n'), request())
    [verdict] = [x for x in found["verdicts"] if x["topic"] == "lowAlpPersistent"]
    assert found["cards"] == []
    assert (verdict["verdict"], verdict["by"]) == ("suppressed", mode)


def test_what_the_command_line_asks_for_wins_over_the_site(tmp_path: Path) -> None:
    site = tmp_path / "site.toml"
    site.write_text('[modes]\nlowAlpPersistent = "off"\n')
    content = load_content(HOOKS, site, {"lowAlpPersistent": "on"})
    assert topics(content, request()) == ["lowAlpPersistent"]


def test_a_label_of_the_site_is_on_the_button_and_in_the_action(at: At) -> None:
    found = explained(at('[labels]\nggt = "Order gamma-GT"\n'), raised())
    [suggestion] = found["cards"][0]["suggestions"]
    assert suggestion["label"] == suggestion["actions"][0]["description"] == "Order gamma-GT"


@pytest.mark.parametrize(
    ("zone", "day"),
    [("Pacific/Kiritimati", "2026-11-25"), ("UTC", "2026-11-24"), ("Etc/GMT+12", "2026-11-24")],
)
def test_today_is_the_day_at_the_site(at: At, zone: str, day: str) -> None:
    assert explained(at(f'time_zone = "{zone}"\n'), request())["asOf"] == day


# -- each is listed ----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "key", "shipped", "here"),
    [
        ('[prefetch]\nresults = "alp"', "prefetch.results", "no key of ours", "alp"),
        (
            f'[codes.obs-ggt]\ntexts = ["a"]\ncodings = [{{ system = "{LOCAL}", code = "1" }}]',
            "codes.obs-ggt",
            "1 code",
            f'as shipped and {LOCAL}|1, "a"',
        ),
        ("[orders]\nggt = false", "orders.ggt", "orderable", "not orderable here"),
        (
            f'[orders.ggt]\ncodings = [{{ system = "{LOCAL}", code = "LAB9" }}]',
            "orders.ggt",
            "http://loinc.org|2324-2",
            f"{LOCAL}|LAB9",
        ),
        ("[limits]\nlow_cap = 41.5", "limits.low_cap", "40 U/L", "41.5 U/L"),
        ("[limits]\nfewest_low_readings = 3", "limits.fewest_low_readings", "2", "3"),
        ("[limits]\nrepeat_after = 45", "limits.repeat_after", "30 d", "45 d"),
        ('[modes]\nlowAlpPersistent = "off"', "modes.lowAlpPersistent", "on", "off"),
        (
            '[modes]\nantiresorptiveWithHypophosphatasia = "off"',
            "modes.antiresorptiveWithHypophosphatasia",
            "on",
            "off",
        ),
        (
            '[labels]\nggt = "Gamma-GT"',
            "labels.ggt",
            "Order GGT (gamma-glutamyl transferase)",
            "Gamma-GT",
        ),
        ('time_zone = "Europe/Berlin"', "time_zone", "UTC", "Europe/Berlin"),
    ],
)
def test_each_override_is_listed_once_beside_the_shipped_value(
    at: At, text: str, key: str, shipped: str, here: str
) -> None:
    found = [(x.key, x.shipped, x.here) for x in at(text + "\n").overrides]
    assert found == [(key, shipped, here)]


# -- and what does not exist is refused --------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "key"),
    [
        ("colour = 1", "colour"),
        ("[topics]\nlowAlpPersistent = 1", "topics"),
        ('time_zone = "Mars/Olympus"', "time_zone"),
        ('time_zone = "../etc/passwd"', "time_zone"),
        ("time_zone = 1", "time_zone"),
        ('[prefetch]\nresults = "alps"', "prefetch.results"),
        ("[prefetch]\nresults = 1", "prefetch"),
        ('[codes.obs-ap]\ntexts = ["a"]', "codes.obs-ap"),
        ('[codes.obs-alp-total]\ntext = ["a"]', "codes.obs-alp-total"),
        ('[codes.obs-alp-total]\ntexts = "a"', "codes"),
        ('[codes.obs-alp-total]\ntexts = [""]', "codes.obs-alp-total"),
        ('[codes.obs-alp-total]\ncodings = [{ code = "a" }]', "codes.obs-alp-total"),
        ('[codes.obs-alp-total]\ncodings = ["a"]', "codes.obs-alp-total"),
        (
            '[codes.obs-alp-total]\ncodings = [{ system = "a", code = "b", colour = "c" }]',
            "codes.obs-alp-total",
        ),
        ("[orders]\nmarrow = false", "orders.marrow"),
        ('[orders]\nggt = "no"', "orders.ggt"),
        ("[orders]\nggt = 0", "orders.ggt"),
        ("[orders]\nggt = true", "orders.ggt: must be false"),
        ("[limit]\nlow_cap = 41", "limit: is no key of this file; did you mean limits?"),
        ("colour = 1", "there are prefetch, codes, orders, limits, modes, labels, time_zone"),
        ("[limits]\nvery_loww = 20", "did you mean very_low?"),
        ("[limits]\nxyzzy = 20", "limits.xyzzy: does not exist in the content"),
        ('[labels]\nggtt = "GGT"', "did you mean ggt?"),
        ('[codes.obs-gtt]\ntexts = ["a"]', "did you mean obs-ggt?"),
        ('[prefetch]\nresults = "lab"', "did you mean labs?"),
        ("[orders.ggt]\ncodings = []", "orders.ggt"),
        ('[orders.ggt]\ncodings = [{ system = "a" }]', "orders.ggt"),
        ('[orders.ggt]\ntext = "GGT"', "orders.ggt"),
        (
            '[orders.ggt]\ncolour = 1\ncodings = [{ system = "a", code = "b" }]',
            "orders.ggt",
        ),
        ('[orders.ggt]\ntext = 1\ncodings = [{ system = "a", code = "b" }]', "orders.ggt"),
        ('[orders.ggt]\ncodings = [{ system = "a", code = 7 }]', "orders.ggt"),
        ("[limits]\nlow_kap = 41", "limits.low_kap"),
        ('[limits]\nlow_cap = "41"', "limits.low_cap"),
        ("[limits]\nlow_cap = true", "limits.low_cap"),
        ("[limits]\nlow_cap = [41]", "limits.low_cap"),
        ("[limits]\nlow_cap = nan", "limits.low_cap"),
        ("[limits]\nlow_cap = inf", "limits.low_cap"),
        ("[limits]\nlow_cap = -41", "limits.low_cap"),
        ("[limits]\nlow_cap = { value = 0.7 }", "limits.low_cap"),
        ('[limits]\nlow_cap = { value = 0.7, unit = "ukat/L" }', "limits.low_cap"),
        ('[limits]\nlow_cap = { value = 41, unit = "U/L", colour = 1 }', "limits.low_cap"),
        ('[modes]\nlowAlp = "off"', "modes.lowAlp"),
        ('[modes]\nlowAlpPersistent = "loud"', "modes"),
        ('[labels]\nmarrow = "Order marrow"', "labels.marrow"),
        ("[labels]\nggt = 1", "labels"),
        ("[labels]\nggt = ", ""),
        ("\ufeff[labels", ""),
    ],
)
def test_what_does_not_exist_or_does_not_fit_is_refused_by_name(
    at: At, text: str, key: str
) -> None:
    with pytest.raises(ContentError) as refused:
        at(text + "\n")
    found: Any = refused.value
    assert found.file == "site.toml"
    assert key in f"{found.key}: {found.why}"


def test_a_site_may_not_be_asked_for_a_topic_that_does_not_exist() -> None:
    with pytest.raises(ContentError, match=r"lowAlpPersist: .* mean lowAlpPersistent\?"):
        load_content(HOOKS, None, {"lowAlpPersist": "off"})
