"""The POST body and each hook's context, typed: 400 for what is not JSON, 422 for what breaks CDS
Hooks.
"""

import json
import re
from collections import Counter
from collections.abc import Mapping
from heapq import nlargest
from typing import Any

import msgspec
from msgspec import Raw, Struct

from cds_service.errors import BrokenRequest, NotJson, TooLarge
from cds_service.resources import is_overfull, with_whole_escapes


class FhirAuthorization(Struct, frozen=True):
    """How to read more from the client's FHIR server (CDS Hooks 2.0, "FHIR Resource Access")."""

    access_token: str
    token_type: str
    expires_in: int
    scope: str
    subject: str
    patient: str | None = None


class HookContext(Struct, rename="camel", frozen=True):
    """What the context of every hook we answer has."""

    user_id: str
    patient_id: str
    encounter_id: str | None = None


class PatientViewContext(HookContext, frozen=True):
    """The context of patient-view (hook version 1.0)."""


class OrderSignContext(HookContext, rename="camel", frozen=True, kw_only=True):
    """The context of order-sign (hook version 1.0); the draft orders are still bytes."""

    draft_orders: Raw


class OrderSelectContext(HookContext, rename="camel", frozen=True):
    """The context of order-select (hook version 1.0). Neither is there where nothing is selected
    yet: the CDS Hooks Sandbox fires the hook so when its tab is opened again.
    """

    draft_orders: Raw = msgspec.field(default_factory=Raw)
    selections: list[str] | None = None


CONTEXTS: Mapping[str, type[HookContext]] = {
    "patient-view": PatientViewContext,
    "order-select": OrderSelectContext,
    "order-sign": OrderSignContext,
}


ORDER_HOOKS = ("order-select", "order-sign")


class HookRequest(Struct, rename="camel", frozen=True):
    """One firing of a hook (CDS Hooks 2.0, "HTTP Request"); prefetch values are still bytes."""

    hook: str
    hook_instance: str
    context: Raw
    fhir_server: str | None = None
    fhir_authorization: FhirAuthorization | None = None
    prefetch: dict[str, Raw] | None = None


_envelope = msgspec.json.Decoder(HookRequest)
_contexts = {hook: msgspec.json.Decoder(kind) for hook, kind in CONTEXTS.items()}
_USER = re.compile(r"[A-Z][A-Za-z]+/[^/\s?#]+\Z")
_ID = re.compile(r"(?!\.{1,2}\Z)[^/\s?#]+\Z")


class Call(Struct, frozen=True):
    """A request that keeps the specification, with its context."""

    hook: str
    hook_instance: str
    context: HookContext
    fhir_server: str | None
    fhir_authorization: FhirAuthorization | None
    prefetch: dict[str, Raw]


def parse_call(body: bytes, hook: str) -> Call:
    """The call of a service's hook; raises NotJson or BrokenRequest naming the member that is
    wrong, and TooLarge.
    """
    if is_overfull(body):
        raise TooLarge("The body has more objects and lists than any chart.")
    request = _decode(body)
    _refuse_double_meanings(body, request.prefetch)
    for name, text in (("hook", request.hook), ("hookInstance", request.hook_instance)):
        if not text.strip():
            raise BrokenRequest("The request breaks CDS Hooks.", f"{name} must not be blank")
    if request.hook != hook:
        raise BrokenRequest("This service does not answer that hook.", f"hook must be {hook}")
    if request.fhir_authorization is not None:
        _check_authorization(request.fhir_authorization, request.fhir_server)
    context = _context(request.context, hook)
    granted_for = request.fhir_authorization and request.fhir_authorization.patient
    if granted_for and granted_for.removeprefix("Patient/") != context.patient_id:
        why = "fhirAuthorization.patient must be context.patientId"
        raise BrokenRequest("The request breaks CDS Hooks.", why)
    return Call(
        hook=request.hook,
        hook_instance=request.hook_instance,
        context=context,
        fhir_server=request.fhir_server,
        fhir_authorization=request.fhir_authorization,
        prefetch=request.prefetch or {},
    )


def _decode(body: bytes) -> HookRequest:
    """The envelope; half a character in it is read as the sign for one that is unknown."""
    try:
        if not body.isascii():
            body.decode()
        return _envelope.decode(body)
    except msgspec.ValidationError as error:
        if not body.lstrip().startswith(b"{"):
            raise NotJson("The body must be one JSON object.") from None
        _check_whole(body)
        _refuse_double_meanings(body, None)
        raise BrokenRequest("The request breaks CDS Hooks.", str(error)) from None
    except (msgspec.DecodeError, UnicodeDecodeError):
        if (whole := with_whole_escapes(body)) != body:
            return _decode(whole)
        raise NotJson("The body is not JSON.") from None
    except RecursionError:
        raise NotJson("The body is nested too deeply.") from None


def _check_whole(body: bytes) -> None:
    """Raises NotJson when what follows the first broken member is not JSON either."""
    try:
        msgspec.json.decode(body, type=Raw)
    except (msgspec.DecodeError, RecursionError):
        raise NotJson("The body is not JSON.") from None


