"""What a policy can still learn from logs, per policy and version that acted: a table to read before post-training.

Trust weights and contributions depend on the sign of the advantage, which is not known yet: both are the means of what
the objective says of A = +1 and A = −1.
"""

import math
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from itertools import product
from pathlib import Path

import torch
from torch import Tensor

from gipo.common.errors import UserError
from gipo.common.tables import table, write_table
from gipo.common.transition import PERSON
from gipo.learning.diagnostics import effective_sample_size, quantile
from gipo.objective import Elements, Objective, blanked, masked_terms, remembered, since

NOTHING = (
    "no step is valid: the policy chose no action in these logs, drew none (--deterministic), or was still being given "
    "control where episodes ended (gipo-robot run --engage SECONDS), so this objective has nothing to learn from; what "
    "persons did, if they did, is cloned with --config bc.yaml --model.human_coef=1"
)


@dataclass(frozen=True)
class VersionRow:
    """What is left of the steps of one version of one policy.

    Args:
        policy: index of the policy that acted.
        version: its learner version; −1 where nobody said.
        age: learner version now − version; None where that is unknown.
        steps: usable ones.
        elements: steps × action dimensions whose log-ratio is finite.
        masked: those whose log-ratio is not.
        ess: effective sample size (Σu)²/(n·Σu²) as a share of the n elements; u = w·ρ.
        log_ratio_p5: 5 % quantile of x, nats.
        log_ratio_p50: median of x, nats.
        log_ratio_p95: 95 % quantile of x, nats.
        log_ratio_abs_p95: 95 % quantile of |x|, nats.
        weight: mean trust weight.
        weight_share: of the sum of the trust weights of all rows.
        contribution_share: of the sum of the contributions u of all rows.
    """

    policy: int
    version: int
    age: int | None
    steps: int
    elements: int
    masked: int
    ess: float
    log_ratio_p5: float
    log_ratio_p50: float
    log_ratio_p95: float
    log_ratio_abs_p95: float
    weight: float
    weight_share: float
    contribution_share: float


@torch.no_grad()
def staleness_report(
    log_ratio: Tensor, used: Tensor, policy: Tensor, version: Tensor, learner_version: int, objective: Objective,
    log_prob: Tensor | None = None,
) -> list[VersionRow]:  # fmt: skip
    """One row for each policy and version that acted in a usable step, in the order of the two numbers.

    Args:
        log_ratio: x [M, D], or [N, H, D] of decisions on chunks, of the policy at hand to the one that acted, nats.
        used: [M] or [N, H] bool; False where the policy did not choose the action.
        policy: index of the policy that acted [M] or [N, H].
        version: its learner version, of the same shape.
        learner_version: of the policy at hand.
        objective: whose trust weights count.
        log_prob: log π(a|s) of tokens, of the shape of x, nats; None of a density.
    """
    terms = _terms(objective, log_ratio, used, learner_version - version, log_prob)
    log_ratio, policy, version = log_ratio[used].float(), policy[used], version[used]
    weight, contribution = (part[used] for part in terms)
    finite = torch.isfinite(log_ratio)
    keys, group, counts = torch.stack([policy, version], 1).unique(dim=0, return_inverse=True, return_counts=True)
    order, sizes = group.argsort(stable=True), counts.tolist()
    whole_weight, whole_contribution = (float(part.sum()) for part in (weight, contribution))
    pieces = [part[order].split(sizes) for part in (log_ratio, finite, weight, contribution)]
    return [
        VersionRow(
            policy=who,
            version=when,
            age=None if when < 0 else learner_version - when,
            steps=steps,
            elements=int(kept.sum()),
            masked=int((~kept).sum()),
            weight_share=_share(float(w[kept].sum()), whole_weight),
            contribution_share=_share(float(u[kept].sum()), whole_contribution),
            **_spread(x[kept], w[kept], u[kept]),
        )
        for (who, when), steps, x, kept, w, u in zip(keys.tolist(), sizes, *pieces, strict=True)
    ]


