"""Writes `trl_numbers.json`: what TRL's own trainers make of inputs that are made here by a formula.

TRL is no dependency, not even of the tests: it pins what we do not. So its numbers are kept beside the tests, with its
version, and this is how they were made:

    pip install 'chatwheel[bench]'
    pip download --no-deps trl==1.12.0 && unzip trl-1.12.0-py3-none-any.whl -d older
    python -m tests.training.trl_numbers older/trl/experimental/ppo/ppo_trainer.py

The trainers' methods are called as they are; what they would have computed with a model is given to them. Advantages,
which TRL computes in the middle of sampling, are taken from trainers that sample with a tiny model. TRL 1.16 has no PPO
any more; of the last one that had, the lines that compute are cut out of its trainer's loop and run.
"""

from __future__ import annotations

import json
import math
import sys
import tempfile
import textwrap
from collections import defaultdict
from importlib.metadata import version
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import torch
from torch import Tensor

NUMBERS = Path(__file__).with_suffix(".json")
LENGTHS = [3, 1, 5, 2, 4, 5]
"""Tokens of six answers."""
MAX_TOKENS = 8
REWARDS = [1.0, 0.0, 0.5, -2.0, 3.0, 3.0, 0.25, 0.75]
"""Of two groups of four."""


def wave(count: int, pace: float, size: float, middle: float = 0.0) -> Tensor:
    """Numbers that look like nothing in particular, the same everywhere."""
    return torch.tensor([middle + size * math.sin(pace * (i + 1) ** 1.5) for i in range(count)], dtype=torch.float64)


def tokens_of_answers() -> dict[str, Tensor]:
    """log-probs of all tokens, N, now and of the policy that sampled and of the reference; advantages of answers, A."""
    n = sum(LENGTHS)
    now = wave(n, 1.0, 1.0, -2.0)
    return {
        "now": now,
        "old": now + wave(n, 2.3, 0.6),
        "reference": now + wave(n, 0.7, 0.9),
        "advantages": wave(len(LENGTHS), 1.7, 1.5),
    }


def pairs() -> dict[str, Tensor]:
    """log-probs of the better and worse answers of six pairs, now and by the reference; tokens of each."""
    return {
        "better": wave(6, 1.1, 8, -20),
        "worse": wave(6, 2.9, 8, -21),
        "reference_better": wave(6, 0.3, 7, -20),
        "reference_worse": wave(6, 1.9, 7, -20),
        "lengths_better": torch.tensor(LENGTHS),
        "lengths_worse": torch.tensor(LENGTHS[::-1]),
    }


def strangers() -> dict[str, Tensor]:
    """log-probs of answers to other prompts, now and by the reference, which say where KTO's bar is."""
    return {"now": wave(6, 0.9, 6, -17), "reference": wave(6, 2.2, 6, -20)}


GRPO: dict[str, dict[str, Any]] = {
    "grpo": {"loss_type": "grpo"},
    "grpo, high clip": {"loss_type": "grpo", "epsilon_high": 0.28},
    "grpo, kl": {"loss_type": "grpo", "beta": 0.1},
    "grpo, two-sided": {"loss_type": "grpo", "delta": 1.5},
    "dr_grpo": {"loss_type": "dr_grpo"},
    "dapo": {"loss_type": "dapo", "epsilon_high": 0.28},
    "bnpo": {"loss_type": "bnpo"},
}
DPO: dict[str, dict[str, Any]] = {
    "sigmoid": {"loss_type": "sigmoid"},
    "robust": {"loss_type": "robust", "label_smoothing": 0.2},
    "ipo": {"loss_type": "ipo"},
    "sigmoid_norm": {"loss_type": "sigmoid_norm"},
}
KTO: dict[str, dict[str, float]] = {
    "plain": {"desirable_weight": 1.0, "undesirable_weight": 1.0},
    "weighted": {"desirable_weight": 1.0, "undesirable_weight": 1.7},
}
PPO = {"cliprange": 0.2, "cliprange_value": 0.1, "vf_coef": 0.7, "gamma": 0.99, "lam": 0.9, "whiten_rewards": False}
"""TRL's names."""
BETA = 0.3
LABELS = [True, False, True, True, False, True]


def padded(flat: Tensor, lengths: list[int]) -> Tensor:
    """A vector over all tokens as rows, 0 behind each answer."""
    return torch.nn.utils.rnn.pad_sequence(list(torch.split(flat, lengths)), batch_first=True)


class Alone:
    """An accelerator of one process."""

    device = torch.device("cpu")
    num_processes = 1

    def __getattr__(self, name: str) -> Any:
        return lambda values, *_, **__: values


def trainer(**values: Any) -> Any:
    """What stands for a trainer where only a loss is wanted."""
    return SimpleNamespace(
        accelerator=Alone(),
        model=SimpleNamespace(training=True),
        aux_loss_enabled=False,
        _metrics={"train": defaultdict(list)},
        current_gradient_accumulation_steps=1,
        _tp_size=1,
        **values,
    )


