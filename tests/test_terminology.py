"""Which sets a coded concept or a text belongs to: how matching works, and the shipped lists."""

import json
import shutil
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pytest

from cds_service.loading import load_content
from cds_service.resources import CodeableConcept, Coding
from cds_service.terminology import Terminology

HOOKS = Path(__file__).resolve().parents[1] / "hooks"
SYSTEMS = {
    "loinc": "http://loinc.org",
    "sct": "http://snomed.info/sct",
    "cm": "http://hl7.org/fhir/sid/icd-10-cm",
    "who": "http://hl7.org/fhir/sid/icd-10",
    "icd9": "http://hl7.org/fhir/sid/icd-9-cm",
    "rxnorm": "http://www.nlm.nih.gov/research/umls/rxnorm",
    "atc": "http://www.whocc.no/atc",
    "local": "https://hospital.example/codes",
}
TEXT_PATTERN = "https://alp-review.example/StructureDefinition/text-pattern"
NOT_A_CUE = "https://alp-review.example/StructureDefinition/not-a-negation"


def concept(text: str | None = None, *codings: str) -> CodeableConcept:
    """A concept of codings written as "system code display"."""
    rows = [x.split(" ", 2) for x in codings]
    coded = [
        Coding(SYSTEMS.get(x[0], x[0]), x[1] or None, x[2] if len(x) > 2 else None) for x in rows
    ]
    return CodeableConcept(coding=coded, text=text)


# -- how matching works ------------------------------------------------------------------------


def _concepts(name: str, *codes: str) -> dict[str, Any]:
    return {"system": SYSTEMS[name], "concept": [{"code": x, "display": x} for x in codes]}


def _filter(name: str, op: str, value: str) -> dict[str, Any]:
    rule = {"property": "concept", "op": op, "value": value}
    return {"system": SYSTEMS[name], "filter": [rule]}


def made(name: str, pattern: str, cue: str = "", **compose: Any) -> dict[str, Any]:
    extension = [{"url": TEXT_PATTERN, "valueString": pattern}]
    if cue:
        extension.append({"url": NOT_A_CUE, "valueString": cue})
    about = {"url": f"https://x/{name}", "version": "1", "title": name, "status": "active"}
    return {
        "resourceType": "ValueSet",
        "id": name,
        "extension": extension,
        "compose": compose,
        **about,
    }


STONE = made(
    "stone",
    r"\bkidney stones?\b",
    include=[
        _concepts("sct", "111", "444"),
        _concepts("rxnorm", "55"),
        _concepts("cm", "N20.0"),
        _concepts("who", "N20.1"),
        _concepts("icd9", "592.0"),
        _filter("cm", "is-a", "S37.0"),
        _filter("atc", "is-a", "G04BC"),
    ],
    exclude=[
        _concepts("sct", "222"),
        _filter("cm", "is-a", "N20.9"),
        _filter("cm", "regex", "^.{6}S$"),
    ],
)
FAMILY = made("family-stone", r"\bfamily history\b.*\bkidney stones?\b", "family history")
ABSENCE = made("no-stone", r"\bno kidney stone\b", "*")


@cache
def stones() -> Terminology:
    """The shipped lists beside one for stones and two that are text only."""
    with TemporaryDirectory() as folder:
        here = Path(folder) / "hooks"
        shutil.copytree(HOOKS, here, ignore=shutil.ignore_patterns("__pycache__"))
        for one in (STONE, FAMILY, ABSENCE):
            (here / "shared" / "valuesets" / f"{one['id']}.json").write_text(json.dumps(one))
        return load_content(here).families[0].knowledge.terminology


def of_stones(text: str) -> set[str]:
    return {"stone", "family-stone", "no-stone"} & stones().of_concept(concept(text))


def is_stone(text: str | None = None, *codings: str) -> bool:
    return "stone" in stones().of_concept(concept(text, *codings))


