"""Who may call: the trusted clients of a file, and the caller of one call."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Caller:
    """Whose call it is: the issuer of its token and, where the token names one, the tenant. Both
    are "" for a caller of the open server.
    """

    issuer: str = ""
    tenant: str = ""


ANYBODY = Caller()
