"""Who learns from rewards: Chatwheel and TRL on random weights, each in a process of its own.

A rollout is 64 answers of 64 tokens to prompts of 32; nothing ends an answer early (no contender's tokenizer has an end
that can be drawn), so that all have the same lengths and nobody pads. Then

- PPO: a policy, a critic of its own, a frozen reference and a reward model, each of NANO's size; the rollout is learnt
  from in four epochs of one gradient step each.
- GRPO: eight answers to each of eight prompts, judged by a function (the share of even tokens), TRL's default of one
  gradient step and no reference.

Equal for all: the model's shape, temperature 1, AdamW with the same rate, clipping of the ratio (0.2) and of values
(0.2), KL per token (k1, 0.05), GAE (1, 0.95), whitened advantages, no dropout. What differs:

- Chatwheel takes the log-probs of the rollout's policy from the sampler where it computes in fp32; TRL's PPO computes
  them with the trainer's model.
- `head` is Chatwheel with the critic as a head on the policy's trunk: not the same work.
- GRPO's answers to one prompt share its tokens in Chatwheel's rows.
- TRL's PPO does not clip gradients; Chatwheel does. TRL's GRPO clips too.
- Chatwheel samples from fp32 weights (its engine on CPUs) and trains in `precision`, from fp32 weights; TRL's PPO as it
  comes samples and judges in fp32 and updates under bf16 autocast. With weights of bf16 all of TRL is in bf16, AdamW's
  state too, which loses updates below 2^-8 of a weight: faster where processors multiply bf16, and no way to
  train with such a rate.
- TRL goes through a gradient step in micro-batches of eight (its default) or, in its other ways here, of sixteen;
  Chatwheel in such of sixteen. Nobody's layers are compiled.

TRL left PPO out after 1.12: `bench ppo` needs `pip install 'trl<1.13'`.

Seconds are medians over the rollouts after the first. Generation is sampling. Scoring is all up to the advantages:
log-probs, values, rewards. The update is the rest.
"""

from __future__ import annotations

import json
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch

from chatwheel.benchmarks.contenders import Result, llama_config, peak_memory_mb
from chatwheel.benchmarks.workloads import NANO
from chatwheel.model.tokenizer import Tokenizer
from chatwheel.model.transformer import CausalLM, ScalarModel, initialise
from chatwheel.training.throughput import Work, training_flops
from chatwheel.training.throughput import matrix_peak as measured_peak


@dataclass(frozen=True, kw_only=True)
class Settings:
    """answers: of a rollout. samples: answers to the same prompt (GRPO). epochs: gradient steps a rollout (PPO).
    rollouts: timed ones, after one that is not. precision, answers_at_once, compiled: of Chatwheel: its activations,
    the answers of a micro-batch, and whether its layers are compiled, which the first rollout pays for."""

    answers: int = 64
    samples: int = 8
    prompt_tokens: int = 32
    answer_tokens: int = 64
    epochs: int = 4
    rollouts: int = 2
    learning_rate: float = 3e-6
    precision: str = "auto"
    answers_at_once: int = 16
    compiled: bool = False

    @property
    def dtype(self) -> torch.dtype:
        """The type of Chatwheel's activations."""
        from chatwheel.training.precision import compute_dtype

        return compute_dtype(self.precision, "cpu")  # type: ignore[arg-type]


def prompts(settings: Settings, count: int) -> list[list[int]]:
    """Random tokens, all prompts of the same length."""
    generator = np.random.default_rng(0)
    tokens: list[list[int]] = generator.integers(10, NANO.vocab_size, (count, settings.prompt_tokens)).tolist()
    return tokens


@dataclass
class Clock:
    """When things were done, rollout after rollout. Each list has as many entries as rollouts that are done."""

    began: list[float] = field(default_factory=list)
    sampled: list[float] = field(default_factory=list)
    judged: list[float] = field(default_factory=list)
    ended: list[float] = field(default_factory=list)

    def result(self, settings: Settings) -> Result:
        """Of the rollouts after the first."""
        parts = np.diff(np.array([self.began, self.sampled, self.judged, self.ended]), axis=0)[:, 1:]
        return result_of(settings, parts.T.tolist())


def result_of(settings: Settings, rollouts: list[list[float]]) -> Result:
    """rollouts: seconds of generation, scoring and update of each. Medians, also of their sum."""
    generation, scoring, update = (statistics.median(column) for column in zip(*rollouts, strict=True))
    return {
        "answers_per_second": settings.answers / statistics.median(sum(parts) for parts in rollouts),
        "generation_seconds": generation,
        "scoring_seconds": scoring,
        "update_seconds": update,
    }


