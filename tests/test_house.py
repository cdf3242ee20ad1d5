"""How the house is built: what stands where, how long it may be, and that names and docstrings say something."""

import ast
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.docstrings import PACKAGES, ROOT, fragments, pattern_of

ENTRIES_OF_A_FOLDER = 20
FLAT_FILES_OF_DATAMODULES = 7
LINES_OF_A_MODULE = 300
LINES_OF_A_FUNCTION = 40

FILES = [
    path for package in PACKAGES for path in sorted((ROOT / package).rglob("*"))
    if path.is_file() and "__pycache__" not in path.parts
]  # fmt: skip
MODULES = [path for path in FILES if path.suffix == ".py"]


def name(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


def nodes(*kinds: type) -> Iterator[tuple[Path, ast.AST]]:
    for path in MODULES:
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, kinds):
                yield path, node


def test_no_folder_is_crowded() -> None:
    entries: dict[Path, set[str]] = {}
    for path in FILES:
        for folder in path.parents:
            if folder != ROOT and ROOT in folder.parents:
                entries.setdefault(folder, set()).add(path.relative_to(folder).parts[0])
    sizes = {name(folder): len(found) for folder, found in entries.items()}
    assert {folder for folder, size in sizes.items() if size > ENTRIES_OF_A_FOLDER} == set()


def test_data_modules_are_told_from_their_folder() -> None:
    assert len(list((ROOT / "datamodules").glob("*.py"))) <= FLAT_FILES_OF_DATAMODULES


def test_no_module_is_long() -> None:
    long = {name(path) for path in MODULES if len(path.read_text().splitlines()) > LINES_OF_A_MODULE}
    assert long == set()


def test_no_function_is_long() -> None:
    long = {
        f"{name(path)}:{node.lineno} {node.name}"
        for path, node in nodes(ast.FunctionDef, ast.AsyncFunctionDef)
        if node.end_lineno - node.lineno >= LINES_OF_A_FUNCTION
    }
    assert long == set()


def test_a_name_is_of_one_class() -> None:
    count = Counter(node.name for _, node in nodes(ast.ClassDef))
    assert {found for found, times in count.items() if times > 1} == set()


def test_a_docstring_survives_being_read_alone() -> None:
    assert [f"{one.place}: {one.line} [{one.pattern}]" for one in fragments()] == []


@pytest.mark.parametrize(
    "line",
    [
        "Of a file.", "Those of the task.", "The same.", "As `load`, from memory.", "The task's.", "Which of them.",
        "Whether it is one of the fifty.", "Names it knows.", "Write them, if that is possible.", "All fifty.",
        "The present one.", "Start `count` of them.", "What is drawn.", "matplotlib's, for files alone.", "By whom.",
        "One task.", "O.",
    ],
)  # fmt: skip
def test_a_fragment_is_found(line: str) -> None:
    assert pattern_of(line)


@pytest.mark.parametrize(
    "line",
    [
        "For every age: the interquartile mean.", "Which extra brings which library.", "All rows so far.",
        "Whether `name` is one of its tasks.", "Whether it is our output that nobody reads, and not a robot's socket.",
        "The one boundary between a command and its user.", "log softmax(logits)[token].", "Restore `state_dict`.",
        "A log with what belongs to it.", "This rank ends, whatever the others do.", "Success before and after.",
    ],
)  # fmt: skip
def test_what_stands_alone_is_no_fragment(line: str) -> None:
    assert pattern_of(line) == ""
