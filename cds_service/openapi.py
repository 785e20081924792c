"""/openapi.json, made from the types that read and write the messages: one source."""

from collections.abc import Iterable, Mapping
from typing import Any

import msgspec

from cds_service.cards import Cards
from cds_service.content import Content, Family
from cds_service.content_files import Service
from cds_service.discovery import Discovery
from cds_service.explanation import ContentUsed, Explanation
from cds_service.feedback import (
    LONGEST_COMMENT,
    LONGEST_ID,
    LONGEST_SYSTEM,
    MOST_ITEMS,
    MOST_SUGGESTIONS,
    OUTCOMES,
    FeedbackRequest,
    FeedbackTaken,
)
from cds_service.hook_request import CONTEXTS, HookRequest
from cds_service.topic_shape import TopicList, TopicPage

Json = dict[str, Any]

_TYPES = (
    *(HookRequest, *CONTEXTS.values(), Cards, Explanation, Discovery, TopicList, TopicPage),
    *(FeedbackRequest, FeedbackTaken),
)
_MEDIA_TYPES = ("application/json", "application/fhir+json")


def _component(name: str) -> Json:
    return {"$ref": f"#/components/schemas/{name}"}


OUTCOME: Json = {
    "type": "object",
    "required": ["resourceType", "issue"],
    "properties": {
        "resourceType": {"const": "OperationOutcome"},
        "issue": {
            "type": "array",
            "minItems": 1,
            "items": {
                "type": "object",
                "required": ["severity", "code", "details"],
                "properties": {
                    "severity": {"enum": ["fatal", "error", "warning", "information"]},
                    "code": {"type": "string", "minLength": 1},
                    "details": {
                        "type": "object",
                        "required": ["text"],
                        "properties": {"text": {"type": "string", "minLength": 1}},
                    },
                    "diagnostics": {"type": "string", "minLength": 1},
                },
            },
        },
    },
}
_HEALTH: Json = {
    "type": "object",
    "required": ["status"],
    "properties": {"status": {"const": "ok"}},
}
_VERSION: Json = {
    "type": "object",
    "required": ["version", "content"],
    "properties": {
        "version": {"type": "string", "minLength": 1},
        "content": _component(ContentUsed.__name__),
    },
}
_DOCUMENT: Json = {"type": "object", "required": ["openapi", "info", "paths"]}
_INDEX: Json = {"type": "object", "additionalProperties": {"type": "string", "minLength": 1}}
_PAGES = {
    "/": _INDEX,
    "/livez": _HEALTH,
    "/readyz": _HEALTH,
    "/version": _VERSION,
    "/openapi.json": _DOCUMENT,
}

_ERRORS = {
    "400": "The body is not one JSON object, or has a name twice.",
    "401": "No token of a trusted client, made out to this URL and not used before; never of the "
    "open server, and of discovery only where it is protected.",
    "403": "The open server answers its own machine only.",
    "404": "There is nothing of that name.",
    "405": "Another method than this one.",
    "412": "Required data could not be obtained; the diagnostics name the prefetch keys.",
    "413": "The body is too large.",
    "415": "The body is not declared as JSON.",
    "422": "The body is JSON and breaks CDS Hooks; the diagnostics name the member.",
    "429": "The client, or the address that it calls from, calls too often; never of the open "
    "server, and of discovery only where it is protected.",
    "500": "A defect of the server.",
    "503": "The server is busy, or the store is needed and cannot be reached.",
}
_OF_CALL = tuple(_ERRORS)
_OF_FEEDBACK = tuple(x for x in _ERRORS if x != "412")
_OF_GET = ("403", "500")
_OF_PROTECTED = ("401", "429", "503")
_REQUEST_ID = "X-Request-ID"
_HEADERS = {
    _REQUEST_ID: {
        "description": "The caller's, when it is of up to 64 letters, digits, '.', '_' and '-'; "
        "else a new one.",
        "required": True,
        "schema": {"type": "string", "pattern": "^[A-Za-z0-9._-]{1,64}$"},
    },
    "Allow": {"description": "The methods that are.", "schema": {"type": "string"}},
    "WWW-Authenticate": {"description": "How to.", "schema": {"const": "Bearer"}},
    "Retry-After": {
        "description": "In how many seconds.",
        "schema": {"type": "string", "pattern": "^[1-9][0-9]*$"},
    },
}
_ALSO_SAID = {
    **{"401": ("WWW-Authenticate",), "405": ("Allow",)},
    **{"429": ("Retry-After",), "503": ("Retry-After",)},
}

# -- what a request must be beyond its types: hook_request asks it -----------------------------

