"""The folder whose policy a robot runs: `gipo-robot promote` and `rollback` alone change what is in it."""

from pathlib import Path

from gipo.common.errors import UserError
from gipo.common.files import PathLike

POLICY = "policy.onnx"  # the one in place
HISTORY = "promotions.jsonl"  # beside it: what was done to the place, by robots.review.promotions


def refuse_place(path: PathLike) -> None:
    """Refuse to write what a robot runs past the history that says how it got there.

    Raises:
        UserError: when the file is the policy of a place.
    """
    place = Path(path).resolve()
    if place.name == POLICY and (place.parent / HISTORY).exists():
        raise UserError(
            f"--out {path} is what a robot runs, by {HISTORY} beside it; name another file, and put it there with "
            f"gipo-robot promote FILE --to {place.parent}"
        )
