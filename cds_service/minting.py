"""What a client does: makes keys, publishes their public halves, and mints tokens. For tests, and
for an integrator's first day.
"""

import json
import os
import time
from pathlib import Path
from typing import Any
from uuid import uuid4

import jwt
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from jwt.algorithms import ECAlgorithm, RSAAlgorithm

from cds_service.jwks import ALGORITHMS, public_jwk, thumbprint

Json = dict[str, Any]
KEY_SET = "jwks.json"
_CURVES: dict[str, ec.EllipticCurve] = {
    "ES256": ec.SECP256R1(),
    "ES384": ec.SECP384R1(),
    "ES512": ec.SECP521R1(),
}
_RSA_BITS = 3072


class NoKey(Exception):
    """A file that holds no private key of ours; the text says why."""


def make_key(algorithm: str) -> tuple[Json, Json]:
    """A new private key as a JSON Web Key and its public half, under the thumbprint as their id."""
    private: Json
    if algorithm in _CURVES:
        curve_key = ec.generate_private_key(_CURVES[algorithm])
        private, public = ECAlgorithm.to_jwk(curve_key, as_dict=True), curve_key.public_key()
        shown = {**public_jwk(public), "kid": thumbprint(public)}
    else:
        rsa_key = rsa.generate_private_key(65537, _RSA_BITS)
        private = RSAAlgorithm.to_jwk(rsa_key, as_dict=True)
        shown = {**public_jwk(rsa_key.public_key()), "kid": thumbprint(rsa_key.public_key())}
    private.pop("key_ops", None)
    shown |= {"use": "sig", "alg": algorithm}
    return private | shown, shown


def write_key(algorithm: str, folder: Path) -> tuple[Path, str]:
    """Writes a new private key to a file for its owner only, and adds its public half to the key
    set of the folder; the file and the key's id. OSError, or NoKey for a key set that is none.
    """
    private, public = make_key(algorithm)
    folder.mkdir(parents=True, exist_ok=True)
    published = folder / KEY_SET
    keys = _published(published)
    file = folder / f"private-{public['kid']}.json"
    with os.fdopen(os.open(file, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as stream:
        json.dump(private, stream, indent=2)
    beside = published.with_suffix(".new")
    beside.write_text(json.dumps({"keys": [*keys, public]}, indent=2) + "\n", "utf-8")
    beside.replace(published)  # whoever reads it meanwhile reads one or the other
    return file, public["kid"]


def _published(path: Path) -> list[Json]:
    if not path.exists():
        return []
    try:
        keys = json.loads(path.read_bytes())["keys"]
    except (ValueError, KeyError, TypeError):
        raise NoKey(f"{path} is no key set") from None
    if not isinstance(keys, list):
        raise NoKey(f"{path} is no key set")
    return keys


def mint(key_file: Path, claims: Json, expires: int, jku: str = "") -> str:
    """A token of these claims with the times and the id that it needs; raises NoKey or OSError."""
    key = _private(key_file)
    now = int(time.time())
    header = {"kid": key["kid"], **({"jku": jku} if jku else {})}
    claims = {**claims, "iat": now, "exp": now + expires, "jti": str(uuid4())}
    return jwt.encode(claims, jwt.PyJWK(key).key, key["alg"], headers=header)


def _private(path: Path) -> Json:
    try:
        key = json.loads(path.read_bytes())
        if not isinstance(key["kid"], str) or key["alg"] not in ALGORITHMS or not key["d"]:
            raise NoKey(f"{path} is no private key of cds-service token keys")
        jwt.PyJWK(key)
    except (ValueError, KeyError, TypeError, jwt.PyJWTError):
        raise NoKey(f"{path} is no private key of cds-service token keys") from None
    return dict(key)
