"""Records put together: one node an id, a tree in which everything stands once."""

from pathlib import Path

from hypothesis import given, settings
from hypothesis import strategies as st

from gipo.commands.lineage.graph import build, walk
from gipo.commands.lineage.records import Ancestor, How, Key, Kind, LineageNode, scan
from gipo.commands.lineage.text import lacking, text

Chain = tuple[Path, dict[str, str]]


def test_the_text_of_two_rounds(made: Chain) -> None:
    folder, ids = made
    short = {name: identity[:12] for name, identity in ids.items()}
    records, unreadable = scan(folder)
    expected = """\
checkpoint {sim}  sim/best.ckpt, sim/last.ckpt · version 7, 7,000 frames, reach-v3
└─ artifact {first}  first.onnx · version 7
   ├─ log {aaaa}  aaaa.mcap · 2026-03-01 12:00, fake
   ├─ log {bbbb}  bbbb.mcap · 2026-03-01 12:00, fake
   └─ checkpoint {round1}  round1.ckpt · version 17, 17,000 frames, reach-v3 · learned from {aaaa} (1,200 steps), \
{bbbb} (400 steps) · started from {sim}
      └─ artifact {second}  second.onnx · version 17
         ├─ log {cccc}  cccc.mcap · 2026-03-01 12:00, fake, shadow {first}
         └─ checkpoint {round2}  round2.ckpt · version 27, 27,000 frames, reach-v3 · learned from {cccc} (900 steps), \
{aaaa} (100 steps) · started from {round1}"""
    assert text(build(records), unreadable) == expected.format(**short)


def test_what_is_missing_keeps_its_place_and_is_listed(chain: Chain) -> None:
    folder, ids = chain
    for name in ("first.onnx", "bbbb.mcap", "sim/best.ckpt", "sim/last.ckpt", "round1.ckpt"):
        (folder / name).unlink()
    found = text(build(scan(folder)[0]), [("x.ckpt", "the file is damaged")])
    tree, missing, unreadable = found.split("\n\n")
    # The logs carry the manifest of the first artifact; with it, the first checkpoint is known by its id.
    # Of the one in the middle the second artifact's manifest tells the id, and whose logs it learned from.
    assert [line.lstrip("│├└─ ").partition(" · ")[0] for line in tree.splitlines()] == [
        f"checkpoint {ids['sim'][:12]}  (not in this folder)",
        f"artifact {ids['first'][:12]}  (not in this folder)",
        f"log {ids['aaaa'][:12]}  aaaa.mcap",
        f"checkpoint {ids['round1'][:12]}  (not in this folder)",
        f"artifact {ids['second'][:12]}  second.onnx",
        f"log {ids['cccc'][:12]}  cccc.mcap",
        f"checkpoint {ids['round2'][:12]}  round2.ckpt",
    ]
    assert missing.splitlines()[0] == "not in this folder:"
    assert f"  artifact {ids['first'][:12]}: named by aaaa.mcap, checkpoint {ids['round1'][:12]}" in missing
    assert f"  checkpoint {ids['round1'][:12]}: named by round2.ckpt, second.onnx" in missing
    assert unreadable == "not readable:\n  x.ckpt: the file is damaged"


def test_a_log_that_only_a_checkpoint_names_hangs_below_its_artifact(chain: Chain) -> None:
    folder, ids = chain
    (folder / "bbbb.mcap").unlink()
    lines = text(build(scan(folder)[0])).splitlines()
    assert f"   ├─ log {ids['bbbb'][:12]}  (not in this folder)" in lines
    assert f"  log {ids['bbbb'][:12]}: named by round1.ckpt" in lines


def test_nothing_at_all(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("nothing")
    assert text(build(scan(tmp_path)[0])) == "no checkpoint, artifact or log"


def test_many_logs_are_counted_not_listed() -> None:
    logs = [Ancestor(Key(Kind.LOG, f"log{i}"), How.LEARNED, i) for i in range(9, 0, -1)]
    checkpoint = LineageNode(Key(Kind.CHECKPOINT, "c"), ("c.ckpt",), (), tuple(logs))
    line = next(line for line in text(build([checkpoint])).splitlines() if "c.ckpt" in line)
    assert line.endswith("learned from log9 (9 steps), log8 (8 steps), log7 (7 steps) and 6 more")


def test_one_node_with_two_names_and_what_its_files_say_first() -> None:
    key, origin = Key(Kind.ARTIFACT, "a"), Ancestor(Key(Kind.CHECKPOINT, "c"), How.EXPORTED)
    said = Ancestor(Key(Kind.ARTIFACT, "p"), How.PARENT)
    records = [
        LineageNode(key, (), ("hearsay",), (said,)),
        LineageNode(key, ("b.onnx",), ("fact",), (origin,)),
        LineageNode(key, ("a.onnx",)),
    ]
    node = build(records)[key]
    assert set(node.files) == {"a.onnx", "b.onnx"}
    assert node.facts == ("fact",)
    assert node.origins == (origin, said)


KEYS = st.builds(Key, st.sampled_from(Kind), st.sampled_from("abcd"))
ORIGINS = st.lists(st.builds(Ancestor, KEYS, st.sampled_from(How), st.none() | st.integers(0, 9)), max_size=3).map(
    tuple
)
RECORDS = st.lists(
    st.builds(LineageNode, KEYS, st.sampled_from([(), ("x",), ("y",)]), st.just(()), ORIGINS), max_size=8
)


@given(RECORDS)
@settings(deadline=None, max_examples=200, derandomize=True, database=None)
def test_every_node_stands_once_even_where_forged_files_make_circles(records: list[LineageNode]) -> None:
    graph = build(records)
    mentioned = {record.key for record in records} | {origin.key for record in records for origin in record.origins}
    visited = [node.key for node, _ in walk(graph)]
    assert len(visited) == len(set(visited))
    assert set(visited) == set(graph) == mentioned
    sought = {key for key in mentioned if key.kind is not Kind.DATASET}
    assert {node.key for node in lacking(graph)} == sought - {r.key for r in records if r.files}
    tree = text(graph).partition("\n\n")[0].splitlines()
    assert len(tree) == max(1, len(graph))


def test_a_chain_of_a_thousand_rounds_is_no_deeper_than_the_stack() -> None:
    records, before = [], None
    for number in range(3000):
        key = Key(list(Kind)[number % 3], str(number))
        records.append(LineageNode(key, (str(number),), (), (Ancestor(before, How.EXPORTED),) if before else ()))
        before = key
    assert len(text(build(records)).splitlines()) == 3000
