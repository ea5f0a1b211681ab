"""Stage 4, PPO: the assistant learns to give answers that the reward model likes (Ouyang et al., 2022, section 3.5).

prompts -> models: actor, critic, frozen reference, judges -> rollout: answers, rewards, KL -> values and advantages of
every token -> loss: clipped policy and value losses (Schulman et al., 2017, eq. 7 and 9) -> loop. What is not about
values is shared with GRPO and RLOO: see `policy_gradient`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from typing import Any, Literal

import torch
from pydantic import Field, model_validator
from torch import Tensor, nn

from chatwheel.model.lora import add_lora
from chatwheel.model.tokenizer import Tokenizer
from chatwheel.model.transformer import CausalLM, Linear, ScalarModel
from chatwheel.training.advantages import generalised_advantages, whiten
from chatwheel.training.answers import Answers
from chatwheel.training.cross_entropy import token_log_probs
from chatwheel.training.loop import Metrics
from chatwheel.training.policy_gradient import Demonstrated, Minibatch, PolicyGradientObjective, learn
from chatwheel.training.policy_gradient_config import PolicyGradientConfig
from chatwheel.training.rewards import Question, Reward
from chatwheel.training.rollouts import Rollout
from chatwheel.training.throughput import Work, forward_flops, training_flops


class PPOConfig(PolicyGradientConfig):
    """How to run PPO; what is not said here, `PolicyGradientConfig` says.

    gamma, lam: of the advantages (Schulman et al., 2016). critic: "own" is a model of its own, which begins as the
    reward model; "head" is a head on the policy's trunk, which costs no second model. critic_warmup: rollouts in which
    only the critic learns. value_clip: how far a value may move in a step. value_weight: of its loss.
    """

    epochs: int = Field(default=2, ge=1)
    minibatches: int = Field(default=2, ge=1)
    gamma: float = Field(default=1.0, gt=0, le=1)
    lam: float = Field(default=0.95, ge=0, le=1)
    critic: Literal["own", "head"] = "head"
    critic_warmup: int = Field(default=0, ge=0)
    value_clip: float = Field(default=0.2, gt=0)
    value_weight: float = Field(default=0.5, ge=0)

    @model_validator(mode="after")
    def _the_policy_learns_too(self) -> PPOConfig:
        if self.critic_warmup >= self.rollouts:
            raise ValueError(
                f"critic_warmup ({self.critic_warmup}) leaves none of {self.rollouts} rollouts to the policy"
            )
        return self


class PPOObjective(PolicyGradientObjective):
    """PPO's two losses. critic: of its own; None is a head on the policy's trunk."""

    name = "ppo"

    def __init__(
        self,
        config: PPOConfig,
        actor: CausalLM,
        critic: ScalarModel | None,
        reward: Reward,
        tokenizer: Tokenizer,
        questions: Sequence[Question],
        seed: int,
        **more: Any,
    ) -> None:
        super().__init__(config, actor, reward, tokenizer, questions, seed, **more)
        self.config, self.critic = config, critic
        if critic is not None and config.lora is not None:
            add_lora(critic, config.lora, torch.Generator().manual_seed(seed + 1))
            critic.to(critic.model.device)
        self.head = Linear(actor.config.hidden_size, 1).to(self.device)
        nn.init.zeros_(self.head.weight)
        self._warming = False

    @property
    def modules(self) -> dict[str, nn.Module]:
        """Actor and critic."""
        return {**super().modules, "critic": self.head if self.critic is None else self.critic}

    @property
    def layers(self) -> list[nn.Module]:
        """Actor's and critic's."""
        return [*super().layers, *(self.critic.model.layers if self.critic is not None else [])]

    # -- rollout: what each token was worth

    def credit(self, rollout: Rollout) -> tuple[Rollout, dict[str, Tensor], Metrics]:
        """Each token pays for its divergence from the reference, the last one earns the answer's score; the critic says
        what was to be expected."""
        config, lengths = self.config, rollout.lengths
        rewards_N = -self.kl_costs(rollout)
        rewards_N[torch.tensor(lengths, device=self.device).cumsum(0) - 1] += self.penalised(rollout)
        values_N = rollout.per_token.get("values")
        if values_N is None:
            values_N = torch.cat([self.values(part) for part in self.parts(rollout)])
        advantages_N, returns_N = generalised_advantages(
            rewards_N, values_N, lengths, gamma=config.gamma, lam=config.lam
        )
        explained = 1 - (returns_N - values_N).var() / (returns_N.var() + 1e-8)
        credit = {"advantages": whiten(advantages_N), "values": values_N, "returns": returns_N}
        numbers = {"explained_variance": explained, "value": values_N.mean(), "return": returns_N.mean()}
        return rollout, credit, {name: float(value) for name, value in numbers.items()}

    def read_again(self, parts: Sequence[Answers]) -> dict[str, Tensor]:
        """With the values of a head, which reads what the policy does."""
        if self.critic is not None:
            return super().read_again(parts)
        model = self.policy.model
        hidden = (part.hidden(model.model, self.dtype) for part in parts)
        read = [
            (token_log_probs(model.lm_head, h_ND, part.targets), self._of_head(h_ND))
            for h_ND, part in zip(hidden, parts, strict=True)
        ]
        log_probs, values = zip(*read, strict=True)
        return {"log_probs": torch.cat(log_probs), "values": torch.cat(values)}

    def values(self, answers: Answers) -> Tensor:
        """What the critic expects before each token, N."""
        if self.critic is not None:
            return answers.values(self.critic, self.dtype)
        return self._of_head(answers.hidden(self.policy.model.model, self.dtype))

    def _of_head(self, hidden_ND: Tensor) -> Tensor:
        return self.head(hidden_ND.float()).squeeze(-1)  # type: ignore[no-any-return]

    # -- update

    def collect(self, number: int) -> None:
        """A rollout; the first ones may be the critic's alone."""
        self._warming = number < self.config.critic_warmup
        super().collect(number)

    def loss(self, batch: Minibatch | Demonstrated) -> tuple[Tensor, Metrics]:
        """Clipped policy and value losses, and the next-token loss on demonstrations where `ptx` asks for it."""
        if isinstance(batch, Demonstrated):
            return self.demonstrated_loss(batch)
        if batch.learns == "critic":
            return self._of_values(batch, self.values(batch.answers))
        model, answers = self.policy.model, batch.answers
        with torch.set_grad_enabled(not self._warming):
            hidden_ND = answers.hidden(model.model, self.dtype)
            log_probs_N = token_log_probs(model.lm_head, hidden_ND, answers.targets)
            policy_loss, metrics = self.policy_loss(batch, log_probs_N)
        if batch.learns == "policy":
            return policy_loss, metrics
        values_N = self._of_head(hidden_ND) if self.critic is None else self.values(answers)
        value_loss, more = self._of_values(batch, values_N)
        return policy_loss + value_loss, metrics | more

    def _of_values(self, batch: Minibatch, values_N: Tensor) -> tuple[Tensor, Metrics]:
        loss = self.value_loss(batch, values_N)
        return self.config.value_weight * loss, {"value_loss": float(loss.detach())}

    def value_loss(self, batch: Minibatch, values_N: Tensor) -> Tensor:
        """Half the squared error of the values, or of those clipped to near where they were, whichever is larger."""
        old, clip = batch.per_token, self.config.value_clip
        near_N = old["values"] + (values_N - old["values"]).clamp(-clip, clip)
        errors_N = torch.maximum((values_N - old["returns"]) ** 2, (near_N - old["returns"]) ** 2)
        return 0.5 * (errors_N * old["share"]).sum()

    def batches(self, step: int) -> Sequence[Minibatch | Demonstrated]:
        """A critic of its own learns in passes of its own: its activations and the policy's are never in memory
        together. While it warms up the policy has none, nor are there demonstrations."""
        batches = super().batches(step)
        if self._warming:
            return [batch for batch in batches if isinstance(batch, Minibatch)]
        if self.critic is None:
            return batches
        return [
            *(replace(batch, learns="critic") for batch in batches if isinstance(batch, Minibatch)),
            *(replace(batch, learns="policy") if isinstance(batch, Minibatch) else batch for batch in batches),
        ]

    def update_flops(self, work: Work) -> float:
        """Actor and critic learn."""
        actor = forward_flops(self.policy.model, work) if self._warming else super().update_flops(work)
        return actor + (training_flops(self.critic, work) if self.critic is not None else 0.0)

    def rollout_flops(self, work: Work) -> float:
        """The critic reads, too; a head with the policy, where that reads."""
        if self.critic is None and self._rereads:
            return super().rollout_flops(work)
        reader = self.policy.model if self.critic is None else self.critic
        return super().rollout_flops(work) + forward_flops(reader, work)


def ppo(
    config: PPOConfig, start: CausalLM, critic: ScalarModel | None, *given: Any, **more: Any
) -> tuple[CausalLM, Metrics]:
    """See `learn`, which gets the rest. The critic is trained beside the policy."""
    return learn(partial(PPOObjective, critic=critic), config, start, *given, **more)
