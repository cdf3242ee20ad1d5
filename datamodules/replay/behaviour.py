"""Who acted, where a source does not say: latents from actions, and log-probs of a policy cloned from them."""

import math
import sys
from dataclasses import dataclass

import torch
from tensordict import TensorDict, TensorDictBase
from torch import Tensor
from torch.optim import Adam
from tqdm.auto import tqdm

from datamodules.ingest import Store
from datamodules.options import refuse_not_positive
from datamodules.replay.observation_moments import learn_moments
from gipo.common.errors import UserError
from gipo.policies import GaussianPolicy, Policy, build

CLONE = "with --model.objective=BehaviourCloning --model.kl_coef=0 (bc.yaml)"


@dataclass(frozen=True)
class BehaviourOptions:
    """A model of the policy that acted: the trained policy's class, fitted to the data by maximum likelihood.

    Args:
        epochs: passes over the data.
        lr: learning rate of Adam.
        batch: transitions per update.
        holdout: share of episodes kept out of fitting, on which the likelihood is reported.
    """

    epochs: int = 10
    lr: float = 1e-3
    batch: int = 512
    holdout: float = 0.1

    def __post_init__(self) -> None:
        refuse_not_positive("data.behaviour.", {"epochs": self.epochs, "lr": self.lr, "batch": self.batch})
        if not 0 < self.holdout < 1:
            raise UserError(f"data.behaviour.holdout must lie in (0, 1), got {self.holdout}")


def complete(
    store: Store, policy: Policy, options: BehaviourOptions | None, needs_behaviour: bool, seed: int
) -> TensorDictBase:
    """The transitions of a store, with `latent` and `log_prob` wherever its sources came without.

    Args:
        store: converted sources.
        policy: that is to learn from them.
        options: the behaviour model; used only where log-probs are missing.
        needs_behaviour: whether the objective, its anchor or the estimator reads log-probs; zeros will do otherwise.
        seed: of the fit.

    Raises:
        UserError: when log-probs are missing and no model is asked for, or the model is no better than chance.
    """
    frames = TensorDict(dict(store.frames.items()), batch_size=store.frames.batch_size)
    known = "latent" in frames.keys() and "log_prob" in frames.keys()
    if known:
        frames["latent"] = _own_where_none_was_chosen(policy, frames)
    if known and _are_latents_of(policy, frames):
        return frames
    if known and needs_behaviour:
        # They have log-probs, but not of this policy's latents.
        raise UserError(
            f"the logs are of another kind of policy than the {type(policy).__name__} to be trained: its latents do "
            "not give the logged actions; start from the checkpoint the robot's policy was exported from, or clone "
            f"its actions {CLONE}"
        )
    frames["latent"] = _latents(policy, frames["action"])
    frames["log_prob"] = (
        _modelled(frames, policy, options, seed) if needs_behaviour else torch.zeros_like(frames["action"])
    )
    return frames


def _modelled(frames: TensorDictBase, policy: Policy, options: BehaviourOptions | None, seed: int) -> Tensor:
    """Log-probs [M, D] of frames [M] under a model of who acted, of which is told how good it is."""
    if frames["action"].ndim > 2:
        raise UserError(
            "the logs hold no behaviour log-probs, and who decided on chunks by images is not modelled; clone them "
            f"{CLONE}"
        )
    if not frames["valid"].any():
        raise UserError(f"no policy decided in any step of the logs, which ratios are of; clone who did {CLONE}")
    if options is None:
        raise UserError(
            "the logs hold no behaviour log-probs, which ratios, the anchor and V-trace need; set "
            f"data.behaviour.epochs=10 to fit a model of who acted, or clone them {CLONE}"
        )
    model, train, held_out, chance = fit(frames, policy, options, seed)
    print(
        f"gipo: behaviour model: {held_out:.2f} nats a dimension on held-out episodes, {train:.2f} on the others, "
        f"{chance:.2f} by chance",
        file=sys.stderr,
    )
    if not held_out > chance:  # which is no number where learning blew up
        many = "fewer epochs, as it explains those that it was fitted to" if train > chance else "more epochs"
        fix = "a lower lr, with which it does not blow up" if math.isnan(train) else many
        raise UserError(
            f"the behaviour model explains held-out actions no better than chance ({held_out:.2f} against {chance:.2f} "
            f"nats a dimension); give data.behaviour {fix}, or the data is too little for ratios"
        )
    return _log_prob(model, frames["observation"], frames["latent"])


