"""Every command of the README and of docs/, typed as it stands, in order, where only what the text says is there.

A chapter of a page is a test. It begins in an empty folder that looks like a clone, types the earlier commands of its
page that it builds on (`BUILDS_ON`), and then all of its own. Three tables say where a line is not typed bare:
`SMALLER` appends options that make it quick, `PLACEHOLDERS` puts something in the place of what the text leaves open,
`NOT_TYPED` says why a line cannot run here and what is checked instead. `LONG` lines are parsed, and typed by
`make campaign`.
"""

import contextlib
import importlib
import io
import re
import shlex
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import tomllib

from benchmarks.__main__ import BENCHMARKS
from gipo.studies import stages
from gipo.studies.cli import build_parser
from tests import shell
from tests.pages import PAGES, PROGRAMS, ROOT, Step, chapters
from tests.standins import decide, needed, provide

CLONE = ("Makefile", "constraints.txt", "pyproject.toml", "examples", "benchmarks")

# Options appended to a line, of all patterns that it matches: the later ones count.
FIT = """--trainer.max_epochs=1 --data.frames_per_iteration=8 --data.warmup_frames=0 --data.capacity=64 --data.rounds=1
    --data.batch=16 --data.collector.num_envs=2 --data.evaluation.num_envs=1"""
LOGS = "--trainer.max_epochs=1 --data.rounds=1 --data.batch=16 --model.critic_warmup=0 --data.min_ess=0"
SMALLER = {
    r"^gipo fit(?!.*(post_train|bc)\.yaml)": FIT,
    r"^gipo fit$|^gipo fit --config toy_vla.yaml$": "--trainer.check_val_every_n_epoch=1 --data.evaluation.episodes=1",
    r"^gipo fit.*(post_train|bc)\.yaml": LOGS,
    r"^gipo fit.*(ray|ddp|Libero|libero)": "--data.collector.num_envs=1 --data.evaluation.episodes=1",
    r"^gipo test": "--data.evaluation.num_envs=1 --data.evaluation.test_episodes=1",
    r"^gipo-robot run": "--episodes 4 --steps 30 --deadline 50 --max-age 60",
    r"^gipo-robot run (?!.*--robot)": "--speed 20",
    r"^gipo-robot run .*lerobot": "--set wait=false",
    r"^gipo-study loop": """--seeds 22 --frames 40 --logged 2 --episodes 2 --rounds 1 --processes 1
        --train data.frames_per_iteration=20 data.collector.num_envs=1 data.evaluation.num_envs=1 data.rounds=1
        data.batch=16 data.capacity=40 --post data.iterations=2 data.rounds=1 data.batch=16 data.min_ess=0
        data.ingest.workers=1""",
    r"^gipo-study posttrain": "--seeds 22 --back 1 --objectives GIPO --frames 20000 --logged 3 --episodes 2",
    r"^gipo-study staleness": """--tasks reach-v3 --seeds 22 --objectives GIPO --ages 1 --frames 32
        --frames-per-iteration 16 --episodes 1 --processes 1""",
    r"^gipo-study staleness(?!.*stored)": "--train data.collector.num_envs=1 data.rounds=1 data.batch=16",
    r"^gipo-study staleness.*stored": """--train data.advantages=stored data.collector.num_envs=1
        data.rounds=1 data.batch=16""",
    r"^gipo-study theory": "--draws=10",
    r"examples/torchrl_gipo": "--iterations 2 --frames 128 --buffer 256 --batch 64 --updates 2",
    r"libero\.demos": "--episodes 2",
}

PLACEHOLDERS = {
    r"\bSEED\b": "1", r"\[(--quarantine FOLDER)\]": r"\1", r"LOG…|LOG\b": "logs/*.mcap",
    r"--policies FOLDER": "--policies .", r"(--quarantine|--out) FOLDER": r"\1 new-folder",
    r"RUN=FOLDER": "RUN=runs/demo", r"diff A B": "diff policy.onnx policy.onnx",
    r"^gipo-deploy export … ": "gipo-deploy export runs/reach-v3-0/checkpoints/best.ckpt --out int8.onnx ",
    r"\bID\b": "0" * 64, r"\bFILE\b": "file", r"--reward x": "--reward 1",
    r"--model\.objective=$": "--model.objective=GIPO",
    # one episode is labelled, not those of every log
    r"^(gipo-robot (?:label|info)) logs/\*\.mcap": r"\1 logs/*sim*.mcap",
}  # fmt: skip

