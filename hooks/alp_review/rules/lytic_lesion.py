"""Lytic bone lesion: LYT-1 and LYT-3 of the clinical specification."""

from collections.abc import Iterator, Sequence

from cds_service.facts import Answer, Judged, PatientFacts, question, surely
from cds_service.rules import Advice
from hooks.shared import definitions as d
from hooks.shared.cancer import Lesion
from hooks.shared.myeloma_screen import AbnormalTest


@question
def myeloma_signs(patient: PatientFacts) -> Answer:
    """Calcium high, haemoglobin low or kidney function reduced within months?"""
    return patient.settled(_signs(patient), "obs-calcium-total")


def _signs(patient: PatientFacts) -> list[Judged]:
    limit = patient.limit
    calcium = patient.latest_within("calcium", limit.signs_window)
    haemoglobin = patient.latest_within("hemoglobin", limit.signs_window)
    egfr = patient.latest_within("egfr", limit.signs_window)
    return [
        *([calcium] if calcium is not None and calcium.is_high else []),
        *([haemoglobin] if haemoglobin is not None and haemoglobin.is_low else []),
        *([egfr] if egfr is not None and d.is_below(egfr, limit.reduced_egfr) else []),
    ]


@question
def protein_loss(patient: PatientFacts) -> Answer:
    """Proteinuria or nephrotic syndrome on record?"""
    return patient.has("cond-proteinuria")


def lytic_lesion_without_myeloma_screen(patient: PatientFacts) -> Iterator[Advice]:
    """LYT-1: a lytic bone lesion that nothing explains, and no myeloma screen on file."""
    if not patient.is_at_least(patient.limit.adult_age):
        return
    if not d.lytic_lesion(patient):
        return
    if surely(d.all_lesions_explained(patient)):
        return
    if surely(diagnosed_already(patient)):
        return
    lesions = _open_lesions(patient)
    newest = max(lesions, key=lambda x: x.day or 0)  # an undated one comes last
    since = newest.day - patient.limit.before_lesion.days if newest.day is not None else 0
    known = next(filter(None, (d.known_disease_that_may_progress(patient, x) for x in lesions)), "")
    yield Advice(
        "lyticLesionWithoutMyelomaScreen",
        _variant(patient, lesions, known),
        consider=_screen(patient),
        values={"alp": _alp_on_file(patient), "pcd": known},
        findings=[*(x for x in [d.latest_alp(patient)] if x is not None), *_signs(patient)],
        since=since,
        hinges_on=d.vital_tests(patient),
    )


def _open_lesions(patient: PatientFacts) -> Sequence[Lesion]:
    return [x for x in d.unexplained_lesions(patient) if not d.diagnosis_explains(patient, x)]


@question
def diagnosed_already(patient: PatientFacts) -> Answer:
    """Is a plasma-cell disease already the diagnosis of every lesion?"""
    return patient.settled(not _open_lesions(patient), "Condition")


def _variant(patient: PatientFacts, lesions: Sequence[Lesion], known: str) -> str:
    """The most urgent words that one of the lesions deserves."""
    if known:
        return "progression"
    metastasis = surely(d.bone_metastasis(patient))
    if metastasis and not surely(d.solid_cancer(patient)):
        return "primary-unknown"
    if surely(d.solid_cancer_active(patient)):
        return "with-cancer"
    if patient.is_at_least(patient.limit.myeloma_age).value:
        return "unexplained"
    are_multiple = any(x.is_multiple for x in lesions)
    return "young-with-signs" if are_multiple or surely(myeloma_signs(patient)) else "young"


def _screen(patient: PatientFacts) -> tuple[str, ...]:
    """Serum first; urine first where free light chains cannot be ordered or protein is lost."""
    serum, urine = ("spep", "ife-serum", "sflc"), ("upep", "ife-urine")
    urine_first = not patient.is_orderable("sflc") or surely(protein_loss(patient))
    return (*urine, *serum) if urine_first else (*serum, *urine)


def _alp_on_file(patient: PatientFacts) -> str:
    """The latest ALP with its unit, or the phrase for none or an unusable one."""
    latest = d.latest_alp(patient)
    if d.on_enzyme_replacement(patient).value:  # not known: the ALP is shown as it is
        return "unusable"
    if latest is None:
        return "unusable" if patient.rejected("alp") else "none"
    return patient.amount(latest)


def lytic_lesion_abnormal_myeloma_screen(patient: PatientFacts) -> Iterator[Advice]:
    """LYT-3: a lytic bone lesion, an abnormal myeloma screen, and no diagnosis on record."""
    if not patient.is_at_least(patient.limit.adult_age):
        return
    if not d.lytic_lesion(patient):
        return
    if surely(d.all_lesions_explained(patient)):
        return
    if surely(diagnosis_listed(patient)):
        return
    if not abnormal_screen(patient):
        return
    found = _newest_of_each(_abnormal_for_a_lesion(patient))
    seen = patient.is_answered("Condition")
    yield Advice(
        "lyticLesionAbnormalMyelomaScreen",
        "no-diagnosis" if seen else "list-not-seen",
        values={"test": found[0].test, "result": found[0].shown, "date": found[0].moment.text},
        findings=[x.finding for x in found],
    )


def _unlisted_lesions(patient: PatientFacts) -> Sequence[Lesion]:
    return [x for x in d.unexplained_lesions(patient) if not d.diagnosis_is_listed(patient, x)]


@question
def diagnosis_listed(patient: PatientFacts) -> Answer:
    """Myeloma, AL amyloidosis, or a plasmacytoma since the lesion, on record?"""
    return patient.settled(not _unlisted_lesions(patient), "Condition")


@question
def abnormal_screen(patient: PatientFacts) -> Answer:
    """A test of the myeloma screen abnormal, and recent enough for the lesion?"""
    found = _abnormal_for_a_lesion(patient)
    patient.use(*(x.entry for x in found))
    return patient.settled(
        found,
        "obs-spep",
        "obs-m-protein-serum",
        "obs-ife-serum",
        "obs-sflc-ratio",
        "obs-upep",
        "obs-ife-urine",
        "DiagnosticReport",
    )


def _abnormal_for_a_lesion(patient: PatientFacts) -> list[AbnormalTest]:
    """The abnormal tests that go with one of the lesions still open, newest first."""
    lesions = _unlisted_lesions(patient)
    return [x for x in d.abnormal_tests(patient) if any(_goes_with(patient, x, y) for y in lesions)]


def _goes_with(patient: PatientFacts, found: AbnormalTest, lesion: Lesion) -> bool:
    """Whether a result lies late enough for a lesion, whatever days partial dates mean."""
    limit = patient.limit
    if lesion.moment is None:
        return found.moment.surely_within(limit.undated_lesion_window.days, patient.today)
    return found.moment.first >= lesion.moment.last - limit.before_lesion.days


def _newest_of_each(found: list[AbnormalTest]) -> list[AbnormalTest]:
    """The newest abnormal result of each test."""
    newest: dict[str, AbnormalTest] = {}
    for one in found:
        newest.setdefault(one.test, one)
    return list(newest.values())
