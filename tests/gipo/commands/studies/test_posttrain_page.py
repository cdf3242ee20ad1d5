"""What the page of evidence says of post-training from old logs, made again from the runs beside it."""

import re
from itertools import product
from typing import Any

import numpy as np

from gipo.commands.studies import posttrain
from gipo.commands.studies.run_tables import read_runs
from gipo.commands.studies.statistics import Interval, improvement_interval, paired_interval
from gipo.common.intervals import with_interval
from tests.pages import ROOT

CALLED = {
    "No-Clip": "NoClip", "PPO-Clip": "PPOClip", "cloning of successes": "FilteredBC",
    "age-aware, both sides": "AgeAwareGIPO:outward_only=false", "age-aware GIPO": "AgeAwareGIPO:outward_only=true",
    "age-aware, both sides damped": "AgeAwareGIPO:outward_only=false",
    "age-aware, outward only": "AgeAwareGIPO:outward_only=true",
    "decoupled PPO": "DecoupledPPO:clip=0.05",
}  # fmt: skip
DECOUPLED, BOTH_SIDES = CALLED["decoupled PPO"], CALLED["age-aware, both sides"]
LATE = "posttrain_coffee_late"
SEEDS = (22, 64, 99, 234, 360)
PUBLISHED = [
    "posttrain",
    "posttrain_free",
    "posttrain_late",
    "posttrain_coffee",
    "posttrain_coffee_free",
    LATE,
]  # in the order of their tables on the page
DOCS = ROOT / "docs"


def published(name: str) -> list[dict[str, Any]]:
    return read_runs(DOCS / "data" / f"{name}.csv", posttrain.COLUMNS)


def typeset(interval: Interval, form: str = "+.2f") -> str:
    """As the page writes it: a minus that is one, and no sign before what rounds to 0."""
    return re.sub(r"[+-](0\.00)", r"\1", with_interval(*interval, form)).replace("-", "−")


def short(interval: Interval) -> str:
    """As sentences write it: `+.42 [+.28, +.56]`."""
    return re.sub(r"([+−])0\.(?!00)", r"\1.", typeset(interval))


def expected(rows: list[dict[str, Any]], name: str, first: str) -> str:
    """The cell of an objective in the row that begins so."""
    back = int(first[0]) if first.endswith(" back") else None
    if back is not None:
        return typeset(next(
            (row["gain"], row["low"], row["high"])
            for row in posttrain.summarise(rows) if (row["back"], row["objective"]) == (back, name)
        ))  # fmt: skip
    if name == "GIPO":
        return ""
    if first.startswith("GIPO's gain"):
        return typeset(posttrain.paired_gains(rows, "GIPO", name)[-1])
    ours, theirs = (posttrain.mean_gains(rows, each) for each in ("GIPO", name))
    return with_interval(*improvement_interval(ours, theirs))


def test_the_tables_of_the_page_are_made_of_the_runs_beside_it() -> None:
    text = (DOCS / "evidence.md").read_text()
    tables = [part.partition("\n\n")[0].splitlines() for part in text.split("\n| logs from ")[1:]]
    assert len(tables) == len(PUBLISHED)
    for name, (header, _, *lines) in zip(PUBLISHED, tables, strict=True):
        objectives = [CALLED.get(each.strip(), each.strip()) for each in header.strip("| ").split("|")]
        rows = published(name)
        assert {row["objective"] for row in rows} == set(objectives)
        for line in lines:
            first, *cells = [cell.strip() for cell in line.split("|")[1:-1]]
            assert cells == [expected(rows, each, first) for each in objectives], (name, first)


def without_anchor(free: list[dict[str, Any]], anchored: list[dict[str, Any]], name: str) -> Interval:
    """What leaving the anchor out adds to an objective's gains: mean over ages, in pairs of one seed."""
    gains = [
        np.array([[row["gain"] for row in rows if (row["seed"], row["objective"]) == (seed, name)] for seed in SEEDS])
        for rows in (free, anchored)
    ]
    return paired_interval((gains[0] - gains[1]).mean(1))


