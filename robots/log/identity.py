"""What a log says at its beginning: enough to know whose it is, however long it is."""

import os
from dataclasses import dataclass

import orjson

from gipo.common.errors import UserError
from robots.log.header import Header
from robots.log.reader import header_of
from robots.log.scan import Scanner, open_regular

BLOCKS = 8  # that are searched for the start of the first episode; it stands in the first, unless a robot idles long


@dataclass(frozen=True)
class Opening:
    """What the beginning of a log says: whose it is, and who acts first.

    Args:
        header: the session's metadata.
        policy_id: of the policy that acts in the first episode; None where no episode begins in what was read.
    """

    header: Header
    policy_id: str | None


def read_opening(path: str | os.PathLike[str]) -> Opening:
    """Read the session's metadata and the start of the first episode, and nothing behind them.

    Raises:
        UserError: when the file is no log, or one of a later schema, or its beginning is damaged or missing.
    """
    blocks = 0
    with open_regular(path) as file:
        scanner = Scanner(file)
        for block in scanner.blocks():
            acting = next((who for topic, data in block if topic == "event" for who in _acting(path, data)), None)
            blocks += bool(block)  # in logs of version 0.1 the first holds the channels alone
            if scanner.header is not None and (acting is not None or blocks == BLOCKS):
                return Opening(scanner.header, acting)
    return Opening(header_of(path, scanner), None)


def _acting(path: str | os.PathLike[str], data: bytes) -> list[str]:
    """The id of the policy that acts, if the event is the start of an episode that names it."""
    try:
        event = orjson.loads(data)
        found = event["data"].get("policy_id") if event["kind"] == "episode_start" else None
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise UserError(f"{path}: an event of another form than the writer's: {error}") from error
    return [found] if isinstance(found, str) else []