_SAID: Json = {"type": "string", "pattern": r"\S"}
_ID = r"(?!\.{1,2}$)[^/\s?#]+$"
_CONTEXT: Json = {
    "userId": {"type": "string", "pattern": r"^[A-Z][A-Za-z]+/[^/\s?#]+$"},
    "patientId": {"type": "string", "pattern": f"^(Patient/)?{_ID}"},
    "encounterId": {"type": ["string", "null"], "pattern": f"^(Encounter/)?{_ID}"},
}
_DRAFTS: Json = {
    "type": "object",
    "required": ["resourceType"],
    "properties": {
        "resourceType": {"const": "Bundle"},
        "entry": {"type": ["array", "object", "null"]},
    },
    "description": "FHIR R4; any type of Bundle, and drafts without required elements.",
}
# order-select without both is somebody who has selected nothing yet.
_BOTH_OR_NONE: Json = {
    "if": {
        "anyOf": [
            {"required": [name], "properties": {name: {"not": {"type": "null"}}}}
            for name in ("draftOrders", "selections")
        ]
    },
    "then": {
        "required": ["draftOrders", "selections"],
        "properties": {name: {"not": {"type": "null"}} for name in ("draftOrders", "selections")},
    },
}
_ASKED: Mapping[str, Json] = {
    "HookRequest": {
        "hook": {"enum": list(CONTEXTS)},
        "hookInstance": _SAID,
        "context": {"anyOf": [_component(kind.__name__) for kind in CONTEXTS.values()]},
        "prefetch": {
            "type": ["object", "null"],
            "description": "Any value is taken; one that is no resource, Bundle, OperationOutcome "
            "or null answers nothing.",
        },
    },
    "FhirAuthorization": {
        "access_token": _SAID,
        "token_type": {"const": "Bearer"},
        "scope": _SAID,
        "subject": _SAID,
        "patient": {
            "type": ["string", "null"],
            "description": "The patient of the context, where it is given.",
        },
    },
    "PatientViewContext": _CONTEXT,
    "OrderSignContext": {**_CONTEXT, "draftOrders": _DRAFTS},
    "OrderSelectContext": {
        **_CONTEXT,
        "draftOrders": {"anyOf": [_DRAFTS, {"type": "null"}]},
        "selections": {
            "type": ["array", "null"],
            "items": {"type": "string"},
            "description": "The draft orders that are selected, as type/id.",
        },
    },
}
_IN_FEEDBACK: Json = {
    "type": "string",
    "pattern": r"^[^\0]*[^\s\0][^\0]*$",
    "maxLength": LONGEST_ID,
}
_HEARD: Mapping[str, Json] = {
    "FeedbackRequest": {
        "feedback": {
            "type": "array",
            "maxItems": MOST_ITEMS,
            "items": _component("FeedbackItem"),
        },
    },
    "FeedbackItem": {
        "card": _IN_FEEDBACK,
        "outcome": {"enum": list(OUTCOMES)},
        "outcomeTimestamp": {
            "type": "string",
            "format": "date-time",
            "description": "RFC 3339, in any zone; kept in UTC to the microsecond.",
        },
    },
    "AcceptedSuggestion": {"id": _IN_FEEDBACK},
    "ReasonCoding": {
        "code": _IN_FEEDBACK,
        "system": {
            "type": ["string", "null"],
            "pattern": r"^[^\0]*$",
            "maxLength": LONGEST_SYSTEM,
        },
    },
    "OverrideReason": {
        "userComment": {
            "type": ["string", "null"],
            "pattern": r"^[^\0]*$",
            "maxLength": LONGEST_COMMENT,
        },
    },
}
_ACCEPTED_NAMES_WHAT: Json = {
    "if": {"properties": {"outcome": {"const": "accepted"}}},
    "then": {
        "required": ["acceptedSuggestions"],
        "properties": {
            "acceptedSuggestions": {
                "type": "array",
                "minItems": 1,
                "maxItems": MOST_SUGGESTIONS,
            }
        },
    },
}
_TOKEN_NEEDS_SERVER: Json = {
    "if": {
        "required": ["fhirAuthorization"],
        "properties": {"fhirAuthorization": {"type": "object"}},
    },
    "then": {
        "required": ["fhirServer"],
        "properties": {"fhirServer": {"type": "string", "minLength": 1}},
    },
}


def document(content: Content) -> Json:
    """The OpenAPI 3.1 description of every route that a client may call."""
    return {
        "openapi": "3.1.0",
        "info": {"title": "CDS Hooks services", "version": content.software_version},
        "paths": {**_services(content), **_topics(content), **_pages()},
        "components": {"schemas": _schemas(), "headers": _HEADERS},
    }


