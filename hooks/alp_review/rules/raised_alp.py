"""Raised ALP: HI-1, HI-2 and HI-3 of the clinical specification."""

from collections.abc import Iterator

from cds_service.facts import Answer, Judged, PatientFacts, any_of, question, surely
from cds_service.rules import Advice
from hooks.shared import definitions as d


def raised_alp_source_unknown(patient: PatientFacts) -> Iterator[Advice]:
    """HI-1: ALP raised, and no GGT to tell liver from bone."""
    if not d.past_growth(patient):
        return
    if not d.raised(patient):
        return
    if not d.ggt_missing(patient):
        return
    if surely(d.pregnant_now(patient)):
        return
    if surely(d.bone_row_excluded(patient)):
        return
    if surely(d.source_already_tested(patient)):
        return
    latest = d.latest_alp(patient)
    assert latest is not None
    yield Advice(
        "raisedAlpSourceUnknown",
        "info",
        consider=("ggt",) if d.paired_ggt(patient) is None else (),
        values=patient.shown(latest),
        findings=[latest],
    )


@question
def liver_signs(patient: PatientFacts) -> Answer:
    """GGT high, bilirubin clearly high, or ALT clearly high without a hepatocellular pattern?"""
    return any_of(patient, d.ggt_high, d.bilirubin_high, d.alt_high_and_cholestatic)


@question
def ducts_imaged(patient: PatientFacts) -> Answer:
    """MRCP or ERCP done or ordered within months?"""
    window = patient.limit.ducts_window
    name, today = "img-mrcp", patient.today
    found = [
        *(x for x in patient.acts(name) if x.within(window, today, silencing=True)),
        *(x for x in patient.final(name) if x.within(window, today, silencing=True)),
        *(x for x in patient.reports(name) if x.within(window, today, silencing=True)),
        *(x for x in patient.requests(name) if x.within(window, today, silencing=True)),
    ]
    patient.use(*found)
    return patient.settled(found, "Procedure")


@question
def pregnant_without_liver_signs(patient: PatientFacts) -> bool:
    """Pregnant, with bilirubin and ALT not raised?"""
    return surely(d.pregnant_now(patient)) and not surely(d.liver_tests_raised(patient))


def raised_alp_hepatobiliary(patient: PatientFacts) -> Iterator[Advice]:
    """HI-2: ALP raised together with GGT, bilirubin or ALT."""
    if not d.past_growth(patient):
        return
    if not d.raised(patient):
        return
    if not liver_signs(patient):
        return
    if surely(pregnant_without_liver_signs(patient)):
        return
    if surely(d.liver_source_known(patient)):
        return
    if surely(ducts_imaged(patient)):
        return
    marker, paired = _leading_marker(patient)
    latest = d.latest_alp(patient)
    assert latest is not None
    limit = patient.limit
    grave = d.alp_at_least(patient, limit.grave_alp_times) or d.bilirubin_above(
        patient, limit.grave_bilirubin_times
    )
    yield Advice(
        "raisedAlpHepatobiliary",
        "warning" if grave else "info",
        consider=_liver_orders(patient),
        values=patient.shown(latest) | {"marker": marker, "y": patient.times(paired)},
        findings=[latest, *_beside(patient)],
    )


def _beside(patient: PatientFacts) -> list[Judged]:
    """GGT, bilirubin and ALT drawn with the ALP, as far as there are any."""
    found = (d.paired_ggt(patient), d.paired_bilirubin(patient), d.paired_alt(patient))
    return [x for x in found if x is not None]


def _leading_marker(patient: PatientFacts) -> tuple[str, Judged | None]:
    if d.ggt_high(patient).value:
        return "ggt", d.paired_ggt(patient)
    if d.bilirubin_high(patient).value:
        return "bilirubin", d.paired_bilirubin(patient)
    return "alt", d.paired_alt(patient)


def _liver_orders(patient: PatientFacts) -> tuple[str, ...]:
    """Liver panel and ultrasound; once that is done antibodies; once those are done, bone ALP if
    GGT is only a little raised.
    """
    orders = ["liver-panel", "us-abdomen"]
    if surely(patient.done("us-abdomen")):
        orders += ["ama", "igm"]
        if surely(patient.done("ama")) and _ggt_a_little_raised(patient):
            orders.append("balp")
    return tuple(orders)


def _ggt_a_little_raised(patient: PatientFacts) -> bool:
    ggt = d.paired_ggt(patient)
    times = ggt.times_high if ggt is not None else None
    return times is not None and times.below(patient.limit.ggt_little_times) is True


def raised_alp_bone_source(patient: PatientFacts) -> Iterator[Advice]:
    """HI-3: ALP raised with a normal GGT, so that bone is the likelier source."""
    if not d.past_growth(patient):
        return
    if not d.raised(patient):
        return
    if not d.ggt_normal(patient):
        return
    if surely(d.pregnant_now(patient)):
        return
    if surely(d.bone_row_excluded(patient)):
        return
    if surely(d.bone_disease_known(patient)):
        return
    latest = d.latest_alp(patient)
    assert latest is not None
    abnormal = _first_abnormal_test(patient)
    kidney = surely(patient.has("cond-ckd-3b-5", active=True))
    yield Advice(
        "raisedAlpBoneSource",
        "result-first" if abnormal else "kidney" if kidney else "first-tests",
        values=patient.shown(latest) | _named(patient, abnormal),
        findings=[latest, *_beside(patient), *([abnormal[1]] if abnormal else [])],
    )


def _named(patient: PatientFacts, abnormal: tuple[str, Judged] | None) -> dict[str, str]:
    if abnormal is None:
        return {}
    name, result = abnormal
    return {"test": name, "result": patient.amount(result), "date": result.moment.text}


def _first_abnormal_test(patient: PatientFacts) -> tuple[str, Judged] | None:
    """The first of calcium, PTH, TSH and vitamin D that is abnormal while its diagnosis is not on
    the list.
    """
    limit = patient.limit
    for measure, window, diagnosis in (
        ("calcium", limit.calcium_window, "cond-hyperparathyroidism"),
        ("pth", limit.first_tests_window, "cond-hyperparathyroidism"),
        ("tsh", limit.first_tests_window, "cond-hyperthyroidism"),
        ("vitamin_d", limit.first_tests_window, "cond-vitd-deficiency"),
    ):
        latest = patient.latest_within(measure, window)
        if latest is None or not _is_telling(patient, measure, latest):
            continue
        if not surely(patient.has(diagnosis, active=True)):
            return measure, latest
    return None


def _is_telling(patient: PatientFacts, measure: str, result: Judged) -> bool:
    if measure == "tsh":
        return result.is_low
    if measure == "vitamin_d":
        return (
            result.measured.has_unit
            and result.value.below(patient.limit.deficient_vitamin_d) is True
        )
    return result.is_high