@pytest.mark.parametrize(
    ("coding", "expected"),
    [
        ("sct 111", True),
        ("sct 112", False),
        ("sct 1110", False),  # no prefixes of SNOMED CT
        ("rxnorm 55", True),
        ("rxnorm 551", False),
        ("loinc 111", False),
        ("local 111", False),
        ("SCT 111", False),
        ("cm N20.0", True),
        ("cm N200", True),
        ("cm n20.0", True),
        ("cm N20.00", False),  # listed, not a prefix
        ("who N20.0", False),
        ("who N201", True),
        ("icd9 5920", True),
        ("cm S37.0", True),
        ("cm S37.001A", True),
        ("cm s37001a", True),
        ("cm S37.1", False),
        ("who S37.0", False),
        ("atc G04BC", True),
        ("atc G04BC01", True),
        ("atc G04B", False),
        ("atc g04bc01", False),
        ("sct 1.11", False),  # dots and case are the ICD's only
    ],
)
def test_a_code_matches_when_listed_or_under_a_prefix_of_its_own_system(
    coding: str, expected: bool
) -> None:
    assert is_stone(None, coding) is expected
    assert ("stone" in stones().of_code(concept(None, coding))) is expected


@pytest.mark.parametrize(
    ("oid", "coding"),
    [
        ("6.96", "111"),
        ("6.90", "N20.0"),
        ("6.90", "S37001A"),
        ("6.3", "N20.1"),
        ("6.103", "592.0"),
        ("6.88", "55"),
        ("6.73", "G04BC01"),
    ],
)
@pytest.mark.parametrize("form", ["urn:oid:2.16.840.1.113883.", "2.16.840.1.113883."])
def test_a_system_given_as_oid_is_the_same_system(form: str, oid: str, coding: str) -> None:
    assert is_stone(None, f"{form}{oid} {coding}")
    assert not is_stone(None, f"{form}6.999 {coding}")


def test_loinc_by_oid_is_loinc() -> None:
    terms = terminology()
    assert "obs-alp-total" in terms.of_code(concept(None, "urn:oid:2.16.840.1.113883.6.1 6768-6"))


@pytest.mark.parametrize(
    ("text", "codings", "expected"),
    [
        ("No kidney stone", ("sct 111",), True),  # a code that matches decides
        ("Kidney stone", ("sct 999",), True),
        ("Kidney stone", ("local 7 Nephrolith",), True),
        (None, ("local 7 Kidney stone",), True),
        (None, ("sct 999 Other", "cm Z99 Kidney stones"), True),
        ("Nephrolith", ("sct 999 Kidney stone",), True),
        ("Nephrolith", ("sct 999",), False),
        (None, (" 111 Kidney stone",), True),  # no system
        (None, ("sct  Kidney stone",), True),  # no code
        # What is excluded ends the matching: text is not tried.
        ("Kidney stone", ("sct 222 Kidney stone",), False),
        ("Kidney stone", ("cm N20.9",), False),
        ("Kidney stone", ("cm N20.91",), False),
        (None, ("cm S37.001S",), False),
        (None, ("cm s37001s Kidney stone",), False),
        ("Kidney stone", ("cm S37.001S",), False),
        (None, ("cm S37.00S",), True),  # S in the sixth place
        # Each display and the text are sentences of their own.
        ("No kidney stone", ("sct 999 Kidney stone",), True),
        ("Kidney", ("sct 999 stone",), False),
        ("no", ("sct 999 Kidney stone",), True),
        ("Kidney stone", ("sct 999 No",), True),
        ("", (), False),
        (None, (), False),
    ],
)
def test_a_coding_decides_first_and_text_only_where_none_matches(
    text: str | None, codings: tuple[str, ...], expected: bool
) -> None:
    assert is_stone(text, *codings) is expected


def test_no_concept_belongs_to_no_set() -> None:
    assert stones().of_concept(None) == stones().of_code(None) == frozenset()


NEGATED = """no none not without absent denies excluded unlikely|negative for|absence of|rule out
    |ruled out|family history|r/o|?|family history of|NO|Ruled Out"""


@pytest.mark.parametrize(
    "words",
    [*NEGATED.split("|")[0].split(), *(x.strip() for x in NEGATED.split("|")[1:])],
)
def test_a_sentence_with_a_negation_anywhere_in_it_says_nothing(words: str) -> None:
    for text in (
        f"{words} kidney stone",
        f"Kidney stone {words}",
        f"A kidney stone: {words}, pain",
    ):
        assert not is_stone(text), text
        assert is_stone(f"{words}. Kidney stone"), text


@pytest.mark.parametrize(
    "words",
    [
        *("nodular", "knot", "notable", "nonetheless", "noted", "absently", "denied access to"),
        *("negative", "positive for", "ruling out", "history of", "familial", "inconclusive"),
        *("Norwegian", "r o", "ro", "likely", "exclusive"),
    ],
)
def test_only_whole_words_negate(words: str) -> None:
    assert is_stone(f"{words} kidney stone")


