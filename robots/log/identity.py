"""What a log says at its beginning: enough to know whose it is, however long it is."""

import os
from dataclasses import dataclass

import orjson
from mcap.records import Metadata

from gipo.common.errors import UserError
from robots.log.header import Header, parse_header
from robots.log.reader import naming, refuse_unreadable
from robots.log.scan import FOREIGN, NEWER, Scanner, open_regular

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
    header, blocks = None, 0
    with open_regular(path) as file:
        scanner = Scanner(file)
        for item in scanner.items():
            if isinstance(item, Metadata):
                if header is None:
                    with naming(path):
                        header = parse_header(item)
                continue
            acting = next((who for topic, data in item if topic == "event" for who in _acting(path, data)), None)
            blocks += bool(item)  # in logs of version 0.1 the first holds the channels alone
            if header is not None and (acting is not None or blocks == BLOCKS):
                return Opening(header, acting)
    if header is None:
        assert scanner.integrity is not None
        if scanner.integrity.status in (FOREIGN, NEWER):
            refuse_unreadable(path, scanner.integrity)
        raise UserError(f"{path} ends before it says whose log it is: {scanner.integrity.reason or 'no session'}")
    return Opening(header, None)


def _acting(path: str | os.PathLike[str], data: bytes) -> list[str]:
    """The id of the policy that acts, if the event is the start of an episode that names it."""
    try:
        event = orjson.loads(data)
        found = event["data"].get("policy_id") if event["kind"] == "episode_start" else None
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise UserError(f"{path}: an event of another form than the writer's: {error}") from error
    return [found] if isinstance(found, str) else []
