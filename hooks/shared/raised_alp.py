"""Raised ALP: when it counts, what was drawn with it, and what explains a bone source
(specification 3.7).
"""

from collections.abc import Iterator, Sequence

from cds_service.facts import Answer, Judged, PatientFacts, any_of, finding, gate, question, surely
from cds_service.quantity import Quantity
from hooks.shared.cancer import bone_metastasis, plasma_cell_disease, tum_cancer_active
from hooks.shared.exposure import (
    denosumab_rebound,
    last_growth_factor_day,
    recent_anabolic_drug,
    recent_growth_factor,
)
from hooks.shared.readings import (
    Reading,
    high_rule_values,
    note_newer_unreadable,
    nothing_usable,
)


@gate
def past_growth(patient: PatientFacts) -> Answer:
    """Old enough that growth no longer raises ALP?"""
    limit = patient.limit
    grown = limit.grown_woman if patient.sex == "female" else limit.grown_man
    return patient.is_at_least(grown)


@finding
def latest_alp(patient: PatientFacts) -> Reading | None:
    """What is the latest ALP?"""
    latest = next(iter(high_rule_values(patient)), None)
    note_newer_unreadable(patient, latest)
    return latest


@question
def latest_above_limit(patient: PatientFacts) -> Answer | bool:
    """Is the latest ALP recent and above its upper limit?"""
    latest = latest_alp(patient)
    if latest is None:
        return patient.unusable() if nothing_usable(patient) else False
    patient.use(latest)
    window = patient.limit.latest_raised_window
    return latest.moment.surely_within(window.days, patient.today) and latest.is_high


@question
def latest_not_raised(patient: PatientFacts, window: Quantity) -> Answer | bool:
    """Is the latest ALP at most {} old, and not above its upper limit?"""
    latest = latest_alp(patient)
    if latest is None:
        return patient.unusable() if nothing_usable(patient) else False
    patient.use(latest)
    return latest.moment.surely_within(window.days, patient.today) and latest.is_not_high


@question
def raised(patient: PatientFacts) -> Answer | bool:
    """Is the ALP raised: clearly, or for weeks?"""
    if not latest_above_limit(patient):
        return False
    values = high_rule_values(patient)
    latest = values[0]
    if not (_is_clearly_raised(patient, latest) or _has_stayed_raised(patient, values)):
        return False
    if _drawn_in_a_stay(patient, latest):
        return _is_at_least(latest, patient.limit.raised_times_inpatient) or _raised_outside(
            patient, values
        )
    return True


def _is_at_least(reading: Judged, times: Quantity) -> bool:
    return reading.high is not None and reading.value.at_least(reading.high.times(times)) is True


def _is_clearly_raised(patient: PatientFacts, latest: Reading) -> bool:
    return _is_at_least(latest, patient.limit.raised_times)


def _has_stayed_raised(patient: PatientFacts, values: Sequence[Reading]) -> bool:
    return next(_earlier_raised(patient, values), None) is not None


def _earlier_raised(patient: PatientFacts, values: Sequence[Reading]) -> Iterator[Reading]:
    """The earlier values, weeks to a year before the latest, above their limit while none between
    came down.
    """
    limit, latest = patient.limit, values[0]
    for earlier in values[1:]:
        nearest = latest.moment.first - earlier.moment.last
        farthest = latest.moment.last - earlier.moment.first
        if not earlier.is_high:
            return
        if nearest >= limit.persistent_from.days and farthest <= limit.persistent_to.days:
            yield earlier


@finding
def raised_weeks_before(patient: PatientFacts) -> Reading | None:
    """Which value of the last year was raised weeks before the latest, none between inside its
    limit?
    """
    window, values = patient.limit.unexplained_window.days, high_rule_values(patient)
    earlier = _earlier_raised(patient, values) if values else ()
    return next((x for x in earlier if x.moment.surely_within(window, patient.today)), None)


@question
def raised_for_weeks(patient: PatientFacts) -> Answer | bool:
    """Raised, and raised weeks before?"""
    if not raised(patient):
        return False
    return raised_weeks_before(patient) is not None


def _drawn_in_a_stay(patient: PatientFacts, reading: Reading) -> bool:
    if not patient.is_answered("Encounter"):
        patient.remark("inpatient_unknown")
    return any(stay.covers(reading.moment) for stay in patient.stays())


def _raised_outside(patient: PatientFacts, values: Sequence[Reading]) -> bool:
    window, latest = patient.limit.latest_raised_window, values[0]
    stays = [stay for stay in patient.stays() if stay.covers(latest.moment)]
    return any(
        x.is_high
        and x.moment.surely_within(window.days, patient.today)
        and not any(stay.covers(x.moment) for stay in stays)
        for x in values[1:]
    )


