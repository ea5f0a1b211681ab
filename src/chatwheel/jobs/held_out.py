"""What the guard against over-optimisation asks, and who looks at the answers, as a recipe says.

Of the world, items from the examination's side of the split, which nothing trains on, but none of the examination's
own: it stays unseen even by what chooses a checkpoint. Of files, the prompts that were held out.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice

import torch
from torch import Tensor

from chatwheel.data.preparation import prompt_of
from chatwheel.data.records import Demonstration, Message, Prompt, Ranking, Rating, read_records
from chatwheel.data.world import Item, examination
from chatwheel.engine.requests import Completion
from chatwheel.errors import InputError
from chatwheel.evaluation.examination import EXAMINATION_SEED
from chatwheel.evaluation.judges import GoldJudge
from chatwheel.jobs.judges import judge_from
from chatwheel.jobs.recipe import WorldData
from chatwheel.jobs.run import Run
from chatwheel.model.tokenizer import Tokenizer
from chatwheel.training.guard import HeldOut
from chatwheel.training.policy_gradient_config import PolicyGradientConfig
from chatwheel.training.rewards import Question, Reward, WeightedReward
from chatwheel.training.rollouts import encode_prompts

HELD_OUT_SEED = 2027
"""With which the items are drawn, the same for every run."""

Key = tuple[str, ...]


@dataclass(frozen=True)
class GoldReward:
    """The quality that the world's judge gives an answer, in [0, 1]: 0.6 or more if it is right. items: by `key_of`."""

    items: Mapping[Key, Item]

    def __call__(self, questions: Sequence[Question], answers: Sequence[Completion]) -> Tensor:
        judge = GoldJudge()
        return torch.tensor(
            [
                judge.mark(self.items[tuple(str(m["content"]) for m in question.messages)], answer.text).quality
                for question, answer in zip(questions, answers, strict=True)
            ]
        )


def key_of(messages: Sequence[Message]) -> Key:
    """What tells a prompt from others."""
    return tuple(message.content for message in messages)


def held_out(run: Run, name: str, config: PolicyGradientConfig, tokenizer: Tokenizer, longest: int) -> HeldOut | None:
    """What the guard of a stage needs; None for a stage without one. longest: tokens of a prompt.

    Raises InputError for a judge that is not there, and where no prompts are.
    """
    if config.guard is None:
        return None
    data, count = run.recipe.data, config.guard.prompts
    items = unseen_items(data, count) if isinstance(data, WorldData) else []
    if config.guard.gold:
        judge: Reward = GoldReward({key_of(item.messages): item for item in items})
    else:
        source = config.guard.judge
        judge = WeightedReward([(source.name, judge_from(run, source, config, tokenizer), source.weight)])
    prompts = [Prompt(messages=list(i.messages), reference=i.answer) for i in items] or list(prompts_of_files(run))
    if config.guard.judge.rule is not None:  # it compares
        prompts = [prompt for prompt in prompts if prompt.reference is not None]
    if len(prompts) < 2:
        raise InputError(
            f"{name}.guard: there are no held-out prompts; raise data.held_out_prompts in a new run, or take the guard "
            "out"
        )
    questions = encode_prompts(prompts, tokenizer, longest, f"{name}.guard")
    return HeldOut(judge, questions[:count])


def unseen_items(data: WorldData, count: int) -> list[Item]:
    """So many items that neither training nor the run's examination has, if the world has them, as evenly of each
    behaviour."""
    asked = {key_of(item.messages) for item in examination(EXAMINATION_SEED, data.examination, data.languages)}
    drawn = examination(HELD_OUT_SEED, count + data.examination, data.languages)
    return list(islice((item for item in drawn if key_of(item.messages) not in asked), count))


def prompts_of_files(run: Run) -> Iterator[Prompt]:
    """The held-out prompts, each once: of demonstrations, with their answers as references, of rankings and ratings."""
    seen: set[Key] = set()
    for prompt in _all_of_files(run):
        if (key := key_of(prompt.messages)) not in seen:
            seen.add(key)
            yield prompt


def _all_of_files(run: Run) -> Iterator[Prompt]:
    if (path := run.data("demonstrations.held_out")).is_file():
        yield from map(prompt_of, read_records(path, Demonstration))
    kinds: tuple[tuple[str, type[Ranking] | type[Rating]], ...] = (("rankings", Ranking), ("ratings", Rating))
    for name, kind in kinds:
        if (path := run.data(f"{name}.held_out")).is_file():
            for judged in read_records(path, kind):
                yield Prompt(messages=judged.messages, reference=judged.reference)