def test_what_the_page_says_between_its_tables_is_made_of_them_too() -> None:
    text = (DOCS / "evidence.md").read_text()
    both, outward = "AgeAwareGIPO:outward_only=false", "AgeAwareGIPO:outward_only=true"
    free, anchored = published("posttrain_free"), published("posttrain")
    one, two, three, _ = map(short, posttrain.paired_gains(free, both, outward))
    assert f"{three} more from 3 back, {two} from 2, {one} from 1; with the anchor" in text
    one, two, three, mean = map(short, posttrain.paired_gains(free, "GIPO", "PPOClip"))
    assert f"GIPO gained {one} more than PPO-Clip from 1 back, {two} from 2 and {three} from 3." in text
    one, two, three, _ = map(short, posttrain.paired_gains(anchored, both, outward))
    assert f"with the anchor {three}, {two} and {one}." in text
    *_, of_old = map(short, posttrain.paired_gains([row for row in free if row["back"] > 1], "GIPO", "PPOClip"))
    readme = (ROOT / "README.md").read_text()
    assert f"GIPO gained {of_old} more there, and {mean} over all three ages" in text
    assert f"GIPO gained {of_old} more (mean over 2 and 3" in readme
    assert f"over all three ages {mean}" in readme
    changes = [short(without_anchor(free, anchored, name)) for name in ("GIPO", "SAPO")]
    assert f"plus {changes[0].lstrip('+')} and {changes[1]} (mean over ages" in text


def test_what_the_page_says_of_old_logs_without_the_anchor() -> None:
    text = (DOCS / "evidence.md").read_text()
    free, anchored = published("posttrain_free"), published("posttrain")
    losing = {"PPOClip", "M2PO", "VESPO", "AgeAwareGIPO:outward_only=true"}
    pairs = product(("GIPO", "SAPO"), ("PPOClip", "M2PO", "VESPO"))
    more = [each for pair in pairs for each in posttrain.paired_gains(free, *pair)[1:3]]
    assert f"in pairs by no less than {short(min(more))}." in text
    old = [row for rows in (free, anchored) for row in posttrain.summarise(rows) if row["back"] > 1]
    assert all(row["gain"] < 0 for row in old if row["objective"] in losing)
    of_free = [row for row in posttrain.summarise(free) if row["back"] > 1]
    assert {row["objective"] for row in of_free if row["gain"] < 0} == losing
    # of one seed each, what the width by age that damps both sides gains without the anchor and with it
    both = "AgeAwareGIPO:outward_only=false"
    gains = [
        np.array([row["gain"] for row in rows if (row["back"], row["objective"]) == (3, both)])
        for rows in (free, anchored)
    ]
    assert f"which leaving it out saves, by {short(paired_interval(gains[0] - gains[1]))} from 3 back;" in text
    names = {row["objective"] for row in free}
    order = sorted(names, key=lambda each: posttrain.paired_gains(free, "GIPO", each)[-1][0])
    assert (order[0], set(order[1:3]), order[-1]) == (DECOUPLED, {"GIPO", "SAPO"}, "PPOClip")
    more = short(posttrain.paired_gains(free, DECOUPLED, "GIPO")[-1])
    assert f"**Decoupled PPO gained more than GIPO here**, {more} (mean over ages" in text
    assert f"gained {more} more than GIPO over all three ages." in (ROOT / "README.md").read_text()
    assert all(row["low"] > 0 for row in posttrain.summarise(free) if row["objective"] == DECOUPLED)


def test_what_the_page_says_of_the_first_task() -> None:
    text, rows = (DOCS / "evidence.md").read_text(), published("posttrain")
    gained = {(row["back"], row["objective"]) for row in posttrain.summarise(rows) if row["low"] > 0}
    assert gained == {(1, "GIPO"), (1, "SAPO"), (1, DECOUPLED)}
    assert "Only GIPO, SAPO and decoupled PPO gain from 1 back with an interval without 0." in text
    assert "From 1 back, GIPO, SAPO and decoupled PPO gain" in (ROOT / "README.md").read_text()
    for name in ("SAPO", DECOUPLED, "NoClip"):
        _, low, high = posttrain.paired_gains(rows, "GIPO", name)[-1]
        assert low < 0 < high, name


