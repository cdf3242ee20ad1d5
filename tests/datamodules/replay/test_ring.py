"""The replay buffer: order within episodes, eviction, refresh, sampling, refusals, size."""

import pytest
import torch
from tensordict import TensorDict
from torchrl.data.replay_buffers import PrioritizedSampler, StalenessAwareSampler

from datamodules.advantages import GAE, VTrace
from datamodules.replay.ring import LEARNER_KEYS, Replay, check_replay, completed, refuse_bad_buffer
from gipo.common.errors import UserError
from gipo.common.transition import BATCH, REPLAY
from gipo.policies import Policy, Spaces, TokenPolicy
from tests.contract import assert_contract

D, BINS = 2, 8
SPACES = Spaces(3, (-1.0,) * D, (1.0,) * D)


@pytest.fixture
def policy() -> Policy:
    torch.manual_seed(0)
    return TokenPolicy(SPACES, bins=BINS, normalise=False)


def episode(number: int, steps: range, ends: str = "", version: int = 0) -> TensorDict:
    """Frames `steps` of an episode whose observation t+1 follows on t; `ends` terminated or truncated."""
    generator = torch.Generator().manual_seed(1000 * number + steps.start)
    count = len(steps)
    path = torch.stack([torch.tensor([number, step, 1.0]) for step in range(steps.start, steps.stop + 1)])
    flags = {name: torch.zeros(count, dtype=torch.bool) for name in ("terminated", "truncated")}
    if ends:
        flags[ends][-1] = True
    return TensorDict(
        {
            "observation": path[:-1].clone(),
            "latent": torch.randint(BINS, (count, D), generator=generator),
            "action": torch.zeros(count, D),
            "log_prob": -torch.rand(count, D, generator=generator),
            "policy_version": torch.full((count,), version),
            "valid": torch.ones(count, dtype=torch.bool),
            "episode": torch.full((count,), number),
            "step": torch.arange(steps.start, steps.stop),
            "next": {
                "observation": path[1:].clone(),
                "reward": torch.rand(count, generator=generator),
                **flags,
                "done": flags["terminated"] | flags["truncated"],
            },
        },
        batch_size=[count],
    )


def reference(frames: TensorDict, policy: Policy, gamma: float, lam: float, scale: float = 1.0) -> torch.Tensor:
    """GAE of one unbroken stretch of one episode, by a loop."""
    value, following = policy.value(frames["observation"]), policy.value(frames["next", "observation"])
    advantage = torch.zeros(len(frames))
    trace = torch.zeros(())
    for t in reversed(range(len(frames))):
        alive = 1.0 - float(frames["next", "terminated"][t])
        delta = scale * frames["next", "reward"][t] + gamma * alive * following[t] - value[t]
        trace = delta + gamma * lam * trace * (1.0 - float(frames["next", "done"][t]))
        advantage[t] = trace
    return advantage.detach()


def test_what_is_kept_follows_the_data_contract(policy: Policy) -> None:
    replay = Replay(100, GAE())
    replay.extend(episode(0, range(5), "terminated"), policy)
    kept = replay.buffer[:]
    assert_contract(kept.exclude("index"), REPLAY, {"O": 3, "D": D})
    assert_contract(replay.sample(1, 4, 0)[0], BATCH, {"O": 3, "D": D})


def test_who_chose_is_the_policy_also_in_frames_of_an_older_checkpoint(policy: Policy) -> None:
    frames = episode(0, range(5), "terminated")
    frames["valid"][2] = False
    older, newer = Replay(100, GAE()), Replay(100, GAE())
    older.extend(frames, policy)
    state = older.state_dict()
    del state["frames"]["source"]
    newer.load_state_dict(state)
    newer.extend(episode(1, range(3)), policy)
    kept = newer.buffer[:]
    assert (kept["source"].dtype, kept["source"].tolist()) == (torch.int8, [0, 0, -1, 0, 0, 0, 0, 0])


def test_of_a_chunk_who_chose_is_said_for_each_step() -> None:
    executed = torch.tensor([[True, True], [True, False], [True, True]])
    frames = TensorDict({"valid": executed, "policy_version": torch.tensor([0, 5, -1])}, [3])
    assert completed(frames)["source"].tolist() == [[0, 0], [0, -1], [-1, -1]]


def by_step(replay: Replay, number: int) -> TensorDict:
    frames = replay.buffer[:]
    mine = frames[frames["episode"] == number]
    return mine[mine["step"].argsort()]


