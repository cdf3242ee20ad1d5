"""How much of every batch is what persons did, where it is not left to chance."""

import torch
from torch import Generator, Tensor

from gipo.common.errors import UserError
from gipo.common.transition import PERSON


class PeopleShare:
    """Draws a fixed share of every batch from persons' steps, and the rest from all others.

    Args:
        source: who chose each action [M], as numbers of `SOURCES`; with action chunks [M, H].
        share: of a batch in [0, 1], rounded to whole transitions.

    Raises:
        UserError: when there are no such steps, or no others, for it.
    """

    def __init__(self, source: Tensor, share: float):
        persons = (source == PERSON).reshape(len(source), -1).any(-1)
        self._share, self._persons, self._others = share, persons.nonzero()[:, 0], (~persons).nonzero()[:, 0]
        for rows, wanted, what in ((self._persons, share > 0, "a person's"), (self._others, share < 1, "any other's")):
            if wanted and not len(rows):
                raise UserError(
                    f"data.human_share={share} needs steps that are {what}; among those to learn from there are none"
                )

    @staticmethod
    def refuse_rounded(share: float, batch: int) -> None:
        """Refuse a share that is rounded to none of a batch, or to all.

        Raises:
            UserError: saying how many of it that are.
        """
        count = round(share * batch)
        if (share > 0 and not count) or (share < 1 and count == batch):
            raise UserError(
                f"data.human_share={share} makes {count} of {batch} transitions of a batch persons'; choose one that "
                "leaves some of both, 0 or 1"
            )

    def rows(self, rounds: int, batch: int, generator: Generator) -> Tensor:
        """Indices [rounds · batch] of transitions, drawn with replacement, batch after batch."""
        count = round(self._share * batch)
        parts = [
            pool[torch.randint(len(pool), (rounds, size), generator=generator)]
            for pool, size in ((self._persons, count), (self._others, batch - count)) if size
        ]  # fmt: skip
        return torch.cat(parts, 1).flatten()
