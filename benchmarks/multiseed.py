"""Would several seeds train faster in one process? The updates of S seeds by three routes, at the default's size.

- sequential: one after the other, in this process;
- stacked: in one call, `torch.func.vmap` over stacked parameters, one optimizer for all of them;
- processes: one process for each core, each with its share of the seeds, one after the other.

On a GPU where there is one. All do the same updates (default networks, batch, objective, anchor, AdamW, clipping of
each head), checked on their parameters. Only updates are timed: a simulator costs every seed its own time by any route.
"""

import copy
import multiprocessing
import os
from collections.abc import Callable
from multiprocessing.connection import Connection
from typing import Any

import torch
from tensordict import TensorDict
from torch import Tensor, nn
from torch.func import functional_call, grad, stack_module_state, vmap
from torch.nn import functional as F
from torch.optim import AdamW

from benchmarks.turns import Side, synchronise, take_turns
from benchmarks.update import METAWORLD, behaviour_batches
from gipo.objectives import GIPO, k3, masked_mean, policy_loss
from gipo.policies import Policy, TokenPolicy

AGREEMENT = 1e-5
RATE, CLIP, KL_COEF, VALUE_COEF = 3e-4, 1.0, 0.1, 0.5  # of the default recipe
OBJECTIVE = GIPO()
WORTH_IT = 1.2  # a mode of its own would have to be at least so much faster than processes


class Losses(nn.Module):
    """Policy and value loss of a policy as one function of its parameters, so that it can be mapped over seeds."""

    def __init__(self, policy: Policy):
        super().__init__()
        self.policy = policy

    def forward(self, batch: dict[str, Tensor]) -> Tensor:
        """Their sum; no gradient of one reaches the parameters of the other."""
        features = self.policy.features(batch["observation"])
        x = self.policy.log_prob(self.policy.params_of(features), batch["latent"]) - batch["log_prob"]
        surrogate = policy_loss(OBJECTIVE, x, batch["advantage"], batch["valid"])
        kl = masked_mean(k3(torch.where(surrogate.used, x, 0.0)), surrogate.used)
        value_loss = F.mse_loss(self.policy.value_of(features), batch["value_target"])
        return surrogate.loss + KL_COEF * kl + VALUE_COEF * value_loss


class Sequential:
    """Seeds one after the other.

    Args:
        policies: one for each seed.
    """

    def __init__(self, policies: list[Policy]):
        self.losses = [Losses(copy.deepcopy(policy)) for policy in policies]
        self.optimizers = [AdamW(losses.parameters(), RATE, weight_decay=0.0, fused=True) for losses in self.losses]

    def update(self, batches: dict[str, Tensor]) -> None:
        """One update of every seed from batches [S, B]."""
        for index, (losses, optimizer) in enumerate(zip(self.losses, self.optimizers, strict=True)):
            optimizer.zero_grad()
            losses({name: values[index] for name, values in batches.items()}).backward()
            for head in (losses.policy.actor_parameters(), losses.policy.critic_parameters()):
                nn.utils.clip_grad_norm_(head, CLIP)
            optimizer.step()

    def parameters(self) -> list[Tensor]:
        """[S, …] each."""
        return [torch.stack(each) for each in zip(*(losses.parameters() for losses in self.losses), strict=True)]


class Stacked:
    """All seeds in one call.

    Args:
        policies: one for each seed.
    """

    def __init__(self, policies: list[Policy]):
        modules = [Losses(copy.deepcopy(policy)) for policy in policies]
        self._parameters, self._buffers = stack_module_state(modules)
        template = copy.deepcopy(modules[0]).to("meta")

        def loss(parameters: dict[str, Tensor], buffers: dict[str, Tensor], batch: dict[str, Tensor]) -> Tensor:
            found: Tensor = functional_call(template, (parameters, buffers), (batch,))
            return found

        self._gradients = vmap(grad(loss))
        critic = {id(parameter) for parameter in modules[0].policy.critic_parameters()}
        names = dict(modules[0].named_parameters())
        self._heads = (
            [name for name, parameter in names.items() if id(parameter) not in critic],
            [name for name, parameter in names.items() if id(parameter) in critic],
        )
        self._optimizer = AdamW(self._parameters.values(), RATE, weight_decay=0.0, fused=True)

    def update(self, batches: dict[str, Tensor]) -> None:
        """One update of every seed from batches [S, B]."""
        gradients = self._gradients(self._parameters, self._buffers, batches)
        for head in self._heads:
            # min(1, c / (‖g‖ + 1e-6)) of each seed, as clip_grad_norm_ does
            norm = torch.stack([gradients[name].flatten(1).norm(dim=1) for name in head]).norm(dim=0)
            scale = (CLIP / (norm + 1e-6)).clamp(max=1.0)
            for name in head:
                gradient = gradients[name]
                self._parameters[name].grad = gradient * scale.reshape(-1, *[1] * (gradient.dim() - 1))
        self._optimizer.step()

    def parameters(self) -> list[Tensor]:
        """[S, …] each."""
        return [values.detach() for values in self._parameters.values()]


