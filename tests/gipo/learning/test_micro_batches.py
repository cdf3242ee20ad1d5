"""Parts of a batch of action chunks, whose shares of what counts are counted by hand."""

import math

import pytest
import torch
from tensordict import TensorDict

from gipo.common.errors import UserError
from gipo.learning.losses import Samples
from gipo.learning.micro_batches import parts_of, refuse_single

B, H, D = 3, 2, 2  # decisions, of whose samples the first part has four and the second two


def chunks() -> TensorDict:
    log_prob = torch.zeros(B, H, D)
    log_prob[2, 0, 1] = -math.inf
    return TensorDict(
        {
            "log_prob": log_prob,
            "executed": torch.tensor([[True, False], [True, True], [True, True]]),
            "value_target": torch.zeros(B, H),
            "source": torch.tensor([[0, 0], [0, 0], [1, 0]]),
            "number": torch.arange(B),
        },
        batch_size=[B],
    )


def samples(valid: list[bool]) -> Samples:
    advantage = torch.tensor([0.0, 1, math.nan, 3, 4, 5])
    return Samples(torch.tensor(valid), advantage, torch.arange(6), torch.arange(6).unsqueeze(-1).expand(6, D) / 10)


def test_each_part_has_its_share_of_what_counts() -> None:
    first, second = parts_of(chunks(), samples([True, True, True, True, False, True]), 2)
    # policy: 2 + 2 + 0 (no advantage) + 2 elements, and 0 (not valid) + 2
    # persons: none, and 1 (the other is impossible);  imitation, either: 2 + 2 + 0 + 2, and 1 + 2
    expected = {"policy": (6, 2), "value": (3, 2), "persons": (0, 1), "imitation": (6, 3)}
    for part, index in ((first, 0), (second, 1)):
        found = {name: float(share) for name, share in part.shares.items()}
        assert found.keys() == expected.keys()
        for name, counts in expected.items():
            torch.testing.assert_close(found[name], counts[index] / sum(counts), rtol=0, atol=1e-7)
    assert (first.size, second.size) == (2 / 3, 1 / 3)
    assert float(second.share_of("policy", torch.tensor(8.0))) == 2


def test_an_impossible_element_is_no_share_of_the_policys_mean() -> None:
    parts = parts_of(chunks(), samples([True] * 6), 2)
    # 2 + 2 + 0 (no advantage) + 2 elements, and 1 (the other is impossible) + 2
    assert [round(9 * float(part.shares["policy"]), 5) for part in parts] == [6, 3]


def test_each_part_has_its_own_decisions_and_samples() -> None:
    whole, batch = samples([True] * 6), chunks()
    parts = parts_of(batch, whole, 2)
    assert [part.batch["number"].tolist() for part in parts] == [[0, 1], [2]]
    for name in Samples._fields:
        joined = torch.cat([getattr(part.samples, name) for part in parts])
        assert torch.equal(joined.nan_to_num(-1), getattr(whole, name).nan_to_num(-1)), name
        assert len(getattr(parts[0].samples, name)) == 2 * H, name


def test_what_counts_nowhere_is_no_share_of_any_part() -> None:
    batch = chunks()
    batch["executed"][:] = False
    batch["source"][:] = 0
    for part in parts_of(batch, samples([False] * 6), 2):
        assert {name: float(share) for name, share in part.shares.items()} == dict.fromkeys(
            ("policy", "value", "persons", "imitation"), 0.0
        )


def test_of_single_steps_without_sources_every_value_counts() -> None:
    batch = TensorDict({"log_prob": torch.zeros(5, D), "value_target": torch.zeros(5)}, batch_size=[5])
    valid = torch.tensor([True, False, False, False, True])
    parts = parts_of(batch, Samples(valid, torch.zeros(5), torch.zeros(5)), 2)
    assert [{name: round(float(share), 6) for name, share in part.shares.items()} for part in parts] == [
        {"policy": 0.5, "value": 0.4}, {"policy": 0.0, "value": 0.4}, {"policy": 0.5, "value": 0.2},
    ]  # fmt: skip
    assert [part.samples.entropy for part in parts] == [None] * 3


def test_a_whole_batch_is_one_part_and_all_of_every_mean() -> None:
    batch, whole, mean = chunks(), samples([True] * 6), torch.tensor(7.0)
    (part,) = parts_of(batch, whole, None)
    assert part.batch is batch
    assert part.samples is whole
    assert part.size == 1
    assert part.share_of("policy", mean) is mean


def test_one_transition_has_no_deviation() -> None:
    refuse_single(1, normalise_advantages=False)
    refuse_single(2, normalise_advantages=True)
    with pytest.raises(UserError, match=r"batches of at least 2 transitions; raise data\.batch"):
        refuse_single(1, normalise_advantages=True)
