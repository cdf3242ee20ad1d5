"""The staleness report against numbers worked out by hand."""

import csv
import math
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from gipo.adaptive import AdaptiveGIPO, AgeAwareGIPO
from gipo.baselines import DPPO, VESPO
from gipo.commands.staleness import (
    OtherSteps,
    VersionRow,
    effective_share,
    other_steps,
    refuse_unsupported,
    staleness_report,
    text,
    token_report,
    write_csv,
)
from gipo.common.errors import UserError
from gipo.common.transition import HOLD, PERSON
from gipo.learning.diagnostics import effective_sample_size
from gipo.objectives import GIPO, NoClip, PPOClip

torch.set_num_threads(1)

LN2, LN4 = math.log(2), math.log(4)
PPO = PPOClip(clip=0.5)

# Policy 1 at version 8: ρ = 1, 2, ½, 4 over two steps; policy 0 at version 5: ρ = 1, and one log-prob of −inf;
# the last step was not the policy's.
X = torch.tensor([[0.0, LN2], [0.0, math.inf], [-LN2, LN4], [9.0, 9.0]])
USED = torch.tensor([True, True, True, False])
POLICY, VERSION = torch.tensor([1, 0, 1, 0]), torch.tensor([8, 5, 8, 5])


def test_every_number_by_hand() -> None:
    old, new = staleness_report(X, USED, POLICY, VERSION, 10, NoClip())
    assert old == VersionRow(
        policy=0, version=5, age=5, steps=1, elements=1, masked=1, ess=1.0,
        log_ratio_p5=0.0, log_ratio_p50=0.0, log_ratio_p95=0.0, log_ratio_abs_p95=0.0, weight=1.0,
        weight_share=pytest.approx(1 / 5), contribution_share=pytest.approx(1 / 8.5),
    )  # fmt: skip
    # u = ρ = 1, 2, ½, 4: Σu = 7.5, Σu² = 21.25
    assert (new.policy, new.version, new.age, new.steps, new.elements, new.masked) == (1, 8, 2, 2, 4, 0)
    assert new.ess == pytest.approx(7.5**2 / (4 * 21.25))
    quantiles = (new.log_ratio_p5, new.log_ratio_p50, new.log_ratio_p95, new.log_ratio_abs_p95)
    assert quantiles == pytest.approx((-LN2, 0.0, LN4, LN4))
    assert (new.weight, new.weight_share, new.contribution_share) == pytest.approx((1.0, 4 / 5, 7.5 / 8.5))


def test_weights_are_means_over_both_signs_of_the_advantage() -> None:
    # ρ = 2 is dead where A > 0, alive where A < 0; ρ = ¼ the other way round; ρ = 1 alive in both
    x = torch.tensor([[LN2], [-LN4], [0.0]])
    (row,) = staleness_report(x, torch.ones(3) > 0, torch.zeros(3).long(), torch.zeros(3).long(), 0, PPO)
    assert row.weight == pytest.approx((0.5 + 0.5 + 1) / 3)
    # u = ½·2, ½·¼, 1
    assert row.ess == pytest.approx(2.125**2 / (3 * (1 + 1 / 64 + 1)))
    asymmetric = GIPO(sigma=1.0, sigma_neg_ratio=0.5)
    (row,) = staleness_report(
        torch.ones(1, 1), torch.ones(1) > 0, torch.zeros(1).long(), torch.zeros(1).long(), 0, asymmetric
    )
    assert row.weight == pytest.approx((math.exp(-0.5) + math.exp(-2)) / 2)


def test_unused_steps_have_no_say_in_an_adaptive_width() -> None:
    objective = AdaptiveGIPO(0.5)
    padded, used = torch.cat([torch.ones(6, 2), torch.full((50, 2), 4.0)]), torch.arange(56) < 6
    (row,) = staleness_report(padded, used, torch.zeros(56).long(), torch.zeros(56).long(), 3, objective)
    assert row.weight == pytest.approx(0.5, abs=1e-4)


