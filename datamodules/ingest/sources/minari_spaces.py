"""What `data/metadata.json` of a Minari dataset says of its spaces."""

import json
from pathlib import Path
from typing import Any

import numpy as np

from datamodules.ingest.interface import Interface
from gipo.common.errors import UserError
from gipo.common.reading import read_text


def interface_of(path: Path) -> Interface:
    """Sizes and bounds of observations and actions.

    Raises:
        UserError: when the file is missing, or one of the two is no vector.
    """
    if not path.is_file():
        raise UserError(
            f"{path} is missing: Minari before 0.5 wrote the dataset, or it was copied in part; download it again, or "
            "write it again with Minari 0.5 or later"
        )
    try:
        metadata = json.loads(read_text(path))
        observation, action = (json.loads(metadata[f"{name}_space"]) for name in ("observation", "action"))
        seen, done = _size(path, "observation", observation), _size(path, "action", action)
        return Interface(seen, done, action_low=_bound(action, "low"), action_high=_bound(action, "high"))
    except UserError:
        raise
    except (KeyError, TypeError, ValueError, OverflowError, RecursionError) as error:
        raise UserError(
            f"{path} describes no flat Box observations and actions: {type(error).__name__} {error}"
        ) from error


def _size(path: Path, name: str, space: dict[str, Any]) -> int:
    """Numbers of a vector; which order the parts of a Dict or Tuple would have in one, the dataset does not say."""
    shape = space["shape"] if space["type"] == "Box" else None
    if shape is None or len(shape) != 1:
        what = f"a space {space['type']!r}" if shape is None else f"a Box of shape {shape}"
        raise UserError(
            f"{path}: its {name}s are {what}; they must be one vector (Box of one dimension): write the dataset with "
            "Gymnasium's FlattenObservation, or with actions that are numbers"
        )
    return int(shape[0])


def _bound(space: dict[str, Any], name: str) -> tuple[float, ...] | None:
    values = np.array(space.get(name, np.nan), float)
    return tuple(values.tolist()) if values.shape == tuple(space["shape"]) and np.isfinite(values).all() else None
