"""The key of a store, a hash of everything that its frames depend on, and the name of its folder."""

import dataclasses
import hashlib
import json
from collections.abc import Iterable, Mapping

from datamodules.ingest.identity import function_identity
from datamodules.ingest.metadata import Facts
from datamodules.ingest.options import IngestOptions
from gipo.common.transition import STORED

TOLERANCE = IngestOptions.video_tolerance  # at which keys are those from before there was a choice
FORMAT = 2  # raised when a store of this version would hold other values in the same fields
SAID = 3  # raised when a store would say other things of itself by the same names; checkpoints do not know it


def store_key(
    contents: Iterable[tuple[str, Mapping[str, str]]], options: IngestOptions, artifacts: Iterable[str]
) -> str:
    """The key of the store that these inputs make, by which a checkpoint knows its logs again: SHA-256, hex.

    Args:
        contents: kind and hashes of the files, by what they are within it, of each source in order.
        options: how they are converted.
        artifacts: ids of those that the sources name and the audit can use.
    """
    parts = {
        "format": FORMAT,
        "sources": [[kind, dict(files)] for kind, files in contents],
        "bad_episodes": options.bad_episodes,
        "audit": options.audit,
        **({} if options.video_tolerance == TOLERANCE else {"video_tolerance": options.video_tolerance}),
        **({} if options.camera is None else {"camera": options.camera}),
        "reward": function_identity(options.reward),
        "artifacts": sorted(artifacts),
    }
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()


def store_name(key: str) -> str:
    """The folder of the store with this key: another one where a version keeps or says other things of the logs."""
    fields = [[field.name, field.shape, field.dtype, field.key] for field in STORED]
    said = [field.name for field in dataclasses.fields(Facts)]
    return hashlib.sha256(json.dumps([key, fields, said, SAID]).encode()).hexdigest()