def test_what_the_page_says_of_the_other_gap() -> None:
    found = posttrain.summarise(published("posttrain_late"))
    assert all(row["low"] <= 0 for row in found)  # no gain by an interval without 0
    old = [row for row in found if row["back"] == 3]
    assert (len(old), sum(row["gain"] < 0 for row in old), sum(row["high"] < 0 for row in old)) == (12, 12, 9)
    text = (DOCS / "evidence.md").read_text()
    ends = [next(row["high"] for row in old if row["objective"] == name) for name in ("FilteredBC", "AWR")]
    assert {row["back"] for row in found if row["objective"] == "NoClip" and row["high"] < 0} == {1, 2, 3}
    others = {row["objective"] for row in found} - {"GIPO"}
    rows = published("posttrain_late")
    assert [name for name in others if posttrain.paired_gains(rows, "GIPO", name)[-1][1] > 0] == ["NoClip"]
    lost = [f"{-row['gain']:.2f}".lstrip("0") for row in found if row["objective"] == "NoClip"]
    assert f"GIPO is ahead of No-Clip alone. No-Clip loses at every age, {lost[0]} to {lost[-1]} of the .66" in text
    clone, awr = (f"{end:.3f}" for end in ends)
    assert (clone, awr) == ("-0.005", "0.000")
    assert "in the mean, nine of twelve by an interval without 0 (cloning's ends at −.005, AWR's at 0)" in text


def test_what_the_page_says_of_the_second_task() -> None:
    text, rows = (DOCS / "evidence.md").read_text(), published("posttrain_coffee")
    others = {row["objective"] for row in rows} - {"GIPO"}
    more = {name: posttrain.paired_gains(rows, "GIPO", name)[-1] for name in others}
    behind = ("PPOClip", "M2PO", "VESPO", "AWR", "IQL")
    both, outward = "AgeAwareGIPO:outward_only=false", "AgeAwareGIPO:outward_only=true"
    assert {name for name, (_, low, _) in more.items() if low > 0} == {*behind, outward}
    by = "{}, {}, {}, {} and {}".format(*(short(more[name]) for name in behind))
    assert f"than PPO-Clip, M2PO, VESPO, AWR and IQL here too**, by {by};" in text
    assert all(gain <= 0 for gain, *_ in posttrain.paired_gains(rows, "GIPO", "SAPO"))  # "as much as GIPO or more"
    assert {name for name, (*_, high) in more.items() if high < 0} == {DECOUPLED}
    assert f"decoupled PPO {short(posttrain.paired_gains(rows, DECOUPLED, 'GIPO')[-1])} more, by an" in text
    assert f"both sides** gains {short(posttrain.paired_gains(rows, both, outward)[-1])} more than the one" in text
    ends = [short((more[name][0],) * 3).partition(" ")[0] for name in ("AWR", "PPOClip")]
    assert "on a second task than PPO-Clip, AWR and IQL by {} to {}".format(*ends) in text
    table = posttrain.summarise(rows)
    assert {(row["back"], row["objective"]) for row in table if row["low"] > 0} == {(1, "SAPO"), (1, DECOUPLED)}
    lost = {(row["back"], row["objective"]) for row in table if row["high"] < 0}
    from_both = {(back, name) for back in (2, 3) for name in ("PPOClip", "M2PO", "VESPO", "AWR")}
    assert lost == from_both | {(2, "FilteredBC"), (2, "IQL"), (2, outward)}


def test_of_which_two_no_difference_to_gipo_is_shown_on_either_task() -> None:
    assert "than SAPO and No-Clip no difference shown on either |" in (DOCS / "evidence.md").read_text()
    for name, other in product(("posttrain", "posttrain_coffee"), ("SAPO", "NoClip")):
        _, low, high = posttrain.paired_gains(published(name), "GIPO", other)[-1]
        assert low < 0 < high, (name, other)


def test_what_the_page_says_of_the_second_task_without_the_anchor() -> None:
    text, readme = (DOCS / "evidence.md").read_text(), (ROOT / "README.md").read_text()
    free, anchored = published("posttrain_coffee_free"), published("posttrain_coffee")
    old = [row for row in free if row["back"] > 1]
    more = {name: posttrain.paired_gains(old, name, "PPOClip")[-1] for name in ("GIPO", "SAPO")}
    assert all(low > 0 for _, low, _ in more.values())
    assert f"GIPO by {short(more['GIPO'])} (mean over 2 and 3 back" in text
    for page in (text, readme):
        assert f"on a second task {short(more['GIPO'])} more from" in page
    table = {(row["back"], row["objective"]): row for row in posttrain.summarise(free)}
    assert table[2, "GIPO"]["low"] > 0
    assert all(table[3, name]["low"] <= 0 for name in ("GIPO", "SAPO"))
    assert {cell for cell, row in table.items() if row["low"] > 0} == {
        (1, "SAPO"), (1, DECOUPLED), (2, "GIPO"), (2, DECOUPLED),
    }  # fmt: skip
    assert {cell for cell, row in table.items() if row["high"] < 0} == {(2, "PPOClip"), (3, "PPOClip")}
    gipo, sapo = (short(without_anchor(free, anchored, name)) for name in ("GIPO", "SAPO"))
    assert f"Leaving the anchor out is worth {gipo} to GIPO and {sapo} to SAPO" in text


