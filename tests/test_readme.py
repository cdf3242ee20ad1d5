"""Every command of the README and of docs/, typed as it stands, in order, where only what the text says is there.

A page is a test. It begins in an empty folder that looks like a clone, types the commands of other pages that it builds
on (`BUILDS_ON`), and then all of its own, chapter by chapter. The tables of `tests.typed` say where a line is not
typed bare: `SMALLER` appends options that make it quick, `PLACEHOLDERS` puts something in the place of what the text
leaves open, `NOT_TYPED` says why a line cannot run here and what is checked instead. `LONG` lines are parsed, and typed
by `make campaign`.
"""

import contextlib
import importlib
import io
import re
import shlex
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from gipo.commands import demos
from gipo.commands.estimate import cli as estimate
from gipo.commands.studies.cli import build_parser
from gipo.commands.studies.pipeline.processes import Commands
from tests import shell
from tests.pages import PAGES, PROGRAMS, ROOT, Step, chapters
from tests.standins import decide, needed, provide
from tests.typed import BUILDS_ON, CONTEXT, LONG, NOT_TYPED, SMALLER, is_long, parses, smaller, substituted

CLONE = ("Makefile", "constraints.txt", "pyproject.toml", "examples", "benchmarks", "docs")


class Reader:
    """Types the lines of one page in one folder, each at most once."""

    def __init__(self, folder: Path, campaign: bool):
        self.folder, self.campaign = folder, campaign
        self.typed: set[str] = set()
        for name in CLONE:
            (folder / name).symlink_to(ROOT / name)

    def take(self, step: Step) -> None:
        """Do what a reader does with a step."""
        if step.kind == "command":
            self.type(step.text)
        elif step.kind == "option":
            parse_option(step.text)
        elif step.kind in ("python", "yaml"):
            self.write(step)
        elif step.kind == "output":
            lines = [line for line in step.text.splitlines() if line.split(" ")[0] in PROGRAMS and " " in line]
            assert not lines, f"a block of commands is not marked bash: {lines}"

    def type(self, line: str) -> None:
        """Type a line, or check what stands in the table for it."""
        if line in self.typed:
            return
        self.typed.add(line)
        for pattern, (_, check) in NOT_TYPED.items():
            if re.search(pattern, line):
                check(line)
                return
        for name in needed(line):
            if not (self.folder / name).exists():
                provide(name)
        typed = substituted(line)
        if is_long(typed) and not self.campaign:
            parse(typed)
            return
        shell.type_line(typed, smaller(typed))
        if typed.endswith("> arm.json"):
            decide(self.folder / "arm.json")  # "before a person has replaced every mark"

    def write(self, step: Step) -> None:
        """A block that names its file is put there; a program without a name is run, a configuration parsed."""
        found = re.match(r"# (\w+\.(?:py|yaml))\b", step.text)
        named = found[1] if found else ""
        name = named or f"block.{'py' if step.kind == 'python' else 'yaml'}"
        (self.folder / name).write_text(step.text)
        if not named and step.kind == "python":
            exec(compile(step.text, name, "exec"), {"__name__": "block"})
        elif not named:
            parse(f"gipo fit --config {name}")
        elif name.startswith("test_"):
            pass_the_test_of(self.folder / name)


def parse(line: str) -> None:
    """A line's options are known, and their values possible."""
    program, *arguments = shlex.split(line)
    if program == "gipo" and "runs/" in " ".join(a for a in arguments if a.startswith("runs/")):
        return  # its configuration is written by the line before, which the campaign types
    if program == "gipo-study":
        build_parser(arguments[0]).parse_args(arguments)
    elif program == "gipo-demos":
        demos.build_parser().parse_args(arguments)
    elif program == "gipo" and arguments[0] == "estimate":
        estimate.build_parser().parse_args(arguments[1:])
    elif program in ("gipo-deploy", "gipo-robot"):
        parses(line)
    elif program == "gipo":
        shell.type_line(line, "--print_config")
    else:
        known = shell.type_line(f"{program} -m {arguments[1]} --help")
        assert {word for word in arguments[2:] if word.startswith("--")} <= set(re.findall(r"--[\w-]+", known)), line


def parse_option(text: str) -> None:
    """Options within a sentence: with a value they are parsed by `gipo fit`, else a command knows the name."""
    text = substituted(text)
    if re.match(r"--[\w.]+=", text):
        before = [more for name, more in CONTEXT.items() if name in text]
        parse(" ".join(["gipo fit", *before, text]))
        return
    for name in re.findall(r"(?<!\S)(--[\w.-]+)", text):
        assert any(name in known for known in all_help()), f"no command has {name}"