def _context(raw: Raw, hook: str) -> HookContext:
    try:
        context = _contexts[hook].decode(raw)
    except msgspec.ValidationError as error:
        raise BrokenRequest("The request breaks CDS Hooks.", f"context: {error}") from None
    patient_id = context.patient_id.removeprefix("Patient/")
    encounter_id = context.encounter_id
    if encounter_id is not None:
        encounter_id = encounter_id.removeprefix("Encounter/")
    for name, text, pattern in (
        ("context.userId", context.user_id, _USER),
        ("context.patientId", patient_id, _ID),
        ("context.encounterId", encounter_id, _ID),
    ):
        if text is not None and not pattern.match(text):
            raise BrokenRequest("The request breaks CDS Hooks.", f"{name} is not of its form")
    if isinstance(context, OrderSelectContext):
        _check_together(context)
    return msgspec.structs.replace(context, patient_id=patient_id, encounter_id=encounter_id)


def _check_together(context: OrderSelectContext) -> None:
    """Raises BrokenRequest for selections without the orders they select from, or the reverse."""
    drafted = bytes(context.draft_orders) not in (b"", b"null")
    if drafted is (context.selections is None):
        missing = "selections" if drafted else "draftOrders"
        raise BrokenRequest("The request breaks CDS Hooks.", f"context.{missing} is required")


def _check_authorization(given: FhirAuthorization, fhir_server: str | None) -> None:
    if not fhir_server:
        raise BrokenRequest(
            "The request breaks CDS Hooks.", "fhirServer is required beside fhirAuthorization"
        )
    if given.token_type != "Bearer" or not given.access_token.strip():
        raise BrokenRequest(
            "The request breaks CDS Hooks.",
            "fhirAuthorization needs an access_token of token_type Bearer",
        )
    for name, text in (("scope", given.scope), ("subject", given.subject)):
        if not text.strip():
            why = f"fhirAuthorization.{name} must not be blank"
            raise BrokenRequest("The request breaks CDS Hooks.", why)


class _Pairs(dict[str, Any]):
    """A JSON object that remembers a name given twice."""

    repeated = ""

    def __init__(self, pairs: list[tuple[str, Any]]) -> None:
        super().__init__(pairs)
        if len(self) != len(pairs):
            times = Counter(name for name, _ in pairs)
            self.repeated = next(name for name in times if times[name] > 1)


_in_pairs = json.JSONDecoder(object_pairs_hook=_Pairs, parse_int=lambda digits: 0)
_MOST_CUT = 50  # values of a prefetch
_MOST_ALIKE = 8  # values that begin with the same bytes, looked at one by one
_READ = ("hook", "hookInstance", "fhirServer", "context", "fhirAuthorization")


def _refuse_double_meanings(body: bytes, prefetch: dict[str, Raw] | None) -> None:
    """Raises NotJson for a name given twice in envelope, context or fhirAuthorization (which one
    holds?), and for half a character in what we read of them.

    The prefetch is cut out first: it is nearly all of the body, and there the last of two holds.
    Of very many values the longest are, since each costs a copy.
    """
    longest = nlargest(_MOST_CUT, map(bytes, (prefetch or {}).values()), key=len)
    for value in longest:
        body = _without(body, value)
    try:
        envelope = _in_pairs.decode(body.decode(errors="replace"))
    except RecursionError:
        raise NotJson("The body is nested too deeply.") from None
    except json.JSONDecodeError:
        raise NotJson("The body is not JSON.") from None
    for where, found in (
        ("the request", envelope),
        ("context", envelope.get("context")),
        ("fhirAuthorization", envelope.get("fhirAuthorization")),
    ):
        if isinstance(found, _Pairs) and found.repeated:
            raise NotJson("The body is not JSON of one meaning.", f"{where} has a name twice")
    for name in _READ:
        if _has_half_a_character(envelope.get(name)):
            raise NotJson("The body is not JSON of one meaning.", f"{name} has half a character")


def _has_half_a_character(found: object) -> bool:
    texts = found.values() if isinstance(found, dict) else (found,)
    return any(isinstance(x, str) and not _is_whole(x) for x in texts)


def _is_whole(text: str) -> bool:
    return not any("\ud800" <= x <= "\udfff" for x in text)


def _without(body: bytes, value: bytes) -> bytes:
    """The body with a long object or list cut out; found by its first bytes, at next to no cost.

    A text or a number is left in: it may stand elsewhere as a name, or as part of one.
    """
    head = value[:64]
    if len(value) <= len(head) or head[:1] not in (b"{", b"["):
        return body
    at = body.find(head)
    for _ in range(_MOST_ALIKE):
        if at < 0 or body.startswith(value, at):
            break
        at = body.find(head, at + 1)
    else:  # what begins alike all over is searched for whole, which takes no longer for that
        at = body.find(value)
    return body if at < 0 else b"%b0%b" % (body[:at], body[at + len(value) :])
