"""The shipped code lists and order templates: valid FHIR, real codes, none of the known traps."""

import json
import re
from collections import Counter
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import pytest
from fhir.resources.R4B.activitydefinition import ActivityDefinition
from fhir.resources.R4B.valueset import ValueSet

SHARED = Path(__file__).resolve().parents[1] / "hooks" / "shared"
SETS = sorted(x.stem for x in (SHARED / "valuesets").glob("*.json"))
ORDERS = sorted(x.stem for x in (SHARED / "orders").glob("*.json"))
BASE = "https://alp-review.example"

LOINC, SNOMED = "http://loinc.org", "http://snomed.info/sct"
CM, WHO, ICD9 = (f"http://hl7.org/fhir/sid/{x}" for x in ("icd-10-cm", "icd-10", "icd-9-cm"))
RXNORM, ATC = "http://www.nlm.nih.gov/research/umls/rxnorm", "http://www.whocc.no/atc"
ICD = {CM, WHO, ICD9}
Check = Callable[[str], bool]
ORDER_MEMBERS = """resourceType id url version name title status experimental date publisher
description copyright kind intent code"""


@cache
def read(folder: str, name: str) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((SHARED / folder / f"{name}.json").read_text("utf-8"))
    return found


def parts(name: str, side: str) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = read("valuesets", name).get("compose", {}).get(side, [])
    return found


def listed(name: str, side: str = "include") -> list[tuple[str, str]]:
    return [(p["system"], c["code"]) for p in parts(name, side) for c in p.get("concept", [])]


def filters(name: str, side: str) -> list[tuple[str, str, str]]:
    return [
        (p["system"], f["op"], f["value"]) for p in parts(name, side) for f in p.get("filter", [])
    ]


def bare(system: str, code: str) -> str:
    return code.replace(".", "") if system in ICD else code


def on_side(name: str, side: str, system: str, code: str) -> bool:
    plain = bare(system, code)
    by_filter = (
        plain.startswith(bare(system, value)) if op == "is-a" else bool(re.search(value, plain))
        for where, op, value in filters(name, side)
        if where == system
    )
    return plain in {bare(s, c) for s, c in listed(name, side) if s == system} or any(by_filter)


def holds(name: str, system: str, code: str) -> bool:
    return on_side(name, "include", system, code) and not on_side(name, "exclude", system, code)


def extension(name: str, stem: str) -> str | None:
    url = f"{BASE}/StructureDefinition/{stem}"
    rows = read("valuesets", name).get("extension", [])
    return next((x["valueString"] for x in rows if x["url"] == url), None)


