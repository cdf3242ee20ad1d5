"""The parser of `gipo fit`: what it refuses is one line that names the option, its value, and the nearest right one."""

import inspect
import pydoc
import re
import textwrap
from collections.abc import Iterator
from dataclasses import is_dataclass
from enum import Enum
from pathlib import Path
from typing import Any, NoReturn

import yaml
from jsonargparse import Namespace
from jsonargparse._actions import _ActionConfigLoad
from jsonargparse._common import lenient_check, parser_context
from jsonargparse._typehints import get_all_subclass_paths, get_callable_return_type
from lightning.pytorch.cli import LightningArgumentParser

from datamodules.envs.tasks import simulation
from gipo.common.boundary import DEBUG_HELP
from gipo.common.errors import UserError, nearest

PLAIN_TYPES = {"NoneType": "null", "int": "a whole number", "float": "a number", "bool": "true or false", "str": "text",
               "Sequence": "a list", "list": "a list", "dict": "a mapping of options"}  # fmt: skip
OPTION_OF = {".ckpt": "ckpt_path", ".yaml": "config", ".yml": "config"}  # of what a file's name says it is
GIVEN = ("spaces", "params", "inputs", "outputs")  # to what is made by us, and no options of a user's

NO_SUCH_CLASS = {
    r"Expected a dot import path string: (\S+)": "no class of that name is known",
    r"Problem with given class_path '(\S+?)':\s*(No module named \S+|module \S+ has no attribute \S+)": "{1}",
    r"Import path (\S+) does not correspond to a subclass of (\w+)": "it is no {1}",
    r"Expected '(\S+?)' to be a [\w ]+? (?:<class ')?(?:\w+\.)*(\w+)'?>?\.": "it is no {1}",
    r"Expected an instantiatable class, but (\S+) is (abstract|a protocol)": "it is {1}{lacking}",
}


# Defaults of Lightning's, such as Timer's, which YAML would refuse to write.
yaml.SafeDumper.add_multi_representer(Enum, lambda dumper, one: dumper.represent_data(one.value))


class FitParser(LightningArgumentParser):
    """The parser of Lightning's command line, but a mistake is a UserError for the boundary, and no page of usage."""

    def __init__(self, *args: Any, **kwargs: Any):
        super().__init__(*args, epilog=DEBUG_HELP, allow_abbrev=False, **kwargs)

    def error(self, message: str, ex: Exception | None = None) -> NoReturn:
        """Refuse a mistake in one line; a parser within a parser tells the outer one."""
        if not self.exit_on_error:
            super().error(message, ex)
        raise UserError(explain(getattr(ex, "subcommand_parser", None) or self._of_a_command(), message)) from ex

    def _check_value_key(self, action: Any, value: Any, key: str, *args: Any, **kwargs: Any) -> Any:
        """Refuse what jsonargparse passes over in a configuration: null for no value, a list for a mapping."""
        if isinstance(action, _ActionConfigLoad) and not isinstance(value, (str, dict, Namespace)):
            if value is not None:
                raise TypeError(f"Parser key \"{key}\": Expected a <class 'dict'>. Got value: {value}")
            return Namespace()  # a heading with nothing below it
        # Null stands for what must be given as long as it is not.
        passed = lenient_check.get() and (value is not None or action.required)
        with parser_context(lenient_check=passed):
            return super()._check_value_key(action, value, key, *args, **kwargs)

    def dump(self, *args: Any, **kwargs: Any) -> str:
        """The text of a configuration, which was validated when it was parsed; a second time takes as long again."""
        return super().dump(*args, **{"skip_validation": True, **kwargs})

    def _of_a_command(self) -> "FitParser":
        """The parser of one command, where this one only chooses among commands; all know almost the same options."""
        commands = [action.choices for action in self._actions if isinstance(action.choices, dict)]
        return next(iter(commands[0].values())) if commands else self

    def options(self) -> list[str]:
        """Every `--option` it knows."""
        return [name for action in self._actions for name in action.option_strings if re.fullmatch(r"--[\w.]+", name)]


