"""What pages name is there: files, modules, classes, and in `docs/architecture.md` who defines what."""

import importlib
import re
from operator import attrgetter
from pathlib import Path
from types import ModuleType

import pytest

from tests.pages import CODE, PAGES, ROOT

TOP = "gipo|datamodules|deploy|robots|tests|docs|examples|benchmarks"
FILE = re.compile(rf"(?:{TOP})/[\w./-]*")
NAME = re.compile(r"(?:gipo|datamodules|deploy|robots)(?:\.\w+)+(?=$|\()")
ARCHITECTURE = ROOT / "docs" / "architecture.md"


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


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_what_a_page_names_is_there(page: Path) -> None:
    for code in CODE.findall(page.read_text(encoding="utf-8")):
        if FILE.fullmatch(code):
            assert (ROOT / code).exists(), code
        elif name := NAME.match(code):
            assert found(name[0]), code


def test_who_handles_a_log_prob_stands_where_the_page_says() -> None:
    """Of each row, every name is defined in one of its files."""
    text = ARCHITECTURE.read_text(encoding="utf-8").split("## A log-prob's way")[1].split("\n## ")[0]
    rows = [[CODE.findall(cell) for cell in line.strip("|").split("|")] for line in text.splitlines() if "`" in line]
    rows = [row for row in rows if len(row) == 3 and row[2]]
    assert len(rows) == 12
    for _, names, files in rows:
        modules = [importlib.import_module(file.removesuffix(".py").replace("/", ".")) for file in files]
        names = [name for name in names if re.fullmatch(r"\w+(\.\w+)?", name)]
        assert names
        for name in names:
            assert any(defines(module, name) for module in modules), (name, files)


def defines(module: ModuleType, name: str) -> bool:
    try:
        return attrgetter(name)(module).__module__ == module.__name__
    except AttributeError:
        return False