def _schemas() -> Json:
    _, found = msgspec.json.schema_components(_TYPES, ref_template=_component("{name}")["$ref"])
    for name, members in (*_ASKED.items(), *_HEARD.items()):
        found[name]["properties"] |= members
    found["HookRequest"] |= _TOKEN_NEEDS_SERVER
    found["OrderSelectContext"] |= _BOTH_OR_NONE
    found["FeedbackItem"] |= _ACCEPTED_NAMES_WHAT
    # CDS Hooks 2.0, "Card Attributes": each of the two requires the other.
    found["Card"]["dependentRequired"] = {
        "suggestions": ["selectionBehavior"],
        "selectionBehavior": ["suggestions"],
    }
    return {**found, "OperationOutcome": OUTCOME}


# -- paths -------------------------------------------------------------------------------------


def _services(content: Content) -> Json:
    discover = _get("discover", "Discovery", _component("Discovery"))
    discover["responses"] |= _errors(_OF_PROTECTED)
    paths: Json = {"/cds-services": {"get": discover}}
    for family, service in content.services():
        cards, why = (_with_cards(x, family) for x in ("Cards", "Explanation"))
        called = _post(f"call-{service.id}", service.title, service, cards)
        explained = _post(f"explain-{service.id}", f"Why: {service.title}", service, why)
        del explained["responses"]["412"]  # is explained, with 200
        paths[f"/cds-services/{service.id}"] = {"post": called}
        paths[f"/cds-services/{service.id}/feedback"] = {"post": _feedback(service)}
        paths[f"/explain/{service.id}"] = {"post": explained}
    return paths


def _with_cards(name: str, family: Family) -> Json:
    return {
        **_component(name),
        "properties": {"cards": {"maxItems": family.precedence.most_cards}},
    }


def _topics(content: Content) -> Json:
    asked = {
        "name": "format",
        "in": "query",
        "description": "`json` is JSON whatever the Accept header prefers.",
        "schema": {"type": "string", "examples": ["json"]},
    }
    code = {
        "name": "code",
        "in": "path",
        "required": True,
        "schema": {"enum": list(content.topics())},
    }
    listed = _get("list-topics", "Topics", _component("TopicList"), is_page=True)
    shown = _get("show-topic", "One topic", _component("TopicPage"), is_page=True)
    shown["responses"] |= _errors(["404"])
    return {
        "/topics": {"get": {**listed, "parameters": [asked]}},
        "/topics/{code}": {"get": {**shown, "parameters": [code, asked]}},
    }


def _pages() -> Json:
    return {
        path: {"get": _get(path[1:].partition(".")[0] or "index", path[1:] or "URLs", schema)}
        for path, schema in _PAGES.items()
    }


# -- operations --------------------------------------------------------------------------------


def _get(name: str, title: str, schema: Json, *, is_page: bool = False) -> Json:
    content = _content(schema) | ({"text/html": {"schema": {"type": "string"}}} if is_page else {})
    answers = {"200": _answer("OK", content), **_errors(_OF_GET)}
    return {"operationId": name, "summary": title, "responses": answers}


def _feedback(service: Service) -> Json:
    asked = _content(_component("FeedbackRequest"), _MEDIA_TYPES)
    taken = _answer("Stored.", _content(_component("FeedbackTaken")))
    return {
        "operationId": f"feedback-{service.id}",
        "summary": f"What became of cards: {service.title}",
        "requestBody": {"required": True, "content": asked},
        "responses": {"200": taken, **_errors(_OF_FEEDBACK)},
    }


def _post(name: str, title: str, service: Service, answer: Json) -> Json:
    asked = {
        **_component("HookRequest"),
        "properties": {
            "hook": {"const": service.hook},
            "context": _component(CONTEXTS[service.hook].__name__),
        },
    }
    return {
        "operationId": name,
        "summary": title,
        "requestBody": {"required": True, "content": _content(asked, _MEDIA_TYPES)},
        "responses": {"200": _answer("OK", _content(answer)), **_errors(_OF_CALL)},
    }


def _content(schema: Json, media_types: Iterable[str] = _MEDIA_TYPES[:1]) -> Json:
    return {x: {"schema": schema} for x in media_types}


def _errors(statuses: Iterable[str]) -> Json:
    outcome = _content(_component("OperationOutcome"))
    return {x: _answer(_ERRORS[x], outcome, _ALSO_SAID.get(x, ())) for x in statuses}


def _answer(description: str, content: Json, also: tuple[str, ...] = ()) -> Json:
    names = (_REQUEST_ID, *also)
    headers = {x: {"$ref": f"#/components/headers/{x}"} for x in names}
    return {"description": description, "headers": headers, "content": content}
