"""What docs/evaluate.md says that estimates told of real candidates, against the runs beside it."""

import csv
import math
import re
from pathlib import Path

import numpy as np
from scipy.stats import t as student

from gipo.common.intervals import with_interval
from gipo.common.tables import markdown

DOCS = Path(__file__).parents[4] / "docs"
HEAD = (
    "policy_lr, iterations", "KL of a decision, nats", "by", "effective episodes", "return: estimated difference",
    "driven", "success: estimated difference", "driven",
)  # fmt: skip
Key = tuple[str, str]


def table(name: str) -> list[dict[str, str]]:
    with open(DOCS / "data" / name) as file:
        return list(csv.DictReader(file))


def driven() -> dict[Key, dict[str, np.ndarray]]:
    """Return and success of every episode, by candidate; the deployed policy's key is ("", "0")."""
    found: dict[Key, list[dict[str, str]]] = {}
    for row in table("estimates_driven.csv"):
        found.setdefault((row["policy_lr"], row["iterations"]), []).append(row)
    for rows in found.values():
        assert [int(row["episode"]) for row in rows] == list(range(200))
    names = ("return", "success")
    return {key: {name: np.array([float(row[name]) for row in rows]) for name in names} for key, rows in found.items()}


def answers() -> dict[Key, dict[str, dict[str, str]]]:
    """The estimates to go by: the first that may answer and rests on enough, by candidate and measure."""
    found: dict[Key, dict[str, dict[str, str]]] = {}
    for row in table("estimates.csv"):
        if row["told"] == row["answers"] == "True":
            found.setdefault((row["policy_lr"], row["iterations"]), {}).setdefault(row["measure"], row)
    return found


def paired(candidate: np.ndarray, deployed: np.ndarray) -> tuple[float, float, float]:
    """Mean difference of episodes that began alike, and its 95 % interval."""
    difference = candidate - deployed
    half = student.ppf(0.975, len(difference) - 1) * difference.std(ddof=1) / math.sqrt(len(difference))
    return difference.mean(), difference.mean() - half, difference.mean() + half


def rows() -> list[tuple[str, ...]]:
    found, real = [], driven()
    for key, measures in answers().items():
        cells = [", ".join(key), f"{float(measures['return']['kl']):.2g}"]
        by = measures["return"]["estimator"]
        cells += [
            "all decisions" if by == "doubly robust, weighted" else by,
            f"{float(measures['return']['episodes']):.0f}",
        ]
        for name, form, most in (("return", "+.0f", math.inf), ("success", "+.2f", 1.0)):
            raw = (float(measures[name][f"difference_{part}"]) for part in ("middle", "low", "high"))
            estimate = [min(max(part, -most), most) for part in raw]
            cells += [
                with_interval(*estimate, form),
                with_interval(*paired(real[key][name], real["", "0"][name]), form),
            ]
        found.append(tuple(cells))
    return found


def test_the_table_is_that_of_the_runs() -> None:
    assert markdown(HEAD, rows()) in (DOCS / "evaluate.md").read_text()


def test_the_readme_says_the_same() -> None:
    small, *_ = rows()
    said = f"return {small[4]} by the estimate, {small[5]} where it was driven"
    assert said in (DOCS.parent / "README.md").read_text()


def test_the_readme_counts_the_pairs_that_were_driven_in_turns() -> None:
    """Of two comparisons of the same policies the page's first, not the one that took fewer pairs."""
    first, *_ = re.findall(r"known since the first (\d+) pairs", (DOCS / "evaluate.md").read_text())
    assert f"[{first} pairs on the robot](" in (DOCS.parent / "README.md").read_text()


def test_what_is_said_of_them() -> None:
    real, said = driven(), answers()
    small, *large = said
    difference, low, high = paired(real[small]["return"], real["", "0"]["return"])
    told = said[small]["return"]
    assert float(told["difference_low"]) < difference < float(told["difference_high"])  # right where a step is small
    assert low < float(told["difference_middle"]) < high
    for key in large:
        difference, low, _ = paired(real[key]["return"], real["", "0"]["return"])
        told = said[key]["return"]
        assert told["estimator"] == "last decision"
        assert low > 0
        assert float(told["difference_low"]) > difference  # its sign is right, and its size is not
        success = said[key]["success"]
        assert float(success["difference_low"]) < -1
        assert float(success["difference_high"]) > 1


if __name__ == "__main__":
    print(markdown(HEAD, rows()))