def answers() -> dict[str, Tensor]:
    mask = padded(torch.ones(sum(LENGTHS)), LENGTHS)
    ids = torch.ones(mask.shape, dtype=torch.long)
    given = tokens_of_answers()
    return {
        "prompt_ids": ids[:, :1],
        "prompt_mask": ids[:, :1],
        "completion_ids": ids,
        "completion_mask": mask.long(),
        "advantages": given["advantages"],
        "old_per_token_logps": padded(given["old"], LENGTHS),
        "old_logps": padded(given["old"], LENGTHS).sum(1),
        "ref_per_token_logps": padded(given["reference"], LENGTHS),
        "num_items_in_batch": mask.sum(),
    }


def with_gradient(compute: Any, log_probs: Tensor) -> dict[str, Any]:
    """A loss, and its gradient with respect to the log-probs."""
    leaf = log_probs.clone().requires_grad_()
    loss = compute(leaf)
    loss.backward()
    return {"loss": float(loss.detach()), "gradient": leaf.grad.tolist()}


def grpo_losses() -> dict[str, Any]:
    from trl import GRPOTrainer

    def loss(now: Tensor, settings: dict[str, Any]) -> Tensor:
        found = padded(now, LENGTHS)
        subject = trainer(
            _get_per_token_logps_and_entropies=lambda *_, **__: (found, found.detach(), None),
            loss_type=settings["loss_type"],
            beta=settings.get("beta", 0.0),
            epsilon_low=0.2,
            epsilon_high=settings.get("epsilon_high", 0.2),
            max_completion_length=MAX_TOKENS,
            top_entropy_quantile=1.0,
            off_policy_mask_threshold=None,
            importance_sampling_level="token",
            use_vllm=False,
            _entropy_bonus_enabled=False,
            args=SimpleNamespace(
                delta=settings.get("delta"), use_bias_correction_kl=False, steps_per_generation=1, report_to=[]
            ),
        )
        return GRPOTrainer._compute_loss(subject, None, answers())

    now = tokens_of_answers()["now"]
    return {name: with_gradient(lambda x, s=s: loss(x, s), now) for name, s in GRPO.items()}


def rloo_loss() -> dict[str, Any]:
    """At the policy that sampled, where no ratio is clipped."""
    from trl import RLOOTrainer

    now = tokens_of_answers()["now"]

    def loss(x: Tensor) -> Tensor:
        found = padded(x, LENGTHS)
        subject = trainer(
            _get_per_token_logps_and_entropies=lambda *_, **__: (found, found.detach(), None),
            epsilon_low=0.2,
            epsilon_high=0.2,
        )
        inputs = answers() | {"old_logps": found.detach().sum(1)}
        return RLOOTrainer._compute_loss(subject, None, inputs)

    return with_gradient(loss, now)


def dpo_losses() -> dict[str, Any]:
    from trl import DPOTrainer

    given = pairs()
    lengths = torch.cat([given["lengths_better"], given["lengths_worse"]])
    mask = padded(torch.ones(int(lengths.sum())), lengths.tolist())
    mask = torch.cat([torch.zeros(len(mask), 1), mask], dim=1).long()

    def loss(better: Tensor, settings: dict[str, Any]) -> Tensor:
        sums = torch.cat([better, given["worse"]])
        share = (mask[:, 1:] / lengths[:, None]) * sums[:, None]
        outputs = SimpleNamespace(log_probs=share, entropy=share.detach(), mean_logits=share, is_top1=share > 0)
        subject = trainer(
            beta=BETA,
            loss_types=[settings["loss_type"]],
            loss_weights=[1.0],
            label_smoothing=settings.get("label_smoothing", 0.0),
            ld_alpha=None,
            precompute_ref_logps=True,
            f_divergence_type="reverse_kl",
            use_weighting=False,
            args=SimpleNamespace(use_liger_kernel=False, rpo_alpha=None),
            _total_train_tokens=0,
        )
        inputs = {
            "input_ids": torch.ones(mask.shape, dtype=torch.long),
            "attention_mask": torch.ones(mask.shape, dtype=torch.long),
            "completion_mask": mask,
            "ref_chosen_logps": given["reference_better"],
            "ref_rejected_logps": given["reference_worse"],
        }
        return DPOTrainer._compute_loss(subject, lambda **_: outputs, inputs, return_outputs=False)

    return {name: with_gradient(lambda x, s=s: loss(x, s), given["better"]) for name, s in DPO.items()}


def kto_losses() -> dict[str, Any]:
    from trl import KTOTrainer

    given, others = pairs(), strangers()
    mask = torch.ones(6, 2, dtype=torch.long)

    def loss(now: Tensor, settings: dict[str, float]) -> Tensor:
        outputs = SimpleNamespace(log_probs=now[:, None], entropy=now[:, None].detach(), mean_logits=now[:, None])
        subject = trainer(
            beta=BETA,
            loss_type="kto",
            calculate_KL=True,
            precompute_ref_logps=True,
            _compute_kl_logps=lambda *_: others["now"],
            args=SimpleNamespace(use_liger_kernel=False),
            _total_train_tokens=0,
            **settings,
        )
        batch = {
            "input_ids": mask,
            "attention_mask": mask,
            "completion_mask": mask,
            "label": torch.tensor(LABELS),
            "ref_logps": given["reference_better"],
            "ref_KL_logps": others["reference"],
        }
        return KTOTrainer._compute_loss(subject, lambda **_: outputs, batch, return_outputs=False)

    return {name: with_gradient(lambda x, s=s: loss(x, s), given["better"]) for name, s in KTO.items()}