def matrix_peak(settings: Settings) -> Result:
    """The best rate at which this machine multiplies matrices, in GFLOP/s."""
    return {"gflops": measured_peak(settings.dtype, seconds=60) / 1e9}


# PPO ------------------------------------------------------------------------------------------------------------------


def ppo_chatwheel(settings: Settings, critic_of_its_own: bool = True) -> Result:
    """`training/ppo.py` through its function; the times are those of its metrics."""
    from chatwheel.training.kl_control import KLConfig
    from chatwheel.training.loop import read_metrics
    from chatwheel.training.optimizers import OptimizerConfig
    from chatwheel.training.ppo import PPOConfig, ppo
    from chatwheel.training.rewards import Question, RewardModelReward

    count, row_length = settings.rollouts + 1, settings.prompt_tokens + settings.answer_tokens
    tokenizer = _our_tokenizer()
    actor, critic, judge = CausalLM(NANO), ScalarModel(NANO), ScalarModel(NANO)
    models: tuple[CausalLM | ScalarModel, ...] = (actor, critic, judge)
    for seed, model in enumerate(models):
        initialise(model, torch.Generator().manual_seed(seed))
    judge.requires_grad_(False)
    reward = RewardModelReward(
        model=judge, mean=0.0, std=1.0, row_length=row_length + 1, dtype=settings.dtype, end_id=tokenizer.end_id
    )
    config = PPOConfig(
        rollouts=count,
        prompts_per_rollout=settings.answers,
        epochs=settings.epochs,
        minibatches=1,
        answers_at_once=settings.answers_at_once,
        compile="always" if settings.compiled else "never",
        critic="own" if critic_of_its_own else "head",
        max_tokens=settings.answer_tokens,
        row_length=row_length,
        missing_end_penalty=0.0,
        step_kl=1e9,  # nothing is skipped
        kl=KLConfig(coefficient=0.05, target=None, stop=1e9),
        optimizer=OptimizerConfig(learning_rate=settings.learning_rate, warmup=0.0, matrices="adamw"),
        precision=settings.precision,  # type: ignore[arg-type]
    )
    questions = [Question(tuple(ids)) for ids in prompts(settings, settings.answers * count)]
    with tempfile.TemporaryDirectory() as directory:
        ppo(
            config,
            actor,
            critic if critic_of_its_own else None,
            reward,
            tokenizer,
            questions,
            directory=Path(directory),
            seed=0,
        )
        steps = read_metrics(Path(directory))
    return result_of(settings, split_of_steps(steps, config.updates_per_rollout)[1:])


def ppo_chatwheel_head(settings: Settings) -> Result:
    """The critic as a head on the policy's trunk."""
    return ppo_chatwheel(settings, critic_of_its_own=False)


def _our_tokenizer() -> Tokenizer:
    """Prompts are tokens already; any vocabulary does."""
    tokenizer = Tokenizer.train([" ".join(map(chr, range(33, 127)))], 262)
    tokenizer.stop_ids = frozenset()  # no answer ends before its last token
    return tokenizer


def split_of_steps(steps: list[dict[str, float]], updates: int) -> list[list[float]]:
    """Of each rollout, so many lines of metrics, the seconds of generation, scoring and update."""
    rollouts = []
    for first in range(0, len(steps), updates):
        sampling = steps[first]["sampling_seconds"]
        scoring = steps[first]["judging_seconds"] + steps[first]["scoring_seconds"]
        seconds = sum(step["seconds"] for step in steps[first : first + updates])
        rollouts.append([sampling, scoring, seconds - sampling - scoring])
    return rollouts


def update_flops(benchmark: str, settings: Settings) -> float:
    """What the updates of a rollout need: PPO's policy and critic, four times, or GRPO's policy, once. A prompt counts
    for each of its answers."""
    with torch.device("meta"):
        policy, critic = CausalLM(NANO), ScalarModel(NANO)
    prompt, answer = [0] * settings.prompt_tokens, [0] * settings.answer_tokens
    work = Work.of_answers([prompt] * settings.answers, [answer] * settings.answers, NANO)
    if benchmark == "grpo":
        return training_flops(policy, work)
    return settings.epochs * (training_flops(policy, work) + training_flops(critic, work))


