"""The table of `docs/simulators.md`, as what is shipped has it: `python -m benchmarks.simulators.table` prints it."""

from typing import Any

from gipo.common.simulators.equality import measured

HEAD = """| task | `auto` takes | start | observation | reward | success of MetaWorld's policy | its mean reward |
|---|---|---|---|---|---|---|
"""


def table() -> str:
    """Markdown, a row for every task."""
    return HEAD + "".join(_row(task, found) for task, found in measured()["tasks"].items())


def _row(task: str, found: dict[str, Any]) -> str:
    apart = [max(found["code"][name][what] for name in ("random", "scripted")) for what in ("start", "observation")]
    apart.append(max(found["code"][name]["reward"] for name in ("random", "scripted")))
    cells = [task, "EnvPool" if found["differs"] is None else "Python", *(f"{value:.0e}" for value in apart)]
    of_policy = found.get("episodes", {"success": ("", ""), "reward": ("", "")})
    cells += [" / ".join(f"{value:.2f}" if value != "" else "" for value in of_policy["success"])]
    cells += [" / ".join(f"{value}" for value in of_policy["reward"])]
    return f"| {' | '.join(cells)} |\n".replace(" /  |", " |")


if __name__ == "__main__":
    print(table(), end="")
