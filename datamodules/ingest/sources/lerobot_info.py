"""What `meta/info.json` of a LeRobot dataset says: format, rate, and what its states and actions are."""

import json
import math
from pathlib import Path
from typing import Any

from datamodules.ingest.interface import Interface
from gipo.common.errors import UserError
from gipo.common.reading import read_text

STATE, ACTION = "observation.state", "action"
CONVERTER = "python -m lerobot.scripts.convert_dataset_v21_to_v30 --repo-id=NAME"


def read_info(dataset: Path) -> dict[str, Any]:
    """The parsed file, of which format, rate, counts and features are known to be there.

    Raises:
        UserError: when it is of another format, or lacks one of them.
    """
    path = dataset / "meta" / "info.json"
    try:
        info: dict[str, Any] = json.loads(read_text(path))
        version, features = str(info["codebase_version"]), dict(info["features"])
        if not version.startswith("v3."):
            old = version.startswith(("v1.", "v2."))
            way = f"convert it with LeRobot's own script ({CONVERTER})" if old else "upgrade gipo"
            raise UserError(f"{path} says format {version!r}; it must be v3, {way}")
        if strange := [name for name, feature in features.items() if not isinstance(feature, dict)]:
            raise TypeError(f"the feature {strange[0]} is no object")
        rate = float(info["fps"])
        if not 0 < rate < math.inf:
            raise UserError(f"{path} says fps {rate:g}; it must be above 0")
        int(info["total_frames"]), int(info["total_episodes"]), int(info.get("total_tasks") or 1)
    except UserError:
        raise
    except (KeyError, TypeError, ValueError, OverflowError, RecursionError) as error:
        raise UserError(f"{path} is no description of a LeRobot dataset: {type(error).__name__} {error}") from error
    for name in (STATE, ACTION):
        if name not in features:
            raise UserError(
                f"{path} has no feature {name}, only {', '.join(sorted(features))}; learning needs it. Where it has "
                "another name, rename it as LeRobot does, here and in the columns of the Parquet files"
            )
    return info


def interface_of(path: Path, info: dict[str, Any]) -> Interface:
    """Sizes and names of states and actions, and the rate.

    Raises:
        UserError: when one of the two is no vector.
    """
    sizes, names = {}, {}
    for name in (STATE, ACTION):
        feature = info["features"][name]
        shape = feature.get("shape") if isinstance(feature, dict) else None
        if not isinstance(shape, list) or len(shape) != 1 or type(shape[0]) is not int or shape[0] < 1:
            raise UserError(f"{path}: the feature {name} has shape {shape}; it must be one vector")
        sizes[name] = shape[0]
        names[name] = _names(feature.get("names"), shape[0])
    return Interface(
        sizes[STATE],
        sizes[ACTION],
        observation_names=names[STATE],
        action_names=names[ACTION],
        control_rate_hz=float(info["fps"]),
    )


def _names(stated: Any, size: int) -> tuple[str, ...] | None:
    """Names in the order of the vector, from a list, a list under one key, or name → index; None from anything else."""
    if isinstance(stated, dict) and sorted(map(repr, stated.values())) == sorted(map(repr, range(size))):
        return tuple(sorted(map(str, stated), key=stated.__getitem__))
    if isinstance(stated, dict) and len(stated) == 1:
        (stated,) = stated.values()
    known = isinstance(stated, list) and len(stated) == size and all(isinstance(each, str) for each in stated)
    return tuple(stated) if known else None
