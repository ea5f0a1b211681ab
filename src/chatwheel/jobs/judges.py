"""Who judges a policy's answers, as a recipe says."""

from __future__ import annotations

from typing import Any

from chatwheel.errors import InputError
from chatwheel.jobs.fine_tuning.graders import GraderReward, parse_grader
from chatwheel.jobs.opening import opened
from chatwheel.jobs.run import Run
from chatwheel.model.tokenizer import Tokenizer
from chatwheel.model.transformer import ScalarModel
from chatwheel.store.loading import reward_scale
from chatwheel.training.policy_gradient_config import PolicyGradientConfig
from chatwheel.training.precision import compute_dtype
from chatwheel.training.rewards import OWN, EnsembleReward, Reward, RewardModelReward, RewardSource, WeightedReward
from chatwheel.training.rules import judge_of


def judges(run: Run, config: PolicyGradientConfig, tokenizer: Tokenizer) -> Reward:
    """The run's own reward model, or those that the recipe names. tokenizer: the policy's."""
    if not config.rewards:
        return _named(run, OWN, config, tokenizer)
    made: list[tuple[str, Reward, float]] = []
    for source in config.rewards:
        made.append((source.name, judge_from(run, source, config, tokenizer), source.weight))
    return WeightedReward(made)


def judge_from(run: Run, source: RewardSource, config: PolicyGradientConfig, tokenizer: Tokenizer) -> Reward:
    """One of those who judge, without its weight. Raises InputError for a grader that asks a model: a recipe has nobody
    to ask, so that whoever runs it makes its own `GraderReward`."""
    if source.grader is not None:
        return _grader(source.grader)
    return judge_of(source) or _named(run, source.name, config, tokenizer)


def check_judges(run: Run, config: PolicyGradientConfig) -> None:
    """Raises InputError for judges that are not there."""
    guard = () if config.guard is None or config.guard.gold else (config.guard.judge,)
    for source in (*config.rewards, *guard):
        if source.grader is not None:
            _grader(source.grader)
        elif judge_of(source) is None and source.model not in _own(run):
            run.resolve(source.name)


def _grader(value: dict[str, Any]) -> GraderReward:
    grader = parse_grader(value)
    if grader.asks_models:
        raise InputError(f"grader {grader.name!r} asks a model, and a recipe has nobody to ask; name a url instead")
    return GraderReward(grader)


def _own(run: Run) -> list[str]:
    """The names by which the run's own reward models are known."""
    return run.recipe.reward.members if run.recipe.reward is not None else [OWN]


def _named(run: Run, name: str, config: PolicyGradientConfig, tokenizer: Tokenizer) -> Reward:
    """A reward model; the run's own is all of its ensemble."""
    reward = run.recipe.reward
    if name != OWN or reward is None or reward.ensemble == 1:
        return _reward_model(run, name, config, tokenizer)
    members = [(member, _reward_model(run, member, config, tokenizer), 1.0) for member in reward.members]
    return EnsembleReward(members, caution=reward.caution)


def _reward_model(run: Run, name: str, config: PolicyGradientConfig, tokenizer: Tokenizer) -> RewardModelReward:
    directory = run.model(name) if name in _own(run) else run.resolve(name)
    model, theirs = opened(run, directory, ScalarModel)
    if theirs.backend.get_vocab() != tokenizer.backend.get_vocab():
        raise InputError(
            f"reward {name}: reads other tokens than the policy writes; take one that began as the same model"
        )
    mean, std = reward_scale(directory)
    return RewardModelReward(
        model=model,
        mean=mean,
        std=std,
        row_length=config.row_length,
        dtype=compute_dtype(config.precision, model.model.device.type),
        end_id=tokenizer.end_id,
    )
