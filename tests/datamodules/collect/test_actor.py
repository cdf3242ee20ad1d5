"""Who acts by weights that arrive one tensor at a time acts by whole sets alone."""

import copy

import torch

from datamodules.collect.actor import ReceivingActor
from gipo.policies import Policy, Spaces, TokenPolicy


def policy_of_large_units() -> Policy:
    """Whose moments of observations are beside its weights as 10¹⁸ is beside 1."""
    torch.manual_seed(0)
    policy = TokenPolicy(Spaces(3, (-1.0, -1.0), (1.0, 1.0)))
    with torch.no_grad():
        policy.normaliser.m2.fill_(3e17)
    return policy


def test_weights_are_taken_over_when_all_of_them_are_there() -> None:
    policy = policy_of_large_units()
    receiving, sending = ReceivingActor(copy.deepcopy(policy)), ReceivingActor(policy)
    assert receiving._renew()
    newer = copy.deepcopy(policy)
    with torch.no_grad():
        for parameter in newer.parameters():
            parameter += 1e-3
        newer.version += 1
    sending.load(newer)
    sent = sending.state_dict()
    names = sorted(sent, key=lambda name: name != "checksum")  # which arrives first, whatever comes after it
    for name in names[:-1]:
        receiving.state_dict()[name].copy_(sent[name])
        assert receiving._renew()
        assert int(receiving._acting[0].policy.version) == 0, name
    receiving.state_dict()[names[-1]].copy_(sent[names[-1]])
    receiving._renew()
    for mine, theirs in zip(receiving._acting[0].policy.parameters(), newer.parameters(), strict=True):
        assert torch.equal(mine, theirs)
    assert int(receiving._acting[0].policy.version) == 1