def ppo_trl(settings: Settings, dtype: torch.dtype = torch.float32, **options: Any) -> Result:
    """TRL's PPOTrainer as it comes: fp32 weights, bf16 autocast in the update, eight micro-batches of eight."""
    from datasets import Dataset
    from transformers import LlamaForCausalLM, LlamaForSequenceClassification
    from trl.experimental.ppo import PPOConfig, PPOTrainer, ppo_trainer

    clock, count = Clock(), settings.rollouts + 1
    _mark(ppo_trainer, "batch_generation", clock.began, clock.sampled)
    _mark(ppo_trainer, "masked_whiten", clock.judged, [])  # of the advantages: the last thing before the update
    torch.manual_seed(0)
    kinds = (LlamaForCausalLM, LlamaForCausalLM, LlamaForSequenceClassification, LlamaForSequenceClassification)
    policy, reference, critic, judge = (kind(llama_config(num_labels=1)).to(dtype) for kind in kinds)
    batch = {"per_device_train_batch_size": 8, **options}
    with tempfile.TemporaryDirectory() as directory:
        trainer = PPOTrainer(
            args=PPOConfig(
                output_dir=directory,
                gradient_accumulation_steps=settings.answers // batch["per_device_train_batch_size"],
                num_ppo_epochs=settings.epochs,
                num_mini_batches=1,
                total_episodes=settings.answers * count,
                response_length=settings.answer_tokens,
                temperature=1.0,
                learning_rate=settings.learning_rate,
                local_rollout_forward_batch_size=settings.answers,
                use_cpu=True,
                report_to="none",
                save_strategy="no",
                disable_tqdm=True,
                num_sample_generations=0,
                **batch,
            ),
            processing_class=_peers_tokenizer(),
            model=policy,
            ref_model=reference,
            reward_model=judge,
            value_model=critic,
            train_dataset=Dataset.from_dict({"input_ids": prompts(settings, settings.answers * count)}),
            callbacks=[_when_steps_end(clock)],
        )
        trainer.train()
    return clock.result(settings)


def ppo_trl_float32(settings: Settings) -> Result:
    """All in fp32, in parts of sixteen."""
    return ppo_trl(settings, bf16=False, per_device_train_batch_size=16)


def ppo_trl_bfloat16(settings: Settings) -> Result:
    """Weights and AdamW's state in bf16 too, in parts of sixteen."""
    return ppo_trl(settings, torch.bfloat16, bf16=False, per_device_train_batch_size=16)


# GRPO -----------------------------------------------------------------------------------------------------------------


def even_share(completion_ids: list[list[int]], **_: Any) -> list[float]:
    """The reward: the share of even tokens. Half at random, 1 at best."""
    return [sum(token % 2 == 0 for token in ids) / len(ids) for ids in completion_ids]


def grpo_chatwheel(settings: Settings) -> Result:
    """`training/grpo.py` through its function; the times are those of its metrics."""
    from chatwheel.training.grpo import GRPOConfig, grpo
    from chatwheel.training.kl_control import KLConfig
    from chatwheel.training.loop import read_metrics
    from chatwheel.training.optimizers import OptimizerConfig
    from chatwheel.training.rewards import Question

    count, groups = settings.rollouts + 1, settings.answers // settings.samples
    actor = CausalLM(NANO)
    initialise(actor, torch.Generator().manual_seed(0))

    def reward(questions: Any, answers: Any) -> torch.Tensor:  # noqa: ARG001
        return torch.tensor(even_share([list(answer.token_ids) for answer in answers]))

    config = GRPOConfig(
        rollouts=count,
        prompts_per_rollout=groups,
        samples_per_prompt=settings.samples,
        answers_at_once=settings.answers_at_once,
        compile="always" if settings.compiled else "never",
        max_tokens=settings.answer_tokens,
        row_length=settings.prompt_tokens + settings.samples // 2 * settings.answer_tokens,
        missing_end_penalty=0.0,
        step_kl=1e9,
        kl=KLConfig(coefficient=0.0, target=None, stop=None, place="loss", estimator="k3"),
        optimizer=OptimizerConfig(learning_rate=settings.learning_rate, warmup=0.0, matrices="adamw"),
        precision=settings.precision,  # type: ignore[arg-type]
    )
    questions = [Question(tuple(ids)) for ids in prompts(settings, groups * count)]
    with tempfile.TemporaryDirectory() as directory:
        grpo(config, actor, reward, _our_tokenizer(), questions, directory=Path(directory), seed=0)
        steps = read_metrics(Path(directory))
    return result_of(settings, split_of_steps(steps, config.updates_per_rollout)[1:])


