"""Acute liver failure with a low ratio of ALP to bilirubin: WIL-1 of the clinical specification."""

from collections.abc import Iterator

from cds_service.facts import Answer, Judged, PatientFacts, any_of, finding, gate, question, surely
from cds_service.quantity import Quantity
from cds_service.rules import Advice, Filling
from hooks.shared import definitions as d
from hooks.shared.readings import Reading


@gate
def of_age(patient: PatientFacts) -> Answer | bool:
    """Neither too young nor too old for this row?"""
    limit = patient.limit
    if not patient.is_at_least(limit.failure_from_age):
        return False
    return patient.is_younger_than(limit.failure_below_age)


# -- liver failure -----------------------------------------------------------------------------


@question
def liver_failure(patient: PatientFacts) -> Answer:
    """Acute liver failure, on record or by its tests?"""
    return any_of(patient, failure_on_record, failure_by_tests)


@question
def failure_on_record(patient: PatientFacts) -> Answer:
    """Acute liver failure recorded within two weeks?"""
    window = patient.limit.failure_window
    return patient.has("cond-acute-liver-failure", active=True, within=window)


@question
def failure_by_tests(patient: PatientFacts) -> Answer | bool:
    """Young, with the INR, bilirubin and transaminases of liver failure, and no other reason?"""
    if not patient.is_younger_than(patient.limit.failure_by_tests_below_age):
        return False
    if not (inr_high(patient) and bilirubin_of_failure(patient)):
        return False
    if not transaminases_of_failure(patient):
        return False
    return not any_of(patient, anticoagulated, alcohol_liver, paracetamol_overdose)


@question
def inr_high(patient: PatientFacts) -> Answer:
    """INR high within days?"""
    limit = patient.limit
    inr = patient.latest_within("inr", limit.failure_tests_window)
    high = inr is not None and _plain(inr).at_least(limit.failure_inr) is True
    return patient.settled(high, "obs-inr")


@question
def bilirubin_of_failure(patient: PatientFacts) -> Answer:
    """Bilirubin clearly raised within days?"""
    limit = patient.limit
    bilirubin = patient.latest_within("bilirubin", limit.failure_tests_window)
    high = (
        bilirubin is not None
        and bilirubin.measured.has_unit
        and bilirubin.value.above(limit.failure_bilirubin) is True
    )
    return patient.settled(high, "obs-bilirubin-total")


@question
def transaminases_of_failure(patient: PatientFacts) -> Answer:
    """AST or ALT raised within days, and neither so high that hepatitis explains it?"""
    limit = patient.limit
    latest = [patient.latest_within(x, limit.failure_tests_window) for x in ("ast", "alt")]
    known = [x for x in latest if x is not None]
    moderate = all(
        x.measured.has_unit and x.value.below(limit.failure_transaminases) is True for x in known
    )
    return patient.settled(moderate and any(x.is_high for x in known), "obs-ast", "obs-alt")


@question
def anticoagulated(patient: PatientFacts) -> Answer:
    """An oral anticoagulant within months?"""
    return d.taken_within(patient, "med-anticoagulant", patient.limit.anticoagulant_window)


@question
def alcohol_liver(patient: PatientFacts) -> Answer:
    """Alcohol-related liver disease on record?"""
    return patient.has("cond-alcohol-liver", silencing=True)


@question
def paracetamol_overdose(patient: PatientFacts) -> Answer:
    """Paracetamol overdose within two weeks?"""
    window = patient.limit.failure_window
    return patient.has("cond-paracetamol-overdose", within=window, silencing=True)


# -- the ratio ---------------------------------------------------------------------------------


@finding
def latest_alp_for_ratio(patient: PatientFacts) -> Reading | None:
    """What is the latest ALP, the highest of its day?"""
    return next(iter(d.latest_of_each_day(d.alp_values(patient), prefer_high=True)), None)


def _drawn_with_alp(patient: PatientFacts, measure: str, *, prefer_high: bool) -> Judged | None:
    """The result of the ALP's specimen, else of at most a day apart: the latest, of one day the
    one that least favours the row.
    """
    alp = latest_alp_for_ratio(patient)
    if alp is None:
        return None

    def order(x: Judged) -> tuple[object, ...]:
        number = x.value.value
        return (
            d.shares_specimen(x.measured.result, alp.measured.result),
            x.moment.first,
            number if prefer_high else -number,
        )

    together = [x for x in patient.judged(measure) if _drawn_together(patient, x, alp)]
    return max(together, key=order, default=None)


def _drawn_together(patient: PatientFacts, one: Judged, other: Judged) -> bool:
    """Whether two results come from one specimen, from one day, or by the clock at most a day
    apart.
    """
    if d.names_same_specimen(one.measured.result, other.measured.result):
        return True
    moments = (one.moment, other.moment)
    earlier, later = sorted(moments, key=lambda x: (x.first, x.clock))
    apart = later.first - earlier.first
    if earlier.clock and later.clock:
        window = patient.limit.ratio_apart.days
        return apart < window or (apart == window and later.second <= earlier.second)
    return apart == 0 and not earlier.is_partial and not later.is_partial


@finding
def bilirubin_with_alp(patient: PatientFacts) -> Judged | None:
    """Which bilirubin was drawn with the latest ALP?"""
    return _drawn_with_alp(patient, "bilirubin", prefer_high=False)


