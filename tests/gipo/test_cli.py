"""`gipo`: what is imported for what, without torch too."""

import subprocess
import sys

import pytest

from gipo.cli import COMMANDS, main

Capture = pytest.CaptureFixture[str]


def imported(argument: str, *packages: str) -> tuple[str, list[str]]:
    """What `gipo ARGUMENT` prints, and which of these packages it imports."""
    code = f"import sys, gipo.cli\ntry: gipo.cli.main([{argument!r}, '--help'])\nexcept SystemExit: pass\n"
    code += f"print(*sorted({set(packages)} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    *printed, last = done.stdout.splitlines()
    return "\n".join(printed), last.split()


def test_help_imports_no_library() -> None:
    words, found = imported("-h", "torch", "numpy", "lightning", "torchrl", "yaml")
    assert all(f"  {name} " in words for name in COMMANDS)
    assert "--debug" in words
    assert found == []


def test_a_run_imports_nothing_on_the_off_chance() -> None:
    """Each takes .2 to 1 s of the start, and who needs it imports it when it does."""
    words, found = imported(
        "fit", "lightning", "torchrl", "transformers", "matplotlib", "ray", "scipy.signal", "libero"
    )
    assert "--model.objective" in words
    assert "--debug" in words
    assert found == ["lightning", "torchrl"]


def test_without_torch_help_helps_and_fit_says_what_to_install(
    monkeypatch: pytest.MonkeyPatch, capsys: Capture
) -> None:
    monkeypatch.setitem(sys.modules, "torch", None)
    monkeypatch.delitem(sys.modules, "gipo.commands.fit.cli", raising=False)
    with pytest.raises(SystemExit) as ended:
        main(["--help"])
    assert ended.value.code in (0, None)
    assert "gipo fit" in capsys.readouterr().out
    with pytest.raises(SystemExit, match="2"):
        main(["fit"])
    line = "gipo: error: torch is not installed; this command needs it: pip install '.[train]' in a clone of gipo\n"
    assert capsys.readouterr().err == line


@pytest.mark.parametrize("args", [["--debug", "fti"], ["fti", "--debug"]])
def test_debug_anywhere_shows_the_traceback(args: list[str], capsys: Capture) -> None:
    with pytest.raises(SystemExit, match="2"):
        main(args)
    error = capsys.readouterr().err
    assert error.startswith("Traceback")
    assert error.endswith("gipo: error: there is no command 'fti'; the nearest: fit\n")