@torch.no_grad()
def token_report(
    log_ratio: Tensor, used: Tensor, version: Tensor, learner_version: int, objective: Objective,
    log_prob: Tensor | None = None,
) -> list[dict[str, float]]:  # fmt: skip
    """What is left of each token of a decision on chunks, all versions together: a row for each step and dimension.

    Args:
        log_ratio: x [N, H, D] of the policy at hand to the one that acted, nats.
        used: [N, H] bool; False where the policy did not choose the action.
        version: learner version of the policy that acted [N].
        learner_version: of the policy at hand.
        objective: whose trust weights count.
        log_prob: log π(a|s) [N, H, D] of tokens, nats; None of a density.
    """
    age = (learner_version - version).unsqueeze(-1).expand_as(used)
    x, kept = log_ratio.float(), torch.isfinite(log_ratio) & used.unsqueeze(-1)
    figures = (x, *_terms(objective, log_ratio, used, age, log_prob))
    rows = []
    for step, dimension in product(*map(range, x.shape[1:])):
        token = (slice(None), step, dimension)
        spread = _spread(*(part[token][kept[token]] for part in figures))
        rows.append({"chunk_step": step, "dimension": dimension, "elements": int(kept[token].sum()), **spread})
    return rows


def _spread(x: Tensor, weight: Tensor, u: Tensor) -> dict[str, float]:
    """Figures of log-ratios, trust weights and contributions [N]; of none at all, what says that nothing is known."""
    if not x.numel():
        unknown = dict.fromkeys(("log_ratio_p5", "log_ratio_p50", "log_ratio_p95", "log_ratio_abs_p95"), math.nan)
        return {"ess": 0.0, "weight": 0.0} | unknown
    return {
        "ess": float(effective_sample_size(u)),
        "log_ratio_p5": float(quantile(x, 0.05)),
        "log_ratio_p50": float(quantile(x, 0.5)),
        "log_ratio_p95": float(quantile(x, 0.95)),
        "log_ratio_abs_p95": float(quantile(x.abs(), 0.95)),
        "weight": float(weight.mean()),
    }


def _terms(
    objective: Objective, log_ratio: Tensor, used: Tensor, age: Tensor, log_prob: Tensor | None
) -> tuple[Tensor, Tensor]:
    """Trust weight and contribution, float64, means over both signs of the advantage; 0 where not used, or not finite.

    Shapes as in `staleness_report`: the objective sees the steps of a chunk in a row, as in training.
    """
    x, steps = log_ratio.float().flatten(0, -2), math.prod(used.shape[1:])
    finite = torch.isfinite(x) & used.flatten().unsqueeze(-1)
    age = age.flatten().unsqueeze(-1)
    log_prob = None if log_prob is None else log_prob.float().flatten(0, -2)
    both = [
        blanked(
            Elements(
                x, torch.full_like(x[:, :1], sign), finite, since(age, x), None, log_prob, steps, objective.memory()
            )
        )
        for sign in (1.0, -1.0)
    ]
    # what it remembers is what these logs say
    signs = [masked_terms(objective, seen._replace(memory=remembered(objective, seen, age)))[0] for seen in both]
    weight, contribution = (
        torch.where(finite, (good.double() + bad.double()) / 2, 0.0).view_as(log_ratio)
        for good, bad in zip(*(terms[1:] for terms in signs), strict=True)
    )
    return weight, contribution


def _share(part: float, whole: float) -> float:
    return part / whole if whole > 0 else 0.0


def effective_share(rows: Sequence[VersionRow]) -> float:
    """Effective sample size of all rows together, as a share of their elements; 0 when nothing contributes."""
    # Row i has Σu = c_i·U and Σu² = (c_i·U)²/(n_i·s_i), so that (Σu)²/(n·Σu²) = 1/(n·Σ_i c_i²/(n_i·s_i))
    pulls = [row.contribution_share**2 / (row.elements * row.ess) for row in rows if row.contribution_share > 0]
    return 1 / (sum(row.elements for row in rows) * sum(pulls)) if pulls else 0.0


