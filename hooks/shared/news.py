"""What may have changed since somebody set a card aside (specification 7, "Across calls")."""

from cds_service.facts import Answer, Entry, PatientFacts, finding, question
from hooks.shared.exposure import antiresorptives, long_glucocorticoid, taken_within

_PROBLEMS = (
    # features of hypophosphatasia
    *("cond-aff", "cond-pseudofracture", "cond-fracture-nonunion", "cond-stress-fracture"),
    *("cond-chondrocalcinosis", "cond-calcific-periarthritis", "cond-tooth-loss"),
    *("cond-osteomalacia", "cond-nephrocalcinosis", "cond-craniosynostosis"),
    *("cond-b6-responsive-seizure", "cond-hpp-family-history"),
    # fractures and bone pain
    *("cond-fracture-recent", "cond-hip-fracture", "cond-vertebral-fracture"),
    *("cond-path-fracture", "cond-bone-pain"),
    # cancer and lytic lesions
    *("cond-cancer-solid", "cond-bone-metastasis", "cond-lytic-lesion"),
    *("cond-myeloma-active", "cond-plasmacytoma", "cond-leukaemia", "cond-lymphoma"),
)
_FOLLOW_UP = (
    *("obs-plp", "obs-alpl-gene", "obs-pea-urine", "obs-ggt", "obs-bilirubin-total"),
    *("obs-spep", "obs-ife-serum", "obs-sflc", "obs-m-protein-serum", "obs-upep"),
    *("obs-calcium", "obs-phosphate", "obs-pth", "obs-balp", "obs-psa"),
)


@finding
def news(patient: PatientFacts) -> list[Entry]:
    """Which entries would be news to who has set a card aside?"""
    found: list[Entry] = [x for name in _PROBLEMS for x in patient.problems(name)]
    found += antiresorptives(patient)
    found += [x for name in _FOLLOW_UP for x in patient.final(name) if x.is_abnormal]
    return found


@question
def lowered_by_drug(patient: PatientFacts) -> Answer | bool:
    """Is a drug that lowers ALP taken, or was it within months?"""
    window = patient.limit.drug_effect_window
    names = ("med-lowers-alp", "med-bisphosphonate", "med-denosumab", "med-cytotoxic")
    for name in names:
        if taken_within(patient, name, window).value:
            return True
    return long_glucocorticoid(patient)