def mod_10(code: str) -> bool:
    """Whether a LOINC code (digits, hyphen, check digit) has the right check digit."""
    if not re.fullmatch(r"\d{1,7}-\d", code):
        return False
    body, check = code.split("-")
    doubled = [int(d) * (2 if i % 2 == 0 else 1) for i, d in enumerate(reversed(body))]
    return (10 - sum(d // 10 + d % 10 for d in doubled) % 10) % 10 == int(check)


def verhoeff(code: str) -> bool:
    """Whether a SNOMED CT identifier has the right length and check digit (dihedral group D5)."""
    check = 0
    for position, figure in enumerate(reversed(code)):
        digit = int(figure)
        for _ in range(position % 8):
            digit = (1, 5, 7, 6, 2, 8, 3, 0, 9, 4)[digit]
        turned = (check + digit if check < 5 else check - digit) % 5
        check = turned + 5 * ((check < 5) != (digit < 5))
    return check == 0 and re.fullmatch(r"[1-9]\d{5,17}", code) is not None


@pytest.mark.parametrize("name", SETS)
def test_every_value_set_is_valid_fhir_named_after_its_file_and_licensed(name: str) -> None:
    found = ValueSet.model_validate(read("valuesets", name))
    assert (found.id, found.url, found.status) == (name, f"{BASE}/ValueSet/{name}", "active")
    assert found.name == "".join(part[0].upper() + part[1:] for part in name.split("-"))
    assert found.title and found.description and found.version and found.date
    assert listed(name) or filters(name, "include") or extension(name, "text-pattern")
    note, systems = found.copyright or "", {s for s, _ in listed(name) + listed(name, "exclude")}
    assert (("LOINC" in note), ("SNOMED" in note)) == (LOINC in systems, SNOMED in systems)


@pytest.mark.parametrize("name", ORDERS)
def test_every_order_is_valid_fhir_with_one_loinc_code_and_computes_nothing(name: str) -> None:
    found = read("orders", name)
    valid = ActivityDefinition.model_validate(found)
    assert (valid.id, valid.url) == (name, f"{BASE}/ActivityDefinition/{name}")
    assert (valid.kind, valid.intent, valid.status) == ("ServiceRequest", "proposal", "active")
    assert list(found) == ORDER_MEMBERS.split()
    [coding] = found["code"]["coding"]
    assert coding["system"] == LOINC and mod_10(coding["code"]) and found["code"]["text"]
    assert found["title"].startswith("Order ") and len(found["title"]) <= 60
    assert "LOINC" in found["copyright"]


@pytest.mark.parametrize("name", SETS)
def test_every_code_passes_its_check_digit_and_stands_once(name: str) -> None:
    for side in ("include", "exclude"):
        codes = listed(name, side)
        assert [x for x in codes if x[0] == LOINC and not mod_10(x[1])] == []
        assert [x for x in codes if x[0] == SNOMED and not verhoeff(x[1])] == []
        rows = [(s, bare(s, c)) for s, c in codes] + filters(name, side)
        assert [row for row, times in Counter(rows).items() if times > 1] == []


@pytest.mark.parametrize(
    ("check", "right", "wrong"),
    [
        (mod_10, "6768-6", "6768-5 6678-6 7668-6 6768"),
        (verhoeff, "94222008", "94222009 92422008 94222080 98"),
        (verhoeff, "452291000124109", "452291000124108 542291000124109"),
    ],
)
def test_check_digits_notice_a_slip(check: Check, right: str, wrong: str) -> None:
    assert check(right) and not any(check(code) for code in wrong.split())


@pytest.mark.parametrize("name", SETS)
def test_filters_and_patterns_are_such_as_can_be_honoured(name: str) -> None:
    for side in ("include", "exclude"):
        for part in parts(name, side):
            # CPT may not be shipped, so the systems are a closed list.
            assert part["system"] in {LOINC, SNOMED, CM, WHO, ICD9, RXNORM, ATC}
            assert ("concept" in part) != ("filter" in part)
        for system, op, value in filters(name, side):
            assert system in (ICD | {ATC} if op == "is-a" else ICD)
            assert op in ("is-a", "regex") and (op == "is-a" or re.compile(value))
    for pattern in (extension(name, "text-pattern"), extension(name, "looks-like")):
        # Patterns are joined, so none may carry a global flag; none may match nothing at all.
        assert pattern is None or not re.search(f"(?:{pattern})|(?:{pattern})", "")


def test_a_code_has_one_display_everywhere_and_no_remark_in_it() -> None:
    seen: dict[tuple[str, str], set[str]] = {}
    groups = [p for n in SETS for side in ("include", "exclude") for p in parts(n, side)]
    groups += [{"system": LOINC, "concept": read("orders", n)["code"]["coding"]} for n in ORDERS]
    for part in groups:
        for concept in part.get("concept", []):
            seen.setdefault((part["system"], concept["code"]), set()).add(concept["display"])
    assert {k: v for k, v in seen.items() if len(v) > 1} == {}
    remark = re.compile(r" label\]|confirmed|recalled|duplicate|\((disorder|finding|procedure)\)")
    assert [d for displays in seen.values() for d in displays if remark.search(d)] == []


@pytest.mark.parametrize(
    ("names", "system", "codes"),
    [
        ("obs-alp-total", LOINC, "55971-6 6769-4 1777-2 1779-8"),  # cord, unclear, bone, liver
        ("obs-balp-mass", LOINC, "1777-2 15013-6"),  # other quantities
        ("obs-ggt", LOINC, "2325-9"),  # GGT/AST ratio
        ("obs-sflc obs-sflc-kappa obs-sflc-lambda", LOINC, "11050-2 11051-0"),  # total, not free
        ("obs-calcium-total", LOINC, "1995-0 1994-3"),  # ionised
        ("obs-plp-measured", LOINC, "2900-9"),  # pyridoxine
        ("obs-creatinine-only", LOINC, "33914-3 62238-1 98979-8"),  # filtration rates
        ("obs-igm", LOINC, "2465-3 2458-8"),
        ("img-bone", LOINC, "43518-0 83020-8 37365-4"),  # skeletal surveys
        ("cond-bone-metastasis", SNOMED, "314990009"),  # comes from bone
        ("cond-paget", SNOMED, "403946000 254727007 254898001 2985005"),  # skin, not bone
        ("cond-cancer-breast", CM, "D05.11 M88.9"),
        ("cond-severe-malnutrition", CM, "E46"),
        ("cond-fracture-nonunion", CM, "S72.001A S72.001P S72.001S M84.451S M84.45"),
        ("cond-hpp cond-ckd cond-ckd-4-5", SNOMED, "190859005 431857002"),  # no source found
        ("med-bisphosphonate", RXNORM, "11473 904420"),
        ("med-denosumab med-anabolic-bone", RXNORM, "993449 32915"),
        ("cond-cancer-solid", CM, "C44.90 C77.0 C78.7 C79.51 C7B.00 C80.1 D00.1 D05.10 D09.9"),
        ("cond-cancer-solid", WHO, "C44 C77.0 C78.7 C79.5 C80.9 D00.1 D05.1 D09.9"),
    ],
)
def test_a_trap_is_not_in_the_set(names: str, system: str, codes: str) -> None:
    assert [(n, c) for n in names.split() for c in codes.split() if holds(n, system, c)] == []


@pytest.mark.parametrize(
    ("name", "system", "codes"),
    [
        ("cond-myeloma-active", CM, "C90.01"),
        ("cond-myeloma-active", SNOMED, "94704006 413587002 440422002 441313008"),
        ("cond-path-fracture", CM, "M80.08XA M84.551S M84551S"),
        ("cond-path-fracture", WHO, "M80.9"),
        ("cond-fracture-recent", CM, "S72.001S S72001S M84.374S"),
        ("cond-hip-fracture", CM, "S72.001S S72.22XS"),
        ("cond-vertebral-fracture", CM, "M80.08XS M48.50XS"),
        ("cond-pregnancy", CM, "O00.101 O03.9 O08.9"),
        ("cond-paracetamol-overdose", CM, "T39.1X5A T39.1X6D"),
    ],
)
def test_what_ends_the_matching_is_excluded(name: str, system: str, codes: str) -> None:
    assert [x for x in codes.split() if not on_side(name, "exclude", system, x)] == []


def test_total_alp_is_exactly_the_three_codes_of_total_activity() -> None:
    assert listed("obs-alp-total") == [(LOINC, x) for x in ("6768-6", "1783-0", "77141-0")]


@pytest.mark.parametrize(
    ("name", "system", "codes"),
    [
        ("img-bone", LOINC, "39818-0 25031-6 46305-9 46358-8"),
        ("cond-bone-metastasis", CM, "C79.51 C7952"),
        ("cond-osteosarcoma", WHO, "C40.2 C41.9"),
        ("cond-leukaemia", ICD9, "208.91"),
        ("cond-path-fracture", CM, "M84.551A"),
        ("cond-fracture-recent", CM, "S72.001A S72.001D M80.08XA M84.374A"),
        ("cond-vertebral-fracture", CM, "M80.08XA M48.50XA"),
        ("cond-pregnancy", CM, "O24.410 O09.90 Z34.00 Z3A.20"),
        ("cond-paracetamol-overdose", CM, "T39.1X1A T39.1X2A T39.1X4S"),
        ("cond-fracture-nonunion", CM, "S72.001G S72.001H S72001J S72001K M84.30XM M84.451N"),
        ("cond-cancer-solid", CM, "C7A.010 C50.911 Z85.3"),
        ("cond-history-of-cancer", CM, "Z85.3 Z85.46"),
        ("med-bisphosphonate", ATC, "M05BA08"),
    ],
)
def test_what_belongs_to_a_set_is_in_it(name: str, system: str, codes: str) -> None:
    assert [code for code in codes.split() if not holds(name, system, code)] == []


@pytest.mark.parametrize("name", SETS)
def test_no_set_holds_a_code_that_means_almost_anything(name: str) -> None:
    vague = ("M89.9", "M89.8", "M89.8X9", "733.90", "E83.39", "E83.3", "275.3")
    assert [(s, c) for s in ICD for c in vague if on_side(name, "include", s, c)] == []


NOT_CONFIRMED = """24351-9 90991-1 24352-7 57778-3 77084-2 77085-9 5763-8 14955-9 5631-7 14665-4
1007-4 1006-6 5247-2 14236-4 31017-7 46128-5 82810-3 24325-3 24558-9"""


def test_a_code_whose_wording_was_not_confirmed_is_marked_wherever_it_stands() -> None:
    concepts = [c for n in SETS for p in parts(n, "include") for c in p.get("concept", [])]
    mark = {"url": f"{BASE}/StructureDefinition/verification", "valueCode": "component-only"}
    marked = {c["code"] for c in concepts if c.get("extension") == [mark]}
    assert marked == set(NOT_CONFIRMED.split())
    assert not (marked & {c["code"] for c in concepts if "extension" not in c})


@pytest.mark.parametrize(
    ("narrow", "wide"),
    [
        ("obs-sflc-ratio obs-sflc-kappa obs-sflc-lambda obs-sflc-panel", "obs-sflc"),
        ("obs-balp-mass obs-balp-activity obs-balp-fraction", "obs-balp"),
        ("cond-cancer-thyroid-melanoma", "cond-cancer-other-bonetropic"),
        ("cond-cancer-breast cond-cancer-prostate cond-cancer-kidney", "cond-cancer-solid"),
        ("cond-cancer-lung cond-cancer-other-bonetropic cond-osteosarcoma", "cond-cancer-solid"),
        ("med-bortezomib med-carfilzomib", "med-proteasome-inhibitor"),
    ],
)
def test_a_narrow_set_lies_within_the_wide_one(narrow: str, wide: str) -> None:
    for name in narrow.split():
        assert set(listed(name)) <= set(listed(wide))
        for system, _, value in filters(name, "include"):
            assert on_side(wide, "include", system, value)


OTHER_NAME = {
    **{"alp": "obs-alp-total", "cbc": "obs-cbc-panel", "creatinine": "obs-creatinine-only"},
    **{"alpl": "obs-alpl-gene", "pea": "obs-pea-urine", "serum-copper": "obs-copper"},
    **{x: "img-bone" for x in ("bone-scan", "wbldct", "wbmri")},
    "us-abdomen": "img-us-abdomen",
}


@pytest.mark.parametrize("name", ORDERS)
def test_the_code_an_order_asks_for_counts_as_its_result(name: str) -> None:
    [coding] = read("orders", name)["code"]["coding"]
    assert (LOINC, coding["code"]) in listed(OTHER_NAME.get(name, f"obs-{name}"))


@pytest.mark.parametrize(
    ("texts", "alike"),
    [
        ("Alkaline phosphatase|ALP|S-ALP|ALK PHOS|Alk. phos.|Hepatic panel: ALP", True),
        ("Bone alkaline phosphatase|Placental alkaline phosphatase|Leukocyte ALP|LAP (ALP)", False),
        ("Intestinal ALP|Neutrophil ALP|Urine ALP|Cord blood ALP|ALP isoenzymes|ALP liver", False),
        ("ALP fraction 2|ALP\nbone|ALPL gene|BALP|alpha-1 globulin|GGT", False),
    ],
)
def test_only_text_for_total_alp_looks_like_it(texts: str, alike: bool) -> None:
    pattern = re.compile(extension("obs-alp-total", "looks-like") or "(?!)", re.IGNORECASE)
    assert [x for x in texts.split("|") if bool(pattern.search(x)) != alike] == []
