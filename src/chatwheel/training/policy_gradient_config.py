"""How a policy learns from its own answers: what PPO, GRPO, RLOO and best of n are told alike."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

from chatwheel.model.lora import LoRAConfig
from chatwheel.training.asynchronous import AsynchronousConfig
from chatwheel.training.guard import GuardConfig
from chatwheel.training.kl_control import KLConfig
from chatwheel.training.optimizers import OptimizerConfig
from chatwheel.training.precision import Precision
from chatwheel.training.rewards import OWN, RewardSource


class PolicyGradientConfig(BaseModel):
    """How a policy learns from its own answers.

    rollouts: times that new answers are sampled. prompts_per_rollout: prompts of each. samples_per_prompt: answers to
    each of them. rewards: who judges them, in sum; the run's own reward model unless given. epochs, minibatches: how
    often, and in how many parts, a rollout is learnt from. answers_at_once: what is in memory together of a part, all
    of it unless given; it changes no result. clip: how far probability ratios may move (Schulman et al., 2017, PPO).
    clip_high: upwards, if another (Yu et al., 2025, DAPO). dual_clip: a bad answer's loss is at most so many times its
    advantage, however likely it has become (Ye et al., 2020). missing_end_penalty: taken off the reward of an answer
    that was cut off. ptx: weight of the next-token loss on demonstrations mixed in against forgetting (PPO-ptx; Ouyang
    et al., 2022). step_kl: nats a token from the rollout's policy beyond which the rest of a rollout is skipped.
    average: the share of the old in a running mean of the weights over steps, which is the result then (0: none).
    guard: who watches over it, see `GuardConfig`. recompute: layers' activations on the way back, which costs a third
    more time and far less memory. lora: train an adapter, see there. compile: the layers, by torch.compile:
    rows come in ever other shapes here, so that it pays for long runs only, and a resumed run computes the same but for
    rounding. asynchronous: samples ahead of the update, in other processes. The temperature is 1 always: it is the
    policy's own distribution that learns.

    max_tokens: of an answer; a longer one is cut off. row_length: tokens of a row, a prompt and its answer at most;
    longer prompts are left out. ptx_rows: rows of demonstrations that a step mixes in. kl: how far the policy may go,
    see there; what is not said of it stays as the method has it. optimizer: see there; what is not said of it is as it
    says there. precision: of activations; weights are fp32.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")
    rollouts: int = Field(ge=1)
    rewards: tuple[RewardSource, ...] = ()
    prompts_per_rollout: int = Field(default=128, ge=1)
    samples_per_prompt: int = Field(default=1, ge=1)
    epochs: int = Field(default=1, ge=1)
    minibatches: int = Field(default=1, ge=1)
    answers_at_once: int | None = Field(default=None, ge=1)
    max_tokens: int = Field(default=64, ge=1)
    row_length: int = Field(default=256, ge=2)
    clip: float = Field(default=0.2, gt=0, lt=1)
    clip_high: float | None = Field(default=None, gt=0)
    dual_clip: float | None = Field(default=None, gt=1)
    missing_end_penalty: float = Field(default=1.0, ge=0)
    ptx: float = Field(default=0.0, ge=0)
    ptx_rows: int = Field(default=4, ge=1)
    step_kl: float = Field(default=0.1, gt=0)
    average: float = Field(default=0.0, ge=0, lt=1)
    guard: GuardConfig | None = None
    kl: KLConfig = KLConfig()
    optimizer: OptimizerConfig = OptimizerConfig(learning_rate=1e-4, warmup=0.05, decay=0.5)
    precision: Precision = "auto"
    recompute: bool = False
    compile: Literal["always", "never"] = "never"
    lora: LoRAConfig | None = None
    asynchronous: AsynchronousConfig | None = None

    @field_validator("kl", mode="before")
    @classmethod
    def _as_usual_but_for(cls, value: Any) -> Any:
        """What is given of the KL changes the method's own way with it, not `KLConfig`'s: GRPO's stays in the loss."""
        return {**cls.model_fields["kl"].default.model_dump(), **value} if isinstance(value, dict) else value

    @model_validator(mode="after")
    def _fits(self) -> PolicyGradientConfig:
        if self.answers < 2:
            raise ValueError("one answer a rollout is nothing to compare; raise prompts_per_rollout")
        if self.minibatches > self.answers:
            raise ValueError(f"{self.minibatches} minibatches of {self.answers} answers")
        if self.lora is not None and self.lora.dropout:
            raise ValueError("lora.dropout: what is learnt from must be what was sampled; give 0")
        if self.guard is not None:
            self._guards(self.guard)
        return self

    def _guards(self, guard: GuardConfig) -> None:
        if any(guard.judge.judges_as(source) for source in self.rewards or (RewardSource(model=OWN),)):
            raise ValueError(f"guard.judge: {guard.judge.name} is what is learnt from; name another judge")
        if guard.prompts > (learnt := guard.every * self.answers):
            # So that what it costs is bounded by what is learnt from.
            raise ValueError(
                f"guard.prompts ({guard.prompts}) are more than the {learnt} answers from one look to the next; give "
                "fewer, or raise guard.every"
            )

    @property
    def answers(self) -> int:
        """Answers of a rollout."""
        return self.prompts_per_rollout * self.samples_per_prompt

    @property
    def judged_by_the_run(self) -> bool:
        """Whether the run's own reward model judges."""
        return not self.rewards or any(source.model == OWN for source in self.rewards)

    @property
    def updates_per_rollout(self) -> int:
        """Optimizer steps between two rollouts."""
        return self.epochs * self.minibatches