@pytest.mark.parametrize("end", [". ", ".", "; ", ";", "\n", "\r\n", " but ", " But "])
def test_a_negation_reaches_to_the_end_of_its_sentence(end: str) -> None:
    assert is_stone(f"No fever{end}kidney stone")
    assert is_stone(f"Kidney stone{end}no fever")
    assert not is_stone(f"No fever{end}no kidney stone")


@pytest.mark.parametrize("end", [", ", ": ", " and ", " butter ", " - ", "\t"])
def test_nothing_else_ends_a_sentence(end: str) -> None:
    assert not is_stone(f"No fever{end}kidney stone")


@pytest.mark.parametrize(
    "phrase",
    [
        "not having achieved remission",
        "not intractable",
        "without coma",
        "without status epilepticus",
        "without current pathological fracture",
    ],
)
def test_a_phrase_of_the_icd_is_no_negation(phrase: str) -> None:
    for said in (phrase, phrase.upper()):
        assert is_stone(f"Kidney stone {said}")
        assert is_stone(f"Kidney stone, {said}, with fever")
        assert not is_stone(f"Kidney stone {said}, without fever")
    assert not is_stone("Kidney stone, without pathological fracture")


def test_a_set_may_say_that_a_cue_is_part_of_what_it_looks_for() -> None:
    assert of_stones("Family history of kidney stones") == {"family-stone"}
    assert of_stones("No kidney stone") == {"no-stone"}
    assert of_stones("No family history of kidney stones") == set()


@pytest.mark.parametrize("mark", [*"\u200b\u200c\u200d\u200e\u200f\u2060\ufeff\u00ad"])
def test_a_character_without_width_hides_neither_a_word_nor_a_negation(mark: str) -> None:
    assert is_stone(f"kid{mark}ney{mark} st{mark}one")
    assert not is_stone(f"n{mark}o kidney stone")
    assert is_stone(None, f"local 7 Kidney{mark} stone")


@pytest.mark.parametrize("blank", ["  ", "\t", "\u00a0", "\u2009", "\u202f", " \u00a0 "])
def test_any_blank_between_words_is_a_blank(blank: str) -> None:
    assert is_stone(f"kidney{blank}stone")
    assert not is_stone(f"kidney stone ruled{blank}out")
    assert is_stone(f"kidney stone, not{blank}intractable")


# -- the shipped lists -------------------------------------------------------------------------


@cache
def terminology() -> Terminology:
    return load_content(HOOKS).families[0].knowledge.terminology


def test_a_code_is_in_the_sets_that_say_so_each_for_itself() -> None:
    """Whatever way they are found by."""
    every = terminology().sets.values()
    listed = {x for one in every for x in (*one.codes, *one.not_codes)}
    listed |= {x for one in every for x in (*one.prefixes, *one.not_prefixes)}
    near = [(system, code) for system, x in listed for code in (x, f"{x}1", x[:-1]) if code]
    assert len(near) > 2000
    for system, code in near:
        excluded = {x.name for x in every if x.excludes(system, code)}
        included = {x.name for x in every if x.includes(system, code)}
        coded = CodeableConcept(coding=[Coding(system=system, code=code)])
        assert terminology().of_concept(coded) == included - excluded


def row(said: str) -> CodeableConcept:
    """ "cm M89.9 'text'" or "'text'": a coding, a text, or both."""
    coding, _, text = said.strip().partition("'")
    return concept(text.rstrip("'") or None, *([coding.strip()] if coding else []))


