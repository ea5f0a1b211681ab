"""The quickstart's recipe: the one that ships with the package, scaled to the minutes one has."""

from __future__ import annotations

import json
from typing import Any, Literal

from chatwheel.errors import InputError
from chatwheel.jobs.recipe import Recipe, shipped
from chatwheel.settings import Settings

# The minutes of training that recipes/quickstart.yaml takes on two cores without AVX-512.
RECIPE_MINUTES = 22
LanguageChoice = Literal["en", "zh", "both"]


def quickstart_recipe(settings: Settings, minutes: float | None, language: LanguageChoice | None) -> Recipe:
    """The recipe of a run that was begun, if there is one and nothing else is asked for; else the shipped one, scaled.

    Raises InputError for impossible minutes.
    """
    begun = settings.runs / "quickstart" / "recipe.json"
    if begun.is_file() and minutes is None and language is None:
        return Recipe.parse(json.loads(begun.read_text(encoding="utf-8")), where=str(begun))
    if minutes is not None and minutes <= 0:
        raise InputError(f"--minutes is {minutes:g}; give a positive number of minutes")
    recipe = Recipe.load(shipped("quickstart"))
    values = scale(json.loads(recipe.model_dump_json()), (minutes or RECIPE_MINUTES) / RECIPE_MINUTES)
    if language in ("en", "zh"):
        values["data"]["languages"] = [language]
    return Recipe.parse(values, where="quickstart")


def scale(values: dict[str, Any], factor: float) -> dict[str, Any]:
    """A recipe's values with all amounts of data and steps multiplied."""

    def times(part: str, key: str, least: int) -> None:
        values[part][key] = max(least, round(values[part][key] * factor))

    for key, least in (
        ("documents", 400),
        ("primer", 100),
        ("demonstrations", 300),
        ("ranked_prompts", 80),
        ("ppo_prompts", 256),
    ):
        times("data", key, least)
    times("pretrain", "steps", 10)
    times("ppo", "rollouts", 2)
    return values
