"""How much of a batch is persons': counted by hand, drawn from each kind alone."""

import pytest
import torch
from torch import Tensor

from datamodules.replay.people_share import PeopleShare
from gipo.common.errors import UserError

SOURCE = torch.tensor([0, 1, 2, 1, 0, 2])  # the policy, a person, nobody
PERSONS = [1, 3]


def rows(share: float, batch: int, source: Tensor = SOURCE, rounds: int = 50) -> Tensor:
    return PeopleShare(source, share).rows(rounds, batch, torch.Generator().manual_seed(0)).view(rounds, batch)


@pytest.mark.parametrize(
    ("share", "batch", "count"), [(0.25, 8, 2), (0.3, 8, 2), (0.35, 8, 3), (0.0, 3, 0), (1.0, 3, 3), (0.5, 2, 1)]
)
def test_every_batch_has_as_many_and_draws_from_all_of_each_kind(share: float, batch: int, count: int) -> None:
    found = rows(share, batch)
    persons = torch.isin(found, torch.tensor(PERSONS))
    assert persons.sum(1).tolist() == [count] * 50
    assert set(found[persons].tolist()) == (set(PERSONS) if count else set())
    assert set(found[~persons].tolist()) == ({0, 2, 4, 5} if count < batch else set())


def test_what_is_drawn_is_of_the_generator_alone() -> None:
    one = rows(0.5, 8)
    torch.rand(3)
    assert torch.equal(one, rows(0.5, 8))


def test_a_chunk_in_which_a_person_acted_is_a_persons() -> None:
    chunks = torch.tensor([[0, 0], [0, 1], [2, 0], [1, 1]])
    assert set(rows(1.0, 4, chunks).flatten().tolist()) == {1, 3}
    assert set(rows(0.0, 4, chunks).flatten().tolist()) == {0, 2}


def test_kinds_that_are_to_be_drawn_must_be_there() -> None:
    policy, persons = torch.zeros(3), torch.ones(3)
    for source, share, what in ((policy, 0.5, "a person's"), (persons, 0.5, "any other's"), (policy, 1.0, "a person's"),
                                (persons, 0.0, "any other's")):  # fmt: skip
        with pytest.raises(
            UserError, match=rf"^data\.human_share={share} needs steps that are {what}; .* there are no"
        ):
            PeopleShare(source, share)
    assert rows(0.0, 2, policy).max() == 2
    assert rows(1.0, 2, persons).max() == 2


@pytest.mark.parametrize(("share", "batch", "count"), [(0.1, 4, 0), (0.9, 4, 4), (0.5, 1, 0)])
def test_a_share_that_rounds_to_none_or_to_all_is_refused(share: float, batch: int, count: int) -> None:
    with pytest.raises(UserError, match=rf"^data\.human_share={share} makes {count} of {batch} transitions of a batch"):
        PeopleShare.refuse_rounded(share, batch)
    for allowed in (0, 1, 0.5):
        PeopleShare.refuse_rounded(allowed, 4)
