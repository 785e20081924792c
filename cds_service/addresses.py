"""Which network addresses may be called, and the connection to one of them: a name is looked up
once, and the address that was checked is the address that is dialled.
"""

import socket
from collections.abc import Callable, Iterable, Sequence
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address
from typing import Any

Address = IPv4Address | IPv6Address
Network = IPv4Network | IPv6Network
Resolve = Callable[..., Sequence[tuple[Any, ...]]]  # as socket.getaddrinfo

EVERYWHERE: tuple[Network, ...] = (IPv4Network("0.0.0.0/0"), IPv6Network("::/0"))

# Who reads these has the credentials of the machine; no FHIR server lies there.
_METADATA = frozenset(
    map(
        ip_address,
        (
            *("169.254.169.254", "fd00:ec2::254"),  # AWS, and most others the first
            *("169.254.170.2", "169.254.170.23", "fd00:ec2::23"),  # tasks and pods of AWS
            "fd20:ce::254",  # Google Cloud
            "168.63.129.16",  # Azure
            "100.100.100.200",  # Alibaba Cloud
        ),
    )
)
_UNICAST = IPv6Network("2000::/3")  # the only IPv6 addresses that are given out (IANA)
_NAT64 = IPv6Network("64:ff9b::/96")  # RFC 6052
_LOCAL_NAT64 = IPv6Network("64:ff9b:1::/48")  # RFC 8215; where the IPv4 address lies is local too
_LAST_32_BITS = 0xFFFFFFFF


class AddressRefused(Exception):
    """Every address of a name is one that may not be called."""


def is_allowed(address: Address, networks: Iterable[Network]) -> bool:
    """Whether an address may be called: a public one, or one in the `networks`; those of cloud
    metadata never. An IPv6 address that stands for an IPv4 one is judged as both.
    """
    plain = type(address)(int(address))  # without a zone
    both = (plain, _meant(plain))
    if any(x in _METADATA for x in both):
        return False
    named = any(x in network for network in networks for x in both)
    return named or (_is_public(both[1]) and plain not in _LOCAL_NAT64)


def _meant(address: Address) -> Address:
    """The IPv4 address that an IPv6 one stands for (mapped, translated, tunnelled), else itself."""
    if isinstance(address, IPv4Address):
        return address
    if address in _NAT64 or address in _LOCAL_NAT64:
        return IPv4Address(int(address) & _LAST_32_BITS)
    return address.ipv4_mapped or address.sixtofour or address


def _is_public(address: Address) -> bool:
    if isinstance(address, IPv6Address) and address not in _UNICAST:
        return False
    return address.is_global and not address.is_multicast


def dial(
    host: str,
    port: int,
    networks: Iterable[Network],
    left: Callable[[], float],
    *,
    resolve: Resolve = socket.getaddrinfo,
    options: Iterable[tuple[int, int, int | bytes]] = (),
) -> socket.socket:
    """A connection to the first address of the host that may be called and answers; `left` tells
    the seconds that remain. Raises AddressRefused, or OSError when nobody answers in time.
    """
    if left() <= 0:
        raise TimeoutError
    found = resolve(host.strip("[]"), port, type=socket.SOCK_STREAM)
    checked = [x for x in found if is_allowed(ip_address(x[4][0]), networks)]
    if found and not checked:
        raise AddressRefused
    last = OSError("the name has no address")
    for family, kind, protocol, _, address in checked:
        try:
            return _connected(family, kind, protocol, address, left(), options)
        except OSError as error:
            last = error
    raise last


def _connected(
    family: int,
    kind: int,
    protocol: int,
    address: Any,
    seconds: float,
    options: Iterable[tuple[int, int, int | bytes]],
) -> socket.socket:
    if seconds <= 0:
        raise TimeoutError
    sock = socket.socket(family, kind, protocol)
    try:
        for option in options:
            sock.setsockopt(*option)
        sock.settimeout(seconds)
        sock.connect(address)
    except OSError:
        sock.close()
        raise
    return sock
