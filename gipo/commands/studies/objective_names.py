"""Objectives as a study's options name them, checked before its first run is trained: `GIPO:sigma=0.5`."""

import dataclasses
import pydoc
from collections.abc import Iterable

from gipo import baselines, objectives
from gipo.common.errors import UserError, nearest
from gipo.objectives import Objective


def refuse_unknown(names: Iterable[str]) -> None:
    """Refuse objectives that there are not, and options that they do not have.

    Args:
        names: bare names of ours or class paths, options after a colon: `my.Objective:margin=1,other=2`.

    Raises:
        UserError: naming the nearest ones.
    """
    for each in names:
        name, _, settings = each.partition(":")
        found = _find(name)
        known: list[str] = (
            [field.name for field in dataclasses.fields(found)] if dataclasses.is_dataclass(found) else []
        )
        for setting in filter(None, settings.split(",")):
            option = setting.partition("=")[0]
            if known and option.partition(".")[0] not in known:
                raise UserError(f"--objectives {each}: {name} has no option {option!r}; it has {', '.join(known)}")


def _find(name: str) -> type[Objective]:
    ours = {key: value for module in (objectives, baselines) for key, value in vars(module).items() if _is_one(value)}
    try:
        found = ours.get(name) or pydoc.locate(name)
    except pydoc.ErrorDuringImport as error:
        raise UserError(f"--objectives {name} cannot be imported: {error}") from error
    if not _is_one(found):
        raise UserError(f"--objectives {name}: there is no such objective; the nearest: {nearest(name, ours)}")
    return found  # type: ignore[return-value]


def _is_one(value: object) -> bool:
    return isinstance(value, type) and issubclass(value, Objective) and value is not Objective
