"""Where a policy server is: `host:port`."""

import re

_ADDRESS = re.compile(r"(?:[^\s/\\:]+|\[[0-9a-fA-F:.]+\]):(?P<port>\d{1,5})")


def is_address(text: str) -> bool:
    """Whether a text names a host, or a network address in brackets, and a port; and not a file."""
    match = _ADDRESS.fullmatch(text)
    return match is not None and int(match["port"]) < 1 << 16
