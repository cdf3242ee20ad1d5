"""`gipo-study`: help that teaches, bad input in one line, files where they were asked for."""

import re
from pathlib import Path
from types import ModuleType

import pytest
import tomllib

from gipo.studies import cli

ROOT = Path(__file__).parents[3]
Capture = pytest.CaptureFixture[str]


def test_it_is_installed() -> None:
    scripts = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["scripts"]
    assert scripts["gipo-study"] == "gipo.studies.cli:main"


@pytest.mark.parametrize("name", cli.STUDIES)
def test_help_says_what_is_written(name: str, capsys: Capture) -> None:
    for args in (["--help"], [name, "--help"]):
        with pytest.raises(SystemExit, match="0"):
            cli.main(args)
    words = capsys.readouterr().out
    assert f"gipo-study {name} --out" in words
    assert re.findall(r"\w+\.(?:csv|json)", words)
    assert "--out" in words


def test_a_study_is_a_module(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Capture) -> None:
    module = ModuleType("twice", "Writes a number twice.\n\nMore words.")
    module.add_arguments = lambda parser: parser.add_argument("--number", type=int)  # type: ignore[attr-defined]
    module.run = lambda options: (options.out / "n.txt").write_text(str(2 * options.number))  # type: ignore[attr-defined]
    monkeypatch.setitem(cli.STUDIES, "twice", module)
    cli.main(["twice", "--number", "4", "--out", str(tmp_path / "deep" / "er")])
    assert (tmp_path / "deep" / "er" / "n.txt").read_text() == "8"
    assert "holds n.txt" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("args", "word"),
    [
        (["theory", "--draws", "0"], "--draws"),
        (["theory", "--delta", "1"], "--delta"),
        (["theory", "--delta", "nan"], "--delta"),
        (["theory", "--seed", "-1"], "--seed"),
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


def test_an_unknown_study_names_the_known_ones(capsys: Capture) -> None:
    with pytest.raises(SystemExit, match="2"):
        cli.main(["gridwrld"])
    assert "gridworld" in capsys.readouterr().err