def run(seeds: int = 4, updates: int = 40, turns: int = 5, batch: int = 512) -> dict[str, Any]:
    """Updates per second, all seeds counted, of each route; ratios to `sequential` and to `processes`."""
    device = "cuda" if torch.cuda.is_available() else "cpu"
    policies, batches = _seeds(seeds, batch, device)
    difference = disagreement(policies, batches)
    assert difference <= AGREEMENT, f"parameters differ by {difference:.1e} after 5 updates: not the same updates"
    routes = {"sequential": Sequential(policies), "stacked": Stacked(policies)}
    workers = max(1, min(os.cpu_count() or 1, seeds))
    slices: dict[str, Callable[[Side], None]] = {
        name: lambda side, route=route: _slice(side, route, batches, updates)  # type: ignore[misc]
        for name, route in routes.items()
    }
    with _Workers(workers, seeds, batch, device) as pool:
        slices["processes"] = lambda side: pool.slice(side, updates)
        sides = take_turns(slices, turns)
    ratio = sides["stacked"].ratio(sides["processes"])
    return {
        "device": torch.cuda.get_device_name() if device == "cuda" else "cpu",
        "seeds": seeds,
        "workers": workers,
        **{f"{name}_updates_per_s": side.rate for name, side in sides.items()},
        "stacked_to_sequential": sides["stacked"].ratio(sides["sequential"]),
        "stacked_to_sequential_processor": sides["stacked"].processor_ratio(sides["sequential"]),
        "stacked_to_processes": ratio,
        "max_parameter_difference": difference,
        "worth_a_mode": ratio >= WORTH_IT,
        "ok": True,
    }


def disagreement(policies: list[Policy], batches: dict[str, Tensor], updates: int = 5) -> float:
    """The largest difference of a parameter between the two routes of one process."""
    one, other = Sequential(policies), Stacked(policies)
    before = [values.clone() for values in other.parameters()]
    for _ in range(updates):
        one.update(batches)
        other.update(batches)
    moved = max(float((a - b).detach().abs().max()) for a, b in zip(one.parameters(), before, strict=True))
    assert moved > RATE, "nothing was learned, so there is nothing to compare"
    pairs = zip(one.parameters(), other.parameters(), strict=True)
    return max(float((a - b).detach().abs().max()) for a, b in pairs)


def _slice(side: Side, route: Sequential | Stacked, batches: dict[str, Tensor], updates: int) -> None:
    side.start()
    for _ in range(updates):
        route.update(batches)
    synchronise()
    side.stop(updates * len(batches["advantage"]))


class _Workers:
    """Processes that wait for the word to make updates."""

    def __init__(self, workers: int, seeds: int, batch: int, device: str):
        context = multiprocessing.get_context("spawn")
        shares = [len(range(index, seeds, workers)) for index in range(workers)]
        self._seeds, self._ends, self._processes = seeds, [], []
        for share in shares:
            ours, theirs = context.Pipe()
            process = context.Process(target=_work, args=(theirs, share, batch, device), daemon=True)
            process.start()
            theirs.close()
            self._ends.append(ours)
            self._processes.append(process)

    def __enter__(self) -> "_Workers":
        for end in self._ends:
            end.recv()
        return self

    def slice(self, side: Side, updates: int) -> None:
        """Let all of them make `updates` updates of each of their seeds."""
        side.start()
        for end in self._ends:
            end.send(updates)
        for end in self._ends:
            end.recv()
        side.stop(updates * self._seeds)

    def __exit__(self, *_: object) -> None:
        for end, process in zip(self._ends, self._processes, strict=True):
            end.send(0)
            process.join()


def _work(end: Connection, seeds: int, batch: int, device: str) -> None:
    torch.set_num_threads(1)
    policies, batches = _seeds(seeds, batch, device)
    route = Sequential(policies)
    end.send("ready")
    while updates := end.recv():
        for _ in range(updates):
            route.update(batches)
        synchronise()
        end.send("done")


def _seeds(seeds: int, batch: int, device: str) -> tuple[list[Policy], dict[str, Tensor]]:
    """A policy for each seed, and batches [S, B] that slightly older versions of them produced."""
    policies: list[Policy] = []
    batches = []
    for seed in range(seeds):
        torch.manual_seed(seed)
        behaviour = TokenPolicy(METAWORLD)
        batches.append(behaviour_batches(behaviour, 1, batch)[0])
        for parameter in behaviour.parameters():
            parameter.data += 0.01 * torch.randn_like(parameter)
        policies.append(behaviour.to(device))
    stacked: TensorDict = torch.stack(batches)
    names = ("observation", "latent", "log_prob", "valid", "advantage", "value_target")
    return policies, {name: stacked[name].to(device) for name in names}