def test_what_the_page_says_of_the_second_task_across_the_other_gap() -> None:
    text, readme, rows = (DOCS / "evidence.md").read_text(), (ROOT / "README.md").read_text(), published(LATE)
    before = {row["before"] for row in rows}
    assert (min(before), max(before)) == (0.06, 0.26)
    table = {(row["back"], row["objective"]): row for row in posttrain.summarise(rows)}
    named = {
        (1, "GIPO"), (1, "SAPO"), (1, DECOUPLED), (1, BOTH_SIDES), (1, "FilteredBC"), (2, "GIPO"), (2, "FilteredBC"),
        (3, "FilteredBC"),
    }  # fmt: skip
    assert {cell for cell, row in table.items() if row["low"] > 0} == named
    assert not any(row["high"] < 0 for row in table.values())
    more = {name: posttrain.paired_gains(rows, "GIPO", name) for _, name in table if name != "GIPO"}
    behind = {"PPOClip", "M2PO", "VESPO", "NoClip", "IQL", BOTH_SIDES, CALLED["age-aware GIPO"]}
    assert {name for name, (*_, (_, low, _)) in more.items() if low > 0} == behind
    assert not any(high < 0 for *_, (*_, high) in more.values())
    least = min(more[name][-1] for name in behind)
    assert f"by no less than {short(least)}; than PPO-Clip by {short(more['PPOClip'][-1])}." in text
    clone, gipo = (short(gain(table[3, name])) for name in ("FilteredBC", "GIPO"))
    oldest = short(posttrain.paired_gains(rows, "FilteredBC", "GIPO")[2])
    assert f"gains most**: {clone}, GIPO {gipo}, in pairs {oldest} more." in text
    first = short(gain(table[1, "GIPO"]))
    assert f"GIPO gained {first} from 1 back, and from 3 back only cloning of successes did, {clone}.\n" in readme


def gain(row: dict[str, Any]) -> Interval:
    return row["gain"], row["low"], row["high"]


def test_what_is_said_of_logs_without_log_probs() -> None:
    choice = (DOCS / "objectives.md").read_text()
    names = ("posttrain_coffee", LATE, "posttrain", "posttrain_late")
    offset, late, *first = (posttrain.paired_gains(published(name), "FilteredBC", "AWR")[-1] for name in names)
    assert f"{short(offset)} across the offset and {short(late)} across delay and friction" in choice
    assert "on the first, {} and {};".format(*map(short, first)) in choice
    assert all(low < 0 < high for _, low, high in first)
    level = [posttrain.paired_gains(published(name), "AWR", "IQL")[-1] for name in names]
    assert all(low < 0 < high for _, low, high in level)


def test_what_to_choose_for_logs_says_the_second_task_too() -> None:
    choice = (DOCS / "objectives.md").read_text()

    def gains(name: str, *cells: tuple[int, str]) -> list[str]:
        table = {(row["back"], row["objective"]): row for row in posttrain.summarise(published(name))}
        return [short(gain(table[cell])) for cell in cells]

    new = gains("posttrain_coffee", (1, "GIPO"), (1, "SAPO"), (1, "PPOClip"))
    assert "on a second task {}, {} and {} ([logs]".format(*new) in choice
    assert "on a second task SAPO {1}, GIPO {0})".format(*new) in (ROOT / "README.md").read_text()
    old = gains("posttrain_coffee_free", (2, "GIPO"), (3, "GIPO"), (2, "PPOClip"), (3, "PPOClip"))
    assert "on a second task GIPO {} and {}, PPO-Clip {} and {} ([logs]".format(*old) in choice