@finding
def ast_with_alp(patient: PatientFacts) -> Judged | None:
    """Which AST was drawn with the latest ALP?"""
    return _drawn_with_alp(patient, "ast", prefer_high=False)


@finding
def alt_with_alp(patient: PatientFacts) -> Judged | None:
    """Which ALT was drawn with the latest ALP?"""
    return _drawn_with_alp(patient, "alt", prefer_high=True)


def _plain(judged: Judged) -> Quantity:
    """The number without its unit, for a ratio across units or a number that has none."""
    return Quantity(judged.value.value, "1", judged.value.comparator)


def alp_to_bilirubin(patient: PatientFacts) -> Quantity | None:
    """ALP in U/L over bilirubin in mg/dL."""
    alp, bilirubin = latest_alp_for_ratio(patient), bilirubin_with_alp(patient)
    if alp is None or bilirubin is None:
        return None
    return _plain(alp).ratio(_plain(bilirubin))


def ast_to_alt(patient: PatientFacts) -> Quantity | None:
    """AST over ALT, None unless both were drawn with the ALP and have a unit."""
    ast, alt = ast_with_alp(patient), alt_with_alp(patient)
    if ast is None or alt is None or not (ast.measured.has_unit and alt.measured.has_unit):
        return None
    return _plain(ast).ratio(_plain(alt))


@question
def ratio_low(patient: PatientFacts) -> Answer | bool:
    """ALP to bilirubin low, both within two weeks and drawn together?"""
    alp, limit = latest_alp_for_ratio(patient), patient.limit
    if d.nothing_usable(patient) or d.newer_unreadable(patient, alp) is not None:
        return patient.unusable()
    if alp is None or not alp.moment.surely_within(limit.failure_window.days, patient.today):
        return False
    bilirubin = bilirubin_with_alp(patient)
    if bilirubin is None:
        return patient.settled(False, "obs-bilirubin-total")
    patient.use(alp, bilirubin)
    if not (alp.measured.has_unit and bilirubin.measured.has_unit):
        return patient.unusable()
    ratio = alp_to_bilirubin(patient)
    recent = bilirubin.moment.surely_within(limit.failure_window.days, patient.today)
    return recent and ratio is not None and ratio.below(limit.low_ratio) is True


# -- what keeps it silent ----------------------------------------------------------------------


@question
def wilson_known(patient: PatientFacts) -> Answer:
    """Wilson disease on record?"""
    return patient.has("cond-wilson", silencing=True)


@question
def specimen_spoilt(patient: PatientFacts) -> bool:
    """EDTA pattern, or a specimen that the laboratory calls spoilt?"""
    alp, bilirubin = latest_alp_for_ratio(patient), bilirubin_with_alp(patient)
    results = [x.measured.result for x in (alp, bilirubin) if x is not None]
    if any(patient.says("text-spoilt-specimen", x.remarks) for x in results):
        return True
    return alp is not None and d.looks_like_edta(patient, alp.measured.result)


@question
def plasma_exchanged(patient: PatientFacts) -> Answer:
    """Plasma exchange within days before the ALP?"""
    alp, window = latest_alp_for_ratio(patient), patient.limit.plasma_exchange_window
    found = [
        x
        for x in patient.acts("proc-plasma-exchange")
        if alp is not None and x.within(window, alp.moment.last, silencing=True)
    ]
    patient.use(*found)
    return patient.settled(found, "Procedure")


@question
def haemolysis_of_its_own(patient: PatientFacts) -> Answer:
    """Hereditary haemolysis or a transfusion reaction on record?"""
    return patient.has("cond-haemolysis-other", silencing=True)


@question
def antiglobulin_positive(patient: PatientFacts) -> Answer:
    """Direct antiglobulin test positive within two weeks?"""
    found = [
        x
        for x in patient.final("obs-dat")
        if x.within(patient.limit.failure_window, patient.today, silencing=True)
        and (x.flagged_abnormal or any(patient.says("text-positive", text) for text in x.texts))
    ]
    patient.use(*found)
    return patient.settled(found, "obs-dat")


@question
def ratio_explained(patient: PatientFacts) -> Answer:
    """Wilson disease known, a spoilt specimen, plasma exchange, or immune or hereditary
    haemolysis?
    """
    return any_of(
        patient,
        wilson_known,
        specimen_spoilt,
        plasma_exchanged,
        haemolysis_of_its_own,
        antiglobulin_positive,
    )


def acute_liver_failure_low_alp_ratio(patient: PatientFacts) -> Iterator[Advice]:
    """WIL-1: acute liver failure with an ALP that is low for its bilirubin."""
    if not of_age(patient):
        return
    if not liver_failure(patient):
        return
    if not ratio_low(patient):
        return
    if surely(ratio_explained(patient)):
        return
    transaminases = ast_to_alt(patient)
    q: Filling = patient.to_one_decimal(transaminases) or "unknown"
    strong = transaminases is not None and transaminases.above(patient.limit.high_ast_to_alt)
    drawn = (latest_alp_for_ratio, bilirubin_with_alp, ast_with_alp, alt_with_alp)
    yield Advice(
        "acuteLiverFailureLowAlpRatio",
        "warning" if strong else "info",
        values={
            "r": patient.to_one_decimal(alp_to_bilirubin(patient), cut=True),
            "q": q,
            "basis": "record" if failure_on_record(patient).value else "tests",
        },
        findings=[x for find in drawn if (x := find(patient)) is not None],
    )
