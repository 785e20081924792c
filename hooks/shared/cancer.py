"""Cancer, plasma-cell disease and lytic bone lesions on record (specification 3.9)."""

from collections.abc import Iterator
from dataclasses import dataclass

from cds_service.facts import Answer, Entry, Moment, PatientFacts, Problem, finding, question
from cds_service.quantity import Quantity

TUM_CANCERS = {
    "breast": "cond-cancer-breast",
    "prostate": "cond-cancer-prostate",
    "kidney": "cond-cancer-kidney",
    "lung": "cond-cancer-lung",
    "other": "cond-cancer-other-bonetropic",
}
HISTORY_FOR_LIFE = (
    "cond-cancer-breast",
    "cond-cancer-prostate",
    "cond-cancer-kidney",
    "cond-cancer-thyroid-melanoma",
)
SCAN_OFTEN_MISSES = ("cond-cancer-kidney", "cond-cancer-thyroid-melanoma")
PLASMA_CELL = {
    "myeloma": "cond-myeloma-active",
    "remission": "cond-myeloma-remission",
    "smouldering": "cond-myeloma-smouldering",
    "plasmacytoma": "cond-plasmacytoma",
    "amyloid": "cond-al-amyloid",
}
MAY_PROGRESS = {**PLASMA_CELL, "mgus": "cond-mgus"}
MARROW = {
    **PLASMA_CELL,
    "leukaemia": "cond-leukaemia",
    "mds-mpn": "cond-mds-mpn",
    "waldenstrom": "cond-waldenstrom",
}
CAN_PROGRESS = ("smouldering", "plasmacytoma", "mgus")


def _is_history(problem: Problem) -> bool:
    return not problem.active or "cond-history-of-cancer" in problem.sets


@dataclass(frozen=True, slots=True)
class Cancer:
    """A cancer that often spreads to bone: which kind, by which entries."""

    kind: str
    entries: tuple[Problem, ...]

    @property
    def scan_often_misses(self) -> bool:
        """Whether it is one whose lesions a bone scan tends to miss."""
        return all(any(name in x.sets for name in SCAN_OFTEN_MISSES) for x in self.entries)


def _counts_as_history(patient: PatientFacts, problem: Problem) -> bool:
    for_life = any(name in problem.sets for name in HISTORY_FOR_LIFE)
    window = patient.limit.cancer_history_window
    return for_life or problem.moment is None or problem.within(window, patient.today)


@finding
def tum_cancers(patient: PatientFacts) -> list[Cancer]:
    """Which cancers that spread to bone are active or in the history that still counts?"""
    cancers = []
    for kind, name in TUM_CANCERS.items():
        entries = tuple(
            x
            for x in patient.problems(name)
            if not _is_history(x) or _counts_as_history(patient, x)
        )
        if entries:
            patient.use(*entries)
            cancers.append(Cancer(kind, entries))
    return cancers


@question
def tum_cancer(patient: PatientFacts) -> Answer:
    """A cancer that often spreads to bone, active or in the past?"""
    return patient.settled(tum_cancers(patient), "Condition")


@question
def tum_cancer_active(patient: PatientFacts) -> Answer:
    """Such a cancer active?"""
    found = [
        x
        for name in TUM_CANCERS.values()
        for x in patient.problems(name, silencing=True)
        if not _is_history(x)
    ]
    patient.use(*found)
    return patient.settled(found, "Condition")


@question
def bone_metastasis(patient: PatientFacts) -> Answer:
    """Bone metastasis on record?"""
    return patient.has("cond-bone-metastasis", silencing=True)


@question
def solid_cancer(patient: PatientFacts) -> Answer:
    """Any solid cancer on record?"""
    return patient.has("cond-cancer-solid", silencing=True)


@question
def solid_cancer_active(patient: PatientFacts) -> Answer:
    """Any solid cancer active?"""
    found = [x for x in patient.problems("cond-cancer-solid") if not _is_history(x)]
    patient.use(*found)
    return patient.settled(found, "Condition")


@question
def solid_cancer_active_or_recent(patient: PatientFacts, window: Quantity) -> Answer:
    """Any solid cancer active, or recorded within {}?"""
    found = [
        x
        for x in patient.problems("cond-cancer-solid", silencing=True)
        if not _is_history(x) or x.within(window, patient.today, silencing=True)
    ]
    patient.use(*found)
    return patient.settled(found, "Condition")


def _kinds(problem: Problem, table: dict[str, str]) -> list[str]:
    """The kinds of a table that an entry is; a smouldering myeloma is not also an active one."""
    kinds = [kind for kind, name in table.items() if name in problem.sets]
    return ["smouldering"] if "smouldering" in kinds else kinds


def _diseases(
    patient: PatientFacts, table: dict[str, str], *, silencing: bool
) -> Iterator[tuple[str, Problem]]:
    seen: set[int] = set()
    for name in table.values():
        for problem in patient.problems(name, silencing=silencing):
            if id(problem) not in seen:
                seen.add(id(problem))
                for kind in _kinds(problem, table):
                    yield kind, problem


@question
def plasma_cell_disease(patient: PatientFacts) -> Answer:
    """Myeloma, plasmacytoma or AL amyloidosis on record?"""
    found = [problem for _, problem in _diseases(patient, PLASMA_CELL, silencing=True)]
    patient.use(*found)
    return patient.settled(found, "Condition")