def grpo_trl(settings: Settings, dtype: torch.dtype = torch.float32, **options: Any) -> Result:
    """TRL's GRPOTrainer as it comes: fp32 weights, bf16 autocast, activations computed again in the update
    (checkpointing), eight micro-batches of eight, one gradient step a rollout."""
    from datasets import Dataset
    from transformers import LlamaForCausalLM
    from trl import GRPOConfig, GRPOTrainer

    clock, count = Clock(), settings.rollouts + 1
    torch.manual_seed(0)
    batch = {"per_device_train_batch_size": 8, **options}
    texts = [" ".join(map(str, ids)) for ids in prompts(settings, settings.answers * count)]
    _mark(GRPOTrainer, "_generate_and_score_completions", clock.began, clock.judged)
    _mark(GRPOTrainer, "_generate", [], clock.sampled)
    with tempfile.TemporaryDirectory() as directory:
        trainer = GRPOTrainer(
            model=LlamaForCausalLM(llama_config(eos_token_id=None, pad_token_id=None)).to(dtype),
            reward_funcs=even_share,
            args=GRPOConfig(
                output_dir=directory,
                gradient_accumulation_steps=settings.answers // batch["per_device_train_batch_size"],
                num_generations=settings.samples,
                max_completion_length=settings.answer_tokens,
                max_steps=count,
                learning_rate=settings.learning_rate,
                use_cpu=True,
                report_to="none",
                save_strategy="no",
                logging_strategy="no",
                disable_tqdm=True,
                **batch,
            ),
            train_dataset=Dataset.from_dict({"prompt": texts}),
            processing_class=_peers_tokenizer(),
            callbacks=[_when_steps_end(clock)],
        )
        trainer.train()
    return clock.result(settings)


def grpo_trl_float32(settings: Settings) -> Result:
    """All in fp32, nothing computed again, in parts of sixteen."""
    return grpo_trl(settings, bf16=False, gradient_checkpointing=False, per_device_train_batch_size=16)


def grpo_trl_bfloat16(settings: Settings) -> Result:
    """The same with weights and AdamW's state in bf16."""
    return grpo_trl(settings, torch.bfloat16, bf16=False, gradient_checkpointing=False, per_device_train_batch_size=16)


# ----------------------------------------------------------------------------------------------------------------------


def _peers_tokenizer() -> Any:
    """Each of the model's tokens is its number, a word; padding and the end are beyond them, so that no answer has
    them."""
    from tokenizers import Tokenizer as Backend
    from tokenizers.models import WordLevel
    from tokenizers.pre_tokenizers import WhitespaceSplit
    from transformers import PreTrainedTokenizerFast

    words = [*map(str, range(NANO.vocab_size)), "<pad>", "<eos>"]
    backend = Backend(WordLevel({word: i for i, word in enumerate(words)}, unk_token="<pad>"))
    backend.pre_tokenizer = WhitespaceSplit()
    return PreTrainedTokenizerFast(tokenizer_object=backend, pad_token="<pad>", eos_token="<eos>")


def _mark(owner: Any, name: str, before: list[float], after: list[float]) -> None:
    """Has a function of a peer's note when it begins and ends."""
    function = getattr(owner, name)

    def marked(*args: Any, **kwargs: Any) -> Any:
        before.append(time.perf_counter())
        value = function(*args, **kwargs)
        after.append(time.perf_counter())
        return value

    setattr(owner, name, marked)


def _when_steps_end(clock: Clock) -> Any:
    from transformers import TrainerCallback

    class Ends(TrainerCallback):  # type: ignore[misc]
        def on_step_end(self, *_: Any, **__: Any) -> None:
            clock.ended.append(time.perf_counter())

    return Ends()


CONTENDERS: dict[str, Callable[[Settings], Result]] = {
    f.__name__: f
    for f in (
        matrix_peak,
        ppo_chatwheel,
        ppo_chatwheel_head,
        ppo_trl,
        ppo_trl_float32,
        ppo_trl_bfloat16,
        grpo_chatwheel,
        grpo_trl,
        grpo_trl_float32,
        grpo_trl_bfloat16,
    )
}


def main() -> None:
    """Runs one contender and prints its result as the last line."""
    name, settings = sys.argv[1], Settings(**json.loads(sys.argv[2]))
    result = CONTENDERS[name](settings)
    print(json.dumps({**result, "peak_memory_mb": peak_memory_mb()}))


def as_json(settings: Settings) -> str:
    """Settings for another process."""
    return json.dumps(asdict(settings))


if __name__ == "__main__":
    main()