def refreshed(replay: Replay, policy: Policy, *chunks: TensorDict) -> Replay:
    for chunk in chunks:
        replay.extend(chunk, policy)
    replay.refresh(policy)
    return replay


@pytest.mark.parametrize("ends", ["", "terminated", "truncated"])
def test_a_single_episode_has_its_reference_advantages(ends: str, policy: Policy) -> None:
    replay = refreshed(Replay(64, GAE(0.9, 0.8), reward_scale=0.5), policy, episode(1, range(20), ends))
    frames = by_step(replay, 1)
    expected = reference(frames, policy, 0.9, 0.8, scale=0.5)
    assert torch.allclose(frames["advantage"], expected, atol=1e-5)
    assert torch.allclose(frames["value_target"], expected + policy.value(frames["observation"]), atol=1e-5)
    assert float(frames["next", "reward"].max()) > 0.5  # the buffer keeps raw rewards


def test_interleaved_episodes_in_many_chunks_are_put_in_order(policy: Policy) -> None:
    chunks = []
    for start in range(0, 20, 5):  # three simulators, five steps a chunk
        ends = "terminated" if start == 15 else ""
        chunks += [torch.cat([episode(n, range(start, start + 5), ends if n == 2 else "") for n in (1, 2, 3)])]
    replay = refreshed(Replay(64, GAE(0.9, 0.8)), policy, *chunks)
    for number in (1, 2, 3):
        frames = by_step(replay, number)
        assert torch.allclose(frames["advantage"], reference(frames, policy, 0.9, 0.8), atol=1e-5)


def test_after_wrap_around_the_evicted_beginning_of_an_episode_changes_nothing(policy: Policy) -> None:
    chunks = [torch.cat([episode(n, range(start, start + 4)) for n in (1, 2)]) for start in range(0, 24, 4)]
    replay = refreshed(Replay(20, GAE(0.9, 0.8)), policy, *chunks)  # 48 frames into 20 rows: the ring wraps twice
    assert len(replay) == 20
    for number in (1, 2):
        frames = by_step(replay, number)
        assert int(frames["step"][-1]) == 23
        whole = (frames["step"].diff() == 1).all()
        pieces = [frames] if whole else [frames[:-8], frames[-8:]]
        assert torch.allclose(
            frames["advantage"], torch.cat([reference(piece, policy, 0.9, 0.8) for piece in pieces]), atol=1e-5
        )


def test_a_gap_in_the_steps_cuts_the_trace(policy: Policy) -> None:
    replay = refreshed(Replay(64, GAE(0.9, 0.8)), policy, episode(1, range(5)), episode(1, range(7, 12)))
    frames = by_step(replay, 1)
    pieces = [reference(frames[:5], policy, 0.9, 0.8), reference(frames[5:], policy, 0.9, 0.8)]
    assert torch.allclose(frames["advantage"], torch.cat(pieces), atol=1e-5)


@pytest.mark.parametrize("ends", ["terminated", "truncated"])
def test_an_end_cuts_the_trace_though_the_steps_go_on(ends: str, policy: Policy) -> None:
    replay = refreshed(Replay(64, GAE(0.9, 0.8)), policy, episode(1, range(5), ends), episode(1, range(5, 12)))
    frames = by_step(replay, 1)
    assert torch.allclose(frames["advantage"], reference(frames, policy, 0.9, 0.8), atol=1e-5)


def test_recomputed_advantages_follow_the_critic_and_stored_ones_do_not(policy: Policy) -> None:
    chunk = episode(1, range(10))
    recompute = refreshed(Replay(64, GAE()), policy, chunk)
    stored = refreshed(Replay(64, GAE(), advantages="stored"), policy, chunk)
    before = by_step(stored, 1)["advantage"].clone()
    assert torch.allclose(by_step(recompute, 1)["advantage"], before, atol=1e-6)
    with torch.no_grad():
        policy.network.critic[-1].bias += 1.0
    recompute.refresh(policy)
    stored.refresh(policy)
    assert torch.equal(by_step(stored, 1)["advantage"], before)
    assert not torch.allclose(by_step(recompute, 1)["advantage"], before, atol=1e-2)


def test_stored_advantages_bootstrap_the_end_of_their_chunk(policy: Policy) -> None:
    replay = Replay(64, GAE(0.9, 0.8), advantages="stored")
    replay.extend(episode(1, range(5)), policy)
    replay.extend(episode(1, range(5, 10)), policy)
    frames = by_step(replay, 1)
    pieces = [reference(frames[:5], policy, 0.9, 0.8), reference(frames[5:], policy, 0.9, 0.8)]
    assert torch.allclose(frames["advantage"], torch.cat(pieces), atol=1e-5)


