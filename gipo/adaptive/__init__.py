"""GIPO whose width follows the data: one σ for each batch that meets a target, or one for each age."""

from gipo.adaptive.age import AgeAwareGIPO
from gipo.adaptive.batch import AdaptiveGIPO, effective_share, largest_width, mean_weight

__all__ = ["AdaptiveGIPO", "AgeAwareGIPO", "effective_share", "largest_width", "mean_weight"]
