"""Who labels how: Bradley and Terry's model with effects of the labeller, from rankings that overlap.

Labeller l prefers one of two answers to a prompt by Davidson's model (davidson.py) with the lead

    eta = beta_l (s_one - s_other) + b_l . (x_one - x_other)

s is an answer's worth apart from its form, a standard normal; beta_l says how sensitive the labeller is to it: 0 is
labelling at random, below 0 is turning the order around. x is form and place (judgements.py), b_l how these sway the
labeller, and tau_l the leaning to call a tie. As in CrowdBT (Chen et al., 2013, "Pairwise ranking aggregation in a
crowdsourced setting") every labeller has one reliability and may be adversarial; but a sensitivity in place of the
chance to turn a label around errs where answers are near each other, as people do, and the likelihood is smooth. It is
item response theory's two-parameter model, with the labellers for items.

The worths are integrated over, not fitted beside the rest: there are as many as answers, and fitted they would make
labellers look surer the fewer of them see an answer (Neyman and Scott, 1948). EM does it: worths given labellers
(worths.py), then one Newton step for each labeller given the worths, then the worths' scale (PX-EM; Liu et al., 1998).
The normal in place of the worths' posterior makes the sharpest labeller less sharp, where few label: 1.9 for 2.8, of
four; the order stays.

Of habits that concern an answer's form only differences among labellers can be told: long answers may well be better.
What the typical labeller (the median) makes of a form counts as worth, `form_worth`, and a labeller's bias is the rest.

Standard errors are the larger of two: from the observed information (Louis, 1982, with scores linear in the worths),
and the sandwich with prompts as clusters, which holds when the comparisons of one ranking depend on each other.

Shape suffixes: L labellers, N comparisons, A answers, F features, P = F + 2 parameters of a labeller (beta, b, tau).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from chatwheel.errors import InputError
from chatwheel.feedback.davidson import derivatives
from chatwheel.feedback.judgements import FEATURES, POSITION, Comparisons
from chatwheel.feedback.significance import Array, Ints
from chatwheel.feedback.worths import NODES, SHARES, Worths, learn, unknown

PRECISION = 0.1
"""Of the normal priors of all parameters, so that a labeller with few comparisons has finite ones."""
LONGEST_STEP = 1.0
ANSWERS_AT_ONCE = 4000


@dataclass(frozen=True)
class LabellerModel:
    """labellers, features: their names. sensitivity, tie: L, as beta and tau above. bias: L x F, beyond the typical
    labeller's, in nats per unit of the feature. *_error: standard errors. form_worth: F, what a feature is worth.
    worth, worth_error: A, of each answer of `comparisons`: from what was said and, where little was, from its form.
    iterations: of EM, and whether it came to rest."""

    comparisons: Comparisons
    labellers: tuple[str, ...]
    features: tuple[str, ...]
    sensitivity: Array
    sensitivity_error: Array
    bias: Array
    bias_error: Array
    tie: Array
    form_worth: Array
    worth: Array
    worth_error: Array
    iterations: int
    converged: bool


def fit_labellers(comparisons: Comparisons, *, iterations: int = 500, tolerance: float = 1e-3) -> LabellerModel:
    """Raises InputError for one labeller, and where no two of them have compared answers to the same prompt."""
    _check(comparisons)
    c = comparisons
    varied = [f for f in range(len(FEATURES)) if np.ptp(c.features[:, f]) > 0 or c.features[0, f] != 0]
    scale = np.sqrt((c.features[:, varied] ** 2).mean(axis=0))
    x_NF = c.features[:, varied] / scale
    size = len(c.labellers)
    theta = np.zeros((size, len(varied) + 2))
    theta[:, 0], theta[:, -1] = 1.0, -1.0
    prior = theta.copy()
    worths = unknown(c.prompt_of_answer, c.first, c.second)
    begins = np.searchsorted(c.labeller, np.arange(size))
    moved, done = np.inf, 0
    while moved > tolerance and done < iterations:
        _worths_of(worths, c, x_NF, theta, steps=2)
        score, curvature, _ = _score(c, x_NF, theta, worths)
        gradient = np.add.reduceat(score, begins) - PRECISION * (theta - prior)
        hessian = np.add.reduceat(curvature, begins) - PRECISION * np.eye(theta.shape[1])
        step = -np.linalg.solve(hessian, gradient[..., None])[..., 0]
        step *= np.minimum(1.0, LONGEST_STEP / np.maximum(np.abs(step).max(axis=1, keepdims=True), 1e-12))
        before = theta.copy()
        theta += step
        spread = float(np.sqrt((worths.mean**2 + worths.variances()).mean()))
        theta[:, 0] *= spread
        worths.mean /= spread
        moved = float(np.abs(theta - before).max())
        done += 1
    _worths_of(worths, c, x_NF, theta, steps=20)
    covariance = _covariance(c, x_NF, theta, worths, begins)
    return _described(c, varied, scale, theta, covariance, worths, done, moved <= tolerance)


def _check(c: Comparisons) -> None:
    if len(c.labellers) < 2:
        raise InputError(f"labellers: {c.labellers[0]} is the only one; agreement and reliability need two or more")
    if len(np.unique(c.prompt * len(c.labellers) + c.labeller)) == len(np.unique(c.prompt)):
        raise InputError("labellers: no prompt has been ranked by two of them; let some prompts be ranked twice")
    missing = np.setdiff1d(np.arange(len(c.labellers)), c.labeller)
    if len(missing):
        raise InputError(f"labellers: {c.labellers[missing[0]]} has compared no two different answers; leave them out")


def _worths_of(worths: Worths, c: Comparisons, x_NF: Array, theta: Array, steps: int) -> None:
    own = theta[c.labeller]
    offset = (x_NF * own[:, 1:-1]).sum(axis=1)
    beta, tau = own[:, 0], own[:, -1]
    learn(worths, c.first, c.second, c.outcome, c.weight, beta=beta, offset=offset, tau=tau, steps=steps)


def _score(c: Comparisons, x_NF: Array, theta: Array, worths: Worths) -> tuple[Array, Array, Array]:
    """Of each comparison, expected over the worths: the gradient of its log-likelihood by its labeller's parameters
    (N x P), the Hessian (N x P x P), and how the gradient changes with the lead in worth (N x P)."""
    own = theta[c.labeller]
    beta = own[:, :1]
    mean, deviation = worths.of_leads(c.first, c.second)
    lead = mean[:, None] + deviation[:, None] * NODES
    eta = beta * lead + (x_NF * own[:, 1:-1]).sum(axis=1, keepdims=True)
    found = derivatives(c.outcome[:, None], eta, own[:, -1:])
    share = c.weight[:, None] * SHARES
    by_eta, curved, crossed = (share * part for part in (found.eta, found.eta_eta, found.eta_tau))

    def mixed(values: Array) -> Array:
        return np.column_stack([(values * lead).sum(axis=1), values.sum(axis=1)[:, None] * x_NF])

    score = np.column_stack([mixed(by_eta), (share * found.tau).sum(axis=1)])
    size = theta.shape[1]
    hessian = np.empty((len(mean), size, size))
    first = mixed(curved)
    hessian[:, 1:-1, 1:-1] = curved.sum(axis=1)[:, None, None] * x_NF[:, :, None] * x_NF[:, None, :]
    hessian[:, 0, 1:-1] = hessian[:, 1:-1, 0] = first[:, :1] * x_NF
    hessian[:, 0, 0] = (curved * lead**2).sum(axis=1)
    hessian[:, -1, :-1] = hessian[:, :-1, -1] = mixed(crossed)
    hessian[:, -1, -1] = (share * found.tau_tau).sum(axis=1)
    slope = beta * np.column_stack([first, crossed.sum(axis=1)])
    slope[:, 0] += by_eta.sum(axis=1)
    return score, hessian, slope


def _covariance(c: Comparisons, x_NF: Array, theta: Array, worths: Worths, begins: Ints) -> Array:
    """L P x L P. The information is what it would be if the worths were known, less the variance of the score over
    what is not known of them; prompts come in chunks that fit the memory."""
    score, hessian, slope = _score(c, x_NF, theta, worths)
    size = theta.shape[1]
    total = theta.size
    information = np.zeros((total, total))
    for i, block in enumerate(np.add.reduceat(-hessian, begins) + PRECISION * np.eye(size)):
        information[i * size : (i + 1) * size, i * size : (i + 1) * size] = block
    meat = np.zeros((total, total))
    column = c.labeller[:, None] * size + np.arange(size)
    for group, covariance in zip(worths.groups, worths.covariances, strict=True):
        width = group.answers.shape[1]
        row = np.full(len(c.prompts), -1)
        row[c.prompt_of_answer[group.answers[:, 0]]] = np.arange(len(group.answers))
        place = {0: c.first[group.members], 1: c.second[group.members]}
        start = group.answers[:, 0]
        own = row[c.prompt[group.members]]
        for begin in range(0, len(start), max(1, ANSWERS_AT_ONCE // width)):
            count = min(max(1, ANSWERS_AT_ONCE // width), len(start) - begin)
            here = np.flatnonzero((own >= begin) & (own < begin + count))
            some, prompt = group.members[here], own[here] - begin
            scores, slopes = np.zeros((count, total)), np.zeros((count, width, total))
            np.add.at(scores, (prompt[:, None], column[some]), score[some])
            for side, sign in ((0, 1.0), (1, -1.0)):
                at = place[side][here] - start[own[here]]
                np.add.at(slopes, (prompt[:, None], at[:, None], column[some]), sign * slope[some])
            root = np.linalg.cholesky(covariance[begin : begin + count])
            reduced = (np.swapaxes(root, 1, 2) @ slopes).reshape(-1, total)
            information -= reduced.T @ reduced
            meat += scores.T @ scores
    inverse = np.linalg.pinv(information, hermitian=True)
    sandwich = inverse @ meat @ inverse
    larger = np.sqrt(np.maximum(np.diag(sandwich) / np.maximum(np.diag(inverse), 1e-12), 1.0))
    return np.asarray(inverse * larger[:, None] * larger)


def _described(
    c: Comparisons,
    varied: list[int],
    scale: Array,
    theta: Array,
    covariance: Array,
    worths: Worths,
    done: int,
    converged: bool,
) -> LabellerModel:
    size, width = theta.shape
    blocks = covariance.reshape(size, width, size, width)
    beta, bias, error = theta[:, 0], theta[:, 1:-1].copy(), np.empty((size, width - 2))
    form = np.zeros(len(FEATURES))
    for f, feature in enumerate(varied):
        if FEATURES[feature] == POSITION:
            error[:, f] = np.sqrt(np.diag(blocks[:, f + 1, :, f + 1]))
        else:
            form[feature], bias[:, f], error[:, f] = _beyond_typical(
                beta, bias[:, f], blocks[:, [0, f + 1]][..., [0, f + 1]]
            )
    form[varied] /= scale
    return LabellerModel(
        comparisons=c,
        labellers=c.labellers,
        features=tuple(FEATURES[f] for f in varied),
        sensitivity=beta,
        sensitivity_error=np.sqrt(np.diag(blocks[:, 0, :, 0])),
        bias=bias / scale,
        bias_error=error / scale,
        tie=theta[:, -1],
        form_worth=form[varied],
        worth=worths.mean + c.forms @ form[1:],
        worth_error=np.sqrt(worths.variances()),
        iterations=done,
        converged=converged,
    )


def _beyond_typical(beta: Array, bias: Array, covariance: Array) -> tuple[float, Array, Array]:
    """What a form is worth to the typical labeller; each labeller's bias beyond that, and its standard error.

    The typical one: the weighted median of bias / beta, then one step to the weighted mean of those within three
    standard errors of it (an adversary turns both around; one at random weighs nothing). What all biases share, which
    is not known well, falls out of the differences, and so their errors are smaller than those of the biases.
    covariance: of beta and bias, L x 2 x L x 2.
    """
    safe = np.where(np.abs(beta) < 1e-6, 1e-6, beta)
    weight = beta**2 / np.diag(covariance[:, 1, :, 1])
    order = np.argsort(bias / safe, kind="stable")
    root = np.sqrt(weight[order])
    middle = order[np.searchsorted(np.cumsum(root), root.sum() / 2)]
    typical = float(bias[middle] / safe[middle])
    crossed = covariance[:, 0, :, 1]
    spread = covariance[:, 1, :, 1] - typical * (crossed + crossed.T) + typical**2 * covariance[:, 0, :, 0]
    rest = bias - beta * typical
    weight = weight * (np.abs(rest) <= 3 * np.sqrt(np.diag(spread)))
    share = weight / weight.sum() / safe
    typical += float(share @ rest)
    apart = np.eye(len(beta)) - np.outer(beta, share)
    return typical, bias - beta * typical, np.sqrt(np.maximum(np.diag(apart @ spread @ apart.T), 0.0))
