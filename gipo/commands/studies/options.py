"""Options that several studies have, and objectives as they name them: `GIPO:sigma=0.5`."""

import argparse
import dataclasses
import pydoc
import re
from collections.abc import Collection, Iterable
from typing import TYPE_CHECKING

from gipo.common.errors import UserError, nearest
from gipo.common.interpreter import cores
from gipo.common.parsing import SEEDS, whole

if TYPE_CHECKING:
    from gipo.objective import Objective

ENDS = ("trainer.max_steps", "trainer.max_epochs", "trainer.max_time")  # of a run that would count as whole
OBJECTIVE = re.compile(r"[\w.]+(:[\w.]+=[\w.+-]+(,[\w.]+=[\w.+-]+)*)?")


def add_numbers(
    parser: argparse.ArgumentParser, name: str, default: int | list[int], most: int, words: str, least: int = 1
) -> None:
    """An option that is a whole number from `least` to `most`, or several of them where the default is a list."""
    several = "+" if isinstance(default, list) else None
    kind, shown = whole(least, most), f"{words} (default: %(default)s)"
    parser.add_argument(name, type=kind, nargs=several, default=default, help=shown)


def add_runs(parser: argparse.ArgumentParser, seeds: list[int], each: str) -> None:
    """`--seeds` of the runs, and `--processes`: how many of them, each a command of its own, go at a time."""
    add_numbers(parser, "--seeds", seeds, SEEDS, f"{each} of each", least=0)
    add_numbers(parser, "--processes", cores(), 1024, f"{each}s side by side")


def add_objectives(parser: argparse.ArgumentParser, default: list[str], words: str) -> None:
    """`--objectives`, of which the first is compared with the others."""
    shown = f"the first is compared with the others{words} (default: %(default)s)"
    parser.add_argument("--objectives", nargs="+", default=default, help=shown)


def add_more(parser: argparse.ArgumentParser, name: str, words: str) -> None:
    """An option that is handed on: options of a command, without their dashes."""
    parser.add_argument(name, nargs="*", default=[], metavar="OPTION", help=f"more options of {words}, without --")


def objective_flags(objective: str) -> list[str]:
    """Options of `gipo fit` for an objective with options after a colon: `GIPO:sigma=0.5,sigma_neg_ratio=0.5`.

    Options that are not given are those of its class, whatever a recipe says: one whose class a recipe names already
    would keep what it has there, were not another named in between.
    """
    name, _, settings = objective.partition(":")
    return [
        "--model.objective=NoClip",
        f"--model.objective={name}",
        *(f"--model.objective.{setting}" for setting in settings.split(",") if setting),
    ]


def refuse_twice(options: argparse.Namespace, *names: str) -> None:
    """Refuse an option that names a value twice, of which two runs would be one.

    Raises:
        UserError: naming the option.
    """
    for name in names:
        values = getattr(options, name)
        if len(set(values)) < len(values):
            raise UserError(f"--{name} names a value twice: {' '.join(map(str, values))}")


def refuse_settled(
    options: argparse.Namespace, name: str, settled: Iterable[str], others: Collection[str] = ()
) -> None:
    """Refuse what an option hands on where the study itself sets it, so that a row would say what was not run.

    Args:
        options: of the study.
        name: of the option that hands on.
        settled: options that the study sets; their parts, what they are parts of, and how they may be shortened
            (`data.total_fr`) are refused as well.
        others: options with which the names of some that are settled begin.

    Raises:
        UserError: naming what is handed on.
    """
    for option in getattr(options, name):
        given = option.lstrip("-").partition("=")[0].removesuffix("+")
        if "config".startswith(given):
            raise UserError(
                f"--{name} {option}: a configuration may set what the study itself sets; hand on its options one by one"
            )
        begun = f"{given}." if given in others else given
        if any(f"{given}.".startswith(f"{each}.") or each.startswith(begun) for each in (*settled, *ENDS)):
            raise UserError(f"--{name} {option}: the study itself sets {given}; leave it out")


def refuse_no_task(names: Iterable[str], option: str = "--tasks") -> None:
    """Refuse what is no task of `gipo fit`, before a first run is trained.

    Raises:
        UserError: naming the option, and the nearest ones.
    """
    from datamodules.envs.tasks import simulation  # with torchrl, which `--help` does without

    for name in names:
        try:
            simulation(name)
        except UserError as error:
            raise UserError(f"{option} {name}: {error}") from error


def refuse_unknown(names: Iterable[str]) -> None:
    """Refuse unknown objectives, and options that an objective does not have or take, before a first run is trained.

    Args:
        names: bare names of ours or class paths, options after a colon: `my.Objective:margin=1,other=2`.

    Raises:
        UserError: naming the nearest ones.
    """
    for each in names:
        if not OBJECTIVE.fullmatch(each):
            raise UserError(f"--objectives {each!r} is not NAME or NAME:option=value,option=value")
        name, _, settings = each.partition(":")
        found = _find(name)
        known: list[str] = (
            [field.name for field in dataclasses.fields(found)] if dataclasses.is_dataclass(found) else []
        )
        for setting in filter(None, settings.split(",")):
            option = setting.partition("=")[0]
            if known and option.partition(".")[0] not in known:
                raise UserError(f"--objectives {each}: {name} has no option {option!r}; it has {', '.join(known)}")
        _refuse_bad_values(each, found, settings)


def _refuse_bad_values(asked: str, found: "type[Objective]", settings: str) -> None:
    """Make the objective as `gipo fit` would."""
    from jsonargparse import ArgumentError, ArgumentParser

    parser = ArgumentParser(exit_on_error=False)
    parser.add_class_arguments(found, "objective")
    try:
        parser.instantiate_classes(
            parser.parse_args([f"--objective.{setting}" for setting in filter(None, settings.split(","))])
        )
    except (ArgumentError, UserError, TypeError, ValueError) as error:
        raise UserError(f"--objectives {asked}: {' '.join(str(error).split())}") from error


def _find(name: str) -> "type[Objective]":
    from gipo import adaptive, baselines, objectives  # they import torch, and not every study that has options needs it

    ours = {
        key: value
        for module in (objectives, baselines, adaptive)
        for key, value in vars(module).items()
        if _is_one(value)
    }
    try:
        found = ours.get(name) or pydoc.locate(name)
    except pydoc.ErrorDuringImport as error:
        raise UserError(f"--objectives {name} cannot be imported: {error}") from error
    if not _is_one(found):
        raise UserError(f"--objectives {name}: there is no such objective; the nearest: {nearest(name, ours)}")
    return found  # type: ignore[return-value]


def _is_one(value: object) -> bool:
    from gipo.objective import Objective

    return isinstance(value, type) and issubclass(value, Objective) and value is not Objective