def fit(
    frames: TensorDictBase, policy: Policy, options: BehaviourOptions, seed: int
) -> tuple[Policy, float, float, float]:
    """A policy like `policy`, newly initialised and cloned from frames [M].

    Returns:
        The model; its mean log-prob per dimension on the fitted and on the held-out episodes, and that of the same
        distribution without any knowledge of the observation. Nats.
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = build(policy.description())
    if model.normaliser is not None and policy.normaliser is not None:
        model.normaliser.floor.copy_(policy.normaliser.floor)  # a weight, of which the description says nothing
    generator = torch.Generator().manual_seed(seed)
    observation, latent = frames["observation"], frames["latent"]
    valid = frames["valid"].nonzero().squeeze(-1)
    episodes = frames["episode"][valid].unique()
    if len(episodes) < 2:
        raise UserError("a behaviour model needs at least two episodes: one to fit, one to test it on")
    count = max(1, int(options.holdout * len(episodes)))
    kept_out = episodes[torch.randperm(len(episodes), generator=generator)[:count]]
    held = torch.isin(frames["episode"][valid], kept_out)
    train, test = valid[~held], valid[held]
    learn_moments(model, observation, train)
    optimizer = Adam(model.actor_parameters(), lr=options.lr)
    updates = options.epochs * -(-len(train) // options.batch)
    with tqdm(total=updates, desc="behaviour model", unit="update", leave=False) as bar:
        for _ in range(options.epochs):
            for rows in train[torch.randperm(len(train), generator=generator)].split(options.batch):
                loss = -model.log_prob(model.params(observation[rows]), latent[rows]).mean()
                optimizer.zero_grad()
                loss.backward()
                optimizer.step()
                bar.update()
    model.eval()
    fitted, held_out = (float(_log_prob(model, observation[rows], latent[rows]).mean()) for rows in (train, test))
    return model, fitted, held_out, chance_level(model, latent[train], latent[test])


@torch.no_grad()
def _log_prob(model: Policy, observation: Tensor, latent: Tensor) -> Tensor:
    parts = zip(observation.split(model.network.rows_at_once), latent.split(model.network.rows_at_once), strict=True)
    return torch.cat([model.log_prob(model.params(seen), chosen) for seen, chosen in parts])


def chance_level(model: Policy, train: Tensor, test: Tensor) -> float:
    """Mean log-prob of latents `test` [N, D] under the best blind `model` of `train` [M, D], nats a dimension."""
    if isinstance(model, GaussianPolicy):
        # Within the scales that the model can have: else a dimension that never moves would be beyond it.
        std = train.std(0, correction=0).clamp(model.std_min, model.std_max)
        return float(torch.distributions.Normal(train.mean(0), std).log_prob(test).mean())
    bins = model.parameters_per_dimension
    counts = torch.stack([column.bincount(minlength=bins) for column in train.unbind(-1)])
    # Add-one smoothing: a bin that was never chosen is rare, not impossible.
    log_mu = ((counts + 1) / (len(train) + bins)).log()
    return float(log_mu.gather(1, test.T).mean())


@torch.no_grad()
def _latents(policy: Policy, action: Tensor) -> Tensor:
    """Latents [M, D] of actions [M, D], on their device."""
    return policy.from_env(action.to(policy.version.device)).to(action.device)


@torch.no_grad()
def _own_where_none_was_chosen(policy: Policy, frames: TensorDictBase) -> Tensor:
    """Latents [M, D] of frames [M] that are `policy`'s wherever nobody chose one by sampling.

    A log has some there too, as of a person's action: of the policy that looked on, which may be of another kind.
    """
    latent, other = frames["latent"], ~frames["valid"]
    if other.all():
        return _latents(policy, frames["action"])
    if not other.any() or latent.dtype != policy.latent_dtype:
        return latent
    own = latent.clone()
    own[other] = _latents(policy, frames["action"][other])
    return own


@torch.no_grad()
def _are_latents_of(policy: Policy, frames: TensorDictBase) -> bool:
    """Whether the policy would make the logged actions of the logged latents, wherever it is said to have chosen."""
    if frames["latent"].dtype != policy.latent_dtype:
        return False
    width = policy.action_high - policy.action_low
    for rows in torch.arange(len(frames)).split(policy.network.rows_at_once):
        latent, action, valid = (frames[key][rows].to(width.device) for key in ("latent", "action", "valid"))
        if (((policy.to_env(latent) - action).abs() > 1e-4 * width)[valid]).any():
            return False
    return True
