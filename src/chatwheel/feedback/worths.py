"""How good answers are, from comparisons by labellers who are known: the posterior of the answers' worth.

The worths s of a prompt's answers are independent standard normals before anything is said of them. Labeller l prefers
one of two by Davidson's model with the lead

    eta = beta_l (s_one - s_other) + offset,

where beta is how sensitive the labeller is to worth. The posterior is log-concave; a normal of full covariance is put
in its place, the nearest one by KL divergence (Opper and Archambeau, 2009, "The variational Gaussian approximation
revisited"): its mean and precision solve

    mean = sum E[l'(eta)] beta,    precision = 1 - sum E[l''(eta)] beta^2,

with expectations over eta, one dimension each, by Gauss-Hermite quadrature.

Shape suffixes: N comparisons, A answers, G prompts of K answers, Q nodes.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from chatwheel.feedback.davidson import derivatives
from chatwheel.feedback.significance import Array, Ints

LONGEST_STEP = 1.5
NODES, _WEIGHTS = np.polynomial.hermite_e.hermegauss(7)
SHARES = _WEIGHTS / _WEIGHTS.sum()


@dataclass
class Group:
    """Prompts with equally many answers. answers: G x K; members: the comparisons of these; slots: where each
    comparison's four entries go in the flattened G x K x K precisions."""

    answers: Ints
    members: Ints
    slots: Ints


@dataclass
class Worths:
    """The posterior: means A, and the covariance of each prompt's answers, a G x K x K for each group."""

    groups: list[Group]
    mean: Array
    covariances: list[Array]

    def variances(self) -> Array:
        """Of each answer, A."""
        found = np.ones_like(self.mean)
        for group, covariance in zip(self.groups, self.covariances, strict=True):
            found[group.answers] = np.diagonal(covariance, axis1=1, axis2=2)
        return found

    def of_leads(self, first: Ints, second: Ints) -> tuple[Array, Array]:
        """Mean and standard deviation of s_first - s_second, N each."""
        variance = np.empty(len(first))
        for group, covariance in zip(self.groups, self.covariances, strict=True):
            flat, (ii, jj, ij, _) = covariance.ravel(), group.slots
            variance[group.members] = flat[ii] + flat[jj] - 2 * flat[ij]
        return self.mean[first] - self.mean[second], np.sqrt(np.maximum(variance, 1e-12))


def grouped(prompt_of_answer: Ints, first: Ints, second: Ints) -> list[Group]:
    """prompt_of_answer: A, rising from 0 without a gap; first, second: N answers."""
    sizes = np.bincount(prompt_of_answer)
    begins = np.cumsum(sizes) - sizes
    groups = []
    for size in np.unique(sizes):
        prompts = np.flatnonzero(sizes == size)
        row = np.full(len(sizes), -1)
        row[prompts] = np.arange(len(prompts))
        members = np.flatnonzero(row[prompt_of_answer[first]] >= 0)
        i, j = first[members], second[members]
        start = begins[prompt_of_answer[i]]
        at = row[prompt_of_answer[i]] * size**2
        i, j = i - start, j - start
        slots = np.stack([at + i * size + i, at + j * size + j, at + i * size + j, at + j * size + i])
        groups.append(Group(begins[prompts][:, None] + np.arange(size), members, slots))
    return groups


def unknown(prompt_of_answer: Ints, first: Ints, second: Ints) -> Worths:
    """The worths before anything is said."""
    groups = grouped(prompt_of_answer, first, second)
    ones = [np.broadcast_to(np.eye(g.answers.shape[1]), (*g.answers.shape, g.answers.shape[1])).copy() for g in groups]
    return Worths(groups, np.zeros(len(prompt_of_answer)), ones)


def learn(
    worths: Worths,
    first: Ints,
    second: Ints,
    outcome: Array,
    weight: Array,
    *,
    beta: Array,
    offset: Array,
    tau: Array,
    steps: int = 1,
    tolerance: float = 1e-4,
) -> float:
    """Moves `worths` towards the posterior by at most `steps` Newton steps; returns how far the last moved a mean. All
    arguments are N, one a comparison."""
    moved = 0.0
    for _ in range(steps):
        lead, deviation = worths.of_leads(first, second)
        eta = beta[:, None] * (lead[:, None] + deviation[:, None] * NODES) + offset[:, None]
        found = derivatives(outcome[:, None], eta, tau[:, None])
        slope = weight * beta * (found.eta @ SHARES)
        curvature = -weight * beta**2 * (found.eta_eta @ SHARES)
        size = len(worths.mean)
        gradient = np.bincount(first, slope, size) - np.bincount(second, slope, size) - worths.mean
        moved = 0.0
        for index, group in enumerate(worths.groups):
            covariance = _inverse(group, curvature[group.members])
            step = np.einsum("gij,gj->gi", covariance, gradient[group.answers])
            step *= np.minimum(1.0, LONGEST_STEP / np.maximum(np.abs(step).max(axis=1, keepdims=True), 1e-12))
            worths.mean[group.answers] += step
            worths.covariances[index] = covariance
            moved = max(moved, float(np.abs(step).max()))
        if moved < tolerance:
            break
    return moved


def _inverse(group: Group, curvature: Array) -> Array:
    count, size = group.answers.shape
    ii, jj, ij, ji = group.slots
    flat = np.bincount(ii, curvature, count * size**2) + np.bincount(jj, curvature, count * size**2)
    flat -= np.bincount(ij, curvature, count * size**2) + np.bincount(ji, curvature, count * size**2)
    return np.asarray(np.linalg.inv(flat.reshape(count, size, size) + np.eye(size)))
