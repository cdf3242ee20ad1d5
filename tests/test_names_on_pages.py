"""What pages name is there: files and what they define, modules, classes, functions."""

import ast
import importlib
import re
from operator import attrgetter
from pathlib import Path

import pytest

from tests.pages import CODE, PAGES, ROOT

TOP = "gipo|datamodules|deploy|robots|tests|docs|examples|benchmarks"
FILE = re.compile(rf"((?:{TOP})/[\w./-]*)(?::([\w.]+))?")  # a file or folder; of a file, also what it defines
NAME = re.compile(r"(?:gipo|datamodules|deploy|robots)(?:\.\w+)+(?=$|\()")


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_what_a_page_names_is_there(page: Path) -> None:
    for code in CODE.findall(page.read_text(encoding="utf-8")):
        if file := FILE.fullmatch(code):
            assert (ROOT / file[1]).exists(), code
            assert file[2] is None or defines(ROOT / file[1], file[2]), code
        elif name := NAME.match(code):
            assert found(name[0]), code


def test_a_log_prob_is_followed_through_every_package() -> None:
    text = (ROOT / "docs" / "architecture.md").read_text(encoding="utf-8")
    way = text.split("## A log-prob's way\n")[1].split("\n## ")[0]
    files = [file[1] for code in CODE.findall(way) if (file := FILE.fullmatch(code)) and file[2]]
    assert {file.split("/")[0] for file in files} == {"gipo", "datamodules", "deploy", "robots"}


def defines(file: Path, name: str) -> bool:
    """Whether a file has the class or function; `Class.method` for one within."""
    scope = ast.parse(file.read_text(encoding="utf-8")).body
    for part in name.split("."):
        kinds = (ast.ClassDef, ast.FunctionDef)
        inner = [node for node in scope if isinstance(node, kinds) and node.name == part]
        if not inner:
            return False
        scope = inner[0].body
    return True


def found(name: str) -> object:
    """A module, or what a module defines."""
    parts = name.split(".")
    for length in range(len(parts), 0, -1):
        try:
            module = importlib.import_module(".".join(parts[:length]))
        except ModuleNotFoundError:
            continue
        return attrgetter(".".join(parts[length:]))(module) if parts[length:] else module
    raise ModuleNotFoundError(name)