# -- what was drawn with it (line 40) ----------------------------------------------------------


def _paired(patient: PatientFacts, measure: str) -> Judged | None:
    """The result nearest to the latest ALP inside the window (the later of two), else the first one
    after it.
    """
    latest = latest_alp(patient)
    if latest is None:
        return None
    day, window = latest.moment.first, patient.limit.paired_window.days
    results = patient.judged(measure)
    near = [x for x in results if abs(x.moment.first - day) <= window]
    if near:
        return min(near, key=lambda x: (abs(x.moment.first - day), -x.moment.first))
    after = [x for x in results if x.moment.first > day]
    return after[-1] if after else None


@finding
def paired_ggt(patient: PatientFacts) -> Judged | None:
    """Which GGT goes with the latest ALP?"""
    return _paired(patient, "ggt")


@finding
def paired_bilirubin(patient: PatientFacts) -> Judged | None:
    """Which bilirubin goes with the latest ALP?"""
    return _paired(patient, "bilirubin")


@finding
def paired_alt(patient: PatientFacts) -> Judged | None:
    """Which ALT goes with the latest ALP?"""
    return _paired(patient, "alt")


@question
def ggt_high(patient: PatientFacts) -> Answer:
    """GGT above its limit?"""
    ggt = paired_ggt(patient)
    return patient.settled(ggt is not None and ggt.is_high, "obs-ggt")


@question
def ggt_normal(patient: PatientFacts) -> Answer:
    """GGT inside its limit?"""
    ggt = paired_ggt(patient)
    return patient.settled(ggt is not None and ggt.is_not_high, "obs-ggt")


@question
def ggt_missing(patient: PatientFacts) -> Answer | bool:
    """No GGT that tells high from normal?"""
    ggt = paired_ggt(patient)
    if ggt is not None and (ggt.is_high or ggt.is_not_high):
        return False
    return not patient.settled(False, "obs-ggt")


@question
def bilirubin_high(patient: PatientFacts) -> Answer:
    """Bilirubin clearly above its limit?"""
    bilirubin = paired_bilirubin(patient)
    high = bilirubin is not None and _is_above(bilirubin, patient.limit.bilirubin_times)
    return patient.settled(high, "obs-bilirubin-total")


@question
def bilirubin_raised(patient: PatientFacts) -> Answer:
    """Bilirubin above its limit?"""
    bilirubin = paired_bilirubin(patient)
    return patient.settled(bilirubin is not None and bilirubin.is_high, "obs-bilirubin-total")


@question
def alt_high_and_cholestatic(patient: PatientFacts) -> Answer | bool:
    """ALT clearly above its limit, and not far more so than ALP?"""
    alt, limit = paired_alt(patient), patient.limit
    if alt is None or not _is_above(alt, limit.alt_times):
        return patient.settled(False, "obs-alt")
    r = r_ratio(patient)
    return r is not None and r.at_most(limit.r_mixed) is True


def _is_above(judged: Judged, times: Quantity) -> bool:
    return judged.high is not None and judged.value.above(judged.high.times(times)) is True


def r_ratio(patient: PatientFacts) -> Quantity | None:
    """(ALT/ULN) / (ALP/ULN): up to 2 cholestatic, over 5 hepatocellular; None without both."""
    alt, alp = paired_alt(patient), latest_alp(patient)
    if alt is None or alp is None:
        return None
    over, under = alt.times_high, alp.times_high
    return over.ratio(under) if over is not None and under is not None else None


@question
def liver_tests_raised(patient: PatientFacts) -> Answer:
    """Bilirubin or ALT above its limit?"""
    found = [
        x for x in (paired_bilirubin(patient), paired_alt(patient)) if x is not None and x.is_high
    ]
    return patient.settled(found, "obs-bilirubin-total", "obs-alt")


def alp_at_least(patient: PatientFacts, times: Quantity) -> bool:
    """Whether the latest ALP is proven to be at least so many times its upper limit."""
    latest = latest_alp(patient)
    return latest is not None and _is_at_least(latest, times)


def alp_below(patient: PatientFacts, times: Quantity) -> bool:
    """Whether the latest ALP is proven to be below so many times its upper limit."""
    latest = latest_alp(patient)
    if latest is None or latest.high is None:
        return False
    return latest.value.below(latest.high.times(times)) is True


def bilirubin_above(patient: PatientFacts, times: Quantity) -> bool:
    """Whether the bilirubin drawn with it is proven to be above so many times its limit."""
    bilirubin = paired_bilirubin(patient)
    return bilirubin is not None and _is_above(bilirubin, times)