@given(
    x=st.lists(st.floats(-6, 6, width=32) | st.sampled_from([math.nan, -math.inf]), min_size=1, max_size=30),
    seed=st.integers(0, 99),
)
@settings(deadline=None, max_examples=80, derandomize=True, database=None)
def test_rows_add_up_to_the_whole(x: list[float], seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    log_ratio, size = torch.tensor(x).unsqueeze(-1), (len(x),)
    policy, version = (torch.randint(n, size, generator=generator) for n in (2, 3))
    rows = staleness_report(log_ratio, torch.ones(size) > 0, policy, version, 3, GIPO())
    kept = log_ratio[torch.isfinite(log_ratio)]
    assert sum(row.steps for row in rows) == len(x)
    assert sum(row.elements for row in rows) == kept.numel()
    assert sum(row.masked for row in rows) == len(x) - kept.numel()
    if kept.numel():
        assert sum(row.weight_share for row in rows) == pytest.approx(1)
        assert sum(row.contribution_share for row in rows) == pytest.approx(1)
        u = GIPO()(kept, torch.tensor(1.0)).contribution
        assert effective_share(rows) == pytest.approx(effective_sample_size(u.double()).item(), rel=1e-5)
    else:
        assert effective_share(rows) == 0


def test_nothing_contributes() -> None:
    # w·ρ underflows at σ = .01
    (row,) = staleness_report(
        torch.full((2, 2), 4.0), torch.ones(2) > 0, torch.zeros(2).long(), torch.zeros(2).long(), 1, GIPO(sigma=0.01)
    )
    assert (row.ess, row.weight, row.contribution_share) == (0, 0, 0)
    with pytest.raises(UserError, match=r"effective sample size of these logs is 0 of"):
        refuse_unsupported([row], 0.01)


def test_support_is_refused_with_the_figure_the_worst_version_and_the_fixes() -> None:
    rows = staleness_report(X, USED, POLICY, VERSION, 10, NoClip())
    # all five elements: u = 1, 1, 2, ½, 4
    share = 8.5**2 / (5 * 22.25)
    assert effective_share(rows) == pytest.approx(share)
    refuse_unsupported(rows, share - 1e-6)
    with pytest.raises(UserError) as refused:
        refuse_unsupported(rows, 0.9, ["a" * 64, "b" * 64])
    for words in (
        f"is {share:.3g} of their samples", "below data.min_ess = 0.9", "version 8 of policy bbbbbbbbbbbb…",
        f"{7.5**2 / 85:.3g}", "1.39 nats", "another --model.objective", "newer ones", "--data.min_ess",
        "gipo-robot audit",
    ):  # fmt: skip
        assert words in str(refused.value)


def test_no_valid_step_is_refused_and_is_an_empty_table() -> None:
    rows = staleness_report(X, torch.zeros(4) > 0, POLICY, VERSION, 10, AdaptiveGIPO())
    assert rows == []
    with pytest.raises(UserError, match=r"no step is valid.* where episodes ended \(gipo-robot run --engage SECONDS\)"):
        refuse_unsupported(rows, 0.0)
    assert "0 valid steps" in text(rows, [])


def test_the_table_is_aligned_and_names_policies_shortly() -> None:
    rows = staleness_report(X, USED, POLICY, VERSION, 10, NoClip())
    head, first, second, last = text(rows, ["a" * 64, "b" * 64]).splitlines()
    assert first.split()[:5] == ["aaaaaaaaaaaa…", "5", "5", "1", "1"]
    assert second.split()[:5] == ["bbbbbbbbbbbb…", "8", "2", "2", "0"]
    assert len(head) == len(first) == len(second)
    assert last == (
        "3 valid steps, effective sample size 0.65 of their samples; weights are means over A = +1 and A = −1"
    )
    unknown = text([replace(rows[0], policy=-1)], ["a" * 64]).splitlines()[1]
    assert unknown.split()[0] == "unknown"


def test_the_csv_holds_every_field_and_whole_ids(tmp_path: Path) -> None:
    rows = staleness_report(X, USED, POLICY, VERSION, 10, NoClip())
    write_csv(rows, ["a" * 64, "b" * 64], tmp_path / "staleness.csv")
    with open(tmp_path / "staleness.csv", newline="") as file:
        found = list(csv.DictReader(file))
    assert [row["policy"] for row in found] == ["a" * 64, "b" * 64]
    assert float(found[1]["ess"]) == rows[1].ess
    assert set(found[0]) == set(VersionRow.__dataclass_fields__)


def test_a_width_by_age_is_measured_from_the_logs_and_read_at_their_age() -> None:
    generator = torch.Generator().manual_seed(0)
    age = torch.arange(4000) % 8
    x = (0.04 + 0.09 * age.unsqueeze(-1)).sqrt() * torch.randn(4000, 3, generator=generator)
    every, nobody = torch.ones(4000) > 0, torch.zeros(4000, dtype=torch.int64)
    rows = staleness_report(x, every, nobody, 20 - age, 20, AgeAwareGIPO())
    assert [row.age for row in rows] == [7, 6, 5, 4, 3, 2, 1, 0]
    # E w = 1/√(1 + Var x/σ_k²), σ_k² = .09 + .09·k
    for row in rows:
        expected = 1 / math.sqrt(1 + (0.04 + 0.09 * row.age) / (0.09 + 0.09 * row.age))
        assert row.weight == pytest.approx(expected, abs=0.03)


def test_probabilities_are_given_where_there_are_some() -> None:
    log_prob = torch.full((4, 2), math.log(0.5))
    rows = staleness_report(X, USED, POLICY, VERSION, 10, DPPO(delta=0.1), log_prob)
    # the newer: x of 0 and log 2 are π = ½ of μ = ½ and ¼; −log 2 and log 4 of 1 and ⅛: each masked for one sign of A
    assert rows[1].weight == pytest.approx((1 + 0.5 + 0.5 + 0.5) / 4)


def test_tokens_of_a_chunk_are_told_apart() -> None:
    """Two dimensions, of which the second drifts with the step of the chunk."""
    drift = torch.tensor([[0.0, 0.0], [0.0, 1.0], [0.0, 2.0]])
    used = torch.ones(4, 3, dtype=torch.bool)
    used[0, 2] = False
    rows = token_report(drift.expand(4, 3, 2), used, torch.zeros(4, dtype=torch.int64), 1, GIPO(sigma=1.0))
    found = [(row["chunk_step"], row["dimension"], row["elements"], row["log_ratio_p50"]) for row in rows]
    assert found == [(0, 0, 4, 0), (0, 1, 4, 0), (1, 0, 4, 0), (1, 1, 4, 1), (2, 0, 3, 0), (2, 1, 3, 2)]
    assert rows[5]["weight"] < rows[3]["weight"] < rows[1]["weight"] == 1


def test_the_steps_of_a_chunk_are_weighed_together_where_the_objective_does() -> None:
    x = torch.tensor([[[0.5], [-0.5], [9.0]]])  # one decision of three steps; the last was not chosen
    used, version = torch.tensor([[True, True, False]]), torch.zeros(1, dtype=torch.int64)
    whole, apart = (
        staleness_report(x, used, *(version[:, None].expand(1, 3),) * 2, 1, VESPO(chunk=chunk))[0]
        for chunk in (True, False)
    )
    # Σx = 0 of the chunk, so that φ = 1 and w = φ/ρ = e^(−x): the mean of e^(−½) and e^½, for both signs of A
    assert whole.weight == pytest.approx(math.cosh(0.5), rel=1e-5)
    assert whole.ess == pytest.approx(1)
    # of each step alone φ = e^(λ + kx − λe^x), k and λ by the sign of A
    each = [math.exp(rate + (k - 1) * x - rate * math.exp(x)) for x in (0.5, -0.5) for k, rate in ((2, 3), (3, 2))]
    assert apart.weight == pytest.approx(sum(each) / 4, rel=1e-5)
    tokens = token_report(x, used, version, 1, VESPO(chunk=True))
    assert [row["elements"] for row in tokens] == [1, 1, 0]
    assert [row["weight"] for row in tokens] == pytest.approx([math.exp(-0.5), math.exp(0.5), 0], rel=1e-5)


def test_a_weight_for_imitating_persons_is_named_where_no_step_is_a_persons() -> None:
    nobodys = "beside them 2 of nobody's choice, for the critic alone"
    imitates = "model.human_coef=0.5 imitates nobody: no step is a person's"
    assert OtherSteps(0, 0.0, 2).text(0.5) == f"{nobodys}\n{imitates}"
    assert OtherSteps(0, 0.0, 0).text(0.5) == imitates
    assert OtherSteps(0, 0.0, 2).text(0.0) == nobodys
    assert (
        OtherSteps(3, -1.0, 0).text(0.5)
        == "beside them 3 of a person (-1.00 nats a dimension), imitated with weight 0.5"
    )


def test_steps_beside_the_valid_ones_are_counted_once() -> None:
    log_prob = torch.tensor([[-1.0], [-3.0], [-2.0], [-math.inf]])
    valid, source = torch.tensor([True, False, False, False]), torch.tensor([0, PERSON, HOLD, PERSON])
    assert other_steps(log_prob, valid, source) == OtherSteps(persons=2, log_prob=-3.0, others=1)
