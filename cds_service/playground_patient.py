"""Whose call it is, as the page says it: one of the fixture patients, or whoever was sent."""

from datetime import date
from typing import Any

from msgspec import Struct

from cds_service.dates import Moment, completed_years, parse_date
from cds_service.fhir_endpoint import FixturePatient
from cds_service.saved_fixtures import sent_resources

Json = dict[str, Any]

_MONTHS_UP_TO = 2  # years of age
_DAYS_UP_TO = 60


class PatientShown(Struct, frozen=True):
    """`id` is a fixture patient's, "" for anybody else; `who` is age and sex, as far as they were
    sent; `story` is told of a fixture patient whose request was not changed.
    """

    id: str
    who: str
    story: str
    is_edited: bool

    @property
    def is_stored(self) -> bool:
        """Whether the FHIR endpoint and the other pages have the same chart."""
        return bool(self.id) and not self.is_edited


def patient_shown(
    request: Json, hook: str, fixture: FixturePatient | None, stored: Json, day: int
) -> PatientShown:
    """Whose request it is; `stored` is the one that the fixture patient, where it is one's, would
    be fired with.
    """
    who = _who(request, day)
    if fixture is None:
        return PatientShown("", who, "", False)
    is_edited = {**request, "hookInstance": ""} != {**stored, "hookInstance": ""}
    says = [x.says for x in fixture.orders if x.hook == hook]
    story = "" if is_edited else " ".join([fixture.story, *says[:1]])
    return PatientShown(str(fixture.patient["id"]), who, story, is_edited)


def _who(request: Json, day: int) -> str:
    """Age and sex of the patient that the context names."""
    context = request.get("context")
    wanted = context.get("patientId") if isinstance(context, dict) else None
    name = wanted.removeprefix("Patient/") if isinstance(wanted, str) else ""
    for x in sent_resources(request, drafts=False):
        if x.get("resourceType") == "Patient" and x.get("id") == name:
            born, sex = x.get("birthDate"), x.get("gender")
            moment = parse_date(born) if isinstance(born, str) else None
            said = [_age(moment, day) if moment else "", sex if isinstance(sex, str) else ""]
            return ", ".join(filter(None, said))
    return ""


def _age(born: Moment, day: int) -> str:
    """The age on a day in words; "" before birth."""
    if born.first > day:
        return ""
    oldest = completed_years(born.first, day)
    youngest = max(completed_years(min(born.last, day), day), 0)
    if youngest >= _MONTHS_UP_TO or born.is_partial:
        return f"{oldest} years" if youngest == oldest else f"{youngest} or {oldest} years"
    days = day - born.first
    if days < _DAYS_UP_TO:
        return f"{days} day{'' if days == 1 else 's'}"
    first, now = date.fromordinal(born.first), date.fromordinal(day)
    months = (now.year - first.year) * 12 + now.month - first.month - (now.day < first.day)
    return f"{months} months"
