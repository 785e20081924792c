"""Tokens for the fuzz, some of them spoilt: what is sent to a server that trusts clients.

They are of the moment they are made, unlike all else that the fuzz sends: what changes in them is
of the seed.
"""

import json
import math
from dataclasses import dataclass, field
from pathlib import Path
from random import Random
from typing import Any

from tests.mutations import mutated
from tests.trust import Key, claims, client_row, key_set, part, token

LOUD, QUIET = "https://ehr.example", "https://quiet.example"
_TENANTS = (None, "north", "x" * 255, "\u00fc")
_LONGEST = 100_000  # what is longer meets a limit on headers, before anybody reads it
_OTHER_SIGNS = "ABxy09-_.=+/ "
# What may be answered to a call of a client that is never sent an error.
_QUIETLY = (200, 401, 403, 404)


@dataclass(frozen=True)
class Given:
    """A token as it is sent, of which client, and whether it must be taken (None: it may be)."""

    token: str
    issuer: str
    is_good: bool | None

    def wrong(self, path: str, status: int) -> list[str]:
        """What is wrong with an answer of that status to a call of a path with this token."""
        if self.is_good is False and status != 401:
            return ["a spoilt token is taken"]
        if not self.is_good:
            return []
        if status == 401:
            return ["a good token is refused"]
        is_call = path.count("/") == 2 and path.startswith("/cds-services/")
        if self.issuer == QUIET and is_call and status not in _QUIETLY:
            return ["a quiet client is sent an error"]
        return []


@dataclass
class Tokens:
    """Makes tokens of two clients that share a key, for one connection; each good one is remembered
    by its path, to be sent again once it was used.
    """

    _key: Key = field(default_factory=lambda: Key(kid="fuzz"))
    _used: dict[str, str] = field(default_factory=dict)

    def for_another(self) -> "Tokens":
        """The same clients' for another connection: which of two sends a token first is nobody's
        to say.
        """
        return Tokens(self._key)

    def rows(self, folder: Path) -> list[str]:
        """The clients of a clients file in the folder, into which their key is written."""
        (folder / "fuzz.json").write_bytes(key_set(self._key))
        loud = client_row(LOUD, keys="fuzz.json")
        return [loud, client_row(QUIET, keys="fuzz.json", failures="quiet")]

    def give(self, random: Random, path: str) -> Given:
        """A token for a call of a path: good, or changed in its claims, its header or anywhere, or
        one that was used before.
        """
        issuer = random.choice((LOUD, QUIET))
        said = claims(issuer, path, tenant=random.choice(_TENANTS))
        chance = random.random()
        if chance < 0.65:
            self._used[path] = good = token(self._key, said)
            return Given(good, issuer, True)
        if chance < 0.70 and path in self._used:
            return Given(self._used[path], issuer, False)
        if chance < 0.85:
            written = mutated(random, said)
            changed = token(self._key, written)
            return _cut(Given(changed, issuer, None if _may_be_right(written, path) else False))
        if chance < 0.90:
            return _cut(Given(self._with_header(mutated(random, self._key.header), said), "", None))
        return Given(_spoilt(random, token(self._key, said)), issuer, False)

    def _with_header(self, header: bytes, said: dict[str, Any]) -> str:
        message = part(header) + b"." + part(said)
        signature = self._key.sign(message, self._key.header["alg"])
        return (message + b"." + part(signature)).decode()


def _cut(given: Given) -> Given:
    if len(given.token) <= _LONGEST:
        return given
    return Given(given.token[:_LONGEST], given.issuer, False)


def _spoilt(random: Random, good: str) -> str:
    """A token with another sign in one place, or with less or more than its three parts."""
    at = random.randrange(len(good))
    other = random.choice([x for x in _OTHER_SIGNS if x != good[at]])
    changed = good[:at] + other + good[at + 1 :]
    unsigned, _, signature = good.rpartition(".")
    resigned = f"{unsigned}.{signature[::-1]}"
    return random.choice(
        (changed, changed, resigned, good[:at], f"{good}A", f".{good}", f"{good}.{good}")
    )


def _may_be_right(written: bytes, path: str) -> bool:
    """Whether claims say at least who calls, whom, since when and until when."""
    try:
        said = json.loads(written)
    except (ValueError, RecursionError):
        return False
    if not isinstance(said, dict) or said.get("iss") not in (LOUD, QUIET):
        return False
    audience = said.get("aud")
    called = audience if isinstance(audience, list) else [audience]
    times: list[Any] = [said.get(x) for x in ("iat", "exp")]
    return (
        isinstance(said.get("jti"), str)
        and said["jti"] != ""
        and any(isinstance(x, str) and x.rstrip("/").endswith(path) for x in called)
        and all(type(x) in (int, float) and math.isfinite(x) for x in times)
    )