def states() -> dict[str, Tensor]:
    """What PPO knows of each token, N: its reward, its value then and now."""
    n = sum(LENGTHS)
    return {"rewards": wave(n, 1.3, 1.0), "values": wave(n, 2.1, 0.8), "values_now": wave(n, 1.6, 0.9)}


def ppo_numbers(trainer_file: Path) -> dict[str, Any]:
    """Advantages and returns of an answer's tokens, whitened over all; the two losses and their gradients."""
    source = trainer_file.read_text(encoding="utf-8")

    def lines(first: str, last: str, names: dict[str, Any]) -> dict[str, Any]:
        begin = source.rindex("\n", 0, source.index(first)) + 1
        exec(textwrap.dedent(source[begin : source.index(last, begin)]), names)  # TRL's own lines
        return names

    names: dict[str, Any] = {"torch": torch, "Optional": None}
    lines("def masked_mean(", "class PolicyAndValueWrapper", names)
    outside = padded(torch.ones(sum(LENGTHS)), LENGTHS) == 0
    given, known = tokens_of_answers(), states()
    names |= {
        "args": SimpleNamespace(**PPO),
        "padding_mask": outside,
        "padding_mask_p1": outside,
        "responses": outside,
        "rewards": padded(known["rewards"], LENGTHS),
        "values": padded(known["values"], LENGTHS),
    }
    lines("# 6. compute advantages and returns", "empty_cache()", names)
    learnt = {name: names[name][~outside].tolist() for name in ("advantages", "returns")}

    everything = slice(None)

    def loss(now: Tensor, values_now: Tensor) -> Tensor:
        names.update(
            micro_batch_inds=everything,
            mb_advantage=names["advantages"],
            mb_return=names["returns"],
            mb_values=names["values"],
            mb_logprobs=padded(given["old"], LENGTHS),
            new_logprobs=padded(now, LENGTHS),
            vpred=padded(values_now, LENGTHS),
        )
        return lines("vpredclipped = torch.clamp(", "accelerator.backward(loss)", names)["loss"]

    return learnt | {
        "policy": with_gradient(lambda x: loss(x, known["values_now"]), given["now"]),
        "value": with_gradient(lambda x: loss(given["now"], x), known["values_now"]),
    }


class EnoughError(Exception):
    """The advantages are known."""


def advantages(kind: Any, config: Any, **settings: Any) -> list[float]:
    """Of `REWARDS`, by a trainer that samples eight answers with a tiny model."""
    from datasets import Dataset

    from chatwheel.model.checkpoint import save_model
    from tests.tiny import causal, tokenizer

    found: list[float] = []

    class Stopping(kind):  # type: ignore[misc]
        def _calculate_rewards(self, *_: Any) -> Tensor:
            return torch.tensor(REWARDS)[:, None]

        def _generate_and_score_completions(self, inputs: Any) -> Any:
            found.extend(super()._generate_and_score_completions(inputs)["advantages"].tolist())
            raise EnoughError

    with tempfile.TemporaryDirectory() as place:
        save_model(Path(place) / "tiny", causal(), tokenizer(), {})
        arguments = config(
            output_dir=place,
            num_generations=4,
            per_device_train_batch_size=8,
            max_completion_length=4,
            beta=0.0,
            shuffle_dataset=False,
            report_to=[],
            use_cpu=True,
            bf16=False,
            **settings,
        )
        data = Dataset.from_list([{"prompt": f"What is {i}?"} for i in range(4)])
        made = Stopping(
            model=str(Path(place) / "tiny"),
            reward_funcs=lambda **_: REWARDS,
            args=arguments,
            train_dataset=data,
        )
        try:
            made.train()
        except EnoughError:
            return found
    raise AssertionError("the trainer came to no loss")


def all_advantages() -> dict[str, list[float]]:
    from trl import GRPOConfig, GRPOTrainer, RLOOConfig, RLOOTrainer

    groups = {s: advantages(GRPOTrainer, GRPOConfig, scale_rewards=s) for s in ("group", "batch", "none")}
    return groups | {
        "rloo": advantages(RLOOTrainer, RLOOConfig, normalize_advantages=False),
        "rloo, normalised": advantages(RLOOTrainer, RLOOConfig, normalize_advantages=True),
    }


def main(ppo_trainer: Path) -> None:
    """Writes the file."""
    numbers = {
        "versions": {"trl": version("trl"), "of which ppo": "1.12.0"},
        "grpo": grpo_losses(),
        "rloo": rloo_loss(),
        "dpo": dpo_losses(),
        "kto": kto_losses(),
        "ppo": ppo_numbers(ppo_trainer),
        "advantages": all_advantages(),
    }
    NUMBERS.write_text(json.dumps(numbers, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
