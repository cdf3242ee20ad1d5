"""How a policy did on the robot, as its logs tell."""

from dataclasses import dataclass
from pathlib import Path

from gipo.common.errors import UserError
from gipo.common.intervals import rate_with_interval, wilson_interval
from robots.log import files_below, read_log


@dataclass(frozen=True)
class RobotScore:
    """How a policy did on the robot.

    Args:
        successes: of each episode, at any step.
        returns: of each episode, what persons gave included: what a policy learns from.
    """

    successes: tuple[bool, ...]
    returns: tuple[float, ...]

    @property
    def rate(self) -> float:
        """Share of successful episodes."""
        return sum(self.successes) / len(self.successes)

    def text(self) -> str:
        """Success with its interval, and the mean return, in words."""
        shown = rate_with_interval(sum(self.successes), len(self.successes))
        return f"success {shown}, mean return {self.summary()['return']:,.0f}"

    def summary(self) -> dict[str, float]:
        """Success with its 95 % Wilson interval, and the mean return."""
        rate, low, high = wilson_interval(sum(self.successes), len(self.successes))
        mean = sum(self.returns) / len(self.returns)
        return {"episodes": len(self.successes), "success": rate, "low": low, "high": high, "return": mean}


def robot_score(folder: Path, episodes: int) -> RobotScore:
    """What the logs at and below a folder say of success, in the order of the episodes.

    Raises:
        UserError: when they do not hold that many judged episodes, or one is damaged.
    """
    again = f"delete {folder}, and they are driven again"
    try:
        found = [episode for path in files_below(folder) for episode in read_log(path).begun]
    except UserError as error:
        raise UserError(f"{error}; {again}") from error
    judged = sorted((each for each in found if each.success is not None), key=lambda each: each.number)
    if len(judged) != episodes:
        raise UserError(
            f"{folder} holds {len(judged)} judged episodes of {episodes}; the robot was stopped, or logs were cut "
            f"short or deleted: {again}"
        )
    return RobotScore(
        tuple(bool(episode.success) for episode in judged),
        tuple(episode.total for episode in judged),
    )
