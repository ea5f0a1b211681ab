"""Comparisons with ties: Davidson's model (1970, "On extending the Bradley-Terry model to accommodate ties in paired
comparison experiments"). With the lead eta of the one over the other in nats, and the leaning tau to call a tie,

    P(one) : P(tie) : P(other) = exp(eta / 2) : exp(tau) : exp(-eta / 2)

so that, ties aside, the odds are exp(eta) as Bradley and Terry have them.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from chatwheel.feedback.significance import Array


@dataclass(frozen=True)
class Derivatives:
    """Of the log-likelihood, by eta and tau; each of the shape of `eta`. The likelihood is concave in both."""

    eta: Array
    tau: Array
    eta_eta: Array
    eta_tau: Array
    tau_tau: Array


def shares(eta: Array, tau: Array | float) -> tuple[Array, Array, Array]:
    """The probabilities of one, tie and other, in any shapes that broadcast."""
    tau = np.broadcast_to(tau, eta.shape)
    highest = np.maximum(np.abs(eta) / 2, tau)
    one, tie, other = np.exp(eta / 2 - highest), np.exp(tau - highest), np.exp(-eta / 2 - highest)
    whole = one + tie + other
    return one / whole, tie / whole, other / whole


def expected(eta: Array, tau: Array | float) -> Array:
    """How often the one is preferred, ties being half."""
    one, tie, _ = shares(eta, tau)
    return one + tie / 2


def derivatives(outcome: Array, eta: Array, tau: Array) -> Derivatives:
    """outcome: 1 for the one, 0 a tie, -1 the other."""
    one, tie, other = shares(eta, tau)
    lead = one - other
    return Derivatives(
        eta=(outcome - lead) / 2,
        tau=(outcome == 0) - tie,
        eta_eta=-(one + other - lead**2) / 4,
        eta_tau=tie * lead / 2,
        tau_tau=-tie * (1 - tie),
    )


def log_likelihood(outcome: Array, eta: Array, tau: Array) -> Array:
    """In nats, of each comparison."""
    tau = np.broadcast_to(tau, eta.shape)
    own = np.where(outcome == 0, tau, outcome * eta / 2)
    return np.asarray(own - np.logaddexp(np.logaddexp(eta / 2, -eta / 2), tau))
