"""A JSON Web Key Set (RFC 7517): which of its keys may sign a client's tokens."""

import hashlib
from collections.abc import Mapping, Sequence
from typing import Any, cast

import msgspec
from cryptography.hazmat.primitives.asymmetric.ec import EllipticCurvePublicKey
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPublicKey
from jwt import PyJWK, PyJWTError
from jwt.algorithms import ECAlgorithm, RSAAlgorithm
from jwt.utils import base64url_encode
from msgspec import Struct

PublicKey = EllipticCurvePublicKey | RSAPublicKey

# Neither none nor HS*: CDS Hooks 2.0, "JWT Signing Algorithm", forbids both.
ALGORITHMS = (
    *("ES256", "ES384", "ES512", "RS256", "RS384", "RS512", "PS256", "PS384", "PS512"),
)  # fmt: skip
_OF_CURVE = {"P-256": "ES256", "P-384": "ES384", "P-521": "ES512"}
_OF_RSA = frozenset(x for x in ALGORITHMS if not x.startswith("ES"))
_RSA_BITS = range(2048, 8193)
_IN_THUMBPRINT = {"EC": ("crv", "kty", "x", "y"), "RSA": ("e", "kty", "n")}

# Anybody has the private halves: who trusts these trusts everybody.
PUBLISHED = {
    "s9fOe-KDYD1myZ8YCzleUqJQgrYZL49kVijBxhnZvZc": "the CDS Hooks Sandbox",
    "-UtOymI2Z0XB5SZogEZu3s5oMyQ4YaewHtR9huroTQs": "the CDS Hooks specification",
}


class Key(Struct, frozen=True):
    """A public key under its opaque id, and the algorithms that it may be used with."""

    kid: str
    algorithms: frozenset[str]
    public: PublicKey


class KeySet(Struct, frozen=True):
    """The keys of a set that may sign; `refused` says of each other one why, in a few words."""

    keys: tuple[Key, ...]
    refused: tuple[str, ...] = ()

    def find(self, kid: str, algorithm: str) -> Key | None:
        """The key of an id for an algorithm; ids need not be unique among types of key."""
        return next((x for x in self.keys if x.kid == kid and algorithm in x.algorithms), None)

    def has(self, kid: str) -> bool:
        """Whether any key has that id."""
        return any(x.kid == kid for x in self.keys)


NO_KEYS = KeySet(())


class _Refused(Exception):
    """Why a key is not used."""


def read_key_set(text: bytes) -> KeySet:
    """The usable keys of a JSON Web Key Set; raises ValueError when it is none."""
    try:
        listed = msgspec.json.decode(text, type=dict[str, Any]).get("keys")
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        raise ValueError("is no JSON object") from None
    if not isinstance(listed, list):
        raise ValueError("has no list of keys")
    keys, refused = [], []
    for number, jwk in enumerate(listed):
        try:
            keys.append(_key(jwk))
        except _Refused as why:
            refused.append(f"key {number} {why}")
    return KeySet(tuple(keys), tuple(refused))


def _key(jwk: Any) -> Key:
    if not isinstance(jwk, dict) or not isinstance(jwk.get("kid"), str) or not jwk["kid"]:
        raise _Refused("has no kid")
    if "d" in jwk or jwk.get("kty") == "oct":
        raise _Refused("is no public key")
    if jwk.get("use", "sig") != "sig" or "verify" not in _operations(jwk):
        raise _Refused("is not for signatures")
    usable = _algorithms(jwk)
    try:
        public = PyJWK(jwk, algorithm=min(usable)).key
    except PyJWTError:
        raise _Refused("cannot be read") from None
    if isinstance(public, RSAPublicKey) and public.key_size not in _RSA_BITS:
        raise _Refused(f"is not of {_RSA_BITS.start} to {_RSA_BITS.stop - 1} bits")
    if owner := PUBLISHED.get(thumbprint(public)):
        raise _Refused(f"is that of {owner}, whose private half is published")
    return Key(jwk["kid"], usable, cast("PublicKey", public))


def _operations(jwk: Mapping[str, Any]) -> Sequence[Any]:
    found = jwk.get("key_ops", ["verify"])
    return found if isinstance(found, list) else ()


def _algorithms(jwk: Mapping[str, Any]) -> frozenset[str]:
    """What a key may be used with: by its type and curve, and by the one that it may name."""
    curve = jwk.get("crv")
    if jwk.get("kty") == "RSA":
        able = _OF_RSA
    elif jwk.get("kty") == "EC" and isinstance(curve, str) and curve in _OF_CURVE:
        able = frozenset((_OF_CURVE[curve],))
    else:
        raise _Refused("is of no known type")
    usable = able & {jwk["alg"]} if isinstance(jwk.get("alg"), str) else able
    if not usable or not isinstance(jwk.get("alg", ""), str):
        raise _Refused("is for another algorithm than its type")
    return usable


def public_jwk(key: PublicKey) -> dict[str, str]:
    """The members that make up a public key."""
    if isinstance(key, RSAPublicKey):
        found = RSAAlgorithm.to_jwk(key, as_dict=True)
    else:
        found = ECAlgorithm.to_jwk(key, as_dict=True)
    return {name: found[name] for name in _IN_THUMBPRINT[found["kty"]]}


def thumbprint(key: PublicKey) -> str:
    """The SHA-256 thumbprint of RFC 7638, the same however the key was written down."""
    said = msgspec.json.encode(public_jwk(key), order="sorted")
    return base64url_encode(hashlib.sha256(said).digest()).decode()