def explain(parser: FitParser, message: str) -> str:
    """What jsonargparse says in many lines about a mistake, in one that a user can act upon."""
    where, message = _configuration(message)
    if found := re.match(r"unrecognized arguments: (\S+)", message):
        return where + _unknown_option(parser, found[1])
    if found := re.match(r"(?:Group '([\w.]+)'|Subcommand '\w+') does not accept option '([\w.]+)'", message):
        return where + _unknown_option(parser, f"--{found[1] + '.' if found[1] else ''}{found[2]}")
    if found := re.match(r"argument \w+\((\w+)\) --> ([\w.]+):", message):
        return f"{where}--{found[2]} is always that of --{found[1]}; give that one"
    if found := re.match(r"Option '([\w.]+)' is not accepted", message):
        return where + _unknown_option(parser, f"--{found[1]}")
    if found := re.match(r"the following arguments are required: (.+)", message):
        program = parser.prog.replace(" [options]", "")
        names = [f"--{name.removeprefix(f'{program.split()[-1]}.')}" for name in found[1].split(", ")]
        return f"{where}{', '.join(names)} must be given ({program} --help)"
    if found := re.match(r"Parser key \"([\w.]+)\":\s*(.*)", message, re.DOTALL):
        key, text = found.groups()
        while found := re.search(r"Parser key \"([\w.]+)\":\s*(.*)", text, re.DOTALL):  # of a class within it
            key, text = key if found[1] == key else f"{key}.{found[1]}", found[2]
        return f"{where}--{key}{_reason(parser, key, text)}"
    return where + _flat(message)


def _configuration(message: str) -> tuple[str, str]:
    """The file in which a mistake is, as the beginning of a line, and what else a message says."""
    found = re.match(r"Problem in (?:default )?config file ['\"](.+?)['\"]:?\s*(.*)", message, re.DOTALL)
    return (f"{found[1]}: ", textwrap.dedent(found[2])) if found else ("", message)


def _unknown_option(parser: FitParser, argument: str) -> str:
    option = argument.partition("=")[0]
    if not option.startswith("-"):
        meant = OPTION_OF.get(Path(argument).suffix)
        options = f"--{meant}={argument}" if meant else "--NAME=VALUE"
        return f"there is nothing that the argument {argument!r} could be; options are {options}"
    program = parser.prog.replace(" [options]", "")
    return f"there is no option {option}; the nearest: {nearest(option, parser.options())} ({program} --help)"


def _reason(parser: FitParser, key: str, text: str) -> str:
    """What is wrong with the value of an option."""
    if found := re.search(r"Option '([\w.]+)' is not accepted", text):
        named = re.search(r"class_path=?[ ]?'([\w.]+)'", text)
        return _unknown_argument(parser, key, found[1], named[1] if named else "")
    if found := re.search(
        r"Problem with given class_path '([\w.]+)':\s*the following arguments are required: (.+)", text
    ):
        lacking = ", ".join(f"--{key}.{name}=VALUE" for name in found[2].split(", "))
        return f"={found[1].rpartition('.')[2]} cannot be made without {lacking}"
    if found := re.match(r"Unable to load config ['\"](.*)['\"]", text):
        return f"={found[1]}: expected a mapping of options, or a file of them"
    text = text.partition(". Got value: Namespace")[0]  # what follows is of the classes around it
    inner = re.search(r"NestedArg\(key='([\w.]+)'", text)  # of that option itself where its class is known
    named = re.search(r"Expected a dot import path string: (\S+)", text)
    if inner and named and key == "data.task":
        return f".{inner[1]}: {_options_of_task(named[1])}"
    bare = "is abstract" in text and re.search(r"Given value: \{'(?!class_path')", text)  # of a YAML file
    if (inner and not key.endswith(f".{inner[1]}")) or "Must include a class_path" in text or bare:
        return _unnamed(parser, key)
    for pattern, words in NO_SUCH_CLASS.items():
        if found := re.search(pattern, text):
            what = words.format(*found.groups(), lacking=_lacking(found[1]))
            return f"={found[1]}: {what}; {_known(parser, key, found[1])}"
    given = re.search(r"(?:Got value|Given value): (.*)", text)
    value = f"={given[1].strip()}" if given and "Namespace" not in given[1] else ""
    expected = _expected(text)
    if expected in ("", "expected null") and any(_classes(parser, key)):
        return f"{value}: nothing can be made of it; {_known(parser, key)}"
    return f"{value}: " + (expected or _flat(text))


