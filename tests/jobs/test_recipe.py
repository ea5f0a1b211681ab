"""Recipes: every key is checked, and a wrong one is named."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from chatwheel.errors import InputError
from chatwheel.jobs.recipe import ArchitectureConfig, Recipe, WorldData
from tests.jobs.tiny_recipe import RECIPE, write_recipe

Change = Callable[[dict[str, Any]], Any]


def fault(change: Change) -> str:
    values = yaml.safe_load(RECIPE)
    change(values)
    with pytest.raises(InputError) as caught:
        Recipe.parse(values, where="here.yaml")
    assert caught.value.message.startswith("here.yaml: ")
    assert len(caught.value.message.splitlines()) == 1
    return caught.value.message


def rename(part: str, old: str, new: str) -> Change:
    def change(values: dict[str, Any]) -> None:
        inner = values[part] if part else values
        inner[new] = inner.pop(old)

    return change


MISSPELT: dict[str, tuple[Change, str]] = {
    "a key at the top": (lambda v: v.update(sede=1), "unknown key 'sede'; did you mean 'seed'?"),
    "a stage": (rename("", "pretrain", "pretrian"), "unknown key 'pretrian'; did you mean 'pretrain'?"),
    "a stage's key": (rename("pretrain", "steps", "step"), "unknown key 'pretrain.step'; did you mean 'steps'?"),
    "the model's key": (
        rename("model", "hidden_size", "hiden_size"),
        "unknown key 'model.hiden_size'; did you mean 'hidden_size'?",
    ),
    "the data's key": (
        rename("data", "documents", "document"),
        "unknown key 'data.document'; did you mean 'documents'?",
    ),
    "the optimizer's key": (
        lambda v: v["sft"].update(optimizer={"learning_rat": 1}),
        "unknown key 'sft.optimizer.learning_rat'; did you mean 'learning_rate'?",
    ),
    "a key three deep": (
        lambda v: v["ppo"].update(kl={"coeficient": 1}),
        "unknown key 'ppo.kl.coeficient'; did you mean 'coefficient'?",
    ),
    "a source's key": (
        lambda v: v.update(data={"kind": "files", "documents": [{"path": "a.txt", "langage": "en"}]}),
        "unknown key 'data.documents.0.langage'; did you mean 'language'?",
    ),
    "a name of a kind of data": (lambda v: v.update(files=1), "unknown key 'files'"),
    "that inside the data": (lambda v: v["data"].update(world=1), "unknown key 'data.world'"),
    "nothing like it": (lambda v: v.update(zzz=1), "known keys: name, seed, data, tokenizer, model"),
}


@pytest.mark.parametrize(("change", "message"), MISSPELT.values(), ids=MISSPELT.keys())
def test_a_misspelt_key_is_named_with_its_neighbour(change: Change, message: str) -> None:
    assert message in fault(change)


WRONG: dict[str, tuple[Change, str]] = {
    "text for a number": (lambda v: v["pretrain"].update(steps="many"), "pretrain.steps: "),
    "a number out of range": (lambda v: v["ppo"].update(gamma=1.5), "ppo.gamma: "),
    "nothing for a part": (lambda v: v.update(sft=None), "ppo needs sft"),
    "a list for a part": (lambda v: v.update(model=[1]), "model: "),
    "a missing part": (lambda v: v.pop("reward"), "ppo needs reward, or judges"),
    "a missing key": (lambda v: v["data"].pop("documents"), "data.documents: Field required"),
    "an unknown kind": (
        lambda v: v["data"].update(kind="wrld"),
        "data.kind: expected 'world' or 'files', found 'wrld'",
    ),
    "no kind": (lambda v: v["data"].pop("kind"), "data.kind: "),
    "no data": (lambda v: v.update(data=None), "data: "),
    "an unknown language": (lambda v: v["data"].update(languages=["en", "fr"]), "data.languages.1: "),
    "a name that is a path": (lambda v: v.update(name="../escape"), "name: "),
    "an empty name": (lambda v: v.update(name=""), "name: "),
    "more minibatches than answers": (lambda v: v["ppo"].update(minibatches=7), "ppo: 7 minibatches of 6"),
    "rows beyond the context": (
        lambda v: v["sft"].update(row_length=1024),
        "a row_length of 1024 is beyond model.max_positions (512)",
    ),
    "answers without a prompt": (
        lambda v: v["ppo"].update(max_tokens=256),
        "ppo.max_tokens (256) leaves no room in ppo.row_length for a prompt",
    ),
    "a primer without steps": (lambda v: v["pretrain"].update(primer=0), "data.primer (documents) and pretrain.primer"),
    "steps without a primer": (lambda v: v["data"].pop("primer"), "data.primer (documents) and pretrain.primer"),
    "evaluation data": (
        lambda v: v.update(data={"kind": "files", "documents": [{"path": "evaluation/a.txt"}]}),
        "data.documents.0.path: evaluation/a.txt is evaluation data",
    ),
}


@pytest.mark.parametrize(("change", "message"), WRONG.values(), ids=WRONG.keys())
def test_a_wrong_value_is_named_with_its_key(change: Change, message: str) -> None:
    assert message in fault(change)


@pytest.mark.parametrize(("key", "value"), [("num_kv_heads", 3), ("head_dim", 7)])
def test_a_shape_that_is_no_decoder_is_refused_before_any_work(key: str, value: int, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=key):
        Recipe.load(write_recipe(tmp_path), [f"model.{key}={value}"])


def test_a_good_recipe(tmp_path: Path) -> None:
    recipe = Recipe.load(write_recipe(tmp_path))
    assert recipe.name == "tiny"
    assert isinstance(recipe.data, WorldData)
    assert recipe.data.languages == ("en", "zh")
    assert recipe.model.model_config_for(600).vocab_size == 600
    assert Recipe.parse(yaml.safe_load(recipe.model_dump_json()), where="its own JSON") == recipe


def test_overrides_reach_any_depth(tmp_path: Path) -> None:
    overrides = ["sft.epochs=3", "ppo.kl.target=null", "data.languages=[zh]", "name=other", "sft.optimizer.clip=0.5"]
    recipe = Recipe.load(write_recipe(tmp_path), overrides)
    assert recipe.sft.epochs == 3
    assert recipe.ppo.kl.target is None
    assert isinstance(recipe.data, WorldData)
    assert recipe.data.languages == ("zh",)
    assert recipe.name == "other"
    assert recipe.sft.optimizer.clip == 0.5


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("sft.epochs", "expected key=value"),
        ("=3", "expected key=value"),
        ("sft.epoch=3", "unknown key 'sft.epoch'; did you mean 'epochs'?"),
        ("name.first=x", "'name' holds a value, not further keys"),
        ("sft.epochs=[1", "is not a YAML value"),
        ("sft.epochs=soon", "sft.epochs: "),
    ],
)
def test_a_wrong_override_is_one_line(override: str, message: str, tmp_path: Path) -> None:
    with pytest.raises(InputError) as caught:
        Recipe.load(write_recipe(tmp_path), [override])
    assert message in caught.value.message
    assert len(caught.value.message.splitlines()) == 1


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"name: [1", "not a YAML file"),
        (b"a: b: c", "not a YAML file"),
        (b"\xff\xfe\x00", "not a YAML file"),
        (b"- a\n- b", "expected keys and values"),
        (b"", "expected keys and values"),
        (b"just text", "expected keys and values"),
    ],
)
def test_a_file_that_is_no_recipe_is_one_line(content: bytes, message: str, tmp_path: Path) -> None:
    path = tmp_path / "bad.yaml"
    path.write_bytes(content)
    with pytest.raises(InputError) as caught:
        Recipe.load(path)
    assert message in caught.value.message
    assert "bad.yaml" in caught.value.message
    assert len(caught.value.message.splitlines()) == 1


def test_an_absent_recipe_is_one_line(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"none\.yaml: no such recipe"):
        Recipe.load(tmp_path / "none.yaml")


@pytest.mark.parametrize("path", sorted(Path(__file__).parents[2].glob("recipes/*.yaml")), ids=lambda p: p.name)
def test_the_shipped_recipes_are_good(path: Path) -> None:
    assert Recipe.load(path).name == path.stem


def test_a_depth_derives_the_shape_and_the_rates_that_are_not_given() -> None:
    values = yaml.safe_load(RECIPE)
    values["model"] = {"depth": 6, "max_positions": 1024}
    values["sft"]["optimizer"] = {"learning_rate": 0.5, "clip": 2.0}
    recipe = Recipe.parse(values, where="here")
    assert recipe.model == ArchitectureConfig(
        hidden_size=384,
        num_layers=6,
        num_heads=6,
        num_kv_heads=3,
        head_dim=64,
        intermediate_size=1024,
        max_positions=1024,
    )
    assert recipe.pretrain is not None
    assert recipe.sft is not None
    assert recipe.ppo is not None
    assert recipe.pretrain.optimizer.learning_rate == pytest.approx(6e-3 * (256 / 384) ** 0.5, rel=1e-2)
    assert (recipe.sft.optimizer.learning_rate, recipe.sft.optimizer.clip) == (0.5, 2.0)
    assert recipe.ppo.optimizer.learning_rate < 5e-5
    # What is written down is what was derived.
    again = Recipe.parse(json.loads(recipe.model_dump_json()), where="there")
    assert again == recipe


@pytest.mark.parametrize("depth", range(1, 25))
def test_every_depth_is_a_decoder(depth: int) -> None:
    values = yaml.safe_load(RECIPE)
    values["model"] = {"depth": depth}
    model = Recipe.parse(values, where="here").model
    assert isinstance(model, ArchitectureConfig)
    assert model.model_config_for(1000).num_layers == depth


@pytest.mark.parametrize("depth", [0, -1, 1.5, "six", None, True])
def test_a_depth_that_is_none(depth: Any) -> None:
    values = yaml.safe_load(RECIPE)
    values["model"] = {"depth": depth}
    with pytest.raises(InputError, match=r"model\.depth is .*; it must be a whole number"):
        Recipe.parse(values, where="here")


def test_a_depth_beside_a_shape_is_refused_and_heads_may_be_given() -> None:
    with pytest.raises(InputError, match=r"model\.depth and model\.hidden_size say the same"):
        Recipe.load(Path("real-small"), ["model.depth=12"])
    values = yaml.safe_load(RECIPE)
    values["model"] = {"depth": 6, "num_heads": 4}
    model = Recipe.parse(values, where="here").model
    assert isinstance(model, ArchitectureConfig)
    assert (model.num_heads, model.num_kv_heads) == (4, 2)
