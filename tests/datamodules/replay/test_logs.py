"""What the logs of a run say of themselves."""

from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from datamodules.ingest import IngestOptions, Interface
from datamodules.replay.logs import Logs
from gipo.common.errors import UserError
from gipo.policies import Spaces
from gipo.vla.observations import VLASpaces

SOURCES = [
    SimpleNamespace(sessions=("s1",), sha256="a", steps=5, task="camera:topview:reach-v3"),
    SimpleNamespace(sessions=("s2", "s3"), sha256="b", steps=4, task=""),
]


def logs_of(policy: list[int], valid: list[bool], interface: Interface | None = None, **options: Any) -> Logs:
    logs = Logs("nowhere", IngestOptions(), None, 0, **options)
    facts = SimpleNamespace(policies=("p0", "p1"), sources=SOURCES, interface=interface)
    frames = {"policy": torch.tensor(policy), "valid": torch.tensor(valid)}
    logs.__dict__["store"] = SimpleNamespace(facts=facts, frames=frames)
    return logs


def test_the_parent_is_who_chose_most_actions() -> None:
    # p0 acted in six of nine steps, but a person chose four of its actions
    logs = logs_of([0, 0, 0, 0, 0, 0, 1, 1, 1], [False] * 4 + [True] * 5)
    found = logs.provenance
    assert found["parent"] == "p1"
    assert [each["policy_ids"] for each in found["logs"]] == [["p0"], ["p0", "p1"]]
    assert [(each["session"], each["sessions"]) for each in found["logs"]] == [("s1", []), (None, ["s2", "s3"])]
    assert [(each["session"], each["sha256"], each["steps"]) for each in found["logs"]] == [
        ("s1", "a", 1),  # valid ones
        (None, "b", 4),
    ]


def test_demonstrations_have_no_parent() -> None:
    found = logs_of([-1] * 9, [True] * 9).provenance
    assert found["parent"] is None
    assert [each["policy_ids"] for each in found["logs"]] == [[], []]


def test_logs_of_another_task_than_that_of_the_evaluation_are_told() -> None:
    logs = logs_of([-1] * 9, [True] * 9)
    assert logs.of_another("camera:topview:reach-v3") is None
    assert logs.of_another("camera:corner:reach-v3") == (
        "the logs are of camera:topview:reach-v3; the policy is evaluated on data.task=camera:corner:reach-v3"
    )


def test_bounds_are_the_logs_or_else_the_options() -> None:
    bare, bounded = Interface(3, 2), Interface(3, 2, action_low=(-1.0, 0.0), action_high=(1.0, 2.0))
    given = {"action_low": [-2.0, 0.0], "action_high": [2.0, 2.0]}

    def spaces(interface: Interface, **bounds: list[float]) -> Spaces:
        return logs_of([0] * 9, [True] * 9, interface, **bounds).spaces

    assert spaces(bounded) == Spaces(3, (-1.0, 0.0), (1.0, 2.0))
    assert spaces(bare, **given) == Spaces(3, (-2.0, 0.0), (2.0, 2.0))
    with pytest.raises(UserError, match="do not say the bounds"):
        _ = spaces(bare)
    with pytest.raises(UserError, match=r"another robot .* its action_low is"):
        _ = spaces(bounded, **given)


def test_bounds_that_nobody_says_are_those_of_the_policy() -> None:
    of_policy = {"action_low": [-3.0, 0.0], "action_high": [3.0, 2.0]}
    said = Interface(3, 2, action_low=(-1.0, 0.0), action_high=(1.0, 2.0))
    for interface, low, high in ((Interface(3, 2), (-3.0, 0.0), (3.0, 2.0)), (said, (-1.0, 0.0), (1.0, 2.0))):
        logs = logs_of([0] * 9, [True] * 9, interface)
        logs.bounded_as(of_policy)
        assert logs.spaces == Spaces(3, low, high)
    logs = logs_of([0] * 9, [True] * 9, Interface(3, 2), action_low=[-2, 0], action_high=[2, 2])
    logs.bounded_as(of_policy)
    assert logs.spaces == Spaces(3, (-2, 0), (2, 2))
    logs = logs_of([0] * 9, [True] * 9, Interface(3, 1))
    logs.bounded_as(of_policy)
    with pytest.raises(UserError, match=r"another robot .* its action_size is 2 against 1"):
        _ = logs.spaces


