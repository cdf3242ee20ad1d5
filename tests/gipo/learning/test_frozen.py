"""Parts of a network that do not learn: they stay as they are, and all else does not."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from gipo.cli import main
from tests.test_bad_input import refused

Args = Callable[..., list[str]]
SHARED = {
    "data__task": "Tiny-v0", "data__collector__workers": 0, "data__total_frames": 64,
    "model__policy__network": "gipo.networks.SharedEncoder", "model__policy__network__hidden": None,
    "model__policy__network__width": 8, "model__policy__network__critic_width": 8,
}  # fmt: skip

pytestmark = pytest.mark.usefixtures("no_plot")


def weights(run: Path) -> dict[str, Tensor]:
    state: dict[str, Any] = torch.load(run / "checkpoints" / "last.ckpt", weights_only=True)["state_dict"]
    return {name.removeprefix("policy.network."): value for name, value in state.items() if ".network." in name}


def test_what_is_frozen_stays_and_all_else_learns_also_when_resumed(tiny: Args, tmp_path: Path) -> None:
    main(tiny("first", **SHARED))
    first, last = weights(tmp_path / "first"), tmp_path / "first" / "checkpoints" / "last.ckpt"
    later = SHARED | {"model__init_from": last, "model__frozen": "[encoder]"}
    main(tiny("second", **later))
    main(
        [*tiny("second", **later | {"data__total_frames": 128}), f"--ckpt_path={tmp_path}/second/checkpoints/last.ckpt"]
    )
    moved = {name for name, value in weights(tmp_path / "second").items() if not torch.equal(value, first[name])}
    assert {name for name in first if name.startswith("encoder.")}.isdisjoint(moved)
    assert {name for name in first if not name.startswith("encoder.")} == moved


def test_other_parts_of_as_many_parameters_are_refused_whatever_the_checkpoint_says_of_them(
    tiny: Args, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    main(tiny(**SHARED, model__frozen="[encoder.0]"))
    last = tmp_path / "run" / "checkpoints" / "last.ckpt"
    resumed = {**SHARED, "ckpt_path": last, "data__total_frames": 96, "model__frozen": "[encoder.2]"}
    assert "is of a run with model.frozen=['encoder.0'], this one has ['encoder.2']" in refused(tiny(**resumed), capsys)
    older = torch.load(last, weights_only=True)
    del older["gipo"]["frozen"]
    torch.save(older, last)
    assert "optimizer moves parameters of other shapes: model.frozen names other parts" in refused(
        tiny(**resumed), capsys
    )
    main(tiny(**resumed | {"model__frozen": "[encoder.0]"}))
    again = resumed | {"data__total_frames": 128}
    assert "model.frozen=['encoder.0'], this one has ['encoder']" in refused(
        tiny(**again | {"model__frozen": "[encoder]"}), capsys
    )
    main(tiny(**again | {"model__frozen": "[encoder.0,encoder.0.weight]"}))


@pytest.mark.parametrize(
    ("frozen", "said"),
    [
        (
            "[eyes]",
            "model.frozen names 'eyes', which holds nothing that learns; there are encoder.0, encoder.2, actor.0",
        ),
        ("[encoder.1]", "model.frozen names 'encoder.1', which holds nothing that learns"),
        ("[encoder,actor]", "leaves nothing of the policy to learn"),
        ("[critic]", "leaves nothing of the critic to learn"),
    ],
)
def test_names_that_hold_nothing_or_leave_nothing_are_refused(
    frozen: str, said: str, tiny: Args, capsys: pytest.CaptureFixture[str]
) -> None:
    assert said in refused(tiny(**SHARED | {"model__frozen": frozen}), capsys)
