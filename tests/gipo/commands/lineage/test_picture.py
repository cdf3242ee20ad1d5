"""Where boxes stand, which arrows are drawn, and that a file comes out of it."""

from pathlib import Path

import matplotlib.image
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gipo.commands.lineage import picture
from gipo.commands.lineage.graph import build
from gipo.commands.lineage.picture import _apart, _boxes, _columns, _edges, _rows, draw
from gipo.commands.lineage.records import Ancestor, How, Key, Kind, LineageNode, scan
from tests.gipo.commands.lineage.test_graph import RECORDS

Chain = tuple[Path, dict[str, str]]
PROPERTY = settings(deadline=None, max_examples=100, derandomize=True, database=None)


def layout(records: list[LineageNode]) -> tuple[list[picture.Box], dict[tuple[int, int], How], list[int], np.ndarray]:
    graph = build(records)
    boxes = _boxes(graph)
    edges = _edges(graph, {node.key: index for index, box in enumerate(boxes) for node in box.nodes})
    columns = _columns(len(boxes), edges)
    return boxes, edges, columns, _rows(columns, edges)


def test_time_goes_from_left_to_right(made: Chain) -> None:
    boxes, edges, columns, _ = layout(scan(made[0])[0])
    names = {identity: name for name, identity in made[1].items()}
    column = {names[box.nodes[0].key.id]: columns[index] for index, box in enumerate(boxes)}
    assert column == {
        "sim": 0, "first": 1, "aaaa": 2, "bbbb": 2, "round1": 3, "second": 4, "cccc": 5, "round2": 6,
    }  # fmt: skip
    drawn = {
        (names[boxes[start].nodes[0].key.id], names[boxes[end].nodes[0].key.id], how)
        for (start, end), how in edges.items()
    }
    # That the checkpoints have an artifact as parent is told by the logs.
    assert drawn == {
        ("sim", "first", How.EXPORTED), ("first", "aaaa", How.RECORDED), ("first", "bbbb", How.RECORDED),
        ("aaaa", "round1", How.LEARNED), ("bbbb", "round1", How.LEARNED), ("sim", "round1", How.STARTED),
        ("round1", "second", How.EXPORTED), ("second", "cccc", How.RECORDED), ("cccc", "round2", How.LEARNED),
        ("aaaa", "round2", How.LEARNED), ("round1", "round2", How.STARTED),
    }  # fmt: skip


def test_a_crowd_of_logs_with_the_same_neighbours_is_one_box() -> None:
    artifact = Ancestor(Key(Kind.ARTIFACT, "a"), How.RECORDED)
    logs = [LineageNode(Key(Kind.LOG, f"l{i}"), (f"logs/l{i}.mcap",), (), (artifact,)) for i in range(7)]
    used = tuple(Ancestor(log.key, How.LEARNED) for log in logs[:5])
    boxes, edges, *_ = layout([*logs, LineageNode(Key(Kind.CHECKPOINT, "c"), ("c.ckpt",), (), used)])
    sizes = sorted(len(box.nodes) for box in boxes)
    assert sizes == [1, 1, 1, 1, 5]  # two logs that nobody learned from stand alone
    crowd = next(box for box in boxes if len(box.nodes) == 5)
    assert crowd.lines == ("5 logs", "l0.mcap", "to l4.mcap")
    assert len(edges) == 4


@given(RECORDS)
@PROPERTY
def test_no_two_boxes_overlap(records: list[LineageNode]) -> None:
    boxes, edges, columns, rows = layout(records)
    assert sum(len(box.nodes) for box in boxes) == len(build(records))
    for column in set(columns):
        inside = np.sort(rows[np.array(columns) == column])
        assert (np.diff(inside) > 1 - 1e-6).all()
    assert all(start != end for start, end in edges)


def test_apart_by_hand() -> None:
    # Three that want the same place stand around it; the fourth is far enough away to stay.
    np.testing.assert_allclose(_apart(np.array([2.0, 2.0, 2.0, 9.0])), [1, 2, 3, 9])
    np.testing.assert_allclose(_apart(np.array([5.0, 1.0])), [2.5, 3.5])


@given(st.lists(st.floats(-20, 20), min_size=1, max_size=8))
@PROPERTY
def test_apart_keeps_order_distance_and_mean(wanted: list[float]) -> None:
    found = _apart(np.array(wanted))
    assert (np.diff(found) >= 1 - 1e-9).all()
    assert np.mean(found - wanted) == pytest.approx(0, abs=1e-9)


def test_long_lines_lose_what_tells_least() -> None:
    record = LineageNode(
        Key(Kind.LOG, "f" * 32), ("logs/20260301T120000-sawyer-1f2e3d4c.mcap",), ("2026-03-01 12:00", "s" * 40)
    )
    (box,), *_ = layout([record])
    title, files, facts = box.lines
    assert title == "log ffffffffffff"
    assert files == "logs/20260301T…-1f2e3d4c.mcap"
    assert facts == "2026-03-01 12:00, ssssssssss…"
    assert len(files) == len(facts) == picture.LETTERS


def test_the_picture_is_a_file_whatever_names_hold(chain: Chain) -> None:
    folder, _ = chain
    (folder / "aaaa.mcap").rename(folder / ("a $x_$ log with a name that is far too long for its box" + ".mcap"))
    (folder / "first.onnx").unlink()
    records, _ = scan(folder)
    (folder / "$named\udcff$").mkdir()  # by a byte that is no UTF-8
    draw(build(records), folder / "$named\udcff$" / "lineage.png", "$named\udcff$")
    draw(build(records), folder / "lineage.png", "a $title_$")
    pixels = matplotlib.image.imread(folder / "lineage.png")
    assert pixels.shape[1] > 3 * pixels.shape[0]  # seven columns, two rows
    assert [path.name for path in folder.iterdir() if "partial" in path.name] == []


def test_a_chain_too_long_for_a_picture_is_drawn_smaller(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(picture, "MAX_PIXELS", 900)
    records = [
        LineageNode(
            Key(Kind.ARTIFACT, str(i)),
            (str(i),),
            (),
            (Ancestor(Key(Kind.ARTIFACT, str(i - 1)), How.PARENT),) if i else (),
        )
        for i in range(9)
    ]
    draw(build(records), tmp_path / "lineage.png", "")
    assert matplotlib.image.imread(tmp_path / "lineage.png").shape[1] <= 900