@pytest.mark.parametrize(("factor", "refused"), [(1.0, False), (1.00001, False), (90.0, True)])
def test_actions_outside_of_bounds_that_no_source_says_are_refused(factor: float, refused: bool) -> None:
    bare = Interface(3, 2)
    logs = logs_of([0] * 9, [True] * 9, bare, action_low=[-1, 0], action_high=[1, 2])
    action = torch.stack((torch.linspace(-1, 1, 9), torch.linspace(0, 2, 9)), -1) * factor
    logs.store.frames["action"] = action  # type: ignore[index]
    if not refused:
        logs.refuse_out_of_bounds(logs.spaces)
        return
    with pytest.raises(UserError, match=r"9 of 9 .* \[-1, 0\] to \[1, 2\]: they go from \[-90, 0\] to \[90, 180\]"):
        logs.refuse_out_of_bounds(logs.spaces)


def test_bounds_of_one_source_do_not_vouch_for_the_actions_of_another() -> None:
    """One says ±1 and keeps to it; the other, a dataset, says none and is in degrees."""
    logs = logs_of([0] * 9, [True] * 9, Interface(3, 2, action_low=(-1.0, 0.0), action_high=(1.0, 2.0)))
    action = torch.full((9, 2), 0.5)
    logs.store.frames["action"] = action  # type: ignore[index]
    logs.refuse_out_of_bounds(logs.spaces)
    action[4:] = 90.0
    logs.store.frames["action"] = action  # type: ignore[index]
    with pytest.raises(UserError, match=r"5 of 9 logged actions are outside of the policy's bounds"):
        logs.refuse_out_of_bounds(logs.spaces)
    logs.store.frames["valid"] = torch.arange(9) < 4  # type: ignore[index]
    logs.refuse_out_of_bounds(logs.spaces)  # a person's


def test_a_chunk_is_what_the_logs_say_or_else_the_option() -> None:
    bare = Interface(3, 2, action_low=(-1.0, 0.0), action_high=(1.0, 2.0))
    seen, said = replace(bare, image=(3, 8, 8)), replace(bare, image=(3, 8, 8), chunk=4)

    def decided_at_once(interface: Interface, chunk: int | None) -> int:
        spaces = logs_of([0] * 9, [True] * 9, interface, chunk=chunk).spaces
        assert isinstance(spaces, VLASpaces)
        return spaces.chunk

    assert [decided_at_once(said, None), decided_at_once(said, 4), decided_at_once(seen, 2)] == [4, 4, 2]
    with pytest.raises(UserError, match=r"do not say on how many actions .*; give data.chunk"):
        decided_at_once(seen, None)
    with pytest.raises(UserError, match=r"data.chunk is 2, and the logs say that policies decided on 4 actions"):
        decided_at_once(said, 2)
    with pytest.raises(UserError, match=r"data.chunk is for logs with images"):
        decided_at_once(bare, 2)


def test_names_are_compared_where_both_know_them() -> None:
    logs = logs_of([0] * 9, [True] * 9, Interface(3, 2, action_names=("x", "y")))
    spaces = Spaces(3, (-1.0,) * 2, (1.0,) * 2)
    logs.refuse_unlike(spaces)
    logs.refuse_unlike(spaces, {"action_names": ["x", "y"], "control_rate_hz": 40.0, "whatever": 1})
    with pytest.raises(UserError, match="its action_names is"):
        logs.refuse_unlike(spaces, {"action_names": ["y", "x"]})
    assert logs.interface == {"action_names": ("x", "y")}
