"""ActivityDefinition to draft ServiceRequest: the engine fills subject, dates and status, and
nothing else.
"""

from collections.abc import Mapping
from typing import Any

from msgspec import Struct

from cds_service.dates import as_text
from cds_service.errors import ContentError
from cds_service.fhir_files import ActivityDefinitionFile


class OrderTemplate(Struct, frozen=True):
    """One order we may suggest: the button's label and the coded test."""

    name: str
    title: str
    url: str
    codings: tuple[Mapping[str, str], ...]
    text: str

    def draft(
        self,
        resource_id: str,
        patient_id: str,
        encounter_id: str | None,
        today: int,
        from_day: int | None,
    ) -> dict[str, Any]:
        """The draft request for a patient; `from_day` is the first day it is meant for."""
        code: dict[str, Any] = {"text": self.text}
        if self.codings:
            code = {"coding": [dict(x) for x in self.codings], **code}
        request: dict[str, Any] = {
            "resourceType": "ServiceRequest",
            "id": resource_id,
            "instantiatesCanonical": [self.url],
            "status": "draft",
            "intent": "proposal",
            "code": code,
            "subject": {"reference": f"Patient/{patient_id}"},
            "authoredOn": as_text(today),
        }
        if encounter_id is not None:
            request["encounter"] = {"reference": f"Encounter/{encounter_id}"}
        if from_day is not None:
            request["occurrenceDateTime"] = as_text(from_day)
        return request


def order_of(file: str, found: ActivityDefinitionFile) -> OrderTemplate:
    """The template of a FHIR R4 ActivityDefinition; raises ContentError for one that computes."""
    for key, value in (
        ("dynamicValue", found.dynamic_value),
        ("library", found.library),
        ("transform", found.transform),
    ):
        if value is not None:
            why = "is refused: a template that computes is a rule in disguise"
            raise ContentError(file, key, why)
    if found.kind != "ServiceRequest":
        raise ContentError(file, "kind", "must be ServiceRequest")
    if not found.code.coding:
        why = "needs a code: an order without one is text on a card"
        raise ContentError(file, "code.coding", why)
    codings = tuple(
        {"system": x.system, "code": x.code, **({"display": x.display} if x.display else {})}
        for x in found.code.coding
    )
    return OrderTemplate(found.id, found.title, found.url, codings, found.code.text or found.title)
