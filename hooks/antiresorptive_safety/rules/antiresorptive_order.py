"""An antiresorptive is being ordered while ALP is low, or with hypophosphatasia on record: ARX-1,
ARX-2 and ARX-3 of the clinical specification.
"""

from collections.abc import Iterator

from cds_service.facts import Answer, Judged, PatientFacts, any_of, question, surely
from cds_service.rules import Advice, Filling
from hooks.shared import definitions as d
from hooks.shared.readings import Reading

# -- what the rows share -----------------------------------------------------------------------


def _low_off_treatment(patient: PatientFacts) -> list[Reading]:
    """The low readings that no antiresorptive explains, newest first."""
    return [x for x in d.unexposed_readings(patient) if d.is_low(patient, x)]


@question
def last_low_off_treatment(patient: PatientFacts) -> bool:
    """Is the last ALP off antiresorptives low, however old?"""
    latest = d.latest_unexposed(patient)
    return latest is not None and d.is_low(patient, latest)


@question
def low_months_apart(patient: PatientFacts) -> bool:
    """Low off antiresorptives at least twice, and at least a month apart, at any time?"""
    low = _low_off_treatment(patient)
    patient.use(*low)
    return d.lie_apart(patient, low)


@question
def mostly_low(patient: PatientFacts) -> bool:
    """Were most readings off antiresorptives low, and none clearly normal without a reason?"""
    considered = d.look_back(patient, d.unexposed_readings(patient))
    low = [x for x in considered if d.is_low(patient, x)]
    normal = d.unexcused_normal(patient, considered)
    patient.use(*normal)
    return len(low) >= patient.limit.low_share.value * len(considered) and not normal


@question
def low_for_long(patient: PatientFacts) -> Answer | bool:
    """Persistently low off antiresorptives, however long ago?"""
    if not last_low_off_treatment(patient):
        return False
    if not low_months_apart(patient):
        return False
    return mostly_low(patient)


@question
def paget_treated(patient: PatientFacts) -> Answer:
    """Paget disease of bone on record, or what the antiresorptive is ordered for?"""
    return any_of(patient, d.paget_active, drafted_for_paget)


@question
def drafted_for_paget(patient: PatientFacts) -> bool:
    """Is it ordered for Paget disease?"""
    found = [x for x in d.drafted_antiresorptives(patient) if "cond-paget" in x.reasons]
    patient.use(*found)
    return bool(found)


@question
def denosumab_renewed(patient: PatientFacts) -> Answer | bool:
    """Is denosumab alone ordered, again: active, or with a dose within a year?"""
    kinds = {d.antiresorptive_kind(x) for x in d.drafted_antiresorptives(patient)}
    if kinds != {"denosumab"}:
        return False
    return d.taken_within(patient, "med-denosumab", patient.limit.renewal_window)


@question
def hip_or_vertebral_fracture(patient: PatientFacts) -> Answer:
    """A hip or vertebral fracture within a year, for which prompt treatment is proven?"""
    return any_of(patient, _hip_fracture, _vertebral_fracture)


def _hip_fracture(patient: PatientFacts) -> Answer:
    window = patient.limit.treated_fracture_window
    return patient.has("cond-hip-fracture", within=window, silencing=True)


def _vertebral_fracture(patient: PatientFacts) -> Answer:
    window = patient.limit.treated_fracture_window
    return patient.has("cond-vertebral-fracture", within=window, silencing=True)


def _cause(patient: PatientFacts) -> str:
    return d.cause_name(patient) if surely(d.acquired_cause(patient)) else ""


def _kind(patient: PatientFacts) -> str:
    return d.antiresorptive_kind(d.drafted_antiresorptives(patient)[0])


# -- ARX-1 -------------------------------------------------------------------------------------


@question
def recently_low(patient: PatientFacts) -> Answer:
    """Low off antiresorptives when last drawn, and that within a year?"""
    return d.latest_is_low(patient, patient.limit.latest_low_window)


@question
def low_once_or_for_long(patient: PatientFacts) -> Answer:
    """Low within a year, or persistently so?"""
    return any_of(patient, recently_low, low_for_long)


@question
def unmeasured_for_long(patient: PatientFacts) -> bool:
    """Is even the latest ALP, on whatever drug, too old to answer an earlier low one?"""
    latest, window = d.latest_reading(patient), patient.limit.latest_before_order
    patient.use(*[latest] if latest else [])
    return latest is not None and not latest.moment.possibly_within(window.days, patient.today)


@question
def not_answered_since(patient: PatientFacts) -> Answer:
    """Is the latest ALP, on whatever drug, low, or from too long ago?"""
    return any_of(patient, d.latest_reading_ever_is_low, unmeasured_for_long)