# Concepts | the sets each belongs to | sets that none belongs to.
TRAPS = """
# 1. low phosphatase is not low phosphate
cm E83.39 'Other disorders of phosphorus metabolism'; cm E83.39 'Hypophosphatemia' || cond-hpp
who E83.3 'Hypophosphataemia'; icd9 275.3; 'X-linked hypophosphataemia' || cond-hpp
cm E83.39 'Hypophosphatasia'; icd9 275.3 'Adult hypophosphatasia' | cond-hpp |
# 2. Paget is also skin
sct 2089002; cm M88.1; who M88; icd9 731.0; 'Paget's disease of the bone' | cond-paget |
sct 403946000 'Paget disease of nipple'; sct 254898001 'Vulval Paget disease' || cond-paget
sct 254727007 'Extramammary Paget disease'; 'Paget'; 'Paget disease' || cond-paget
# 3. every code of hypophosphatasia that a source confirms, and what is not the disease
sct 360792001; sct 20756002; sct 30174008; sct 55236002; sct 70848009 | cond-hpp |
'Hypophosphatasia carrier'; 'Possible hypophosphatasia' || cond-hpp
'Suspected hypophosphatasia' || cond-hpp
'Family history of hypophosphatasia' | cond-hpp-family-history | cond-hpp
'No family history of hypophosphatasia' || cond-hpp-family-history cond-hpp
# 4. total light chains are not free ones
loinc 48378-4 | obs-sflc obs-sflc-ratio | obs-sflc-kappa
loinc 36916-5 | obs-sflc obs-sflc-kappa | obs-sflc-ratio
loinc 11050-2; loinc 11051-0 || obs-sflc obs-sflc-ratio obs-sflc-kappa obs-sflc-lambda
# 5. and 6. other ALP is not total ALP, and bone ALP has two quantities
loinc 6768-6; loinc 1783-0; loinc 77141-0 | obs-alp-total | obs-balp obs-alp-isoenzymes
loinc 55971-6; loinc 6769-4 || obs-alp-total
loinc 1779-8; loinc 1778-0; loinc 1780-6 | obs-alp-isoenzymes | obs-alp-total
loinc 17838-4 | obs-balp obs-balp-mass | obs-balp-activity obs-alp-total
loinc 1777-2 | obs-balp obs-balp-activity | obs-balp-mass obs-alp-total
loinc 2325-9 || obs-ggt
# 7. codes that mean almost anything need the text
cm M89.9; cm M89.8X9; who M89.8; icd9 733.90 || cond-lytic-lesion cond-bone-pain text-lytic-lesion
cm M89.9 'Disorder of bone'; who M89.8 'Disorder of bone' || cond-bone-pain text-lytic-lesion
cm M89.9 'Lytic lesion of femur' | text-lytic-lesion | cond-bone-pain cond-lytic-lesion
cm M89.8X9 'Bone pain'; icd9 733.90 'Bone pain' | cond-bone-pain | text-lytic-lesion
cm M89.59 | cond-lytic-lesion text-multiple-lesions |
cm M8951; who M89.5; sct 203522001 | cond-lytic-lesion | text-multiple-lesions
cm T84.051A | cond-periprosthetic-osteolysis | cond-lytic-lesion
'Periprosthetic fracture of femur' | cond-fracture-recent | cond-periprosthetic-osteolysis
# 9. from bone is not to bone
sct 94222008; 'Bone metastases' | cond-bone-metastasis |
cm C79.51 | cond-bone-metastasis | cond-cancer-solid cond-liver-metastasis
sct 314990009; 'No bone metastases' || cond-bone-metastasis
# 10. smouldering myeloma has no code of the ICD
cm D47.2 'Smouldering myeloma' | cond-mgus cond-myeloma-smouldering | cond-myeloma-active
cm D47.2 'MGUS' | cond-mgus | cond-myeloma-smouldering cond-myeloma-active
sct 413587002; sct 440422002 | cond-myeloma-smouldering | cond-myeloma-active
sct 440422002 'Asymptomatic multiple myeloma' | cond-myeloma-smouldering | cond-myeloma-active
cm C90.01 'Multiple myeloma in remission' | cond-myeloma-remission | cond-myeloma-active
cm C90.00; who C90.0; icd9 203.00 | cond-myeloma-active | cond-myeloma-remission
'Multiple myeloma not having achieved remission' | cond-myeloma-active |
'Multiple myeloma ruled out'; 'Multiple myeloma?' || cond-myeloma-active
# Sequelae, and osteoporosis beside fractures
cm S72.001A | cond-fracture-recent cond-hip-fracture | cond-path-fracture
cm S72001S 'Fracture of femur' || cond-fracture-recent cond-hip-fracture
cm M84.551S 'Pathological fracture' || cond-fracture-recent cond-path-fracture
cm M84.551A | cond-fracture-recent cond-path-fracture |
cm M80.08XA 'Pathological fracture' | cond-fracture-recent cond-osteoporosis | cond-path-fracture
cm M81.0; 'Osteoporosis without current pathological fracture' | cond-osteoporosis |
cm M81.0; who M81 || cond-path-fracture cond-fracture-recent
cm M84.750A | cond-aff | cond-stress-fracture
cm M84.374A | cond-stress-fracture | cond-aff
# Cancers, and what is none
cm C50.911 | cond-cancer-breast cond-cancer-solid | cond-history-of-cancer
cm Z85.3 | cond-cancer-breast cond-history-of-cancer |
cm D05.11; cm C44.90 || cond-cancer-breast cond-cancer-solid
cm C64.9 | cond-cancer-kidney cond-cancer-solid | cond-cancer-lung
# Drugs by code, prefix and stem
atc M05BA07; 'ALENDRONATE SODIUM 70 MG TAB' | med-bisphosphonate | med-zoledronate med-denosumab
rxnorm 1865665; 'Zometa 4 mg' | med-bisphosphonate med-zoledronate |
'denosumab-bbdz 60 mg' | med-denosumab | med-bisphosphonate
'Methylprednisolone 40 mg' | med-methylprednisolone med-glucocorticoid | med-prednisone
'Prednisolone 5 mg' | med-prednisone med-glucocorticoid | med-methylprednisolone
'Fludrocortisone 0.1 mg' || med-glucocorticoid med-hydrocortisone
"""


