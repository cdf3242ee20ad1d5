"""The precision that a run takes by itself: bfloat16 where this processor multiplies faster so."""

from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
import yaml

from gipo.cli import main
from gipo.commands.fit import cli, precision
from gipo.commands.fit.precision import LOWERED, SINGLE, default_precision, precision_of, share_of_time
from gipo.commands.studies.pipeline.versions import IN_FLOAT32
from gipo.common.checkpoint_head import read_head

AMX, AVX512, OLD = {"amx_bf16": True, "avx512_bf16": True}, {"avx512_bf16": True}, {"avx512_bf16": False}


@pytest.mark.parametrize(
    ("accelerator", "capabilities", "share", "expected"),
    [
        ("cpu", AMX, 0.1, LOWERED),
        ("cpu", AVX512, 0.2, LOWERED),  # as on a Zen 5
        ("cpu", AVX512, 2.0, SINGLE),  # as on a Xeon without tiles
        ("cpu", AVX512, 0.7, SINGLE),
        ("cpu", OLD, 0.1, SINGLE),
        ("gpu", AMX, 0.1, SINGLE),
        ("cpu", None, 0.1, SINGLE),
    ],
)
def test_it_is_bfloat16_where_products_are_faster(
    accelerator: str, capabilities: dict[str, bool] | None, share: float, expected: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    if capabilities is None:  # an older torch, which cannot say
        monkeypatch.delattr(torch.cpu, "get_capabilities", raising=False)
    else:
        monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: capabilities, raising=False)
    monkeypatch.setattr(precision, "share_of_time", lambda: share)
    assert default_precision(accelerator) == expected


def test_several_learners_do_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: AMX, raising=False)
    monkeypatch.setattr(precision, "share_of_time", lambda: 0.1)
    monkeypatch.delenv("RANK", raising=False)
    assert default_precision("cpu", alone=False) == SINGLE
    for devices, nodes, expected in (("auto", 1, True), (1, 1, True), ("1", 1, True), (2, 1, False), (1, 2, False)):
        assert cli._is_alone(SimpleNamespace(devices=devices, num_nodes=nodes)) == expected
    monkeypatch.setenv("RANK", "0")  # as torchrun tells each
    assert not cli._is_alone(SimpleNamespace(devices=1, num_nodes=1))


def test_both_products_are_timed(monkeypatch: pytest.MonkeyPatch) -> None:
    """By a clock in which every product in float32 takes 3 s and every one in bfloat16 takes 1 s."""
    ends = (10.0 * turn + end for turn in range(precision.REPEATS) for end in (0, 3, 5, 6))
    monkeypatch.setattr(precision, "time", SimpleNamespace(perf_counter=ends.__next__))
    assert share_of_time() == pytest.approx(1 / 3)


@pytest.mark.usefixtures("no_plot")
def test_what_a_run_has_taken_is_said_and_kept(
    tiny: Callable[..., list[str]], tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: AVX512, raising=False)
    for share, taken in ((0.2, LOWERED), (2.0, SINGLE)):
        monkeypatch.setattr(precision, "share_of_time", lambda share=share: share)
        options = {"data__task": "Tiny-v0", "data__total_frames": 32, "trainer__precision": None}
        main(tiny(taken, **options))
        assert ("in bfloat16" in capsys.readouterr().err) == (taken == LOWERED)
        assert yaml.safe_load((tmp_path / taken / "config.yaml").read_text())["trainer"]["precision"] == taken


@pytest.mark.usefixtures("no_plot")
def test_a_resumed_run_keeps_its_own_whatever_the_processor_is_measured_to_do(
    tiny: Callable[..., list[str]], tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: AVX512, raising=False)
    for share, other, taken in ((0.2, 2.0, LOWERED), (2.0, 0.2, SINGLE)):
        options = {"data__task": "Tiny-v0", "trainer__precision": None}
        monkeypatch.setattr(precision, "share_of_time", lambda share=share: share)
        main(tiny(taken, **options, data__total_frames=32))
        assert ("in bfloat16" in capsys.readouterr().err) == (taken == LOWERED)
        monkeypatch.setattr(precision, "share_of_time", lambda share=other: share)
        last = tmp_path / taken / "checkpoints" / "last.ckpt"
        main([*tiny(taken, **options, data__total_frames=64), f"--ckpt_path={last}"])
        assert "in bfloat16" not in capsys.readouterr().err
        assert read_head(last).precision == taken
        assert yaml.safe_load((tmp_path / taken / "config.yaml").read_text())["trainer"]["precision"] == taken


def test_what_a_run_had_counts_where_it_can_be_had(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: OLD, raising=False)
    trainer = {"accelerator": "cpu"}
    assert precision_of(trainer, LOWERED, alone=True) == LOWERED
    assert precision_of(trainer, LOWERED, alone=False) == LOWERED
    assert precision_of(trainer, "16-mixed", alone=True) == SINGLE  # of a GPU
    assert precision_of(trainer, None, alone=True) == SINGLE


def test_runs_of_a_study_have_the_one_of_float32() -> None:
    assert f"--trainer.precision={SINGLE}" == IN_FLOAT32