def ggt_below_share_of_alp(patient: PatientFacts) -> bool:
    """Whether GGT is raised far less than ALP: then bone remains likely beside the liver."""
    ggt, alp = paired_ggt(patient), latest_alp(patient)
    if ggt is None or alp is None or ggt.times_high is None or alp.times_high is None:
        return False
    return ggt.times_high.below(alp.times_high.times(patient.limit.ggt_share_of_alp)) is True


# -- bone: pain, fractures, and what explains a bone source (lines 43, 44) ---------------------


@question
def bone_pain(patient: PatientFacts) -> Answer:
    """Bone pain?"""
    return patient.has("cond-bone-pain", active=True)


@question
def pathological_fracture(patient: PatientFacts) -> Answer:
    """Pathological fracture within a year?"""
    return patient.has("cond-path-fracture", within=patient.limit.path_fracture_window)


@question
def recent_fracture(patient: PatientFacts) -> Answer:
    """Fracture within months?"""
    window = patient.limit.recent_fracture_window
    return patient.has("cond-fracture-recent", within=window, silencing=True)


@question
def recent_ordinary_fracture(patient: PatientFacts) -> Answer:
    """Fracture within months that is not pathological?"""
    window = patient.limit.recent_fracture_window
    found = [
        x
        for x in patient.problems("cond-fracture-recent", silencing=True)
        if x.within(window, patient.today, silencing=True) and "cond-path-fracture" not in x.sets
    ]
    patient.use(*found)
    return patient.settled(found, "Condition")


@question
def growth_factor_without_pain(patient: PatientFacts) -> bool:
    """G-CSF recently, and no bone pain?"""
    return surely(recent_growth_factor(patient)) and not surely(bone_pain(patient))


@question
def growth_factor_explains(patient: PatientFacts) -> bool:
    """G-CSF recently, and no bone pain that began well after it?"""
    if not surely(recent_growth_factor(patient)):
        return False
    last, later = last_growth_factor_day(patient), patient.limit.pain_after_gcsf.days
    pains = [x for x in patient.problems("cond-bone-pain") if x.active and x.moment is not None]
    return last is None or not any(x.moment.first - last > later for x in pains if x.moment)


@question
def cholestasis_active(patient: PatientFacts) -> Answer:
    """Cholestatic disease on the problem list?"""
    return patient.has("cond-cholestasis", active=True, silencing=True)


@question
def paget_active(patient: PatientFacts) -> Answer:
    """Paget disease of bone?"""
    return patient.has("cond-paget", active=True, silencing=True)


@question
def bone_row_excluded(patient: PatientFacts) -> Answer:
    """Does something on record already explain a bone source, or make it another row's matter?"""
    return any_of(
        patient,
        recent_fracture,
        recent_anabolic_drug,
        denosumab_rebound,
        growth_factor_without_pain,
        cholestasis_active,
        paget_active,
        tum_cancer_active,
        bone_metastasis,
        plasma_cell_disease,
    )


@question
def bone_disease_known(patient: PatientFacts) -> Answer:
    """Osteomalacia or hyperparathyroidism active?"""
    return any_of(patient, _osteomalacia, _hyperparathyroidism)


@question
def _osteomalacia(patient: PatientFacts) -> Answer:
    """Osteomalacia or rickets active?"""
    return patient.has("cond-osteomalacia", active=True, silencing=True)


@question
def _hyperparathyroidism(patient: PatientFacts) -> Answer:
    """Hyperparathyroidism active?"""
    return patient.has("cond-hyperparathyroidism", active=True, silencing=True)


@question
def liver_source_known(patient: PatientFacts) -> Answer:
    """Cholestatic disease or liver metastases on record?"""
    return any_of(patient, _cholestasis_on_record, _liver_metastasis_on_record)


@question
def _cholestasis_on_record(patient: PatientFacts) -> Answer:
    """Cholestatic disease on record?"""
    return patient.has("cond-cholestasis", silencing=True)


@question
def _liver_metastasis_on_record(patient: PatientFacts) -> Answer:
    """Liver metastases on record?"""
    return patient.has("cond-liver-metastasis", silencing=True)


@question
def source_already_tested(patient: PatientFacts) -> Answer:
    """Bone ALP or ALP isoenzymes measured within months?"""
    found = [
        x
        for name in ("obs-balp", "obs-alp-isoenzymes")
        for x in (*patient.final(name), *patient.reports(name))
        if x.within(patient.limit.isoenzyme_window, patient.today, silencing=True)
    ]
    patient.use(*found)
    return patient.settled(found, "obs-balp")
