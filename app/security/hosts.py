"""The host names by which the gateway may be called.

A web page can make its own name point to this machine (DNS rebinding). The browser then takes the gateway for the
page's server, and only the header `Host` shows the difference. Addresses and localhost cannot be rebound.
"""

from __future__ import annotations

import re
from ipaddress import IPv4Address, IPv6Address

MAX_LENGTH = 300
"""A name has 253 characters at most (RFC 1035); with brackets and a port some more."""
HOST = re.compile(r"(?:\[(?P<six>[^\[\]]+)\]|(?P<name>[a-z0-9._-]+))(?::(?P<port>[0-9]{0,5}))?")
ANY = "*"


def split(host: str) -> tuple[str, str] | None:
    """Return name and port of a `Host` in lower case, with an empty port if it has none; None for an invalid one."""
    found = HOST.fullmatch(host.lower()) if len(host) <= MAX_LENGTH else None
    if found is None:
        return None
    name = found["name"] or f"[{found['six']}]"
    return name, found["port"] or ""


def is_address(name: str) -> bool:
    """Return whether a name is an IP address as it is written in a URL, IPv6 in brackets."""
    try:
        IPv6Address(name[1:-1]) if name.startswith("[") else IPv4Address(name)
    except ValueError:
        return False
    return True


class Hosts:
    """The allowed names: addresses, localhost, and those given; `*.a.example` is every name below a.example."""

    def __init__(self, names: tuple[str, ...]) -> None:
        self.any = ANY in names
        self._names = frozenset({"localhost", *names})
        self._ends = tuple(name[1:] for name in names if name.startswith("*."))

    def allows(self, host: str) -> bool:
        """Return whether a header `Host` is allowed. An empty one is, because no browser sends it."""
        if self.any or not host:
            return True
        parts = split(host)
        if parts is None:
            return False
        name = parts[0]
        if is_address(name):
            return True
        name = name.removesuffix(".")
        return name in self._names or name.endswith(self._ends)