RESUMED = "gipo fit"  # writes runs/reach-v3-0
EXPORTED = "gipo-deploy export runs/reach-v3-0/checkpoints/best.ckpt --out policy.onnx"
DRIVEN = "gipo-robot run --policy policy.onnx --episodes 10 --log logs/"
BUILDS_ON = {
    "Put it on a robot": [RESUMED],
    "Run it on a robot, and learn from what happened": [RESUMED, EXPORTED],
    "Post-train on what came back": [RESUMED, EXPORTED, DRIVEN],
    "Lineage": [RESUMED, EXPORTED, DRIVEN],
    "On a robot with a camera": ["gipo fit --config toy_vla.yaml"],
}

LONG = (
    r"backend=ray|strategy=ddp",  # start clusters and learners: tests of their own
    r"libero|demonstrations|runs/cloned|runs/improved",  # minutes of simulation
    r"^gipo-study posttrain",  # 20 000 steps of training at the least
    r"^gipo-study loop",  # eight commands: its own test runs them in one process, and looks at what comes out
    r"workers=2$",  # starts worker processes, as the asynchronous line does, which is typed
)
CONTEXT = {  # what the text around an option names before it
    "--model.objective.statistic": "--model.objective=gipo.adaptive.AdaptiveGIPO",
    "--data.iterations": "--config=bc.yaml",
    "--data.behaviour": "--config=post_train.yaml",
    "--data.min_ess": "--config=post_train.yaml",
    "--data.collector.max_steps": "--config=libero_90.yaml",
}


def installs(line: str) -> None:
    """A `pip install` of this clone: its extras and its constraints are there."""
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]
    target = re.search(r"'?\.(?:\[([\w,]+)\])?'?$", line)
    assert target, f"{line}: it does not install this clone"
    assert set(filter(None, (target[1] or "").split(","))) <= set(extras), line
    assert "-c" not in line.split() or (ROOT / line.split()[line.split().index("-c") + 1]).exists()


