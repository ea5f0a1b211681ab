"""Processes that divide each matrix train as one does, and a run goes on in any other grid of them."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from chatwheel.errors import InputError
from chatwheel.jobs.pipeline import check
from chatwheel.jobs.recipe import Recipe
from chatwheel.jobs.run import Run
from chatwheel.model.checkpoint import save_model
from chatwheel.settings import Settings
from chatwheel.training.loop import read_metrics
from chatwheel.training.tensor_parallel import check_divides
from tests.jobs.tiny_recipe import write_recipe
from tests.tiny import causal, config, tokenizer
from tests.training.test_distributed import start, trained


def assert_the_same(place: Path, one: dict[str, torch.Tensor], name: str) -> None:
    """The weights of a run beside one process's; losses, and the norms of gradients before they are clipped."""
    many = torch.load(place / f"{name}.pt")
    assert one.keys() == many.keys()
    for key, tensor in one.items():
        error = (many[key] - tensor).abs().flatten()
        # AdamW divides a gradient by its size: one that is nearly zero shows its rounding, in a few places.
        assert error.quantile(0.999) < 1e-5, key
        assert error.max() < 5e-5, key
    straight, divided = ([(r["loss"], r["gradient_norm"]) for r in read_metrics(place / n)] for n in ("one", name))
    assert len(straight) == len(divided) > 0
    for alone, together in zip(straight, divided, strict=True):
        assert together == pytest.approx(alone, rel=1e-5)
    assert max(norm for _, norm in straight) > 1  # some were clipped


def run(place: Path, name: str, grid: tuple[int, int], steps: int, *options: str) -> dict[str, torch.Tensor]:
    """Trains in a directory on a grid of (data, tensor) processes."""
    data, tensor = grid
    output = place / f"{name}.safetensors"
    weights = trained(data * tensor, place / name, steps, output, *options, f"tensor={tensor}")
    torch.save(weights, place / f"{name}.pt")
    return weights


@pytest.mark.slow
def test_two_processes_that_divide_each_matrix_are_one(tmp_path: Path) -> None:
    one = run(tmp_path, "one", (1, 1), 3, "muon")
    run(tmp_path, "two", (1, 2), 3, "muon")
    assert_the_same(tmp_path, one, "two")


@pytest.mark.slow
@pytest.mark.parametrize("matrices", ["adamw", "muon"])
@pytest.mark.parametrize("family", ["llama", "qwen2", "qwen3"])
def test_every_family_on_every_grid(family: str, matrices: str, tmp_path: Path) -> None:
    one = run(tmp_path, "one", (1, 1), 6, family, matrices)
    for grid in ((1, 2), (2, 2)):
        run(tmp_path, f"{grid}", grid, 6, family, matrices)
        assert_the_same(tmp_path, one, f"{grid}")


@pytest.mark.slow
@pytest.mark.parametrize(
    ("options", "grid"),
    [
        (("reward",), (2, 2)),
        (("reward", "lora"), (1, 2)),
        (("lora",), (2, 2)),
        (("llama", "lora"), (1, 2)),  # its output is adapted too
        (("recompute",), (2, 2)),
        (("dpo",), (2, 2)),
        (("dpo", "uneven"), (1, 2)),
        (("llama", "lora", "kto"), (1, 2)),
        (("uneven",), (3, 2)),  # three cut no matrix evenly, nor two the vocabulary
    ],
    ids=lambda value: "-".join(map(str, value)),
)
def test_every_stage_and_what_it_offers(options: tuple[str, ...], grid: tuple[int, int], tmp_path: Path) -> None:
    one = run(tmp_path, "one", (1, 1), 6, "muon", *options)
    run(tmp_path, "many", grid, 6, "muon", *options)
    assert_the_same(tmp_path, one, "many")


