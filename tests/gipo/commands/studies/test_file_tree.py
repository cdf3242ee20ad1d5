"""Files as a tree."""

from gipo.commands.studies.file_tree import tree


def test_a_folder_that_holds_one_thing_shares_its_line() -> None:
    notes = {"a.md": "table", "seed/train/last.ckpt": "trained", "seed/b.onnx": "", "seed/c/d": "end"}
    assert tree("out", notes).splitlines() == [
        "out",
        "├─ a.md                table",
        "└─ seed",
        "   ├─ train/last.ckpt  trained",
        "   ├─ b.onnx",
        "   └─ c/d              end",
    ]
