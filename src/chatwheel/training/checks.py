"""What is measured now and then while a policy learns, so that `diagnosis` can tell a fault from bad luck.

It draws nothing at random and changes nothing that training reads. Shape suffixes: N tokens, V vocabulary, D width.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np
import torch
from torch import Tensor

from chatwheel.engine.requests import Completion
from chatwheel.errors import ChatwheelError
from chatwheel.model.tokenizer import Tokenizer
from chatwheel.model.transformer import CausalLM
from chatwheel.training.answers import Answers, PromptedAnswer
from chatwheel.training.rewards import Question, Reward

TIMES = 10
"""Checks in a run, spread evenly; the first rollout always has one."""
CHECKED_TOKENS = 512
"""Tokens that a check reads: the standard error of their mean surprise is then about 0.05 nats."""
SLICE = 64
"""Tokens whose logits are there together: 40 MB of a vocabulary of 150,000."""
COMPARED = 32
"""Prompts whose references are judged."""


def is_due(rollout: int, rollouts: int) -> bool:
    """Whether a rollout of so many is checked: by its number alone, so that a resumed run checks the same ones."""
    return rollout % -(-rollouts // TIMES) == 0


@torch.no_grad()
def surprise(
    model: CausalLM, sampled: Iterable[PromptedAnswer], row_length: int, dtype: torch.dtype
) -> dict[str, float]:
    """How much less likely answers are than samples of the model would be: the mean of -log p less the distribution's
    entropy, in nats a token, and its standard error.

    Of its own samples the mean is 0 whatever the model, for each token's surprise has the entropy as its expectation
    given all before it. A temperature below 1, top-k and top-p make it negative.
    """
    some: list[PromptedAnswer] = []
    tokens = 0
    for answer in sampled:
        if tokens >= CHECKED_TOKENS:
            break
        some.append(answer)
        tokens += answer.length
    answers = Answers.of(some, row_length, model.model.device)

    def compute() -> Tensor:
        hidden_ND = answers.hidden(model.model, dtype)
        return torch.cat(
            [
                _excess(model.lm_head(h).float().log_softmax(-1), t)
                for h, t in zip(torch.split(hidden_ND, SLICE), torch.split(answers.targets, SLICE), strict=True)
            ]
        )

    excess_N2 = model.computing(compute).double()
    return {
        "surprise": float(excess_N2[:, 0].mean()),
        # The excesses are uncorrelated (a martingale's differences), so their variances add up.
        "surprise_error": float(excess_N2[:, 1].sum().sqrt()) / len(excess_N2),
    }


def _excess(log_p_NV: Tensor, targets_N: Tensor) -> Tensor:
    """-log p of the target less the entropy, and the variance of that, N2."""
    p_NV = log_p_NV.exp()
    seen_NV = log_p_NV.clamp(min=-1e4)  # 0 log 0 is 0
    entropy_N = -(p_NV * seen_NV).sum(-1)
    variance_N = (p_NV * seen_NV**2).sum(-1) - entropy_N**2
    chosen_N = seen_NV.gather(1, targets_N[:, None])[:, 0]
    return torch.stack([-chosen_N - entropy_N, variance_N.clamp(min=0)], dim=1)


@torch.no_grad()
def reference_log_prob(
    reference: CausalLM, questions: Sequence[Question], row_length: int, dtype: torch.dtype
) -> dict[str, float]:
    """What the reference thinks of the first prompts, in nats a token: always the same text, so always the same."""
    texts: list[PromptedAnswer] = []
    tokens = 0
    for question in questions:
        if tokens >= CHECKED_TOKENS:
            break
        if len(question.ids) > 1:
            texts.append(PromptedAnswer(list(question.ids), 1))
            tokens += len(question.ids) - 1
    if not texts:
        return {}
    log_probs_N = Answers.of(texts, row_length, reference.model.device).log_probs(reference, dtype)
    return {"reference_log_prob": float(log_probs_N.double().mean())}


def reference_lead(
    judge: Reward, questions: Sequence[Question], scores: Sequence[float], tokenizer: Tokenizer, row_length: int
) -> dict[str, float]:
    """How much better than the policy's answers the judges find the references of the same prompts, with its standard
    error over prompts, and what they give those references; nothing where fewer than two prompts have one.

    scores: of the policy's answers, one a question.
    """
    ours: dict[tuple[int, ...], list[float]] = {}
    for question, value in zip(questions, scores, strict=True):
        ours.setdefault(question.ids, []).append(value)
    asked: list[Question] = []
    answers: list[Completion] = []
    for question in {question.ids: question for question in questions if question.reference}.values():
        answer = _as_answer(str(question.reference), tokenizer)
        if len(asked) < COMPARED and len(question.ids) + len(answer.token_ids) <= row_length:
            asked.append(question)
            answers.append(answer)
    if len(asked) < 2:
        return {}
    try:
        theirs = judge(asked, answers).tolist()
    except ChatwheelError:  # of answers that no policy gave; it is not worth a run
        return {}
    leads = np.array(theirs) - np.array([np.mean(ours[question.ids]) for question in asked])
    return {
        "reference_reward": float(np.mean(theirs)),
        "reference_lead": float(leads.mean()),
        "reference_lead_error": float(leads.std(ddof=1) / len(leads) ** 0.5),
    }


def _as_answer(text: str, tokenizer: Tokenizer) -> Completion:
    ids = (*tokenizer.encode(text), tokenizer.end_id)
    return Completion(token_ids=ids, logprobs=(0.0,) * len(ids), text=text, finish_reason="stop", prompt_tokens=0)
