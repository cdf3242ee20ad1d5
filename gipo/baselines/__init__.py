"""What GIPO is compared with: objectives of the same form as those of `gipo.objectives`.

Only their gradients are comparable: where a source writes A·log π, the loss here has the same gradient and the value
of the factor before log π, because log π itself would say nothing of the policy.
"""

from gipo.baselines.clipped import ASPO, DPPO, DecoupledPPO, binary_kl, probability_change
from gipo.baselines.entropy import ESPO, entropy_groups, group_mean
from gipo.baselines.regression import AWR
from gipo.baselines.second_moment import M2PO, largest_left_out
from gipo.baselines.sequence import GMPO, GSPO, VESPO, over_sequence
from gipo.baselines.truncated import CISPO, MIS, TIS

__all__ = [
    "ASPO",
    "AWR",
    "CISPO",
    "DPPO",
    "ESPO",
    "GMPO",
    "GSPO",
    "M2PO",
    "MIS",
    "TIS",
    "VESPO",
    "DecoupledPPO",
    "binary_kl",
    "entropy_groups",
    "group_mean",
    "largest_left_out",
    "over_sequence",
    "probability_change",
]