def test_vtrace_reads_the_policy_of_the_moment(policy: Policy) -> None:
    replay = refreshed(Replay(64, VTrace()), policy, episode(1, range(10)))
    before = by_step(replay, 1)["value_target"].clone()
    with torch.no_grad():
        policy.network.actor[-1].bias.normal_(0, 2)
    replay.refresh(policy)
    assert not torch.allclose(by_step(replay, 1)["value_target"], before, atol=1e-2)


@pytest.mark.parametrize("params", [False, True])
def test_samples_are_ready_batches(params: bool, policy: Policy) -> None:
    frames = episode(1, range(10))
    if params:
        frames["behaviour_params"] = torch.zeros(10, D, BINS, dtype=torch.float16)
    batch = refreshed(Replay(64, GAE()), policy, frames).sample(3, 7, version=0)
    assert batch.batch_size == (3, 7)
    assert set(batch.keys()) == {*LEARNER_KEYS, *(["behaviour_params"] if params else [])}
    assert torch.isfinite(batch["advantage"]).all()
    assert torch.isfinite(batch["value_target"]).all()


def test_sampling_depends_on_its_own_seed_alone(policy: Policy) -> None:
    def drawn(seed: int) -> torch.Tensor:
        torch.manual_seed(torch.randint(1000, ()).item())
        return refreshed(Replay(64, GAE(), seed=seed), policy, episode(1, range(30))).sample(1, 50, 0)["observation"]

    assert torch.equal(drawn(3), drawn(3))
    assert not torch.equal(drawn(3), drawn(4))


def test_staleness_aware_sampling_prefers_fresh_frames(policy: Policy) -> None:
    old, new = episode(1, range(20), version=0), episode(2, range(20), version=50)
    replay = refreshed(Replay(64, GAE(), sampler=StalenessAwareSampler()), policy, old, new)
    versions = replay.sample(1, 1000, version=50)["policy_version"]
    assert (versions == 50).float().mean() > 0.8


def test_a_resumed_buffer_draws_by_the_options_of_this_run(policy: Policy) -> None:
    old, new = episode(1, range(8), version=0), episode(2, range(8), version=5)
    one = refreshed(Replay(64, GAE(), sampler=StalenessAwareSampler()), policy, old, new)
    assert one.sample(4, 16, version=5)["policy_version"].unique().tolist() == [0, 5]
    two = Replay(64, GAE(), sampler=StalenessAwareSampler(max_staleness=2))
    two.load_state_dict(one.state_dict())
    assert two.sample(4, 16, version=5)["policy_version"].unique().tolist() == [5]


def test_a_sampler_that_would_leave_out_everything_is_refused_by_the_age_of_the_newest(policy: Policy) -> None:
    replay = Replay(64, GAE(), sampler=StalenessAwareSampler(max_staleness=2))
    replay = refreshed(replay, policy, episode(1, range(9), version=0), episode(2, range(9), version=5))
    assert (replay.sample(1, 40, version=7)["policy_version"] == 5).all()
    with pytest.raises(UserError, match=r"max_staleness=2 leaves out all .* newest is 3 versions old"):
        replay.sample(1, 40, version=8)


@pytest.mark.parametrize("key", ["observation", ("next", "observation"), ("next", "reward"), "log_prob"])
@pytest.mark.parametrize("value", [torch.nan, torch.inf, -torch.inf])
def test_non_finite_frames_are_refused_and_nothing_is_stored(
    key: str | tuple[str, str], value: float, policy: Policy
) -> None:
    frames = episode(7, range(3, 9))
    frames[key][2] = value
    replay = Replay(64, GAE())
    name = key if isinstance(key, str) else "/".join(key)
    with pytest.raises(UserError, match=f"non-finite {name} at step 5 of episode 7"):
        replay.extend(frames, policy)
    assert len(replay) == 0


def test_a_buffer_may_hold_one_iteration_and_no_less() -> None:
    refuse_bad_buffer(8, 8, "recompute", GAE(), 1)
    with pytest.raises(UserError, match=r"data\.capacity=7 cannot hold one iteration of 8 transitions"):
        refuse_bad_buffer(7, 8, "recompute", GAE(), 1)


def test_capacity_must_be_positive() -> None:
    with pytest.raises(UserError, match="capacity"):
        Replay(0, GAE())


