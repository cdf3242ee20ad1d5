"""What the race comes to, as text."""

import math
from collections.abc import Mapping, Sequence
from statistics import fmean, stdev

from gipo.commands.studies.recipe.dealing import Levels
from gipo.commands.studies.recipe.effects import Alternative, Effect
from gipo.commands.studies.recipe.runs import Row
from gipo.commands.studies.run_tables import distinct
from gipo.common.tables import counted, markdown

SCORES = ("area", "final")


def report(
    found: Mapping[Alternative, Effect], levels: Levels, chosen: Mapping[str, str], rounds: Sequence[Row],
    last: Sequence[Row],
) -> str:  # fmt: skip
    """Every alternative with what it adds, the winner, and the final."""
    changes = {factor: level for factor, level in chosen.items() if level != levels[factor][0]}
    said = ", ".join(f"{factor} {level}" for factor, level in changes.items()) or "the default in everything"
    tasks, seeds = (len(distinct(last, column)) for column in ("task", "seed"))
    return "\n\n".join(
        (
            f"What an alternative adds to the area under the curve of success, by {len(rounds)} runs:",
            markdown(("factor", "default", "alternative", "runs", "adds", "±"), of_effects(found, levels)),
            f"Winner: {said}.",
            f"Final, {counted(tasks, 'task')} × {counted(seeds, 'seed')}, beside each its "
            f"difference from the {last[0]['recipe']}, in pairs ± standard error:",
            markdown(("recipe", "runs", *(word for score in SCORES for word in (score, "adds"))), of_final(last)),
        )
    )


def of_effects(found: Mapping[Alternative, Effect], levels: Levels) -> list[tuple[object, ...]]:
    """A row for every alternative, best first."""
    return [
        (factor, levels[factor][0], level, effect.runs, f"{effect.mean:+.3f}", f"{effect.error:.3f}")
        for (factor, level), effect in sorted(found.items(), key=lambda item: -item[1].mean)
    ]


def of_final(rows: Sequence[Row]) -> list[list[object]]:
    """A row for every recipe: of each score its mean, and the mean difference from the first recipe's."""
    by_recipe = {
        name: {(row["task"], row["seed"]): row for row in rows if row["recipe"] == name}
        for name in distinct(rows, "recipe")
    }
    first, *_ = by_recipe.values()
    table = []
    for name, cells in by_recipe.items():
        row: list[object] = [name, len(cells)]
        for score in SCORES:
            added = [cell[score] - first[key][score] for key, cell in cells.items()]
            mean = fmean(cell[score] for cell in cells.values())
            row += [f"{mean:.3f}", "" if cells is first else f"{fmean(added):+.3f} ± {standard_error(added):.3f}"]
        table.append(row)
    return table


def standard_error(values: Sequence[float]) -> float:
    """The standard error of the mean of `values`; NaN of a single one."""
    return stdev(values) / math.sqrt(len(values)) if len(values) > 1 else math.nan