def refuse_unsupported(rows: Sequence[VersionRow], min_ess: float, names: Sequence[str] = ()) -> None:
    """Refuse data that the policy at hand can hardly learn from.

    Args:
        rows: of `staleness_report`.
        min_ess: least effective sample size of all valid steps together, as a share in [0, 1].
        names: policy ids by index.

    Raises:
        UserError: naming the figure, the worst version and what to do.
    """
    if not rows:
        raise UserError(NOTHING)
    found = effective_share(rows)
    if found >= min_ess:
        return
    worst = min(rows, key=lambda row: (row.ess, row.weight))
    raise UserError(
        f"the effective sample size of these logs is {found:.3g} of their samples, below data.min_ess = {min_ess:g}; "
        f"worst is {_version(worst)} of policy {_name(worst, names)}: {worst.ess:.3g}, with a 95 % quantile of "
        f"|log-ratio| of {worst.log_ratio_abs_p95:.3g} nats. Leave these logs out, add newer ones, try another "
        "--model.objective (the table is of the one at hand), or lower --data.min_ess; if the version is "
        "recent, check that the logged log-probs are its own (gipo-robot audit)"
    )


HEAD = (
    "policy", "version", "age", "steps", "masked", "ESS", "x 5 %", "50 %", "95 %", "|x| 95 %", "weight",
    "of Σw", "of Σu",
)  # fmt: skip


@dataclass(frozen=True)
class OtherSteps:
    """Steps that no ratio is of, because a policy did not sample them.

    Args:
        persons: whose actions a person chose.
        log_prob: mean log-prob of these actions under the policy at hand, nats a dimension.
        others: that were held, handed over, taken deterministically, or of which nobody says.
    """

    persons: int
    log_prob: float
    others: int

    def text(self, weight: float) -> str:
        """The steps in words; `weight` is that of imitating persons."""
        learned = f"imitated with weight {weight:g}" if weight else "for the critic alone (model.human_coef is 0)"
        parts = [f"{self.persons:,} of a person ({self.log_prob:.2f} nats a dimension), {learned}"] * bool(self.persons)
        parts += [f"{self.others:,} of nobody's choice, for the critic alone"] * bool(self.others)
        said = [f"beside them {'; '.join(parts)}"] * bool(parts)
        if weight and not self.persons:
            said.append(f"model.human_coef={weight:g} imitates nobody: no step is a person's")
        return "\n".join(said)


def other_steps(log_prob: Tensor, valid: Tensor, source: Tensor) -> OtherSteps:
    """Steps beside the valid ones.

    Args:
        log_prob: log π of each action [M, D] under the policy at hand, nats.
        valid: [M] bool, whether the policy chose the action.
        source: who did [M], as numbers of `SOURCES`.
    """
    persons = source == PERSON
    said = log_prob[persons]
    mean = float(said[said.isfinite()].mean()) if len(said) else math.nan
    return OtherSteps(int(persons.sum()), mean, int((~persons & ~valid).sum()))


def text(rows: Sequence[VersionRow], names: Sequence[str]) -> str:
    """The report as a table, and what it comes to.

    Args:
        rows: of `staleness_report`.
        names: policy ids by index.
    """
    cells = [
        (
            _name(row, names), *((row.version, row.age) if row.age is not None else ("–", "–")),
            f"{row.steps:,}", f"{row.masked:,}", f"{row.ess:.2f}",
            *(
                f"{x:.2f}"
                for x in (row.log_ratio_p5, row.log_ratio_p50, row.log_ratio_p95, row.log_ratio_abs_p95, row.weight)
            ),
            f"{100 * row.weight_share:.1f} %", f"{100 * row.contribution_share:.1f} %",
        )
        for row in rows
    ]  # fmt: skip
    steps = sum(row.steps for row in rows)
    total = f"{steps:,} valid steps, effective sample size {effective_share(rows):.2f} of their samples"
    return f"{table(HEAD, cells)}\n{total}; weights are means over A = +1 and A = −1"


def write_csv(rows: Iterable[VersionRow], names: Sequence[str], path: Path) -> None:
    """The report as CSV: the fields of `VersionRow`, with whole policy ids."""
    write_table([{**asdict(row), "policy": _id(row, names)} for row in rows], path)


def _version(row: VersionRow) -> str:
    return "an unknown version" if row.age is None else f"version {row.version}"


def _name(row: VersionRow, names: Sequence[str]) -> str:
    """The first digits of a policy id, as the other tables show them."""
    found = _id(row, names)
    return f"{found[:12]}…" if len(found) > 12 else found


def _id(row: VersionRow, names: Sequence[str]) -> str:
    if row.policy < 0:
        return "unknown"
    return names[row.policy] if 0 <= row.policy < len(names) else f"#{row.policy}"
