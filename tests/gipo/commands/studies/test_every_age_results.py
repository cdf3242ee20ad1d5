"""What the page says that came out of the registered study, made again from its runs."""

from collections.abc import Callable

import numpy as np
import pytest

from gipo.commands.studies import staleness, staleness_figures
from gipo.commands.studies.run_tables import distinct, read_runs
from gipo.commands.studies.statistics import iqm_difference_interval
from gipo.common.intervals import with_interval
from gipo.common.tables import markdown
from tests.every_age import (
    CANDIDATE,
    CHANCE,
    DATA,
    DIFFERENCE,
    EVEN,
    NAMES,
    OBJECTIVES,
    PAGE,
    RETURN,
    Row,
    asked_again,
    compared,
    figure,
    short,
    verdicts,
)  # fmt: skip
from tests.pages import ROOT

CHOICE, README = ((ROOT / name).read_text() for name in ("docs/objectives.md", "README.md"))
DEVELOPED_ON = ("button-press-topdown-v3", "coffee-button-v3")
AGES = (1, 16, 128)


@pytest.fixture(scope="module")
def rows() -> list[Row]:
    """Every run of the first command, and no other."""
    found = read_runs(DATA / "claim.csv", staleness.COLUMNS)
    assert {(row["age"], row["objective"]) for row in found} == {(age, name) for age in AGES for name in NAMES}
    cells = {(row["task"], row["age"], row["objective"], row["seed"]) for row in found}
    assert len(cells) == len(found) == 15 * 3 * 3 * 8
    return found


def test_each_condition_is_reported_whether_it_holds_or_not(rows: list[Row]) -> None:
    without = [row for row in rows if row["task"] not in DEVELOPED_ON]
    table = [(*one, *other[1:]) for one, other in zip(verdicts(rows), verdicts(without), strict=True)]
    head = ("with a buffer of", "all fifteen tasks", "holds", "without the two developed on", "holds")
    assert markdown(head, table) in PAGE
    count = [sum(row[column] == "yes" for row in table) for column in (2, 4)]
    words = ("None", "One", "Two", "Three", "Four", "Five", "Six", "Seven")
    assert f"{words[count[0]]} of the seven conditions hold, and {words[count[1]].lower()} without" in PAGE


def test_what_is_asked_again_was_in_the_first_seeds(rows: list[Row]) -> None:
    assert {holds for _, _, holds in asked_again(rows)} == {"yes"}
    assert "*What was looked up in the 45 afterwards is asked again of the two new seeds alone*" in PAGE


def test_the_new_seeds_are_kept_by_whole_tasks(rows: list[Row]) -> None:
    found = read_runs(DATA / "claim_more.csv", staleness.COLUMNS)
    ended = {(row["task"], row["seed"]) for row in found}
    assert {task for task, _ in ended} <= set(distinct(rows, "task"))
    assert {seed for _, seed in ended} <= {234, 360}
    cells = {(row["task"], row["seed"], row["age"], row["objective"]) for row in found}
    assert cells == {(*one, age, name) for one in ended for age in AGES for name in NAMES}
    assert len(found) == len(cells)
    assert f"have ended, unread: so far {len(ended)} of 30." in PAGE


def by_age(rows: list[Row], corner: str, written: Callable[[Row], str], more: dict[str, Row] | None = None) -> str:
    """A row for each objective, a column for each age; `mean` and `worst` of `more` behind them."""
    cells = {(row["age"], row["objective"]): row for row in staleness_figures.summarise(rows)}
    columns = ("mean", "worst") if more else ()
    shown = []
    for name, called in NAMES.items():
        behind = [f"{more[name][key]:.3f}" for key in columns] if more else []
        shown.append((called, *(written(cells[age, name]) for age in AGES), *behind))
    return markdown((corner, *(f"buffer of {age}" for age in AGES), *columns), shown)


def test_returns_success_and_what_becomes_of_the_samples(rows: list[Row]) -> None:
    settings = {row["objective"]: row for row in staleness_figures.settings(staleness_figures.summarise(rows))}

    def score(name: str) -> Callable[[Row], str]:
        return lambda row: short(with_interval(row[name], row[f"{name} low"], row[f"{name} high"]))

    def mechanism(row: Row) -> str:
        figures = (f"{row[name]:.2f}" for name in ("ppo_dead", "suppressed", "ess"))
        return short(", ".join([*figures, f"{row['kl']:.3f}", f"{row['log_ratio_p95']:.2f}"]))

    assert by_age(rows, "normalised return", score("normalised return"), settings) in PAGE
    assert by_age(rows, "any-step success", score("success")) in PAGE
    assert by_age(rows, "dead to PPO's clip, w < .001, effective share, KL, 95 % of abs. log ρ", mechanism) in PAGE


