"""Numbers of every objective of version 0.1, to hold changes of the contract against."""

import pytest
import torch

from gipo.adaptive import AdaptiveGIPO, effective_share
from gipo.baselines import ASPO, CISPO, ESPO
from gipo.objectives import (
    GIPO,
    SAPO,
    BehaviourCloning,
    NoClip,
    Objective,
    PPOClip,
    cauchy,
    laplacian,
    policy_loss,
)

OBJECTIVES: dict[str, Objective] = {
    "GIPO": GIPO(), "GIPO-.5": GIPO(sigma=0.5, sigma_neg_ratio=0.5), "Laplacian": GIPO(kernel=laplacian),
    "Cauchy": GIPO(kernel=cauchy), "NoClip": NoClip(), "PPOClip": PPOClip(), "dual": PPOClip(dual_clip=3.0),
    "SAPO": SAPO(), "BC": BehaviourCloning(), "CISPO": CISPO(), "IMPALA": CISPO(ratio_max=1.0), "ASPO": ASPO(),
    "ESPO": ESPO(), "ESPO-wide": ESPO(alpha=2.0), "Adaptive": AdaptiveGIPO(),
    "Adaptive-ess": AdaptiveGIPO(0.4, effective_share),
}  # fmt: skip
# CISPO reported a weight of e⁻⁵⁵ for x = −60, the element 47, where it keeps all of it.
MORE = 1 + 47 / 255
# Loss, and sums of weights, contributions and gradients with weights from 1 to 2, as version 0.1 had them.
FIGURES = {
    "GIPO": (-0.07094413787126541, 260.2564697265625, 309.7013244628906, -0.10409702360630035),
    "GIPO-.5": (-0.04177984222769737, 162.6033172607422, 168.64503479003906, -0.059614818543195724),
    "Laplacian": (-0.02836468629539013, 212.3527374267578, 257.6363220214844, -0.04238308593630791),
    "Cauchy": (0.7278455495834351, 248.4842071533203, 485.24932861328125, 0.8154481649398804),
    "NoClip": (0.8155278563499451, 384.0, 899.7118530273438, 0.918597936630249),
    "PPOClip": (1.300704836845398, 254.58822631835938, 590.5594482421875, 1.7108865976333618),
    "dual": (0.12730900943279266, 230.50196838378906, 192.63552856445312, 0.09444379806518555),
    "SAPO": (-0.22501453757286072, 305.0686950683594, 279.9840087890625, -0.07320120930671692),
    "BC": (0.1522846668958664, 384.0, 384.0, -1.5185097455978394),
    "CISPO": (-0.12895841896533966, 368.28277587890625 + MORE, 538.1351318359375, -0.2046886682510376),
    "IMPALA": (-0.03762112557888031, 307.67303466796875 + MORE, 287.4953918457031, -0.0561196506023407),
    "ASPO": (-0.2827747166156769, 2620.613525390625, 385.517333984375, -0.6057751178741455),
    "ESPO": (4.127081871032715, 642.6851196289062, 1588.66357421875, 5.260817527770996),
    "ESPO-wide": (3.9223668575286865, 695.2171630859375, 1626.3931884765625, 5.27399206161499),
    "Adaptive": (-0.04210503399372101, 234.5406494140625, 263.5706787109375, -0.05993600934743881),
    "Adaptive-ess": (-0.09347957372665405, 338.39080810546875, 540.260986328125, -0.14277660846710205),
}


@pytest.mark.parametrize("name", OBJECTIVES)
def test_figures_are_those_of_version_0_1(name: str) -> None:
    generator = torch.Generator().manual_seed(7)
    x = 1.5 * torch.randn(64, 4, generator=generator)
    x[3, 1], x[5, 2], x[9, 0], x[11, 3] = float("nan"), float("inf"), 60.0, -60.0
    advantage, valid = torch.randn(64, generator=generator), torch.rand(64, generator=generator) > 0.2
    entropy = torch.rand(64, 4, generator=generator)
    found = policy_loss(OBJECTIVES[name], x.requires_grad_(), advantage, valid, entropy)
    (gradient,) = torch.autograd.grad(found.loss, x)
    sums = [(torch.linspace(1, 2, 256).reshape(64, 4) * part).sum() for part in (*found[1:3], gradient)]
    assert [found.loss.item(), *(each.item() for each in sums)] == pytest.approx(FIGURES[name], rel=2e-5)
