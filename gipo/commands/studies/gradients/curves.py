"""What objectives do with one sample, as curves against its log-ratio."""

from itertools import product
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from gipo.adaptive import AgeAwareGIPO
from gipo.baselines import ASPO, CISPO, DPPO, ESPO, GMPO, GSPO, M2PO, MIS, TIS, VESPO, DecoupledPPO, binary_kl
from gipo.callbacks.plots import pyplot, save_figure
from gipo.commands.studies.gradients.estimators import BINS, response
from gipo.objectives import GIPO, SAPO, NoClip, Objective, PPOClip, cauchy, laplacian

plt = pyplot()


class Curve(NamedTuple):
    """An objective, the line to draw it by, and the age of the sample in versions."""

    objective: Objective
    line: str
    age: float = 0.0


FAMILY: dict[str, Curve] = {
    "No-Clip": Curve(NoClip(), "k:"),
    "PPO-Clip": Curve(PPOClip(), "C3-"),
    "SAPO, τ₋ = 1.05": Curve(SAPO(), "C2-"),
    "ASPO": Curve(ASPO(), "C4-"),
    "CISPO, c = 2": Curve(CISPO(ratio_max=2.0), "C5-"),
    "ESPO, one dimension": Curve(ESPO(), "C6-"),
    "GIPO, σ = .5": Curve(GIPO(sigma=0.5), "C0--"),
    "GIPO, σ = 1": Curve(GIPO(sigma=1.0), "C0-"),
    "GIPO, σ = 2": Curve(GIPO(sigma=2.0), "C0-."),
    "GIPO, Laplacian": Curve(GIPO(kernel=laplacian), "C1--"),
    "GIPO, Cauchy": Curve(GIPO(kernel=cauchy), "C1-."),
}
AGED = AgeAwareGIPO(sigma_fresh=0.3, sigma_age=0.3)
OUTWARD = AgeAwareGIPO(sigma_fresh=0.3, sigma_age=0.3, outward_only=True)
RIVALS: dict[str, Curve] = {  # of one dimension, one sample in its batch; tokens of a policy that knows nothing
    "VESPO": Curve(VESPO(), "C6-"),
    "M2PO, alone": Curve(M2PO(), "C5-"),
    f"DPPO, μ ≤ 1/{BINS}": Curve(DPPO(), "C4-"),
    "DPPO, binary KL": Curve(DPPO(delta=0.05, change=binary_kl), "C4--"),
    "decoupled PPO, k = 4": Curve(DecoupledPPO(), "C3-", age=4),
    "GSPO, one dimension": Curve(GSPO(), "C7-"),
    "GMPO, one dimension": Curve(GMPO(), "C7--"),
    "TIS": Curve(TIS(), "C8-"),
    "MIS": Curve(MIS(), "C8--"),
    "by age, k = 0": Curve(AGED, "C0:", age=0),
    "by age, k = 4": Curve(AGED, "C0--", age=4),
    "by age, k = 16": Curve(AGED, "C0-", age=16),
    "outward, k = 0": Curve(OUTWARD, "C2:", age=0),
    "outward, k = 4": Curve(OUTWARD, "C2--", age=4),
    "outward, k = 16": Curve(OUTWARD, "C2-", age=16),
}
OBJECTIVES = FAMILY | RIVALS
LOG_RATIOS = np.linspace(-4, 8, 481)  # with σ = 2 the contribution rises until 4, and has all but fallen off at 8
Rows = list[dict[str, Any]]


def objective_rows() -> Rows:
    """Every objective at every log-ratio, for a good (A = 1) and a bad (A = −1) action."""
    found: Rows = []
    x = LOG_RATIOS
    for (name, curve), advantage in product(OBJECTIVES.items(), (1.0, -1.0)):
        each = x[:, None] if curve.objective.needs_whole_batch else x[None]  # a batch of each, or one of all
        answers = [response(curve.objective, some, np.full_like(some, advantage), curve.age) for some in each]
        figures = (np.concatenate(parts) for parts in zip(*answers, strict=True))
        columns = ("log_ratio", "weight", "contribution", "gradient")
        for values in np.stack((x, *figures), -1).tolist():
            found.append({"objective": name, "advantage": advantage, **dict(zip(columns, values, strict=True))})
    return found


def plot_objectives(rows: Rows, chosen: dict[str, Curve], path: Path) -> None:
    """Two rows, good and bad actions; three columns, weight, contribution and gradient; of the `chosen` curves."""
    figure, grid = plt.subplots(2, 3, figsize=(11, 6), sharex=True, layout="constrained")
    columns = {
        "weight": "trust weight w",
        "contribution": "contribution u = w·ρ",
        "gradient": "pull on log π: −∂loss/∂x",
    }
    for line, (advantage, words) in zip(grid, ((1.0, "good action, A = 1"), (-1.0, "bad action, A = −1")), strict=True):
        for axes, (column, label) in zip(line, columns.items(), strict=True):
            for name, curve in chosen.items():
                y = [row[column] for row in rows if (row["objective"], row["advantage"]) == (name, advantage)]
                axes.plot(LOG_RATIOS, y, curve.line, lw=1.3, label=name)
            top = 2.6 if column == "weight" else 7.8  # the largest contribution with σ = 2 is e² = 7.39
            axes.set_ylim(*((-0.05, top) if column != "gradient" or advantage > 0 else (-top, 0.05)))
            axes.set_title(f"{label}, {words}", fontsize=9)
            axes.grid(alpha=0.3)
    for axes in grid[1]:
        axes.set_xlabel("log ρ [nats]")
    handles, labels = grid[0][0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=6, fontsize=8)
    save_figure(figure, path, dpi=80)