def test_the_default_has_the_best_worst_case(rows: list[Row]) -> None:
    worst = {row["objective"]: row["worst"] for row in staleness_figures.settings(staleness_figures.summarise(rows))}
    assert max(worst, key=lambda name: worst[name]) == CANDIDATE
    from gipo.adaptive import AgeAwareGIPO
    from gipo.module import GIPOModule

    assert GIPOModule().objective == AgeAwareGIPO(outward_only=True, sigma_fresh=0.1)


def test_how_the_others_compare(rows: list[Row]) -> None:
    gipo, of = compared(rows, "GIPO"), compared(rows)
    decoupled = compared(rows, OBJECTIVES["decoupled PPO"])
    for said in (
        f"than PPO-Clip with probability {figure(gipo[1, 'PPOClip'], CHANCE)} (buffer of 1), "
        f"{figure(gipo[16, 'PPOClip'], CHANCE)} (16) and {figure(gipo[128, 'PPOClip'], CHANCE)} (128)",
        f"their interquartile means differ by {figure(gipo[1, 'PPOClip'], DIFFERENCE, '+.2f')}, "
        f"{figure(gipo[16, 'PPOClip'], DIFFERENCE, '+.2f')} and {figure(gipo[128, 'PPOClip'], DIFFERENCE, '+.2f')}",
        f"than SAPO with probability {figure(gipo[128, OBJECTIVES['SAPO']], CHANCE)} at 128",
        f"than GIPO by {figure(of[1, 'GIPO'], DIFFERENCE, '+.2f')} on fresh data and by "
        f"{figure(of[128, 'GIPO'], DIFFERENCE, '+.2f')} at 128",
        f"than the candidate by {figure(decoupled[128, CANDIDATE], DIFFERENCE, '+.2f')} at 128, and by "
        f"{figure(decoupled[16, CANDIDATE], DIFFERENCE, '+.2f')} at 16",
    ):
        assert said in PAGE, said