@pytest.mark.parametrize("frames", [10, 64, 100])
def test_state_comes_back_and_sampling_goes_on(frames: int, policy: Policy) -> None:
    one, two = Replay(64, GAE(), seed=1), Replay(64, GAE(), seed=2)
    for start in range(0, frames, 10):
        one.extend(episode(1, range(start, min(start + 10, frames))), policy)
    one.refresh(policy)
    one.sample(1, 5, 0)
    state = one.state_dict()
    assert len(state["frames"]["episode"]) == min(frames, 64)
    two.load_state_dict(state)
    for replay in (one, two):
        replay.extend(episode(2, range(30)), policy)
        replay.refresh(policy)
    first, second = one.sample(2, 40, 0), two.sample(2, 40, 0)
    assert all(torch.equal(first[key], second[key]) for key in LEARNER_KEYS)


def test_a_larger_buffer_takes_up_a_full_ring_from_its_oldest_frame_on(policy: Policy) -> None:
    small, large = Replay(8, GAE()), Replay(12, GAE())
    for part in (range(8), range(8, 11)):
        small.extend(episode(0, part), policy)
    large.load_state_dict(small.state_dict())
    assert large.buffer[:]["step"].tolist() == [*range(3, 11)]
    large.extend(episode(0, range(11, 17)), policy)
    assert sorted(large.buffer[:]["step"].tolist()) == [*range(5, 17)]  # the oldest have left first


def test_the_state_of_an_empty_buffer_comes_back(policy: Policy) -> None:
    replay = Replay(64, GAE())
    replay.load_state_dict(Replay(64, GAE(), seed=5).state_dict())
    assert len(replay) == 0
    refreshed(replay, policy, episode(1, range(10))).sample(1, 4, 0)


def test_state_too_large_or_of_another_kind_is_refused(policy: Policy) -> None:
    replay = Replay(64, GAE())
    replay.extend(episode(1, range(20)), policy)
    check_replay(replay.state_dict(), 20, store_params=False)
    with pytest.raises(UserError, match=r"holds 20 transitions, data\.capacity is 19"):
        check_replay(replay.state_dict(), 19, store_params=False)
    with pytest.raises(UserError, match="store_params=false"):
        check_replay(replay.state_dict(), 64, store_params=True)


def test_samples_drawn_on_another_kind_of_device_are_not_resumed(policy: Policy) -> None:
    replay = Replay(64, GAE())
    replay.extend(episode(1, range(20)), policy)
    state = replay.state_dict()
    check_replay(state, 64, store_params=False, device=torch.device("cpu"))
    with pytest.raises(UserError, match=r"samples on cpu, this one would on cuda.*data\.replay_device"):
        check_replay(state, 64, store_params=False, device=torch.device("cuda:0"))
    generator, _ = state["buffer"]["_rng"]
    state["buffer"]["_rng"] = (generator, "cuda:1")
    check_replay(state, 64, store_params=False, device=torch.device("cuda:0"))
    check_replay(state, 64, store_params=False)  # where the learner will be is not known yet


def test_a_transition_takes_at_most_600_bytes() -> None:
    """MetaWorld's sizes, no distribution parameters."""
    size, dims = 39, 4
    policy = TokenPolicy(Spaces(size, (-1.0,) * dims, (1.0,) * dims))
    frames = episode(1, range(10))
    for key, width in (("observation", size), (("next", "observation"), size), ("action", dims), ("log_prob", dims)):
        frames[key] = torch.zeros(10, width)
    frames["latent"] = torch.zeros(10, dims, dtype=torch.int64)
    replay = Replay(10, GAE())
    replay.extend(frames, policy)
    stored = replay.buffer[:]
    total = sum(value.numel() * value.element_size() for value in stored.values(True, True))
    assert total / 10 <= 600


def test_frames_are_valued_on_arrival_unless_a_refresh_follows(policy: Policy) -> None:
    replay = refreshed(Replay(64, GAE()), policy, episode(1, range(8)))
    before = by_step(replay, 1)["advantage"].clone()
    replay.extend(episode(2, range(8)), policy)
    assert replay.sample(4, 16, version=0)["advantage"].isfinite().all()
    assert torch.equal(by_step(replay, 1)["advantage"], before)
    replay.extend(episode(3, range(8)), policy, refresh_follows=True)
    assert by_step(replay, 3)["advantage"].isnan().all()


def test_a_sampler_whose_priorities_nobody_updates_is_refused() -> None:
    given = PrioritizedSampler.__new__(PrioritizedSampler)  # without TorchRL's compiled trees
    with pytest.raises(UserError, match=r"data\.sampler=PrioritizedSampler draws by priorities, which nothing here"):
        Replay(8, GAE(), sampler=given)