@finding
def marrow_malignancies(patient: PatientFacts) -> list[str]:
    """Which malignancies of the bone marrow are on record?"""
    found = [*_diseases(patient, MARROW, silencing=False)]
    found += [
        ("lymphoma", x)
        for x in patient.problems("cond-lymphoma")
        if patient.matches("text-marrow", x)
    ]
    patient.use(*(problem for _, problem in found))
    return [kind for kind, _ in found]


@question
def marrow_malignancy(patient: PatientFacts) -> Answer:
    """A malignancy of the bone marrow on record?"""
    return patient.settled(marrow_malignancies(patient), "Condition")


@question
def gammopathy_known(patient: PatientFacts) -> Answer:
    """Myeloma, another plasma-cell disease or MGUS on record?"""
    found = [problem for _, problem in _diseases(patient, MAY_PROGRESS, silencing=True)]
    patient.use(*found)
    return patient.settled(found, "Condition")


def plasma_cell_kind(patient: PatientFacts) -> str:
    """The first kind of plasma-cell disease on record, active myeloma before others; "" when
    none.
    """
    return next((kind for kind, _ in _diseases(patient, PLASMA_CELL, silencing=True)), "")


# -- lytic lesions (lines 55, 56) --------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Lesion:
    """A lytic bone lesion as the chart gives it; `text` is the problem's name, or those sentences
    of a report that describe it.
    """

    entry: Entry
    moment: Moment | None
    text: str
    is_multiple: bool

    @property
    def day(self) -> int | None:
        """The day it was recorded; None when undated."""
        return self.moment.first if self.moment is not None else None


@finding
def lytic_lesions(patient: PatientFacts) -> list[Lesion]:
    """Which lytic bone lesions are active on the problem list or in a recent report?"""
    problems = [
        Lesion(x, x.moment, x.title, patient.matches("text-multiple-lesions", x))
        for x in {
            id(x): x
            for name in ("cond-lytic-lesion", "text-lytic-lesion")
            for x in patient.problems(name)
        }.values()
        if x.active
    ]
    reports = [
        Lesion(x, x.moment, text, patient.says("text-multiple-lesions", text))
        for x in patient.reports()
        if x.within(patient.limit.report_window, patient.today)
        and (text := patient.sentences("text-lytic-lesion", x.conclusion))
    ]
    found = [*problems, *reports]
    patient.use(*(x.entry for x in found))
    return found


@question
def lytic_lesion(patient: PatientFacts) -> Answer:
    """A lytic bone lesion on record?"""
    return patient.settled(lytic_lesions(patient), "Condition", "DiagnosticReport")


@question
def all_lesions_explained(patient: PatientFacts) -> Answer:
    """Does something on record explain every lytic lesion?"""
    if _explained_for_all(patient):
        return patient.settled(True)
    explained = all(_explained_itself(patient, x) for x in lytic_lesions(patient))
    return patient.settled(explained, "Condition")


def _explained_for_all(patient: PatientFacts) -> bool:
    """A loosened implant, a primary bone cancer, or metastases of a known cancer."""
    return any(
        patient.problems(name, silencing=True)
        for name in ("cond-periprosthetic-osteolysis", "cond-osteosarcoma")
    ) or bool(
        patient.problems("cond-bone-metastasis", silencing=True)
        and patient.problems("cond-cancer-solid", silencing=True)
    )


def _explained_itself(patient: PatientFacts, lesion: Lesion) -> bool:
    """Whether its own words, or a diagnosis coded near its date, give another explanation."""
    name, window = "cond-bone-lesion-explained", patient.limit.lesion_explained_window.days
    if name in lesion.entry.sets or patient.says(name, lesion.text):
        return True
    if lesion.moment is None:
        return False
    return any(
        x.moment is not None
        and patient.is_coded(name, x)
        and _may_lie_within(x.moment, lesion.moment, window)
        for x in patient.problems(name, silencing=True)
    )


def _may_lie_within(one: Moment, other: Moment, days: int) -> bool:
    """Whether some days that the two can mean lie at most so many days apart."""
    return one.first - other.last <= days and other.first - one.last <= days


def unexplained_lesions(patient: PatientFacts) -> list[Lesion]:
    """The lesions nothing on record explains."""
    if _explained_for_all(patient):
        return []
    return [x for x in lytic_lesions(patient) if not _explained_itself(patient, x)]


def known_disease_that_may_progress(patient: PatientFacts, lesion: Lesion) -> str:
    """The kind of plasma-cell disorder recorded before the lesion that can turn into myeloma, ""
    when none.
    """
    day = lesion.day
    for kind, problem in _diseases(patient, MAY_PROGRESS, silencing=False):
        if kind in CAN_PROGRESS and _is_before(problem, day):
            return kind
    return ""


def _is_before(problem: Problem, day: int | None) -> bool:
    return day is not None and problem.moment is not None and problem.moment.last < day


def diagnosis_explains(patient: PatientFacts, lesion: Lesion) -> bool:
    """Whether a plasma-cell disease on record is the lesion's diagnosis rather than its
    forerunner.
    """
    return any(
        kind not in CAN_PROGRESS or not _is_before(problem, lesion.day)
        for kind, problem in _diseases(patient, PLASMA_CELL, silencing=True)
    )


def diagnosis_is_listed(patient: PatientFacts, lesion: Lesion) -> bool:
    """Whether a plasma-cell disease on record already names what an abnormal screen may mean; a
    smouldering myeloma, and a plasmacytoma before the lesion, do not.
    """
    return any(
        kind not in CAN_PROGRESS or (kind == "plasmacytoma" and not _is_before(problem, lesion.day))
        for kind, problem in _diseases(patient, PLASMA_CELL, silencing=True)
    )