def test_what_a_trust_region_is_worth_at_each_age(rows: list[Row]) -> None:
    table = {(row["age"], row["objective"]): row for row in staleness_figures.summarise(rows)}

    def of(age: int, name: str, column: str = "normalised return") -> float:
        return float(table[age, OBJECTIVES[name]][column])

    def said(*values: float) -> tuple[str, ...]:
        return tuple(short(f"{value:.2f}") for value in values)

    narrow = said(*(of(1, name, "log_ratio_p95") for name in ("the candidate", "decoupled PPO")))
    assert "within {} and {}, return most; than PPO-Clip".format(*narrow) in PAGE
    fresh = [compared(rows, OBJECTIVES[name])[1, "PPOClip"] for name in ("the candidate", "decoupled PPO")]
    assert all(row["low"] < EVEN < row["high"] for row in fresh)
    chances = (figure(row, CHANCE) for row in fresh)
    assert "with probability {} and {}, which shows no difference; the".format(*chances) in PAGE
    assert fresh[0][DIFFERENCE[1]] < 0 < fresh[1][DIFFERENCE[1]]  # the candidate is not parted, decoupled PPO is
    more = figure(fresh[1], DIFFERENCE, "+.2f")
    assert f"shows decoupled PPO's, {more}, and not the candidate's." in PAGE
    assert f"from which decoupled PPO is just parted, {more}, and the default not, and" in CHOICE
    level = sorted(of(16, name) for name in OBJECTIVES if name not in ("SAPO", "No-Clip"))
    assert of(16, "GIPO") == level[0] > max(of(16, "SAPO"), of(16, "No-Clip"))
    assert "Six of the eight return {} to {}. GIPO is the last".format(*said(level[0], level[-1])) in PAGE
    assert "SAPO returns {} and No-Clip {}.".format(*said(of(16, "SAPO"), of(16, "No-Clip"))) in PAGE
    versus = compared(rows, "GIPO")
    ahead = [versus[16, OBJECTIVES[name]] for name in ("the candidate", "PPO-Clip", "M2PO", "VESPO")]
    assert max(row["high"] for row in ahead) < EVEN
    more = sorted(1 - row["probability"] for row in ahead)
    assert "with probability {} to {}, by intervals above one half".format(*said(more[0], more[-1])) in PAGE
    assert f"it is no better, {figure(versus[16, OBJECTIVES['SAPO']], CHANCE)}." in PAGE
    wide = [said(*(of(128, name, column) for name in ("GIPO", "decoupled PPO")))
            for column in ("kl", "normalised return")]  # fmt: skip
    assert "to a KL of {} and {} from those that acted, and return {} and {};".format(*wide[0], *wide[1]) in PAGE
    held = sorted(of(128, name) for name in OBJECTIVES if of(128, name, "kl") < 0.04)
    assert len(held) == 4
    assert "the four that hold it within .04 return {} to {}.".format(*said(held[0], held[-1])) in PAGE
    far = (*said(of(128, "SAPO", "kl"), of(128, "SAPO")), *said(of(128, "No-Clip", "kl"), of(128, "No-Clip")))
    assert "SAPO goes as far, {}, and returns {}, No-Clip further, {}, and returns {}.".format(*far) in PAGE
    assert all(of(16, name) > of(1, name) for name in OBJECTIVES)
    older = {name for name in OBJECTIVES if round(of(128, name), 2) >= round(of(16, name), 2)}
    assert older == {"GIPO", "decoupled PPO"}
    assert "(PPO-Clip {} against {})".format(*said(of(16, "PPO-Clip"), of(1, "PPO-Clip"))) in PAGE
    kept = (*said(of(128, "GIPO"), of(16, "GIPO")), *said(of(128, "decoupled PPO")))
    assert "GIPO ({} against {}) and decoupled PPO ({} both).".format(*kept) in PAGE
    settings = {row["objective"]: row for row in staleness_figures.settings(list(table.values()))}
    assert all(of(1, name) == min(of(age, name) for age in AGES) for name in OBJECTIVES)  # the worst age of each
    best = max(settings.values(), key=lambda row: float(row["mean"]))
    assert best["objective"] == OBJECTIVES["decoupled PPO"]
    assert short(f"has the best mean**: {best['mean']:.3f}, and {best['worst']:.3f} at its worst") in PAGE
    assert short(f"Its {settings[CANDIDATE]['worst']:.3f} and decoupled PPO's {best['worst']:.3f} are no diff") in PAGE


def test_what_to_choose_is_said_by_the_same_figures(rows: list[Row]) -> None:
    table = {(row["age"], row["objective"]): row for row in staleness_figures.summarise(rows)}

    def of(age: int, name: str) -> str:
        return figure(table[age, OBJECTIVES[name]], RETURN)

    ours, decoupled, ppo, gipo = (
        [of(age, name) for age in AGES] for name in ("the candidate", "decoupled PPO", "PPO-Clip", "GIPO")
    )
    assert f"| {ours[0]} and {decoupled[0]} between a task's worst and best run; PPO-Clip {ppo[0]}, from" in CHOICE
    assert f"and the default not, and GIPO at σ = 1 {gipo[0]} (" in CHOICE
    assert f"| {gipo[2]} and {decoupled[2]}; the default {ours[2]}, PPO-Clip {ppo[2]} (" in CHOICE
    middle = {name: table[16, objective]["normalised return"] for name, objective in OBJECTIVES.items()}
    five = sorted(middle[name] for name in ("the candidate", "PPO-Clip", "M2PO", "VESPO", "decoupled PPO"))
    figures = (five[0], five[-1], *(middle[name] for name in ("GIPO", "SAPO", "No-Clip")))
    said = "they return {} to {}; GIPO at σ = 1 {}, SAPO {}, No-Clip {} ("
    assert said.format(*(short(f"{value:.2f}") for value in figures)) in CHOICE
    kl, ess = f"{table[128, CANDIDATE]['kl']:.2f}", f"{table[128, 'NoClip']['ess']:.2f}"
    assert short(f"it held the policy within a KL of {kl}.") in CHOICE
    assert short(f"the effective sample size is {ess}.") in CHOICE
    versus = compared(rows, "GIPO")
    for age, rival in ((128, "PPO-Clip"), (128, "SAPO"), (16, "PPO-Clip"), (16, "SAPO"), (1, "PPO-Clip")):
        assert figure(versus[age, OBJECTIVES[rival]], CHANCE) in README
    assert f"not worse than PPO-Clip, {figure(compared(rows)[1, 'PPOClip'], DIFFERENCE, '+.2f')};" in README