@pytest.mark.parametrize("line", [x for x in TRAPS.strip().splitlines() if x[0] != "#"])
def test_a_concept_is_in_its_sets_and_in_none_of_the_traps(line: str) -> None:
    said, inside, outside = line.split("|")
    assert not {*inside.split(), *outside.split()} - set(terminology().sets)
    for one in said.split(";"):
        found = terminology().of_concept(row(one))
        assert set(inside.split()) <= found, one
        assert not set(outside.split()) & found, one


LYTIC = """
Lytic lesion of the left femur.
LYTIC LESION, LEFT HUMERUS
Multiple lytic bone lesions
Osteolytic focus in the vertebra L3
Osteolysis of the skull
Punched-out lesions of the skull
Punched out lesions in both ribs
Lucent lesion in the pelvis
70 year old woman with a lytic lesion of the humerus
70-year-old man with a lytic rib lesion
History of breast cancer, new lytic lesion in the spine
Compared with previous films a new lytic lesion in the spine
New lytic lesion beside an old fracture of a rib
Benign cyst of the liver. Lytic lesion of the femur.
No fracture. Lytic lesion of the femur
No fracture but a lytic lesion of the femur
Lytic bone lesion; history of breast cancer
Osseous lytic change
Unchanged granuloma of the lung.\\nFindings: lytic lesion of the skull
"""
NOT_LYTIC = """
Haemolytic anaemia, bone marrow hyperplastic
Hemolytic lesion of the skin and bone
Thrombolytic treatment given, skull without bleeding
Thrombolytic treatment given, skull intact
Electrolytic imbalance, bone density normal
Paralytic ileus, pelvis intact
No lytic bone lesion.
No suspicious lytic lesion.
No fracture or lytic lesion of the femur
Without lytic lesions of the spine
Family history of lytic bone disease
Lytic bone lesion unlikely
Lytic bone lesion excluded
? lytic lesion of the rib
Rule out lytic lesion of the rib
Benign lytic lesion of the femur
Lytic lesion of the rib, unchanged
Healed lytic lesion of the skull
Lytic therapy for the femoral vein, bone normal
Lytic agent given, femur warm
History of lytic lesion in the femur
Previous lytic lesion of the spine
Old lytic lesion of the pelvis
Renewed look at an old lytic lesion of the rib
Lytic enzyme raised
Sclerotic lesion of the femur
Lucent lung, rib intact
70 year old man, old lytic lesion of the femur
Lytic cells were seen. Bone is normal
"""


def lines(table: str) -> list[str]:
    return [x.replace("\\n", "\n") for x in table.strip().splitlines()]


@pytest.mark.parametrize(
    ("sentence", "expected"),
    [*((x, True) for x in lines(LYTIC)), *((x, False) for x in lines(NOT_LYTIC))],
)
def test_a_lytic_lesion_in_words_is_one_plain_new_sentence(sentence: str, expected: bool) -> None:
    # A problem list entry is read as a report is.
    assert ("text-lytic-lesion" in terminology().of_concept(concept(sentence))) is expected
    assert terminology().says("text-lytic-lesion", sentence) is expected
