"""Checks that the FHIR we send is valid R4: in `check`, and once in the parent process before
workers start.
"""

from collections.abc import Mapping
from pathlib import Path

from fhir.resources.R4B.activitydefinition import ActivityDefinition
from fhir.resources.R4B.servicerequest import ServiceRequest
from fhir.resources.R4B.valueset import ValueSet
from pydantic import ValidationError

from cds_service.errors import ContentError
from cds_service.orders import OrderTemplate


def check_files(folder: Path) -> None:
    """Raises ContentError for an order template or value set of a content folder that is not valid
    FHIR R4.
    """
    shared = folder / "shared"
    for path in sorted((shared / "orders").glob("*.json")):
        _check(f"shared/orders/{path.name}", ActivityDefinition, path.read_bytes())
    for path in sorted((shared / "valuesets").glob("*.json")):
        _check(f"shared/valuesets/{path.name}", ValueSet, path.read_bytes())


def check_drafts(orders: Mapping[str, OrderTemplate]) -> None:
    """Raises ContentError for an order whose drafts would not be valid FHIR R4."""
    for name, template in orders.items():
        draft = template.draft("draft", "patient", "encounter", 1, 1)
        try:
            ServiceRequest.model_validate(draft)
        except ValidationError as error:
            raise ContentError(
                f"order {name}", "", f"makes no valid ServiceRequest: {error}"
            ) from error


def _check(file: str, kind: type[ActivityDefinition | ValueSet], found: bytes) -> None:
    try:
        kind.model_validate_json(found)
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(x) for x in first["loc"])
        raise ContentError(file, where, f"is not valid FHIR R4: {first['msg']}") from error
