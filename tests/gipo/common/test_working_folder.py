"""Modules of the working folder are found after what is installed; what hides one of ours is named."""

import importlib
import importlib.util
import subprocess
import sys
from pathlib import Path

import pytest

from gipo.cli import main
from gipo.common import boundary
from gipo.common.working_folder import PACKAGES, searched_last
from tests.needs import needs_torch

Capture = pytest.CaptureFixture[str]
OBJECTIVE = """
from dataclasses import dataclass
from gipo.objectives import Objective, Terms

@dataclass(frozen=True)
class Mine(Objective):
    margin: float = 1.0
    def __call__(self, log_ratio, advantage):
        return Terms(-log_ratio * advantage, log_ratio, log_ratio)
"""


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A working folder that is on no path, as that of a console script."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [place for place in sys.path if place not in ("", str(tmp_path))])
    importlib.invalidate_caches()
    return tmp_path


@needs_torch
def test_a_class_of_the_working_folder_needs_no_installation(here: Path, capsys: Capture) -> None:
    (here / "mine_of_test.py").write_text(OBJECTIVE)
    with pytest.raises(SystemExit) as ended:
        main(["fit", "--model.objective=mine_of_test.Mine", "--model.objective.margin=0.5", "--print_config"])
    assert ended.value.code in (0, None), capsys.readouterr().err
    assert "class_path: mine_of_test.Mine\n    init_args:\n      margin: 0.5\n" in capsys.readouterr().out


@pytest.mark.parametrize("program", ["gipo", "gipo-study", "gipo-deploy", "gipo-robot"])
def test_every_command_finds_it_after_what_is_installed(program: str, here: Path) -> None:
    for name in ("packaging.py", "only_here.py"):
        (here / name).write_text("")
    found = {}

    def command(_: list[str]) -> None:
        for name in ("packaging", "only_here"):
            spec = importlib.util.find_spec(name)
            found[name] = spec is not None and spec.origin == str(here / f"{name}.py")

    with pytest.MonkeyPatch.context() as patch:
        patch.delitem(sys.modules, "packaging", raising=False)
        assert boundary.run(program, command, []) == 0
    assert found == {"packaging": False, "only_here": True}
    assert str(here) not in sys.path


def test_a_folder_that_was_deleted_is_no_fault(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "gone").mkdir()
    monkeypatch.chdir(tmp_path / "gone")
    (tmp_path / "gone").rmdir()
    before = list(sys.path)
    with searched_last():
        assert sys.path == before


@pytest.mark.parametrize("package", PACKAGES)
@pytest.mark.parametrize("marker", ["__init__.py", "other.py"], ids=["package", "folder"])
def test_a_package_that_hides_one_of_ours_is_named(
    package: str, marker: str, here: Path, monkeypatch: pytest.MonkeyPatch, capsys: Capture
) -> None:
    (here / package).mkdir()
    (here / package / marker).write_text("")
    monkeypatch.delitem(sys.modules, package, raising=False)
    monkeypatch.syspath_prepend(here)
    code = boundary.run("gipo-x", lambda _: None, [])
    error = capsys.readouterr().err
    spec = importlib.util.find_spec(package)
    assert spec is not None
    if spec.origin == str(here / package / "__init__.py"):
        assert code == 2
        assert error.startswith(f"gipo-x: error: {here / package} hides the package {package!r} ")
        assert "rename it, or leave its folder out of PYTHONPATH" in error
        assert error.count("\n") == 1
    else:  # a package that is one comes before a folder that is none
        assert (code, error) == (0, "")
        assert marker == "other.py"


@pytest.mark.parametrize(("entry", "folder"), [("robot", "robots"), ("deploy", "deploy"), ("robot", "deploy")])
def test_as_installed_robot_and_deploy_know_it_before_they_are_imported(
    entry: str, folder: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / folder).mkdir()
    (tmp_path / folder / "__init__.py").write_text("raise SystemExit('theirs was imported')")
    code = f"import sys; from gipo.cli import {entry} as main; sys.exit(main())"
    done = subprocess.run(
        [sys.executable, "-c", code, "info", "x"],
        env={"PYTHONPATH": f"{tmp_path}:{boundary.__file__.partition('/gipo/common')[0]}"},
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 2
    assert done.stderr.startswith(f"gipo-{entry}: error: {tmp_path / folder} hides the package {folder!r} ")


def test_that_is_how_they_are_installed() -> None:
    tomllib = pytest.importorskip("tomllib")  # of Python 3.11
    scripts = tomllib.loads((Path(__file__).parents[3] / "pyproject.toml").read_text())["project"]["scripts"]
    assert scripts["gipo-robot"] == "gipo.cli:robot"
    assert scripts["gipo-deploy"] == "gipo.cli:deploy"


def test_a_module_that_hides_a_library_is_named_where_something_is_missing_in_it(
    here: Path, monkeypatch: pytest.MonkeyPatch, capsys: Capture
) -> None:
    (here / "orjson.py").write_text("")
    monkeypatch.syspath_prepend(here)
    monkeypatch.delitem(sys.modules, "orjson", raising=False)

    def command(_: list[str]) -> None:
        import orjson

        orjson.loads("1")

    assert boundary.run("gipo-x", command, []) == 2
    sys.modules.pop("orjson")
    assert capsys.readouterr().err == (
        f"gipo-x: error: {here}/orjson.py hides the module 'orjson' that gipo needs; "
        "rename it, or leave its folder out of PYTHONPATH\n"
    )