def makes(line: str) -> None:
    """A target of the Makefile, which calls a study that there is."""
    done = subprocess.run([*line.split(), "--dry-run"], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    for study in re.findall(r"gipo-study (.*)$", done.stdout, re.M):
        build_parser().parse_args(shlex.split(study))


def measures(line: str) -> None:
    """Benchmarks that there are."""
    assert set(line.split()[3:]) <= {*BENCHMARKS, "…"}, line


def builds(line: str) -> None:
    """Folders that the C++ example has."""
    for word in line.split():
        assert not word.startswith("examples/") or (ROOT / word / "CMakeLists.txt").exists()


def nothing(line: str) -> None:
    """Another program's business."""


NOT_TYPED: dict[str, tuple[str, Callable[[str], None]]] = {
    r"^pip install": ("would change the environment of the tests; a test installs the clone elsewhere", installs),
    r"^make ": ("would test within tests, and `make demo` is `gipo-study loop`, which is typed", makes),
    r"^python -m benchmarks": ("minutes each; the benchmarks' own tests run them", measures),
    r"^(cmake|build/cpp)": ("needs ONNX Runtime's headers; the C++ test builds and runs it where they are", builds),
    r"^(ray|torchrun) ": ("a cluster of several machines; the tests of Ray start one themselves", nothing),
    r"^(ssh-keygen|gpg|apt-get) ": ("another program, named for what it is good for", nothing),
    r"^gipo test … ": ("the option is parsed; the command is that of the chapter on training", nothing),
}


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
        if any(re.search(pattern, typed) for pattern in LONG) and not self.campaign:
            parse(typed)
            return
        shell.type_line(typed, " ".join(more for pattern, more in SMALLER.items() if re.search(pattern, typed)))
        if typed.endswith("> arm.json"):
            decide(self.folder / "arm.json")  # "before a person has replaced every mark"

    def write(self, step: Step) -> None:
        """A block that names its file is put there; a program without a name is run, a configuration parsed."""
        named = re.match(r"# (\w+\.(?:py|yaml))\b", step.text)
        name = named[1] if named else f"block.{'py' if step.kind == 'python' else 'yaml'}"
        (self.folder / name).write_text(step.text)
        if named is None and step.kind == "python":
            exec(compile(step.text, name, "exec"), {"__name__": "block"})
        elif named is None:
            parse(f"gipo fit --config {name}")
        elif name.startswith("test_"):
            pass_the_test_of(self.folder / name)


def substituted(line: str) -> str:
    """A line with something in each open place."""
    for pattern, found in PLACEHOLDERS.items():
        line = re.sub(pattern, found, line)
    return line


def parse(line: str) -> None:
    """A line's options are known, and their values possible."""
    program, *arguments = shlex.split(line)
    if program == "gipo" and "runs/" in " ".join(a for a in arguments if a.startswith("runs/")):
        return  # its configuration is written by the line before, which the campaign types
    if program == "gipo-study":
        build_parser().parse_args(arguments)
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
        robot = ("run", "verify", "label", "audit", "report", "export", "spec")
        asked = ["gipo fit", *(f"gipo-robot {name}" for name in robot), "gipo-deploy info", "gipo-deploy check"]
        asked += ["gipo-study staleness", "gipo lineage", "python -m datamodules.libero.demos"]
        found += [set_of(shell.type_line(f"{command} --help")) for command in asked]
        found.append("--max-restarts")  # torchrun's
    return found


def set_of(text: str) -> str:
    """Only the options of a help text."""
    return " ".join(re.findall(r"--[\w.-]+", text))


def pass_the_test_of(path: Path) -> None:
    """A test of a page passes: called, as pytest would."""
    module = importlib.import_module(path.stem)
    functions = [value for name, value in vars(module).items() if name.startswith("test_")]
    assert functions
    for function in functions:
        function()


CASES = [
    pytest.param(page, name, id=f"{page.stem}: {name}")
    for page in PAGES
    for name, found in chapters(page).items()
    if any(step.kind not in ("name", "code") for step in found)
]


@pytest.fixture(scope="module")
def readers() -> dict[Path, Reader]:
    return {}


@contextlib.contextmanager
def at_home(reader: Reader, monkeypatch: pytest.MonkeyPatch):  # type: ignore[no-untyped-def]
    monkeypatch.chdir(reader.folder)
    monkeypatch.setenv("XDG_CACHE_HOME", str(reader.folder / "cache"))
    monkeypatch.setattr(sys, "path", [*sys.path, str(reader.folder)])
    monkeypatch.setattr("gipo.callbacks.plot_curves", lambda *_, **__: None)
    # the stages of a study without the time that Python takes to start
    monkeypatch.setattr(stages, "run", lambda command, args, *_: shell.type_line(shlex.join([command, *args])))
    yield


def read(page: Path, chapter: str, readers: dict[Path, Reader], folder: Path, monkeypatch: pytest.MonkeyPatch,
         campaign: bool = False) -> None:  # fmt: skip
    """Read a chapter to its end, and only then say what failed."""
    reader = readers.get(page) or readers.setdefault(page, Reader(folder, campaign))
    failed = []
    with at_home(reader, monkeypatch):
        for line in BUILDS_ON.get(chapter, []):
            assert Step("command", line) in [step for found in chapters(page).values() for step in found], line
            reader.type(line)
        steps = chapters(page)[chapter]
        for step in sorted(steps, key=lambda step: step.kind not in ("python", "yaml") or step.text[:2] != "# "):
            said = io.StringIO()
            try:
                with contextlib.redirect_stderr(said):
                    reader.take(step)
            except Exception as error:
                failed.append(f"{step.text}\n{type(error).__name__}: {error}\n{said.getvalue()[-1500:]}")
    assert not failed, "\n\n".join(failed)


@pytest.mark.timeout(600)
@pytest.mark.parametrize(("page", "chapter"), CASES)
def test_what_a_reader_types(
    page: Path, chapter: str, readers: dict[Path, Reader], tmp_path_factory: pytest.TempPathFactory,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    read(page, chapter, readers, tmp_path_factory.mktemp("clone"), monkeypatch)


@pytest.mark.campaign
@pytest.mark.timeout(3600)
@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_what_a_reader_types_in_full(
    page: Path, tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch
) -> None:
    readers: dict[Path, Reader] = {}
    for chapter in chapters(page):
        read(page, chapter, readers, tmp_path_factory.mktemp("clone"), monkeypatch, campaign=True)


def test_each_table_is_of_use() -> None:
    """An entry that no line of the pages needs any more is out of date."""
    lines = [step.text for page in PAGES for found in chapters(page).values() for step in found]
    typed = [substituted(line) for line in lines]
    for pattern in (*SMALLER, *LONG):
        assert any(re.search(pattern, line) for line in typed), pattern
    for pattern in (*NOT_TYPED, *CONTEXT):
        assert any(re.search(pattern, line) for line in lines), pattern


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_what_a_page_links_to_exists(page: Path) -> None:
    linked = re.findall(r"\]\((?!https?://)([^)#]*)(#[^)]*)?\)", page.read_text(encoding="utf-8"))
    for path, anchor in linked:
        target = (page.parent / path).resolve() if path else page
        assert target.exists(), path
        if anchor:
            titles = re.findall(r"^#+ (.*)$", target.read_text(), re.M)
            assert anchor[1:] in [re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-") for title in titles]


def test_every_file_of_the_tree_exists() -> None:
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    tree = re.search(r"## Where things are\n\n```\n(.*?)```", readme, re.S)
    assert tree
    folder = ""
    for line in tree[1].splitlines():
        folder = (re.match(r"(\w+/)", line) or [None, folder])[1]
        for name in re.findall(r"\w+\.(?:py|yaml)", line):
            assert list((ROOT / folder).rglob(name)), f"{folder}{name} is in the README's tree only"
