"""What several sources come to in one store, by hand."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from datamodules.ingest.assemble import _audited, _fill, _Kept
from datamodules.ingest.columns import BlockWriter, Columns
from datamodules.ingest.convert import EpisodeRows
from datamodules.ingest.metadata import AuditFacts
from datamodules.ingest.store import FRAMES, allocate


def test_the_audits_of_all_sources_are_one() -> None:
    found = (
        AuditFacts(1.0, 10, {"p": 3e-6, "q": 1e-7}, from_video=4, drift=0.1, drift_max=0.5, unlike=1),
        AuditFacts(1.0, 20, {"p": 1e-6}, from_video=12, drift=0.3, drift_max=0.4, unlike=2),
    )
    parts: list[Any] = [SimpleNamespace(converted=SimpleNamespace(audit=each)) for each in found]
    drift: Any = pytest.approx((4 * 0.1 + 12 * 0.3) / 16)
    assert _audited(parts, 0.5) == AuditFacts(0.5, 30, {"p": 3e-6, "q": 1e-7}, 16, drift, 0.5, 3)


def kept(folder: Path, pictures: list[int], *spans: tuple[int, EpisodeRows]) -> _Kept:
    """A source of these pictures, of which these episodes go into the store."""
    folder.mkdir()
    with BlockWriter(folder) as blocks:
        blocks.append({"step": np.arange(len(pictures)), "picture": np.array(pictures)})
    part: Any = None
    return _Kept(part, Columns(folder, blocks.layout, blocks.rows), list(spans), [])


def test_every_frame_says_whose_it_is_and_which_picture_it_has(tmp_path: Path) -> None:
    """The numbers of policies, instructions and pictures are those of the store, whatever each source counts from."""
    first = kept(
        tmp_path / "a", [0, 1, -1, 2, 3],  # of its three episodes the second, at row 2, was left out
        (0, EpisodeRows("", 2, "p", True, "lift", whole=True)), (3, EpisodeRows("", 2, None, None, "", whole=True)),
    )  # fmt: skip
    second = kept(
        tmp_path / "b", [0, -1, 1],
        (0, EpisodeRows("", 1, "q", False, "push", whole=True)), (1, EpisodeRows("", 2, "p", None, "lift", whole=True)),
    )  # fmt: skip
    frames = allocate(tmp_path / FRAMES, first.columns.layout, 7)
    _fill(frames, [first, second], ("p", "q"), ("lift", "push"), [0, 4, 6])
    assert {name: frames[name].tolist() for name in frames.keys()} == {
        "step": [0, 1, 3, 4, 0, 1, 2],
        "picture": [0, 1, 2, 3, 4, -1, 5],
        "episode": [0, 0, 1, 1, 2, 3, 3],
        "policy": [0, 0, -1, -1, 1, 0, 0],
        "success": [1, 1, -1, -1, 0, -1, -1],
        "instruction": [0, 0, -1, -1, 1, 0, 0],
    }