def _unnamed(parser: FitParser, key: str) -> str:
    return f" has options only once its class is named: --{key}=CLASS; {_known(parser, key)}"


def _options_of_task(name: str) -> str:
    """That a task by name takes no options, and how those of its class are given, where it has some."""
    kind = type(simulation(name))
    options = [option for option in inspect.signature(kind).parameters if option != "name"]
    if not options:
        return f"the task {name} has no options; a class can have some, --data.task=module.NAME"
    given = f"--data.task={kind.__module__}.{kind.__name__} --data.task.name={name}"
    return f"a task by its name takes no options; with {given} there are {', '.join(options)}"


def _lacking(class_path: str) -> str:
    """What an abstract class would have to have."""
    missing = sorted(getattr(pydoc.locate(class_path), "__abstractmethods__", ()))
    return f", without {', '.join(missing)}" if missing else ""


def _expected(text: str) -> str:
    """The types that an option takes, in words."""
    names = re.findall(r"Expected an? <class '(?:\w+\.)*(\w+)'>", text)
    choices = re.findall(r"Expected a (typing\.Literal\[.*?\])", text)
    words = [PLAIN_TYPES.get(name, name) for name in names if name != "NoneType"]
    words += [f"one of {choice[len('typing.Literal') :].strip('[]')}" for choice in choices]
    words += ["null"] * ("NoneType" in names)
    return "expected " + " or ".join(dict.fromkeys(words)) if words else ""


def _unknown_argument(parser: FitParser, key: str, name: str, class_path: str) -> str:
    found = pydoc.locate(class_path)
    plain = is_dataclass(found) and not inspect.isabstract(found)  # whose options there are without its name
    if found in _kinds(parser, key) and not plain:  # which is taken where no class is named
        return _unnamed(parser, key)
    known = [one for one in inspect.signature(found).parameters if one not in GIVEN] if callable(found) else []
    short = class_path.rpartition(".")[2] or "its class"
    listed = f" (--{key}.help={class_path})" if class_path and f"--{key}.help" in parser.options() else ""
    return f": {short} has no option {name!r}; the nearest: {nearest(name, known) or 'it has none'}{listed}"


def _known(parser: FitParser, key: str, name: str = "") -> str:
    """Classes that an option can name, the nearest to `name` first."""
    names = [path.rpartition(".")[2] for path in _classes(parser, key)]
    shown = nearest(name.rpartition(".")[2], names) if name else ", ".join([*names[:12], *["…"] * (len(names) > 12)])
    return (
        f"there are {shown}; one of yours is named by its path, module.NAME" if shown else "give its path, module.NAME"
    )


def _classes(parser: FitParser, key: str) -> Iterator[str]:
    for kind in _kinds(parser, key):
        yield from get_all_subclass_paths(kind)


def _kinds(parser: FitParser, key: str) -> list[type]:
    """The classes that an option is annotated with."""
    action = next((action for action in parser._actions if action.dest == key), None)
    return list(_types(getattr(action, "_typehint", None)))


def _types(hint: Any) -> Iterator[type]:
    """The classes in a type, or that a function of this type makes."""
    for one in getattr(hint, "__args__", None) or (hint,):
        made = get_callable_return_type(one) if hasattr(one, "__args__") else one
        if inspect.isclass(made) and made not in (int, float, str, bool, type(None)):
            yield made


def _flat(text: str) -> str:
    return " ".join(text.split())


def not_made(text: str) -> str | None:
    """`some.Class cannot be made: …` for what jsonargparse says of a class that raised; None for anything else.

    Options without a class to be named for them name themselves in what they raise.
    """
    if alone := re.search(r"Problem with given class_path '([\w.]+)':\s*(.*)", text):
        return f"{alone[1]} cannot be made: {alone[2]}"
    if (errors := re.search(r"Errors:\n((?:  .*\n)+)", text)) is None:
        return None
    reasons = re.findall(r"^  - (.*)", errors[1], re.MULTILINE)
    raised = [reason for reason in reasons if not reason.startswith("Expected a")]  # by the one type that it is
    named = re.search(r"Namespace\(class_path='([\w.]+)'", text)
    if named is None:
        return raised[0] if raised else None
    return f"{named[1]} cannot be made: {[*raised, *reasons][0]}"
