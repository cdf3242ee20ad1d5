"""Who acted, where a source does not say: latents from actions, and log-probs of a policy cloned from them."""

import sys
from dataclasses import dataclass

import torch
from tensordict import TensorDict, TensorDictBase
from torch import Tensor
from torch.optim import Adam
from tqdm.auto import tqdm

from datamodules.ingest import Store
from datamodules.options import refuse_not_positive
from datamodules.valuation import CHUNK
from gipo.errors import GipoError
from gipo.policies import Policy, build


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
            raise GipoError(f"data.behaviour.holdout must lie in (0, 1), got {self.holdout}")


def complete(
    store: Store, policy: Policy, options: BehaviourOptions | None, needs_behaviour: bool, seed: int
) -> TensorDictBase:
    """The transitions of a store, with `latent` and `log_prob` wherever its sources came without.

    Args:
        store: converted sources.
        policy: that is to learn from them.
        options: the behaviour model; used only where log-probs are missing.
        needs_behaviour: whether the objective reads log-probs; zeros will do otherwise.
        seed: of the fit.

    Raises:
        GipoError: when log-probs are missing and no model is asked for, or the model is no better than chance.
    """
    frames = TensorDict(dict(store.frames.items()), batch_size=store.frames.batch_size)
    known = "latent" in frames.keys() and "log_prob" in frames.keys()
    if known:
        _refuse_other_latents(store, policy)
        return frames
    with torch.no_grad():
        frames["latent"] = policy.from_env(frames["action"])
    if not needs_behaviour:
        frames["log_prob"] = torch.zeros_like(frames["action"])
        return frames
    if options is None:
        raise GipoError(
            "the logs hold no behaviour log-probs, which ratios need; set data.behaviour.epochs=10 to fit a model of "
            "who acted, or clone them with --model.objective=BehaviourCloning (bc.yaml)"
        )
    model, train, held_out, chance = fit(frames, policy, options, seed)
    print(
        f"gipo: behaviour model: {held_out:.2f} nats a dimension on held-out episodes, {train:.2f} on the others, "
        f"{chance:.2f} by chance",
        file=sys.stderr,
    )
    if held_out <= chance:
        raise GipoError(
            f"the behaviour model explains held-out actions no better than chance ({held_out:.2f} against {chance:.2f} "
            "nats a dimension); give data.behaviour more epochs, or the data is too little for ratios"
        )
    frames["log_prob"] = _log_prob(model, frames)
    return frames


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
    generator = torch.Generator().manual_seed(seed)
    valid = frames["valid"].nonzero().squeeze(-1)
    episodes = frames["episode"][valid].unique()
    if len(episodes) < 2:
        raise GipoError("a behaviour model needs at least two episodes: one to fit, one to test it on")
    count = max(1, int(options.holdout * len(episodes)))
    kept_out = episodes[torch.randperm(len(episodes), generator=generator)[:count]]
    held = torch.isin(frames["episode"][valid], kept_out)
    train, test = valid[~held], valid[held]
    if model.normaliser is not None:
        for rows in train.split(CHUNK):
            model.normaliser.update(frames["observation"][rows])
    optimizer = Adam(model.actor_parameters(), lr=options.lr)
    updates = options.epochs * -(-len(train) // options.batch)
    with tqdm(total=updates, desc="behaviour model", unit="update", leave=False) as bar:
        for _ in range(options.epochs):
            for rows in train[torch.randperm(len(train), generator=generator)].split(options.batch):
                params = model.params(frames["observation"][rows])
                loss = -model.log_prob(params, frames["latent"][rows]).mean()
                optimizer.zero_grad()
                loss.backward()
                optimizer.step()
                bar.update()
    model.eval()
    fitted, held_out = (float(_log_prob(model, frames[rows]).mean()) for rows in (train, test))
    return model, fitted, held_out, _chance(model, frames[train]["latent"], frames[test]["latent"])


@torch.no_grad()
def _log_prob(model: Policy, frames: TensorDictBase) -> Tensor:
    rows = torch.arange(len(frames)).split(CHUNK)
    return torch.cat([model.log_prob(model.params(frames["observation"][r]), frames["latent"][r]) for r in rows])


def _chance(model: Policy, train: Tensor, test: Tensor) -> float:
    """Mean log-prob of latents `test` [N, D] under the marginal distribution of `train` [M, D], nats a dimension."""
    if model.latent_dtype.is_floating_point:
        return float(torch.distributions.Normal(train.mean(0), train.std(0) + 1e-6).log_prob(test).mean())
    bins = model.parameters_per_dimension
    counts = torch.stack([column.bincount(minlength=bins) for column in train.unbind(-1)])
    # Add-one smoothing: a bin that was never chosen is rare, not impossible.
    log_mu = ((counts + 1) / (len(train) + bins)).log()
    return float(log_mu.gather(1, test.T).mean())


@torch.no_grad()
def _refuse_other_latents(store: Store, policy: Policy) -> None:
    """Latents of another kind of policy would have log-probs, but not of the actions that were taken."""
    frames = store.frames
    width = policy.action_high - policy.action_low
    same_kind = frames["latent"].dtype == policy.latent_dtype
    for rows in torch.arange(len(frames)).split(CHUNK) if same_kind else ():
        again, valid = policy.to_env(frames["latent"][rows]), frames["valid"][rows]
        same_kind = same_kind and bool((((again - frames["action"][rows]).abs() / width)[valid] < 1e-4).all())
    if not same_kind:
        raise GipoError(
            f"the logs are of another kind of policy than the {type(policy).__name__} to be trained: its latents do "
            "not give the logged actions; start from the checkpoint the robot's policy was exported from"
        )