def all_help(found: list[str] = []) -> list[str]:  # noqa: B006 - asked once
    """What every command says of its options."""
    if not found:
        robot = ("run", "verify", "label", "audit", "report", "export", "spec", "promote")
        deploy = ("export", "info", "check")
        asked = ["gipo fit", *(f"gipo-robot {name}" for name in robot), *(f"gipo-deploy {name}" for name in deploy)]
        asked += [*(f"gipo-study {name}" for name in ("staleness", "loop", "fifty")), "gipo-demos"]
        asked += ["gipo lineage", "gipo estimate"]
        found += [set_of(shell.type_line(f"{command} --help")) for command in asked]
        found.append("--max-restarts")  # torchrun's
    return found


def set_of(text: str) -> str:
    """Only the options of a help text."""
    return " ".join(re.findall(r"--[\w.-]+", text))


def pass_the_test_of(path: Path) -> None:
    """A test of a page passes: called, as pytest would."""
    sys.path.append(str(path.parent))
    module = importlib.import_module(path.stem)
    functions = [value for name, value in vars(module).items() if name.startswith("test_")]
    assert functions
    for function in functions:
        function()


@contextlib.contextmanager
def at_home(reader: Reader, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.chdir(reader.folder)
    monkeypatch.setenv("XDG_CACHE_HOME", str(reader.folder / "cache"))
    monkeypatch.setenv("MINARI_DATASETS_PATH", str(reader.folder))  # which a script sets, and is undone after it
    monkeypatch.setattr(sys, "path", [*sys.path])  # which the commands extend by the working folder themselves
    monkeypatch.setattr("gipo.callbacks.reporting.plot_curves", lambda *_, **__: None)
    # the stages of a study without the time that Python takes to start
    monkeypatch.setattr(Commands, "run", lambda _, command, args, *rest: shell.type_line(shlex.join([command, *args])))
    yield


def read(page: Path, reader: Reader) -> None:
    """Read a page to its end, chapter by chapter, and only then say what failed."""
    failed = []
    for line in BUILDS_ON.get(page.stem, []):
        reader.type(line)
    for chapter, steps in chapters(page).items():
        for step in sorted(steps, key=lambda step: step.kind not in ("python", "yaml") or step.text[:2] != "# "):
            said = io.StringIO()
            try:
                with contextlib.redirect_stderr(said):
                    reader.take(step)
            except Exception as error:
                failed.append(f"{chapter}: {step.text}\n{type(error).__name__}: {error}\n{said.getvalue()[-1500:]}")
    assert not failed, "\n\n".join(failed)


@pytest.mark.timeout(900)
@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_what_a_reader_types(page: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with at_home(reader := Reader(tmp_path, campaign=False), monkeypatch):
        read(page, reader)


@pytest.mark.campaign
@pytest.mark.timeout(3600)
@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_what_a_reader_types_in_full(page: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with at_home(reader := Reader(tmp_path, campaign=True), monkeypatch):
        read(page, reader)


def test_each_table_is_of_use() -> None:
    """An entry that no line of the pages needs any more is out of date."""
    lines = [step.text for page in PAGES for found in chapters(page).values() for step in found]
    assert {line for before in BUILDS_ON.values() for line in before} <= {*lines}
    assert {*BUILDS_ON} <= {page.stem for page in PAGES}
    typed = [substituted(line) for line in lines]
    for pattern in (*SMALLER, *LONG):
        assert any(re.search(pattern, line) for line in typed), pattern
    for pattern in (*NOT_TYPED, *CONTEXT):
        assert any(re.search(pattern, line) for line in lines), pattern
    for line in typed:  # or the campaign would take days
        assert not (is_long(line) and line.startswith("gipo-study")) or smaller(line), line


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_what_a_page_links_to_exists(page: Path) -> None:
    linked = re.findall(r"\]\((?!https?://)([^)#]*)(#[^)]*)?\)", page.read_text(encoding="utf-8"))
    for path, anchor in linked:
        target = (page.parent / path).resolve() if path else page
        assert target.exists(), path
        if anchor:
            titles = re.findall(r"^#+ (.*)$", target.read_text(), re.M)
            assert anchor[1:] in [re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-") for title in titles]


def test_every_room_of_the_tree_exists() -> None:
    """The tree of the README names every folder of the four packages, and no other."""
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    tree = re.search(r"## Where things are\n\n```\n(.*?)```", readme, re.S)
    assert tree
    rooms, top = set(), ""
    for indent, name in re.findall(r"^( *)([\w/]+)/ ", tree[1], re.M):
        top = top if indent else name
        rooms.add(f"{top}/{name}" if indent else name)
    packages = ("gipo", "datamodules", "deploy", "robots")
    there = {f"{each}/{path.name}" for each in packages for path in (ROOT / each).iterdir() if is_room(path)}
    assert rooms == {*packages, *there, "docs", "examples", "benchmarks", "tests"}


def is_room(path: Path) -> bool:
    return path.is_dir() and path.name != "__pycache__" and any(path.glob("*.*"))
