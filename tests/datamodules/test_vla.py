"""Chunks of actions in an environment with TorchRL's VLA keys, and the whole way from collection to evaluation."""

from pathlib import Path

import pytest
import torch
from torchrl.envs import check_env_specs

from datamodules.collect.rollouts import Collection, InProcessRollouts
from datamodules.vla import ToyVLA
from gipo.cli import main
from gipo.common.errors import UserError
from gipo.vla.observations import VLASpaces
from gipo.vla.policies import VLATokenPolicy
from gipo.vla.tiny import TinyVLANetworks
from tests.crash import crash
from tests.fingerprint import fingerprints

TASK = ToyVLA(chunk=4, success_steps=3, max_steps=10)


def test_its_specs_are_true() -> None:
    check_env_specs(TASK.make(3, seed=0))
    assert TASK.spaces(TASK.make(2, 0)) == VLASpaces((3, 16, 16), 4, (-1.0, -1.0), (1.0, 1.0), 4)
    assert TASK.horizon == 3


def test_equal_seeds_give_equal_targets() -> None:
    one, same, other = (TASK.make(3, seed).reset()["observation", "state"] for seed in (0, 0, 1))
    assert torch.equal(one, same)
    assert not torch.equal(one, other)


@pytest.mark.parametrize("options", [{"chunk": 0}, {"success_steps": 0}, {"max_steps": 0}, {"success_tol": 0.6}])
def test_impossible_options_are_refused(options: dict[str, float]) -> None:
    with pytest.raises(UserError, match=r"data\.task\."):
        ToyVLA(**options)  # type: ignore[arg-type]


def test_collected_chunks_follow_the_data_contract() -> None:
    policy = VLATokenPolicy(TASK.spaces(TASK.make(1, 0)), bins=8, network=lambda s, o: TinyVLANetworks(s, o, 16))
    rollouts = InProcessRollouts(Collection(TASK, 4, 24, policy, store_params=True))
    frames = rollouts.collect()
    rollouts.close()
    assert frames.batch_size == (24,)
    shapes = {
        "latent": (24, 4, 2), "action": (24, 4, 2), "log_prob": (24, 4, 2), "valid": (24, 4), "executed": (24, 4),
        "behaviour_params": (24, 4, 2, 8), "policy_version": (24,), "step": (24,),
    }  # fmt: skip
    assert {name: tuple(frames[name].shape) for name in shapes} == shapes
    assert frames["next", "reward"].shape == (24, 4)
    assert frames["observation", "image"].dtype == frames["next", "observation", "image"].dtype == torch.uint8
    assert torch.equal(frames["valid"], frames["executed"])
    assert torch.equal(frames["action"], policy.to_env(frames["latent"]))
    with torch.no_grad():
        found = policy.log_prob(policy.params(frames["observation"]), frames["latent"])
    torch.testing.assert_close(found, frames["log_prob"], atol=1e-5, rtol=1e-5)
    assert torch.equal(frames["privileged"], frames["observation", "state"][:, 2:])
    assert torch.equal(frames["next", "privileged"], frames["next", "observation", "state"][:, 2:])
    cut = frames["next", "truncated"]
    assert cut.any()
    assert (frames["executed"][cut].sum(-1) == 2).all()  # ten steps are two chunks and a half
    for episode in frames["episode"].unique():
        assert frames["step"][frames["episode"] == episode].tolist() == list(
            range(len(frames[frames["episode"] == episode]))
        )


def arguments(folder: Path, frames: int, **options: object) -> list[str]:
    chosen: dict[str, object] = {
        "config": "toy_vla.yaml", "trainer.default_root_dir": folder, "trainer.precision": "32-true",
        "data.total_frames": frames, "data.frames_per_iteration": 16, "data.capacity": 40, "data.rounds": 1,
        "data.batch": 16,
        "data.collector.num_envs": 4, "data.evaluation.num_envs": 2, "data.evaluation.episodes": 2,
        "data.evaluation.test_episodes": 3, "checkpoint.every": 1, "model.policy.bins": 8,
        "model.policy.network": "gipo.vla.tiny.TinyVLANetworks", "model.policy.network.hidden": 16,
    }  # fmt: skip
    return ["fit", *(f"--{name}={value}" for name, value in (chosen | options).items())]


@pytest.mark.usefixtures("no_plot")
def test_a_crashed_run_resumes_bit_for_bit_and_is_evaluated(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    option: dict[str, object] = {"model.critic": "privileged"}
    main(arguments(tmp_path / "whole", 64, **option))
    crash(arguments(tmp_path / "again", 64, **option), 3)
    last = tmp_path / "again" / "checkpoints" / "last.ckpt"
    main([*arguments(tmp_path / "again", 64, **option), f"--ckpt_path={last}"])
    assert fingerprints(last) == fingerprints(tmp_path / "whole" / "checkpoints" / "last.ckpt")
    main(["test", f"--config={tmp_path / 'again' / 'config.yaml'}", f"--ckpt_path={last}"])
    assert "over 3 episodes" in capsys.readouterr().out
    kept = torch.load(last, weights_only=True)["OnlineDataModule"]["replay"]["frames"]
    assert {"privileged", "next.privileged"} <= set(kept)
    with pytest.raises(SystemExit):
        main([*arguments(tmp_path / "again", 80, **{"model.critic": "observation"}), f"--ckpt_path={last}"])
    assert "leave it out, or start a new run from its policy with --model.init_from" in capsys.readouterr().err


VARIANTS: dict[str, dict[str, object]] = {
    "V-trace": {"data.estimator": "datamodules.advantages.VTrace"},
    "an objective that groups tokens by entropy": {
        "data.store_params": "true", "model.objective": "gipo.baselines.ESPO", "model.kl_exact": "true",
    },
    "Gaussian chunks": {"model.policy": "gipo.vla.policies.VLAGaussianPolicy", "model.policy.std_min": 0.1},
    "chunks of one action": {"data.task.chunk": 1},
    "value-only reuse": {"model.reuse": 2, "model.actor_every": 2, "model.entropy_coef": 0.01},
}  # fmt: skip


@pytest.mark.usefixtures("no_plot")
@pytest.mark.parametrize("name", VARIANTS)
def test_whatever_else_is_chosen_it_trains(name: str, tmp_path: Path) -> None:
    options = VARIANTS[name]
    args = arguments(tmp_path / "run", 48, **options)
    if "Gaussian" in name:
        args = [arg for arg in args if "bins" not in arg]
    main(args)
    state = torch.load(tmp_path / "run" / "checkpoints" / "last.ckpt", weights_only=True)
    assert state["OnlineDataModule"]["iteration"] == 3
    assert int(state["state_dict"]["skipped"]) == 0
    assert int(state["state_dict"]["policy.version"]) == 3
    kept = state["OnlineDataModule"]["replay"]["frames"]
    assert "privileged" not in kept, "it takes memory only where it is learned from"


def test_a_policy_of_other_chunks_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    main(arguments(tmp_path / "run", 16))
    last = tmp_path / "run" / "checkpoints" / "last.ckpt"
    with pytest.raises(SystemExit):
        main([*arguments(tmp_path / "run", 32, **{"data.task.chunk": 2}), f"--ckpt_path={last}"])
    assert "holds another policy" in capsys.readouterr().err
