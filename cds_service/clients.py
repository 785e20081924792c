"""Who may call: the trusted clients of a file, and the caller of one call."""

from dataclasses import dataclass
from ipaddress import IPv4Network, IPv6Network


@dataclass(frozen=True, slots=True)
class FhirServer:
    """A FHIR server that may be read for a client: its base URL, the networks that its name may
    resolve to beside public ones, and the client id under which we are registered there ("": any).
    """

    url: str
    networks: tuple[IPv4Network | IPv6Network, ...] = ()
    subject: str = ""


@dataclass(frozen=True, slots=True)
class Caller:
    """Whose call it is: the issuer of its token and, where the token names one, the tenant. Both
    are "" for a caller of the open server.
    """

    issuer: str = ""
    tenant: str = ""


ANYBODY = Caller()