def normalised_by_all(tried: list[Row], others: list[Row], name: str) -> tuple[str, str]:
    """How much more a width tried at 128 returns than the candidate and GIPO, normalised by runs of all buffers."""
    low, high = ({row["task"]: end(each["return"] for each in [*tried, *others] if each["task"] == row["task"])
                  for row in tried} for end in (min, max))  # fmt: skip

    def of(objective: str) -> np.ndarray:
        cell = [row for row in [*tried, *others] if (row["age"], row["objective"]) == (128, objective)]
        return np.array([[(row["return"] - low[task]) / (high[task] - low[task]) for row in cell if row["task"] == task]
                         for task in low])  # fmt: skip

    one, two = (iqm_difference_interval(of(name), of(other)) for other in (CANDIDATE, "GIPO"))
    return short(with_interval(*one, "+.2f")), short(with_interval(*two, "+.2f"))


def test_a_width_that_is_given_was_tried_afterwards(rows: list[Row]) -> None:
    tried = read_runs(DATA / "claim_widths.csv", staleness.COLUMNS)
    given, both = distinct(tried, "objective")
    assert (given, both) == (f"{CANDIDATE},sigma_age=0.1", "AgeAwareGIPO:sigma_fresh=0.1")
    assert len(tried) == 5 * 3 * 2
    tasks = distinct(tried, "task")
    every = tried + [row for row in rows if row["age"] == 128 and row["task"] in tasks]
    of_given, of_both = (compared(every, name) for name in (given, both))
    candidate, gipo = of_given[128, CANDIDATE], of_given[128, "GIPO"]
    assert candidate["low"] > EVEN > gipo["low"]
    assert gipo["high"] > EVEN
    assert f"one of the candidate with probability {figure(candidate, CHANCE)}, and lets" in PAGE
    assert f"Than one of GIPO it is {figure(gipo, CHANCE)}, which leaves open" in PAGE
    assert f"nothing that shows: {figure(of_both[128, CANDIDATE], CHANCE)}." in PAGE
    wider = normalised_by_all(tried, [row for row in rows if row["task"] in tasks], given)
    by_128 = (figure(row, DIFFERENCE, "+.2f") for row in (candidate, gipo))
    said = "Over the candidate it is {} by those with a buffer of 128, and {} by those of all buffers, as above;"
    pairs = list(zip(by_128, wider, strict=True))
    assert said.format(*pairs[0]) in PAGE
    assert "over GIPO {} and {}.".format(*pairs[1]) in PAGE
    kl = {row["objective"]: row["kl"] for row in staleness_figures.summarise(every)}
    assert short(f"a KL of {kl[given]:.2f}, not {kl[CANDIDATE]:.2f}.") in PAGE


def test_success_is_rare_and_says_less(rows: list[Row]) -> None:
    def mean(age: int, name: str) -> str:
        found = [row["success"] for row in rows if (row["age"], row["objective"]) == (age, name)]
        return f"{np.mean(found):.2f}"[1:]

    best = {
        task: max(float(row["success"]) for row in staleness_figures.by_task(rows) if row["task"] == task)
        for task in distinct(rows, "task")
    }
    hard = [task for task, success in best.items() if success < 0.25]
    assert f"on {len(hard)} of the fifteen tasks no objective's mean success comes to .25 at any age" in PAGE
    assert f"ahead of GIPO with 16 iterations (mean {mean(16, 'PPOClip')} against {mean(16, 'GIPO')})" in PAGE
    rest = sorted(mean(128, name) for name in NAMES if name != "NoClip")
    level = (
        f"level (GIPO {mean(128, 'GIPO')}, PPO-Clip {mean(128, 'PPOClip')}; all but No-Clip, {mean(128, 'NoClip')}, "
    )
    assert f"mean success with a buffer of 128 is {level}between {rest[0]} and {rest[-1]})" in PAGE


def test_nothing_at_128_is_shown_to_return_more_than_the_best_at_16(rows: list[Row]) -> None:
    returns = staleness_figures.scores(rows)[staleness_figures.NORMALISED]
    best = returns[16, OBJECTIVES["decoupled PPO"]]
    for name in NAMES:
        mean, low, _ = iqm_difference_interval(returns[128, name], best)
        assert low < 0, name
        assert mean < 0.01, name
    assert "nothing at 128 is shown to return more" in PAGE
