"""Numbers of simulators that are none: a policy would act on them, and what came of it look like any other."""

from collections.abc import Callable

from tensordict import TensorDictBase
from torch import Tensor

from gipo.common.errors import UserError


def refuse_non_finite_rows(seen: TensorDictBase, alive: Tensor, where: Callable[[int], str]) -> None:
    """Refuse what no simulator that works gives.

    Args:
        seen: what N simulators gave, [N, …] each.
        alive: bool [N]: whose count.
        where: says where a row was, as `at step 3 of …`.

    Raises:
        UserError: naming the first entry that is none, where it was, and its values.
    """
    for key, values in seen.items(include_nested=True, leaves_only=True):  # of a policy with cameras, images and state
        bad = alive & ~values.isfinite().flatten(1).all(1)
        if bad.any():
            row, name = int(bad.nonzero()[0]), key if isinstance(key, str) else "/".join(key)
            raise UserError(
                f"non-finite {name} {where(row)}: {values[row].flatten()[:8].tolist()}; mend the environment that "
                "produced it"
            )
