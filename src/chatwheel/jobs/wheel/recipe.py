"""The recipe of a turn: SFT on what people corrected and preferred, from the model that answers now, a reward model on
what they ranked, PPO on what they asked."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from chatwheel.data.records import read_jsonl
from chatwheel.errors import InputError
from chatwheel.jobs.recipe import Recipe
from chatwheel.jobs.wheel.material import HELD_OUT, Material
from chatwheel.jobs.wheel.state import TURN
from chatwheel.model.config import ModelConfig
from chatwheel.model.layout import read_object
from chatwheel.settings import Settings

LINEAGE = "chatwheel.json"
LORA_FROM = 200_000_000
"""Parameters from which on adapters are trained: two cores or one small GPU hold no optimizer for more."""
REPLAY = 4
"""Demonstrations that the model learnt from before, for each new one: against forgetting."""
LEAST_REPLAY = 1000
CHANGEABLE = ("seed", "sft", "reward", "ppo")
WORDS = ("precision", "by")
"""Parts of these that are one of a few words."""
LEAST = {"rankings": 16, "demonstrations": 1}


def turn_recipe(
    name: str,
    *,
    model: str,
    config: ModelConfig,
    directory: Path,
    material: Material,
    earlier: Path | None = None,
    changes: dict[str, Any] | None = None,
) -> Recipe:
    """model: by its name; config: its shape, from which rates and sizes follow. directory: of the material. earlier:
    demonstrations that the model was made from. changes: parts of a recipe that replace what is said here, key by key.

    Raises InputError where there is too little to learn from.
    """
    for kind, least in LEAST.items():
        found = getattr(material, kind)
        if found < least:
            raise InputError(f"the wheel: {found} {kind} to learn from; a turn needs at least {least}")
    rate = (256 / config.hidden_size) ** 0.5
    length = min(config.max_positions, 512)
    half = {"row_length": length // 2}
    demonstrations: list[dict[str, Any]] = [{"path": str(directory / "demonstrations.jsonl")}]
    if earlier is not None and earlier.is_file():
        most = max(LEAST_REPLAY, REPLAY * material.demonstrations)
        demonstrations.append({"path": str(earlier), "max_records": most, "prompt_weight": 0})
    adapted: dict[str, Any] = {"lora": {}} if config.num_parameters >= LORA_FROM else {}

    def optimizer(whole: float, adapter: float) -> dict[str, Any]:
        return {"optimizer": {"learning_rate": float(f"{adapter if adapted else whole * rate:.3g}")}, **adapted}

    values: dict[str, Any] = {
        "name": name,
        "model": model,
        "data": {
            "kind": "files",
            "held_out_prompts": HELD_OUT,
            "max_bytes": 6 * length,
            "max_prompt_bytes": 3 * length,
            "passage_bytes": None,
            "demonstrations": demonstrations,
            "rankings": [{"path": str(directory / "rankings.jsonl")}],
        },
        # Gently: it knows how to answer already, and what is new is little.
        "sft": {"epochs": 1, "rows_per_step": 16, **half, **optimizer(8e-4, 2e-4)},
        "reward": {"epochs": _epochs(material.rankings), "rankings_per_step": 16, "row_length": length}
        | optimizer(4e-4, 2e-4),
        "ppo": {
            "rollouts": 20,
            "prompts_per_rollout": 128,
            "epochs": 2,
            "minibatches": 2,
            "max_tokens": min(64 if config.num_parameters < 10**7 else 128, length // 4),
            "row_length": length,
            "ptx": 0.4,
            **optimizer(3e-4, 1e-4),
        },
    }
    recipe = Recipe.parse(_changed(values, changes or {}), where=f"the recipe of {name}")
    if recipe.sft is None or recipe.reward is None:
        raise InputError(f"the recipe of {name}: a turn has SFT and a reward model, which judges; leave them in")
    return recipe


def check_changes(changes: Any, at: str = "changes") -> None:
    """Raises InputError for changes that a client may not make: of files, models and other servers that a recipe names,
    and of programs that it runs, the machine's owner alone decides (`chatwheel wheel turn`). Numbers are free."""
    for key, value in changes.items():
        place = f"{at}.{key}"
        if at == "changes" and key not in CHANGEABLE:
            raise InputError(
                f"{place}: only {', '.join(CHANGEABLE)} can be changed here; `chatwheel wheel turn` changes the rest",
                param="changes",
            )
        if isinstance(value, dict):
            check_changes(value, place)
        elif not (value is None or isinstance(value, bool | int | float)) and key not in WORDS:
            raise InputError(f"{place}: expected a number, true, false or null, or parts of these", param="changes")


def _epochs(rankings: int) -> float:
    """A second pass learns many rankings by heart, and few are not learnt in one."""
    return 1.0 if rankings >= 2000 else 2.0


def earlier_demonstrations(settings: Settings, lineage: dict[str, Any]) -> Path | None:
    """What the run before all turns had to imitate (`run_before_turns`); None where there is nothing."""
    run = run_before_turns(settings, lineage)
    path = run / "data" / "demonstrations.jsonl" if run is not None else None
    return path if path is not None and path.is_file() and next(read_jsonl(path), None) is not None else None


def run_before_turns(settings: Settings, lineage: dict[str, Any]) -> Path | None:
    """The run that made a model; of a turn's model, the run before all turns: what people gave since is in every turn's
    own material, and what they have taken back must not come in by this door. None where nothing is known of it."""
    seen: set[str] = set()
    while isinstance(run := lineage.get("run"), str) and Path(run).name == run and run not in seen:
        seen.add(run)
        directory = settings.runs / run
        if not (directory / TURN).is_file():
            return directory
        about = settings.models / str(read_object(directory / TURN).get("current")) / LINEAGE
        if not about.is_file():
            return None
        lineage = read_object(about)
    return None


def _changed(values: dict[str, Any], changes: dict[str, Any]) -> dict[str, Any]:
    merged = dict(values)
    for key, value in changes.items():
        inner = merged.get(key)
        merged[key] = _changed(inner, value) if isinstance(value, dict) and isinstance(inner, dict) else value
    return merged