def antiresorptive_with_low_alp(patient: PatientFacts) -> Iterator[Advice]:
    """ARX-1: an antiresorptive is ordered while a low ALP is not settled."""
    if not d.antiresorptive_drafted(patient):
        return
    if not not_answered_since(patient):
        return
    if not low_once_or_for_long(patient):
        return
    if surely(d.hypophosphatasia_unlikely(patient)):
        return
    if surely(paget_treated(patient)):
        return
    latest, low = d.latest_unexposed(patient), _low_off_treatment(patient)
    assert latest is not None
    yield Advice(
        "antiresorptiveWithLowAlp",
        "renewal" if surely(denosumab_renewed(patient)) else "order",
        values=patient.shown(latest) | _circumstances(patient) | {"n": len(low)},
        findings=low,
        about=d.drafted_antiresorptives(patient),
    )


def _circumstances(patient: PatientFacts) -> dict[str, Filling]:
    """What may tip the scales for or against the drug, "" for what does not hold."""
    fracture, oncology = hip_or_vertebral_fracture(patient), d.oncology_indication(patient)
    return {
        "drug": _kind(patient),
        "cause": _cause(patient),
        "oncology": "yes" if surely(oncology) else "",
        "fracture": "yes" if surely(fracture) else "",
        "kidney": _kind(patient) if _poor_kidneys(patient) else "",
    }


def _poor_kidneys(patient: PatientFacts) -> Judged | None:
    """The latest eGFR when it is recent and low enough for calcium to fall."""
    limit = patient.limit
    latest = next(iter(patient.judged("egfr")), None)
    if latest is None or not latest.moment.surely_within(limit.kidney_window.days, patient.today):
        return None
    return latest if d.is_below(latest, limit.poor_egfr) else None


# -- ARX-2 -------------------------------------------------------------------------------------


@question
def clearly_low_off_treatment(patient: PatientFacts) -> bool:
    """Last ALP off antiresorptives below the sure limit (other methods: very low; child: low)?"""
    latest = d.latest_unexposed(patient)
    if latest is None:
        return False
    if not latest.adult:
        return d.is_low(patient, latest)
    if latest.absolute:
        return d.is_below(latest, patient.limit.surely_low)
    return d.is_very_low(patient, latest)


@question
def clearly_low_or_feature(patient: PatientFacts) -> Answer:
    """Clearly low, or a feature of hypophosphatasia?"""
    return any_of(patient, clearly_low_off_treatment, d.hypophosphatasia_feature)


@question
def benefit_comes_first(patient: PatientFacts) -> Answer:
    """Ordered for cancer, denosumab continued, or after a hip or vertebral fracture?"""
    return any_of(patient, d.oncology_indication, denosumab_renewed, hip_or_vertebral_fracture)


def antiresorptive_with_persistent_low_alp(patient: PatientFacts) -> Iterator[Advice]:
    """ARX-2: an antiresorptive is signed while ALP is persistently low."""
    if not d.antiresorptive_drafted(patient):
        return
    if not d.latest_reading_is_low(patient, patient.limit.latest_before_order):
        return
    if not low_for_long(patient):
        return
    if not clearly_low_or_feature(patient):
        return
    if surely(d.hypophosphatasia_unlikely(patient)):
        return
    if surely(paget_treated(patient)):
        return
    if surely(benefit_comes_first(patient)):
        return
    if surely(d.doubtful_persistence(patient)):
        return
    yield _before_signing(patient)


def _before_signing(patient: PatientFacts) -> Advice:
    """No acquired cause defers it once very low or with a feature."""
    low, cause = _low_off_treatment(patient), _cause(patient)
    return Advice(
        "antiresorptiveWithPersistentLowAlp",
        "signing",
        values={
            "drug": _kind(patient),
            "n": len(low),
            "first": low[-1].moment.text,
            "last": low[0].moment.text,
            "cause": cause,
            "telling": d.telling(patient, clearly_low_off_treatment(patient).value is True),
        },
        findings=d.beside(patient, low),
        held_by="acquired-cause" if cause and not surely(d.never_deferred(patient)) else "",
        about=d.drafted_antiresorptives(patient),
    )


# -- ARX-3 -------------------------------------------------------------------------------------


def antiresorptive_with_hypophosphatasia(patient: PatientFacts) -> Iterator[Advice]:
    """ARX-3: an antiresorptive is ordered with hypophosphatasia on record, whatever the ALP."""
    if not d.antiresorptive_drafted(patient):
        return
    if not d.hypophosphatasia_known(patient):
        return
    how, words = d.known_by(patient)
    yield Advice(
        "antiresorptiveWithHypophosphatasia",
        "ordered",
        values={"drug": _kind(patient), "known": how},
        quoted=words,
        about=d.drafted_antiresorptives(patient),
    )
