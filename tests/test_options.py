"""docs/options.md is what the configurations say."""

from __future__ import annotations

import runpy
from pathlib import Path

import pytest

from chatwheel.jobs.recipe import Recipe

DOCS = Path(__file__).parents[1] / "docs"


@pytest.fixture(scope="module")
def script() -> dict[str, object]:
    return runpy.run_path(str(DOCS / "write_options.py"))


def test_the_reference_is_up_to_date(script: dict[str, object]) -> None:
    written = script["written"]()  # type: ignore[operator]
    assert written == (DOCS / "options.md").read_text(encoding="utf-8"), "run `python docs/write_options.py`"


def test_every_option_of_every_stage_is_there_and_explained(script: dict[str, object]) -> None:
    text = (DOCS / "options.md").read_text(encoding="utf-8")
    rows = [line.split(" | ") for line in text.splitlines() if line.startswith("| `")]
    named = {row[0].strip("| `") for row in rows}
    for stage in script["STAGES"]:  # type: ignore[attr-defined]
        annotation = Recipe.model_fields[stage].annotation
        assert annotation is not None
        assert set(annotation.__args__[0].model_fields) <= named
    assert [row for row in rows if not row[-1].strip(" |")] == []
