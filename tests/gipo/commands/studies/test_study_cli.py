"""`gipo-study`: help that teaches, bad input in one line, files where they were asked for."""

import re
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import tomllib

from gipo.commands.studies import cli
from tests.runs import Process, within

ROOT = Path(__file__).parents[4]
Capture = pytest.CaptureFixture[str]


def test_it_is_installed() -> None:
    scripts = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["scripts"]
    assert scripts["gipo-study"] == "gipo.commands.studies.cli:main"


@pytest.mark.parametrize("name", cli.STUDIES)
def test_help_says_what_is_written(name: str, capsys: Capture) -> None:
    with pytest.raises(SystemExit, match="0"):
        cli.main(["--help"])
    assert re.search(rf"^    {name}\s+[A-Z]", capsys.readouterr().out, re.MULTILINE), (
        "what it is stands beside its name"
    )
    with pytest.raises(SystemExit, match="0"):
        cli.main([name, "--help"])
    words = capsys.readouterr().out
    assert re.findall(r"\w+\.(?:csv|json)", words)
    assert "--out" in words


def test_a_study_is_a_module(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Capture) -> None:
    (tmp_path / "twice_study.py").write_text(
        '"""Writes a number twice."""\n'
        "def add_arguments(parser): parser.add_argument('--number', type=int)\n"
        "def run(options): (options.out / 'n.txt').write_text(str(2 * options.number))\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setitem(cli.STUDIES, "twice", "twice_study")
    cli.main(["twice", "--number", "4", "--out", str(tmp_path / "deep" / "er")])
    assert (tmp_path / "deep" / "er" / "n.txt").read_text() == "8"
    assert "holds n.txt" in capsys.readouterr().out


def test_ctrl_c_says_that_the_same_command_goes_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Capture
) -> None:
    (tmp_path / "interrupted_study.py").write_text(
        '"""Is interrupted."""\ndef add_arguments(parser): pass\ndef run(options): raise KeyboardInterrupt\n'
    )
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setitem(cli.STUDIES, "interrupted", "interrupted_study")
    with pytest.raises(SystemExit, match="130"):
        cli.main(["interrupted", "--out", str(tmp_path / "out")])
    assert (
        capsys.readouterr().err
        == f"gipo-study: interrupted; the same command with --out {tmp_path}/out goes on from here\n"
    )


@pytest.mark.parametrize(
    ("args", "word"),
    [
        (["theory", "--draws", "0"], "--draws"),
        (["theory", "--delta", "1"], "--delta"),
        (["theory", "--delta", "nan"], "--delta"),
        (["theory", "--seed", "-1"], "--seed"),
        (["theory", "--out", ""], "argument --out: it is empty"),
        (["loop", "--processes", "0"], "argument --processes: '0' is no whole number from 1 to 1024"),
        (["posttrain", "--processes", "0"], "argument --processes: '0' is no whole number from 1 to 1024"),
        (["posttrain", "--loops", ""], "argument --loops: it is empty"),
        (["staleness", "--seeds", "1", "-1"], "argument --seeds: '-1' is no whole number from 0 to 2147483647"),
        (
            ["staleness", "--objectives", "GIPO", "GIPOO"],
            "--objectives GIPOO: there is no such objective; the nearest: GIPO",
        ),
        (["staleness", "--objectives", "GIPO:sgima=1"], "GIPO has no option 'sgima'; it has sigma, sigma_neg_ratio"),
        (["posttrain", "--objectives", "GIPO:sigma"], "--objectives 'GIPO:sigma' is not NAME or NAME:option=value"),
        (["posttrain", "--objectives", "GIPO:sigma=-1"], "GIPO:sigma=-1: GIPO.sigma must lie in [1e-06, 1e+06]"),
        (["demonstrations", "--objectives", "GIPO:sigma=x"], "GIPO:sigma=x: Parser key"),
        (["posttrain", "--objectives", "json.loads"], "--objectives json.loads: there is no such objective"),
        (["gridworld", "--out", "{file}"], "--out"),
    ],
)
def test_bad_input_is_one_line(args: list[str], word: str, tmp_path: Path, capsys: Capture) -> None:
    file = tmp_path / "file"
    file.write_text("")
    out = [] if "--out" in args else ["--out", str(tmp_path / "out")]
    with pytest.raises(SystemExit, match="2"):
        cli.main([arg.format(file=file) for arg in args] + out)
    error = capsys.readouterr().err
    assert error.startswith("gipo-study: error: ")
    assert error.count("\n") == 1
    assert word in error


@pytest.mark.parametrize(("args", "words"), [(["gridwrld"], "'gridworld', 'theory'"), ([], "required: NAME")])
def test_no_study_of_that_name(args: list[str], words: str, capsys: Capture) -> None:
    with pytest.raises(SystemExit, match="2"):
        cli.main(args)
    error = capsys.readouterr().err
    assert error.startswith("gipo-study: error: ")
    assert error.count("\n") == 1
    assert words in error


def test_help_imports_neither_torch_nor_plots() -> None:
    code = "import sys, gipo.commands.studies.cli as cli\ntry: cli.main(['--help'])\nexcept SystemExit: pass\n"
    code += "print(sorted({'torch', 'numpy', 'matplotlib'} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert "Bias and variance of every objective" in done.stdout
    assert done.stdout.endswith("[]\n")


def test_a_study_without_torch_says_what_to_install() -> None:
    # In a process of its own: here it depends on who has imported what before.
    code = "import sys; sys.modules['torch'] = None; from gipo.commands.studies import cli; cli.main(['theory'])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 2
    way_out = "pip install '.[train]' in a clone of gipo"
    assert done.stderr == f"gipo-study: error: torch is not installed; this command needs it: {way_out}\n"


@pytest.mark.parametrize(("number", "called"), [(signal.SIGTERM, "SIGTERM"), (signal.SIGHUP, "SIGHUP")])
def test_a_study_that_is_told_to_end_ends_what_it_started(number: int, called: str, tmp_path: Path) -> None:
    """A service manager tells the study alone; a robot that it drives must not go on without it."""
    args = ["loop", "--out", str(tmp_path / "out"), "--frames", "1000", "--processes", "1"]
    study = Process(args, tmp_path / "log.txt", module=cli.__name__)
    try:
        study.wait_for(lambda: (tmp_path / "out" / "seed-22" / "train").exists() and len(study.family()) > 1, 60)
        study.signal(number)
        assert study.wait(60) == 128 + number
        assert within(10, lambda: not study.family())
        assert (
            f"gipo-study: ended by {called}; the same command with --out {tmp_path}/out goes on from here"
            in study.output
        )
    finally:
        study.kill_all()
