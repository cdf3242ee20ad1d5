"""Where a policy server is: `host:port`."""

import re
import socket

PROBE_SECONDS = 1.0  # for each number of a host to answer

_ADDRESS = re.compile(r"(?:[^\s/\\:]+|\[[0-9a-fA-F:.]+\]):(?P<port>\d{1,5})")


def is_address(text: str) -> bool:
    """Whether a text names a host, or a network address in brackets, and a port; and not a file."""
    match = _ADDRESS.fullmatch(text)
    return match is not None and int(match["port"]) < 1 << 16


def answering(address: str) -> str:
    """An address with its host as that of its numbers at which somebody listens; as it is where nobody does.

    A host may have several, `localhost` one of IPv6 and one of IPv4, and ZeroMQ tries the first alone.
    """
    host, _, port = address.rpartition(":")
    try:
        with socket.create_connection((host.strip("[]"), int(port)), PROBE_SECONDS) as found:
            flags = socket.NI_NUMERICHOST | socket.NI_NUMERICSERV
            number, _ = socket.getnameinfo(found.getpeername(), flags)
    except (OSError, UnicodeError):  # the second of a name that is none
        return address
    return f"[{number}]:{port}" if ":" in number else f"{number}:{port}"
