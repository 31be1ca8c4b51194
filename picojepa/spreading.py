"""Terms that keep features spread out, beside the prediction loss: without one, few directions of many carry anything.

Both look at a cloud of features (n, D) and are 0 where every direction of it has standard deviation 1. Neither needs
a second network or negative examples.

Book: chapter 4.
"""

from collections.abc import Callable

import torch
from torch import Tensor

COVARIANCE_WEIGHT = 0.1  # of the covariances against the standard deviations, as first tried; not tuned
SLICES, KNOTS, REACH = 256, 17, 5.0  # of SIGReg: directions, points of the characteristic function, and the last point


def variance_covariance(features: Tensor) -> Tensor:
    """How far the D numbers of features (n, D) are from a standard deviation of 1 and from being uncorrelated.

    The mean over the numbers of how much their standard deviation lacks to 1, plus `COVARIANCE_WEIGHT` times the
    squared covariances of different numbers, added up and divided by D.

    Source: Bardes et al. 2022 (VICReg), its variance and covariance terms.
    """
    centred = features - features.mean(0)
    lacking = (1 - (centred.var(0) + 1e-4).sqrt()).relu().mean()
    covariance = centred.T @ centred / (len(features) - 1)
    between = covariance.square().sum() - covariance.diagonal().square().sum()
    return lacking + COVARIANCE_WEIGHT * between / features.shape[1]


def sketched_gaussian(features: Tensor) -> Tensor:
    """How far features (n, D), seen along random directions, are from a standard normal distribution: SIGReg.

    Along each of `SLICES` directions the empirical characteristic function is compared with that of the normal
    distribution, weighted by the latter (the Epps-Pulley statistic without its factor n); their mean. The directions
    are drawn anew from PyTorch's generator.

    Source: Balestriero and LeCun 2025 (LeJEPA).
    """
    directions = torch.randn(features.shape[1], SLICES, device=features.device, dtype=features.dtype)
    along = features @ (directions / directions.norm(dim=0))  # (n, slices)
    knots = torch.linspace(-REACH, REACH, KNOTS, device=features.device, dtype=features.dtype)
    normal = (-knots.square() / 2).exp()
    angles = along.unsqueeze(-1) * knots  # (n, slices, knots)
    error = (angles.cos().mean(0) - normal).square() + angles.sin().mean(0).square()
    return torch.trapezoid(error * normal, knots).mean()


# Name -> how far features (n, D) are from being spread, a scalar.
TERMS: dict[str, Callable[[Tensor], Tensor]] = {"variance-covariance": variance_covariance, "SIGReg": sketched_gaussian}


def spread_loss(name: str, features: Tensor) -> Tensor:
    """A term of the features of context tokens, (B, M, D): of the clips' means, and of all tokens."""
    return TERMS[name](features.mean(1)) + TERMS[name](features.flatten(0, 1))
