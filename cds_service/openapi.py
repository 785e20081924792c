"""/openapi.json, made from the types that read and write the messages: one source."""

from typing import Any

import msgspec

from cds_service.cards import Cards
from cds_service.content import Content
from cds_service.discovery import Discovery
from cds_service.hook_request import CONTEXTS, HookRequest
from cds_service.topic_shape import TopicList, TopicPage

OUTCOME: dict[str, Any] = {
    "type": "object",
    "required": ["resourceType", "issue"],
    "properties": {
        "resourceType": {"const": "OperationOutcome"},
        "issue": {
            "type": "array",
            "minItems": 1,
            "items": {
                "type": "object",
                "required": ["severity", "code"],
                "properties": {
                    "severity": {"enum": ["fatal", "error", "warning", "information"]},
                    "code": {"type": "string"},
                    "details": {"type": "object"},
                    "diagnostics": {"type": "string"},
                },
            },
        },
    },
}

_VERDICTS = ("fired", "suppressed", "not-applicable", "data-missing", "data-unusable", "not-met")
EXPLANATION: dict[str, Any] = {
    "type": "object",
    "required": ["status", "cards", "verdicts", "data", "content", "asOf"],
    "properties": {
        "status": {"enum": [200, 412]},
        "cards": {"type": "array", "items": {"$ref": "#/components/schemas/Card"}},
        "verdicts": {
            "type": "array",
            "items": {
                "type": "object",
                "required": ["topic", "verdict", "reason", "evidence"],
                "properties": {
                    "topic": {"type": "string"},
                    "verdict": {"enum": list(_VERDICTS)},
                    "by": {"type": "string"},
                    "reason": {"type": "object", "required": ["code", "text"]},
                    "evidence": {"type": "array"},
                },
            },
        },
        "data": {"type": "array"},
        "content": {"type": "object", "required": ["version", "hash"]},
        "asOf": {"type": "string", "format": "date"},
        "series": {"type": "array"},
        "hint": {"type": "array", "items": {"type": "string"}},
    },
}
_ERRORS = {
    "400": "The body is not JSON.",
    "403": "The open server answers its own machine only.",
    "404": "No such service.",
    "412": "Required data could not be obtained; the diagnostics name the prefetch keys.",
    "413": "The body is too large.",
    "415": "The body is not declared as JSON.",
    "422": "The body is JSON and breaks CDS Hooks.",
    "500": "A defect of the server.",
}


def document(content: Content) -> dict[str, Any]:
    """The OpenAPI 3.1 description of every route that a client may call."""
    types = [HookRequest, *CONTEXTS.values(), Cards, Discovery, TopicList, TopicPage]
    (request, *_, cards, discovered, listed, page), components = msgspec.json.schema_components(
        types, ref_template="#/components/schemas/{name}"
    )
    components |= {"OperationOutcome": OUTCOME, "Explanation": EXPLANATION}
    _describe_context(components)
    paths: dict[str, Any] = {"/cds-services": {"get": _get("Discovery", discovered)}}
    for _, service in content.services():
        paths[f"/cds-services/{service.id}"] = {"post": _post(service.title, request, cards)}
        explained = {"$ref": "#/components/schemas/Explanation"}
        paths[f"/explain/{service.id}"] = {
            "post": _post(f"Why: {service.title}", request, explained, without=("412",))
        }
    paths["/topics"] = {"get": _get("Topics", listed, html=True)}
    for code, topic in content.topics().items():
        paths[f"/topics/{code}"] = {"get": _get(topic.card.title, page, html=True)}
    for path in ("/", "/livez", "/readyz", "/version", "/openapi.json"):
        paths[path] = {"get": _get(path[1:] or "index", {"type": "object"})}
    return {
        "openapi": "3.1.0",
        "info": {"title": "CDS Hooks services", "version": content.software_version},
        "paths": paths,
        "components": {"schemas": components},
    }


def _describe_context(components: dict[str, Any]) -> None:
    """The members that are kept as bytes until their type is known have a schema all the same."""
    properties = components["HookRequest"]["properties"]
    properties["context"] = {
        "anyOf": [{"$ref": f"#/components/schemas/{kind.__name__}"} for kind in CONTEXTS.values()]
    }
    properties["hook"] = {"enum": list(CONTEXTS)}
    properties["prefetch"] = {
        "anyOf": [
            {"type": "object", "additionalProperties": {"type": ["object", "null"]}},
            {"type": "null"},
        ]
    }


def _content(schema: dict[str, Any]) -> dict[str, Any]:
    return {"application/json": {"schema": schema}}


def _get(title: str, schema: dict[str, Any], *, html: bool = False) -> dict[str, Any]:
    content = _content(schema) | ({"text/html": {"schema": {"type": "string"}}} if html else {})
    return {"summary": title, "responses": {"200": {"description": "OK", "content": content}}}


def _post(
    title: str, request: dict[str, Any], answer: dict[str, Any], without: tuple[str, ...] = ()
) -> dict[str, Any]:
    outcome = _content({"$ref": "#/components/schemas/OperationOutcome"})
    errors = {
        status: {"description": text, "content": outcome}
        for status, text in _ERRORS.items()
        if status not in without
    }
    return {
        "summary": title,
        "requestBody": {"required": True, "content": _content(request)},
        "responses": {"200": {"description": "OK", "content": _content(answer)}, **errors},
    }
