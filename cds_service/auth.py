"""Who calls: the client's token (CDS Hooks 2.0, "Trusting CDS Clients"), checked to the last claim
before anything else of the call is looked at.
"""

import hashlib
import re
from collections.abc import Callable, Iterable, Sequence
from datetime import datetime
from threading import Lock
from typing import Annotated, TypeVar

import jwt
import msgspec
from msgspec import Meta, Struct

from cds_service.client_keys import PublishedKeys, Ways
from cds_service.clients import Caller, Client
from cds_service.errors import NotAuthenticated
from cds_service.jwks import KeySet
from cds_service.store import Store

LEEWAY = 60  # seconds that clocks may differ; the Sandbox rounds iat up
MAX_AGE = 24 * 3600
MAX_TOKEN = 16_000  # characters
SECONDS_BETWEEN_SWEEPS = 600
_TENANT = re.compile(r"[^\x00-\x1f\x7f]{1,255}\Z")  # it is in an index of the store
_BEARER = re.compile(r"bearer +([\w.~+/=-]+)\Z", re.IGNORECASE | re.ASCII)
T = TypeVar("T")


class _Header(Struct):
    alg: str
    typ: str
    kid: Annotated[str, Meta(min_length=1)]
    jku: str | None = None


class _Issuer(Struct):
    iss: str


class _Claims(Struct):
    aud: str | list[str]
    exp: float  # a whole number too large for one is none: it cannot be reckoned with
    iat: float
    jti: str
    nbf: float | None = None
    tenant: str | None = None


_JWS = jwt.PyJWS()
_CLAIMS = msgspec.json.Decoder(_Claims)
_ISSUER = msgspec.json.Decoder(_Issuer)
_UNREADABLE = (msgspec.DecodeError, UnicodeDecodeError, RecursionError)


class _Refused(Exception):
    """Why a token is refused: one word for the log, and whose it says it is where that is a client
    of ours.
    """

    def __init__(self, word: str, client: str = "") -> None:
        super().__init__(word)
        self.word = word
        self.client = client


