"""What tests of the registered study share: its page, names of objectives there, and how it writes figures."""

import re
from typing import Any

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


def short(text: str) -> str:
    return re.sub(r"\b0\.", ".", text).replace("-", "−")


def figure(row: Row, names: tuple[str, str, str], form: str = ".2f") -> str:
    middle, low, high = (row[name] for name in names)
    return short(with_interval(middle, low, high, form))
