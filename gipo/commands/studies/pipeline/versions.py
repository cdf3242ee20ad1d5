"""Whether all runs of a study are of one version, for a study may go on long after it was begun."""

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml

from gipo.common.errors import UserError

Settings = dict[str, Any]  # dotted name → value
BY_TASK = {"data.simulator"}  # what a run settles for itself, from its task and from what is installed
IN_FLOAT32 = "--trainer.precision=32-true"  # of every run of a study: else each would go by its processor
# Of every run that is made again as it was: what it would save where it fails has other episodes after it.
UNCOPIED = "--checkpoint.copy_gib=0"
WITHOUT_EFFECT = {"checkpoint.copy_gib"}  # on the figures of a run that came to its end


class OtherVersion(UserError):
    """Two runs differ in what no option of theirs says: their figures are not to be compared."""


class OneVersion:
    """Holds every run to those before it: what they were told in the same words must be set to the same."""

    def __init__(self) -> None:
        self._first: dict[tuple[str, ...], tuple[Any, Path]] = {}

    def add(self, folder: Path, options: Sequence[str]) -> None:
        """Take in the run in this folder, a `gipo fit` with these options.

        Raises:
            OtherVersion: naming the setting in which it differs from another run.
            UserError: when its configuration cannot be read.
        """
        found = settings(folder)
        task = tuple(f"{name}={value}" for name, value in found.items() if f"{name}.".startswith("data.task."))
        for name, value in found.items():
            if name in WITHOUT_EFFECT:
                continue
            told = tuple(option for option in options if _tells(option, name)) + task * (name in BY_TASK)
            before, other = self._first.setdefault((name, *told), (value, folder))
            if before != value:
                where = "where other simulators are installed" if name in BY_TASK else "by another version"
                raise OtherVersion(
                    f"{folder} has {name} {value}, {other} has {before}, and no option of the study says so: one of "
                    f"them was made {where}; delete what the older one made, or name another --out"
                )


def settings(folder: Path) -> Settings:
    """All settings of the run in this folder.

    Raises:
        UserError: when its configuration cannot be read.
    """
    path = folder / "config.yaml"
    try:
        found = yaml.safe_load(path.read_text())
    except (OSError, ValueError, yaml.YAMLError) as error:
        raise UserError(f"{path} cannot be read: {error}; delete {folder}") from error
    if not isinstance(found, dict):
        raise UserError(f"{path} is not the configuration of a run; delete {folder}")
    return dict(_flat(found))


def _flat(found: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    for name, value in found.items():
        if isinstance(value, dict) and value:
            yield from _flat(value, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}".replace("init_args.", "").removesuffix(".class_path"), value


def _tells(option: str, name: str) -> bool:
    """Whether an option `--name=value` has to do with a setting: a part of it, what it is part of, or a file."""
    given = option.lstrip("-").partition("=")[0].removesuffix("+")
    return given == "config" or given.startswith(f"{name}.") or f"{name}.".startswith(f"{given}.")