@pytest.mark.slow
@pytest.mark.parametrize(
    "grids",
    [((2, 2), (1, 1), (1, 2)), ((1, 2), (2, 1), (2, 2)), ((1, 1), (2, 2), (2, 1))],
    ids=lambda grids: " ".join(f"{data}x{tensor}" for data, tensor in grids),
)
def test_a_run_goes_on_in_another_grid(grids: tuple[tuple[int, int], ...], tmp_path: Path) -> None:
    one = run(tmp_path, "one", (1, 1), 6, "muon", "uneven")
    for i, grid in enumerate(grids, start=1):
        run(tmp_path, "moved", grid, 2 * i, "muon", "uneven")
        if grid == (2, 2):  # each has written its own shards, and no more
            sizes = [path.stat().st_size for path in (tmp_path / "moved/state").glob("*.safetensors")]
            assert len(sizes) == 4
            assert max(sizes) < 0.4 * sum(sizes)
    assert_the_same(tmp_path, one, "moved")
    assert [row["step"] for row in read_metrics(tmp_path / "moved")] == list(range(6))


@pytest.mark.slow
def test_the_command_under_torchrun(tmp_path: Path) -> None:
    save_model(tmp_path / "base", causal(), tokenizer(), {})
    turns = [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Hello there, how are you?"}]
    (tmp_path / "data.jsonl").write_text(
        "".join(json.dumps({"messages": [{**turns[0], "content": f"Hi {i}"}, turns[1]]}) + "\n" for i in range(60))
    )
    arguments = [
        *("-m", "chatwheel", "train", "sft", "--recipe", "qwen-lora", "--home", tmp_path / "home"),
        *(f"model={tmp_path / 'base'}", f"data={tmp_path / 'data.jsonl'}"),
        *("sft.row_length=64", "sft.precision=float32", "sft.lora.rank=2", "sft.rows_per_step=5"),
    ]
    outcome = start(2, *arguments, "tensor_parallel=2")  # five rows are one group's: nothing is to be shared
    assert outcome.returncode == 0, outcome.stderr
    assert "redistribut" not in outcome.stderr
    assert "done before" in start(1, *arguments).stderr  # the same run, whatever the processes
    for more, reason in (
        ("tensor_parallel=4", "tensor_parallel (4) needs a multiple of so many processes, not 2"),
        ("sft.lora.dropout=0.1", "sft.lora.dropout is not computed with tensor_parallel"),
    ):
        refused = start(2, *arguments, "tensor_parallel=2", more, "name=other")
        assert refused.returncode != 0
        assert reason in refused.stderr
    assert not (tmp_path / "home/runs/other/data").exists()


def test_what_cannot_be_divided_is_named() -> None:
    check_divides(config(), 2)
    for changes, number, name in (
        ({"num_heads": 3, "num_kv_heads": 3}, 2, r"num_heads \(3\)"),
        ({}, 4, r"num_kv_heads \(2\)"),
        ({"intermediate_size": 49}, 2, r"intermediate_size \(49\)"),
    ):
        with pytest.raises(InputError, match=rf"{name} must be a multiple of tensor_parallel \({number}\)"):
            check_divides(config(**changes), number)


def test_a_recipe_is_refused_before_anything_is_made(tmp_path: Path) -> None:
    def opened(*overrides: str) -> Run:
        recipe = Recipe.load(write_recipe(tmp_path), ["model.num_heads=2", "model.num_kv_heads=2", *overrides])
        return Run.open(recipe, Settings.load(tmp_path))

    two = opened("tensor_parallel=2")
    for processes in (1, 3):
        with pytest.raises(InputError, match=rf"tensor_parallel \(2\) needs a multiple .*, not {processes};"):
            check(two, "pretrain", processes)
    check(two, "pretrain", 2)
    check(two, "ppo", 1)  # one process's anyway
    with pytest.raises(InputError, match="must be a multiple of tensor_parallel"):
        check(opened("tensor_parallel=64"), "pretrain", 64)
    with pytest.raises(InputError, match=r"rows_per_step .* must be a multiple of the 1000 groups of 2 processes"):
        check(two, "pretrain", 2000)
    assert opened().recipe.tensor_parallel == 1  # the same run
