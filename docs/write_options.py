"""Writes docs/options.md, the reference of all options of the stages that learn from people.

    python docs/write_options.py

Names, types and defaults are the configurations' own; what is said of them stands in their docstrings, as `name: text.`
A test fails where the file is not what this writes.
"""

from __future__ import annotations

import inspect
import re
import sys
from pathlib import Path
from typing import Any

from pydantic import BaseModel
from pydantic_core import PydanticUndefined

from chatwheel.jobs.recipe import Recipe
from chatwheel.model.lora import LoRAConfig
from chatwheel.training.guard import GuardConfig
from chatwheel.training.kl_control import KLConfig
from chatwheel.training.optimizers import OptimizerConfig
from chatwheel.training.policy_gradient import PolicyGradientConfig
from chatwheel.training.reward import MarginConfig
from chatwheel.training.rewards import RewardSource

OPTIONS = Path(__file__).with_name("options.md")
STAGES = ("reward", "ppo", "grpo", "rloo", "best_of_n", "dpo", "kto")
PARTS: dict[str, type[BaseModel]] = {
    "margin": MarginConfig,
    "kl": KLConfig,
    "rewards": RewardSource,
    "guard": GuardConfig,
    "optimizer": OptimizerConfig,
    "lora": LoRAConfig,
}
SHARED = "ppo, grpo, rloo and best_of_n"
HEAD = """\
# Options of the stages that learn from people

Written by `docs/write_options.py` from the configurations; change those. An option is a key of a recipe,
`grpo: {clip_high: 0.28}`, or of the command line, `grpo.clip_high=0.28`. A stage runs if the recipe names it, and has
the defaults for what it does not say. In square brackets are the least and the greatest value, in round ones those that
it must not reach. How to choose: [rlhf.md](rlhf.md).
"""


def described(config: type[BaseModel]) -> dict[str, str]:
    """What a configuration's docstring says of its options."""
    options = "|".join(config.model_fields)
    mark = re.compile(rf"(?<![\w.])((?:{options})(?:, (?:{options}))*): ")
    found: dict[str, str] = {}
    for paragraph in (inspect.getdoc(config) or "").split("\n\n"):
        text = " ".join(paragraph.split())
        marks = list(mark.finditer(text))
        for here, after in zip(marks, [*marks[1:], None][: len(marks)], strict=True):
            said = text[here.end() : after.start() if after else None].strip()
            for name in here[1].split(", "):
                found[name] = said
    return found


def source(config: type[BaseModel]) -> str:
    """What the stage is, and its paper: the first paragraph of its file."""
    module = sys.modules[config.__module__]
    return " ".join((module.__doc__ or "").split("\n\n")[0].split())


def typed(annotation: Any, metadata: list[Any]) -> str:
    """A type as people write it, with its limits."""
    shown = re.sub(r"\b(?:\w+\.)+(?=\w)", "", inspect.formatannotation(annotation))
    shown = re.sub(r"Annotated\[(\w+), .*?\)\]", r"\1", shown)
    shown = re.sub(r"Literal\[([^\]]*)\]", lambda found: found[1].replace(", ", " or "), shown)
    limits = {
        name: value
        for item in metadata
        for name in ("ge", "gt", "le", "lt")
        if (value := getattr(item, name, None)) is not None
    }
    low = f"[{limits['ge']:g}" if "ge" in limits else f"({limits['gt']:g}" if "gt" in limits else ""
    high = f"{limits['le']:g}]" if "le" in limits else f"{limits['lt']:g})" if "lt" in limits else ""
    if low or high:
        shown += f" {low or '('}, {high or ')'}"
    return f"`{shown}`".replace("|", "\\|")


def changed(part: BaseModel) -> str:
    """A part's values that are not its own defaults."""
    fields = type(part).model_fields
    values = {name: getattr(part, name) for name in fields if getattr(part, name) != fields[name].default}
    return ", ".join(
        f"{name} {value:g}" if isinstance(value, float) else f"{name} {value}" for name, value in values.items()
    )


def usual(default: Any) -> str:
    """A default."""
    if default is PydanticUndefined:
        return "must be given"
    if isinstance(default, BaseModel):
        return changed(default) or "see below"
    if default is None or default in ((), {}):
        return "none"
    if isinstance(default, float):
        return f"{default:g}"
    return ", ".join(map(str, default)) if isinstance(default, tuple) else str(default).lower()


def rows(config: type[BaseModel], without: type[BaseModel] | None = None) -> list[str]:
    """A table of a configuration's options; of one that is `without` and more, what it adds or changes."""
    said = {
        name: text
        for base in reversed(config.__mro__)
        if issubclass(base, BaseModel)
        for name, text in described(base).items()
    }
    lines = ["| option | type | default | |", "|---|---|---|---|"]
    for name, field in config.model_fields.items():
        inherited = without.model_fields.get(name) if without is not None else None
        if inherited is not None and inherited.default == field.default:
            continue
        text = said.get(name, "").replace("|", "\\|")
        lines.append(f"| `{name}` | {typed(field.annotation, field.metadata)} | {usual(field.default)} | {text} |")
    return lines


def written() -> str:
    """The whole file."""
    parts = [HEAD]
    for name in STAGES:
        config = next(t for t in Recipe.model_fields[name].annotation.__args__ if t is not type(None))
        without = PolicyGradientConfig if issubclass(config, PolicyGradientConfig) else None
        parts += [f"## {name}\n", source(config) + "\n"]
        if without is not None:
            parts.append(
                f"And [what {SHARED} share](#what-{SHARED.replace(',', '').replace(' ', '-')}-share), but for:\n"
            )
        parts.append("\n".join(rows(config, without)) + "\n")
        if name == "reward":
            shared = "\n".join(rows(PolicyGradientConfig))
            parts += [f"## What {SHARED} share\n", source(PolicyGradientConfig) + "\n", shared + "\n"]
    for name, config in PARTS.items():
        said = source(config) if name != "margin" else ""
        parts += [f"## {name}\n", *([said + "\n"] if said else []), "\n".join(rows(config)) + "\n"]
    return "\n".join(parts)


if __name__ == "__main__":
    OPTIONS.write_text(written(), encoding="utf-8")
