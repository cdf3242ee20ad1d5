"""What tests of the registered study share: its page, names of objectives there, and how it writes figures."""

import re
from typing import Any

from gipo.commands.studies import staleness_figures
from gipo.common.intervals import with_interval
from tests.pages import ROOT

Row = dict[str, Any]
PAGE = (ROOT / "docs" / "every-age.md").read_text()
DATA = ROOT / "docs" / "data"
CANDIDATE = "AgeAwareGIPO:outward_only=true,sigma_fresh=0.1"
NAMES = {  # as the page calls them
    CANDIDATE: "the candidate", "GIPO": "GIPO, σ = 1", "PPOClip": "PPO-Clip, ε = .2",
    "SAPO:tau_pos=0.5,tau_neg=0.5": "SAPO, τ = .5", "M2PO:tau=0.01": "M2PO, τ = .01", "VESPO": "VESPO",
    "DecoupledPPO:clip=0.05": "decoupled PPO, ε = .05", "NoClip": "No-Clip",
}  # fmt: skip
OBJECTIVES = {name.partition(",")[0]: objective for objective, name in NAMES.items()}
CHANCE, DIFFERENCE = ("probability", "low", "high"), ("difference", "difference low", "difference high")
RETURN = ("normalised return", "normalised return low", "normalised return high")
MARGIN, EVEN = -0.05, 0.5
# What was looked up after the first three seeds, and is asked again of the two others: (buffer of, who, returns more
# than whom), by probability of improvement; the last by the difference of interquartile means.
AGAIN = (
    (128, "GIPO", "PPO-Clip"), (128, "GIPO", "SAPO"), (128, "GIPO", "the candidate"),
    (128, "decoupled PPO", "the candidate"), (16, "PPO-Clip", "GIPO"), (1, "PPO-Clip", "GIPO"),
    (1, "the candidate", "GIPO"), (1, "decoupled PPO", "PPO-Clip"),
)  # fmt: skip
Verdict = tuple[str, str, str]  # what is said, the figure, and whether it holds
HELD = {True: "yes", False: "no"}


def short(text: str) -> str:
    return re.sub(r"\b0\.", ".", text).replace("-", "−")


def figure(row: Row, names: tuple[str, str, str], form: str = ".2f") -> str:
    middle, low, high = (row[name] for name in names)
    return short(with_interval(middle, low, high, form))


def compared(rows: list[Row], first: str = CANDIDATE) -> dict[tuple[int, str], Row]:
    """By age and other objective, how an objective compares with it."""
    ordered = sorted(rows, key=lambda row: row["objective"] != first)
    return {(row["age"], row["other"]): row for row in staleness_figures.improvements(ordered)}


def verdicts(rows: list[Row]) -> list[Verdict]:
    """The seven registered conditions."""
    of = compared(rows)
    fresh = of[1, "PPOClip"]
    found = [("1: not worse than PPO-Clip", figure(fresh, DIFFERENCE, "+.2f"), HELD[fresh[DIFFERENCE[1]] > MARGIN])]
    for age in (16, 128):
        for name in ("PPO-Clip", "SAPO", "M2PO"):
            row = of[age, OBJECTIVES[name]]
            found.append((f"{age}: better than {name}", figure(row, CHANCE), HELD[row["low"] > EVEN]))
    return found


def asked_again(rows: list[Row]) -> list[Verdict]:
    """Whether what was looked up in other rows is in these."""
    of = {more: compared(rows, OBJECTIVES[more]) for more in {more for _, more, _ in AGAIN}}
    pairs = [(f"{age}: {more} more than {less}", of[more][age, OBJECTIVES[less]]) for age, more, less in AGAIN]
    by_chance = [(said, figure(row, CHANCE), HELD[row["low"] > EVEN]) for said, row in pairs[:-1]]
    said, last = pairs[-1]
    return [*by_chance, (said, figure(last, DIFFERENCE, "+.2f"), HELD[last[DIFFERENCE[1]] > 0])]
