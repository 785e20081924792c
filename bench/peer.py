"""HealthChain with one rule, written as its documentation shows: the latest ALP below 40 U/L gives
one card. Once over FHIR objects, which it validates, once over the raw dictionaries.

It runs in bench/.venv, so it imports nothing of ours.
"""

from datetime import datetime
from typing import Any

from healthchain.fhir import convert_prefetch_to_fhir_objects, get_resources
from healthchain.gateway import CDSHooksService, HealthChainAPI
from healthchain.models import Card, CDSRequest, CDSResponse

LIMIT = 40
ALP = "6768-6"


def with_objects() -> Any:
    """The application whose rule reads FHIR objects."""
    cds = CDSHooksService()

    @cds.hook("patient-view", id="alp-review")  # type: ignore[untyped-decorator, unused-ignore]
    def low_alp(request: CDSRequest) -> CDSResponse:
        data = convert_prefetch_to_fhir_objects(request.prefetch or {})
        found = [
            (x.effectiveDateTime, x.valueQuantity.value)
            for x in get_resources(data["observations"], "Observation")
            if any(coding.code == ALP for coding in x.code.coding)
        ]
        return _answer(found)

    return _serving(cds)


def with_dicts() -> Any:
    """The application whose rule reads what was sent, as it is."""
    cds = CDSHooksService()

    @cds.hook("patient-view", id="alp-review")  # type: ignore[untyped-decorator, unused-ignore]
    def low_alp(request: CDSRequest) -> CDSResponse:
        entries = (request.prefetch or {})["observations"]["entry"]
        found = [
            (datetime.fromisoformat(x["effectiveDateTime"]), x["valueQuantity"]["value"])
            for x in (entry["resource"] for entry in entries)
            if any(coding["code"] == ALP for coding in x["code"]["coding"])
        ]
        return _answer(found)

    return _serving(cds)


def _serving(cds: Any) -> Any:
    app = HealthChainAPI(title="ALP review")
    app.register_service(cds)
    return app


def _answer(found: list[tuple[datetime, Any]]) -> CDSResponse:
    if not found or max(found)[1] >= LIMIT:
        return CDSResponse(cards=[])
    value = max(found)[1]
    card = Card(
        summary=f"ALP low: {value} U/L, below {LIMIT}",
        indicator="info",
        source={"label": "ALP review"},
        detail="Consider hypophosphatasia: measure PLP, and repeat ALP.",
    )
    return CDSResponse(cards=[card])
