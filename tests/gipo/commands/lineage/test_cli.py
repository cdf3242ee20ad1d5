"""`gipo lineage` as it is typed."""

import subprocess
import sys
from pathlib import Path

import pytest

from gipo.cli import main

Chain = tuple[Path, dict[str, str]]
Capture = pytest.CaptureFixture[str]


def test_it_prints_the_tree_and_writes_the_picture(
    chain: Chain, capsys: Capture, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    folder, ids = chain
    (folder / "broken.ckpt").write_text("nothing")
    before = {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}
    main(["lineage", str(folder)])
    printed = capsys.readouterr().out
    assert printed.startswith(f"checkpoint {ids['sim'][:12]}  sim/best.ckpt, sim/last.ckpt")
    assert "not readable:\n  broken.ckpt: " in printed
    assert printed.endswith("written lineage.png\n")
    assert (tmp_path / "lineage.png").read_bytes()[:4] == b"\x89PNG"
    assert {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()} == before


def test_out_says_where(chain: Chain, tmp_path: Path) -> None:
    main(["lineage", str(chain[0]), "--out", str(tmp_path / "x.png")])
    assert (tmp_path / "x.png").exists()


def test_a_picture_replaces_no_artifact(chain: Chain, tmp_path: Path, capsys: Capture) -> None:
    (artifact := tmp_path / "p.onnx").write_bytes(b"of days")
    with pytest.raises(SystemExit, match="2"):
        main(["lineage", str(chain[0]), "--out", str(artifact)])
    assert "a .onnx file is not replaced by a .png" in capsys.readouterr().err
    assert artifact.read_bytes() == b"of days"


@pytest.mark.parametrize("args", [["nowhere"], [".", "--out", "no/such/folder/x.png"]])
def test_bad_input_is_one_line(args: list[str], made: Chain, capsys: Capture, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(made[0])
    with pytest.raises(SystemExit, match="2"):
        main(["lineage", *args])
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("gipo: error: ")
    assert args[-1].partition("/x.png")[0] in line


def test_help_names_it(capsys: Capture) -> None:
    with pytest.raises(SystemExit) as ended:
        main(["--help"])
    assert not ended.value.code
    assert "gipo lineage DIR" in capsys.readouterr().out


def test_an_empty_folder_draws_nothing(tmp_path: Path, capsys: Capture) -> None:
    main(["lineage", str(tmp_path), "--out", str(tmp_path / "x.png")])
    assert capsys.readouterr().out == "no checkpoint, artifact or log\n"
    assert not (tmp_path / "x.png").exists()


BASE_INSTALL = """
import importlib.abc, sys

class Missing(importlib.abc.MetaPathFinder):
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in {
            "torch", "lightning", "tensordict", "torchrl", "jsonargparse", "yaml", "matplotlib", "onnx", "gymnasium"
        }:
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)

sys.meta_path.insert(0, Missing())
from gipo.cli import main
main(["lineage", *sys.argv[1:]])
"""


def test_the_base_install_says_the_same_and_draws_nothing(chain: Chain, tmp_path: Path, capsys: Capture) -> None:
    """Where policies run there is no torch: what a checkpoint says of itself is read without it."""
    main(["lineage", str(chain[0]), "--out", str(tmp_path / "x.png")])
    tree = capsys.readouterr().out.partition("\n\nwritten")[0]
    done = subprocess.run(
        [sys.executable, "-c", BASE_INSTALL, chain[0], "--out", tmp_path / "y.png"], capture_output=True, text=True
    )
    assert (done.returncode, done.stdout) == (0, tree + "\n")
    way_out = "pip install '.[train]' in a clone of gipo"
    assert done.stderr == f"gipo: no picture is drawn, matplotlib is not installed: {way_out}\n"
    assert not (tmp_path / "y.png").exists()
