"""Tables of text: what is a number stands to the right, and no cell drives a terminal."""

from gipo.common.tables import counted, markdown, outcome, pairs, table


def test_a_table_is_aligned() -> None:
    rows = [("reach\x1b[2J", 3, "0.5"), ("push", 12, "–")]
    assert table(("task", "runs", "success"), rows).splitlines() == [
        "task       runs  success",
        "reach [2J     3      0.5",
        "push         12        –",
    ]


def test_a_table_in_markdown() -> None:
    assert markdown(("n", "mean"), [(1, "0.50"), (2, "0.75")]) == "| n | mean |\n|---|---|\n| 1 | 0.50 |\n| 2 | 0.75 |"


def test_names_and_values() -> None:
    assert pairs([("id", "a\nb"), ("frames", 800)]) == "id      a b\nframes  800"
    assert pairs([]) == ""
    assert [outcome(each) for each in (True, False, None)] == ["success", "failure", "–"]


def test_one_is_no_plural() -> None:
    assert [counted(count, "seed") for count in (0, 1, 2)] == ["0 seeds", "1 seed", "2 seeds"]