class Authenticator:
    """Tells the trusted clients' calls from all others; any number of threads may ask at once.

    `bases` are the public addresses of this server, `now` is the clock.
    """

    def __init__(
        self,
        clients: Sequence[Client],
        bases: Iterable[str],
        store: Store,
        now: Callable[[], datetime],
        ways: Ways,
    ) -> None:
        self._clients = {x.issuer: x for x in clients}
        self._published = {x.jku: PublishedKeys(x.jku, ways) for x in clients if x.jku}
        self._bases = tuple(bases)
        self._store = store
        self._now = now
        self._sweep = Lock()
        self._swept_at = 0.0

    def caller(
        self, authorization: str, path: str, known: Callable[[Caller], object] = lambda _: None
    ) -> Caller:
        """Whose call of a path this is; raises NotAuthenticated, or StoreDown.

        `known` is told so before the token is used up, and what it raises leaves the token unused.
        """
        try:
            return self._caller(authorization, path, known)
        except _Refused as refused:
            raise NotAuthenticated(refused.word, refused.client) from None

    def _caller(self, authorization: str, path: str, known: Callable[[Caller], object]) -> Caller:
        token = _token(authorization)
        header, payload = _unverified(token)
        client = self._client(payload)
        try:
            self._check_signature(token, header, client)
            claims = _read(_CLAIMS, payload, "claims")
            self._check_times(claims, client)
            self._check_audience(claims, client, path)
            if client.tenants and claims.tenant not in client.tenants:
                raise _Refused("tenant")
            if claims.tenant is not None and not _TENANT.match(claims.tenant):
                raise _Refused("tenant")
            caller = client.caller(claims.tenant or "")
            known(caller)
            self._use_up(claims, client)
        except _Refused as refused:
            raise _Refused(refused.word, client.name) from None
        return caller

    def _client(self, payload: bytes) -> Client:
        """The listed client that the token says it is from; that is not yet shown."""
        client = self._clients.get(_read(_ISSUER, payload, "no-issuer").iss)
        if client is None:
            raise _Refused("unlisted-issuer")
        return client

    def _check_signature(self, token: str, header: _Header, client: Client) -> None:
        """By a key of this very client, whatever keys the token brings along."""
        if header.typ != "JWT":
            raise _Refused("typ")
        if header.alg not in client.algorithms:
            raise _Refused("algorithm")
        if client.jku and header.jku is not None and header.jku != client.jku:
            raise _Refused("unlisted-jku")
        keys = self._keys(client, header.kid)
        key = keys.find(header.kid, header.alg)
        if key is None:
            raise _Refused("unknown-key" if keys.keys else "no-keys")
        try:
            _JWS.decode_complete(token, key.public, algorithms=[header.alg])
        except jwt.PyJWTError:
            raise _Refused("signature") from None

    def _keys(self, client: Client, kid: str) -> KeySet:
        if client.keys is not None:
            return client.keys
        return self._published[client.jku].with_key(kid)

    def _check_times(self, claims: _Claims, client: Client) -> None:
        now = self._now().timestamp()
        for word, is_so in (
            ("expired", claims.exp <= now - LEEWAY),
            ("from-the-future", claims.iat > now + LEEWAY),
            ("not-yet", claims.nbf is not None and claims.nbf > now + LEEWAY),
            ("old", claims.iat < now - MAX_AGE),
            ("long-lived", claims.exp - claims.iat > client.max_lifetime + LEEWAY),
        ):
            if is_so:
                raise _Refused(word)

    def _check_audience(self, claims: _Claims, client: Client, path: str) -> None:
        given = (claims.aud,) if isinstance(claims.aud, str) else claims.aud
        called = {f"{base}{path}" for base in self._bases}
        if not any(x in client.audiences or _plain(x) in called for x in given):
            raise _Refused("audience")

    def _use_up(self, claims: _Claims, client: Client) -> None:
        """Last of all: a token that is refused for another reason stays unused."""
        if not claims.jti:
            raise _Refused("no-jti")
        if not client.single_use:
            return
        token = hashlib.sha256(claims.jti.encode()).hexdigest()  # whatever its length and signs
        until = int((claims.exp + LEEWAY) * 1000) + 1
        if not self._store.use_token(client.issuer, token, until):
            raise _Refused("used-before")
        self._forget_expired()

    def _forget_expired(self) -> None:
        now = self._now().timestamp()
        with self._sweep:
            if now - self._swept_at < SECONDS_BETWEEN_SWEEPS:
                return
            self._swept_at = now
        self._store.forget_tokens(int(now * 1000))


def _token(authorization: str) -> str:
    if not authorization:
        raise _Refused("no-token")
    found = _BEARER.match(authorization.strip())
    if found is None or len(found[1]) > MAX_TOKEN:
        raise _Refused("no-bearer-token")
    return found[1]


def _unverified(token: str) -> tuple[_Header, bytes]:
    """What a token says of itself, to find the key by; nothing of it is shown yet."""
    try:
        found = _JWS.decode_complete(token, options={"verify_signature": False})
        return msgspec.convert(found["header"], _Header), found["payload"]
    except jwt.PyJWTError:
        raise _Refused("malformed") from None
    except msgspec.ValidationError:
        raise _Refused("header") from None


def _read(decoder: "msgspec.json.Decoder[T]", payload: bytes, word: str) -> T:
    try:
        return decoder.decode(payload)
    except msgspec.ValidationError:
        raise _Refused(word) from None
    except _UNREADABLE:
        raise _Refused("malformed") from None


def _plain(url: str) -> str:
    """A URL as the server reads its path: a doubled or last slash changes nothing."""
    scheme, mark, rest = url.partition("://")
    return f"{scheme}{mark}{re.sub('/{2,}', '/', rest).rstrip('/')}"
