"""Raised ALP from bone that first tests leave unexplained: HI-4 of the clinical specification."""

from collections.abc import Iterator

from cds_service.facts import Answer, Judged, PatientFacts, Result, finding, question, surely
from cds_service.rules import Advice
from hooks.shared import definitions as d


@question
def high_enough(patient: PatientFacts) -> Answer | bool:
    """Is the latest ALP clearly raised, or less so with bone pain?"""
    limit = patient.limit
    if d.alp_at_least(patient, limit.unexplained_times):
        return True
    if not d.alp_at_least(patient, limit.unexplained_times_with_pain):
        return False
    return d.bone_pain(patient)


@finding
def telling_ggt(patient: PatientFacts) -> Judged | None:
    """What is the latest GGT that tells high from normal?"""
    return next((x for x in patient.judged("ggt") if x.is_high or x.is_not_high), None)


@question
def ggt_stays_normal(patient: PatientFacts) -> Answer:
    """GGT normal within months of the ALP, and none high after it?"""
    ggt = telling_ggt(patient)
    normal = ggt is not None and ggt.is_not_high and _near_the_latest_alp(patient, ggt)
    return patient.settled(normal, "obs-ggt")


def _near_the_latest_alp(patient: PatientFacts, ggt: Judged) -> bool:
    alp = d.latest_alp(patient)
    window = patient.limit.unexplained_tests_window
    return alp is not None and abs(ggt.moment.first - alp.moment.first) <= window.days


@question
def first_tests_normal(patient: PatientFacts) -> Answer | bool:
    """Calcium, PTH and TSH normal, vitamin D sufficient, phosphate and creatinine done?"""
    since = patient.today - patient.limit.unexplained_tests_window.days
    if not (calcium_normal(patient) and pth_normal(patient) and tsh_normal(patient)):
        return False
    if not vitamin_d_sufficient(patient):
        return False
    return bool(patient.done("phosphate", since)) and bool(patient.done("creatinine", since))


@question
def calcium_normal(patient: PatientFacts) -> Answer:
    """The latest calcium within months normal?"""
    return patient.settled(_latest_is_normal(patient, "obs-calcium", "calcium"), "obs-calcium")


@question
def pth_normal(patient: PatientFacts) -> Answer:
    """The latest PTH within months normal?"""
    return patient.settled(_latest_is_normal(patient, "obs-pth", "pth"), "obs-pth")


@question
def tsh_normal(patient: PatientFacts) -> Answer:
    """The latest TSH within months normal?"""
    return patient.settled(_latest_is_normal(patient, "obs-tsh", "tsh"), "obs-tsh")


def _latest_is_normal(patient: PatientFacts, name: str, measure: str) -> bool:
    window, today = patient.limit.unexplained_tests_window, patient.today
    recent = [x for x in patient.final(name) if x.within(window, today)]
    if not recent:
        return False
    patient.use(recent[0])
    if recent[0].is_abnormal:
        return False
    return recent[0].is_normal or _is_inside_stated_limits(patient, measure, recent[0])


def _is_inside_stated_limits(patient: PatientFacts, measure: str, result: Result) -> bool:
    """Whether a result without a range of its own is proven to lie inside the fallback."""
    judged = next((x for x in patient.judged(measure) if x.measured.result is result), None)
    if judged is None or judged.low is None:
        return False
    return judged.is_not_high and judged.value.below(judged.low) is False


@question
def vitamin_d_sufficient(patient: PatientFacts) -> Answer:
    """Vitamin D sufficient within a year?"""
    limit = patient.limit
    latest = patient.latest_within("vitamin_d", limit.unexplained_window)
    enough = (
        latest is not None
        and latest.measured.has_unit
        and latest.value.at_least(limit.sufficient_vitamin_d) is True
    )
    return patient.settled(enough, "obs-25ohd")


@question
def anaemia_or_reduced_kidney_function(patient: PatientFacts) -> Answer:
    """Haemoglobin low or kidney function reduced within months?"""
    limit = patient.limit
    haemoglobin = patient.latest_within("hemoglobin", limit.unexplained_tests_window)
    egfr = patient.latest_within("egfr", limit.unexplained_tests_window)
    reduced = (
        egfr is not None and egfr.measured.has_unit and egfr.value.below(limit.reduced_egfr) is True
    )
    low = haemoglobin is not None and haemoglobin.is_low
    return patient.settled(low or reduced, "obs-hemoglobin", "obs-egfr")


def raised_alp_bone_source_unexplained(patient: PatientFacts) -> Iterator[Advice]:
    """HI-4: ALP raised for weeks with a normal GGT, and the first tests do not explain it."""
    if not patient.is_at_least(patient.limit.unexplained_age):
        return
    if not d.raised_for_weeks(patient):
        return
    if not high_enough(patient):
        return
    if not ggt_stays_normal(patient):
        return
    if not first_tests_normal(patient):
        return
    if surely(d.pregnant_now(patient)) or surely(d.bone_row_excluded(patient)):
        return
    if surely(d.bone_disease_known(patient)) or surely(d.advanced_kidney_disease(patient)):
        return
    if surely(patient.done("bone-scan")):
        return
    yield _advice(patient)


def _advice(patient: PatientFacts) -> Advice:
    latest, window = d.latest_alp(patient), patient.limit.unexplained_window
    assert latest is not None
    tests = [patient.latest_within(x, window) for x in ("pth", "vitamin_d", "calcium", "tsh")]
    beside = (d.raised_weeks_before(patient), telling_ggt(patient), *tests)
    screen = surely(anaemia_or_reduced_kidney_function(patient))
    return Advice(
        "raisedAlpBoneSourceUnexplained",
        "info",
        consider=("bone-scan", *(("spep", "ife-serum", "sflc") if screen else ())),
        values=patient.shown(latest),
        findings=[latest, *(x for x in beside if x is not None)],
    )
