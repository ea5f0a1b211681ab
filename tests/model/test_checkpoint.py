"""Models and states on disk: what comes back, what damage says, what is left when a write fails or a machine dies."""

from __future__ import annotations

import errno
import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file

from chatwheel.errors import ChatwheelError, InputError, StorageError
from chatwheel.model import checkpoint
from chatwheel.model.checkpoint import load_model, load_state, replace_directory, save_model, save_state
from chatwheel.model.transformer import CausalLM, ScalarModel
from tests.tiny import VOCAB, causal, config, scalar, tokenizer, tokens

FULL = OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def content(directory: Path) -> dict[str, bytes]:
    return {str(p.relative_to(directory)): p.read_bytes() for p in sorted(directory.rglob("*")) if p.is_file()}


@pytest.mark.parametrize("tied", [True, False])
def test_a_model_comes_back_bit_for_bit(tied: bool, tmp_path: Path) -> None:
    model = causal(tied_embeddings=tied)
    save_model(tmp_path / "m", model, tokenizer(), {"stage": "sft", "parents": {}})
    loaded, loaded_tokenizer = load_model(tmp_path / "m", CausalLM)
    assert loaded.config == model.config
    assert not loaded.training
    assert loaded.state_dict().keys() == model.state_dict().keys()
    assert all(torch.equal(a, b) for a, b in zip(loaded.parameters(), model.parameters(), strict=True))
    assert (loaded.lm_head.weight is loaded.model.embed_tokens.weight) == tied
    assert loaded_tokenizer.template.source == tokenizer().template.source
    lineage = json.loads((tmp_path / "m" / "chatwheel.json").read_text())
    assert lineage["stage"] == "sft"
    assert {"chatwheel_version", "created"} <= lineage.keys()


def test_a_reward_model_comes_back(tmp_path: Path) -> None:
    model = scalar()
    save_model(tmp_path / "r", model, tokenizer(), {})
    loaded, _ = load_model(tmp_path / "r", ScalarModel)
    ids = tokens(2, 20)
    assert torch.equal(loaded(ids), model(ids))


def test_half_precision_weights_are_opened_in_fp32(tmp_path: Path) -> None:
    save_model(tmp_path / "m", causal(), tokenizer(), {})
    path = tmp_path / "m" / "model.safetensors"
    save_file({k: v.bfloat16() for k, v in load_file(path).items()}, path)
    loaded, _ = load_model(tmp_path / "m", CausalLM)
    assert all(p.dtype == torch.float32 for p in loaded.parameters())


def test_nothing_is_pickled(tmp_path: Path) -> None:
    save_model(tmp_path / "m", causal(), tokenizer(), {})
    save_state(tmp_path / "state", {"x": torch.ones(3)}, {"step": 1})
    files = [p for p in tmp_path.rglob("*") if p.is_file()]
    assert {p.suffix for p in files} == {".json", ".safetensors"}
    assert not any(p.read_bytes()[:2] in (b"\x80\x04", b"\x80\x02", b"PK") for p in files)
    assert not any(p.name.startswith(".") for p in tmp_path.iterdir())


def _rewrite(key: str, value: Any) -> Callable[[bytes], bytes]:
    return lambda raw: json.dumps(json.loads(raw) | {key: value}).encode()


WEIGHTS = "model.safetensors"
DAMAGE: dict[str, tuple[str, Callable[[bytes], bytes | None], str]] = {
    "no weights": (WEIGHTS, lambda _: None, "no weights there"),
    "truncated weights": (WEIGHTS, lambda b: b[:-1], "model.safetensors: damaged"),
    "a header cut short": (WEIGHTS, lambda b: b[:100], "model.safetensors: damaged"),
    "empty weights": (WEIGHTS, lambda _: b"", "model.safetensors: damaged"),
    "noise": (WEIGHTS, lambda b: bytes(range(256)) * (len(b) // 256), "model.safetensors: damaged"),
    "no config": ("config.json", lambda _: None, "no config.json there"),
    "a truncated config": ("config.json", lambda b: b[: len(b) // 2], "config.json: damaged"),
    "a config that is not UTF-8": ("config.json", lambda _: b"\xff\xfe{", "config.json: damaged"),
    "a config that is a list": ("config.json", lambda _: b"[1]", "config.json: expected a JSON object"),
    "a config of another size": ("config.json", _rewrite("hidden_size", 64), "weights do not fit"),
    "a config of another depth": ("config.json", _rewrite("num_hidden_layers", 3), "weights do not fit"),
    "a config with fewer layers": ("config.json", _rewrite("num_hidden_layers", 1), "weights do not fit"),
    "another architecture": ("config.json", _rewrite("model_type", "bert"), "'bert' is not supported"),
    "a scaling that is not computed": (
        "config.json",
        _rewrite("rope_scaling", {"rope_type": "longrope", "factor": 4.0}),
        "not supported; supported are linear, llama3 and yarn",
    ),
    "a family that is not computed": ("config.json", _rewrite("model_type", "gpt2"), "'gpt2' is not supported"),
    "a number that is text": ("config.json", _rewrite("hidden_size", "many"), "hidden_size is 'many'"),
    "no tokenizer": ("tokenizer.json", lambda _: None, "no tokenizer.json there"),
}


@pytest.mark.parametrize(("name", "damage", "message"), DAMAGE.values(), ids=DAMAGE.keys())
def test_damage_is_one_line_that_names_the_file(
    name: str, damage: Callable[[bytes], bytes | None], message: str, tmp_path: Path
) -> None:
    save_model(tmp_path / "m", causal(), tokenizer(), {})
    path = tmp_path / "m" / name
    damaged = damage(path.read_bytes())
    if damaged is None:
        path.unlink()
    else:
        path.write_bytes(damaged)
    with pytest.raises(InputError) as caught:
        load_model(tmp_path / "m", CausalLM)
    assert message in caught.value.message
    assert str(tmp_path / "m") in caught.value.message
    assert len(caught.value.message.splitlines()) == 1


@pytest.mark.parametrize("missing", ["model.embed_tokens.weight", "model.norm.weight"])
def test_a_missing_tensor_is_one_line(missing: str, tmp_path: Path) -> None:
    save_model(tmp_path / "m", causal(), tokenizer(), {})
    path = tmp_path / "m" / WEIGHTS
    save_file({k: v for k, v in load_file(path).items() if k != missing}, path)
    with pytest.raises(InputError, match="weights do not fit"):
        load_model(tmp_path / "m", CausalLM)


@pytest.mark.parametrize("field", ["hidden_size", "num_hidden_layers", "vocab_size", "rms_norm_eps"])
def test_a_missing_field_is_named(field: str, tmp_path: Path) -> None:
    save_model(tmp_path / "m", causal(), tokenizer(), {})
    path = tmp_path / "m" / "config.json"
    path.write_text(json.dumps({k: v for k, v in json.loads(path.read_text()).items() if k != field}))
    with pytest.raises(InputError, match=field):
        load_model(tmp_path / "m", CausalLM)


def test_a_model_of_the_other_kind_is_refused(tmp_path: Path) -> None:
    save_model(tmp_path / "causal", causal(), tokenizer(), {})
    save_model(tmp_path / "reward", scalar(), tokenizer(), {})
    with pytest.raises(InputError, match="is not a reward model"):
        load_model(tmp_path / "causal", ScalarModel)
    with pytest.raises(InputError, match="is not a language model"):
        load_model(tmp_path / "reward", CausalLM)


def test_a_tokenizer_larger_than_the_embedding_is_refused_and_a_smaller_one_is_not(tmp_path: Path) -> None:
    for vocab_size in (VOCAB, VOCAB + 28):
        save_model(tmp_path / str(vocab_size), causal(vocab_size=vocab_size), tokenizer(), {})
        load_model(tmp_path / str(vocab_size), CausalLM)
    save_model(tmp_path / "small", causal(vocab_size=VOCAB - 1), tokenizer(), {})
    with pytest.raises(InputError, match=rf"small: the tokenizer's ids go up to {VOCAB - 1}, .* {VOCAB - 1} rows"):
        load_model(tmp_path / "small", CausalLM)


@pytest.mark.parametrize("wrong", [{"num_heads": 3}, {"head_dim": 7}, {"num_layers": 0}])
def test_an_impossible_shape_is_one_line(wrong: dict[str, int]) -> None:
    with pytest.raises(InputError, match=next(iter(wrong))):
        config(**wrong)


# -- writes that fail


class FailingAt:
    """Lets a function succeed some times and fail from then on, as a full disk does."""

    def __init__(self, function: Callable[..., Any], good: int, error: Exception = FULL) -> None:
        self.function, self.good, self.error = function, good, error

    def __call__(self, *arguments: Any, **options: Any) -> Any:
        if self.good == 0:
            raise self.error
        self.good -= 1
        return self.function(*arguments, **options)


@pytest.mark.parametrize("good", range(7))
def test_a_full_disk_leaves_the_old_model(good: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    save_model(tmp_path / "m", causal(seed=1), tokenizer(), {})
    before = content(tmp_path)
    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", FailingAt(os.fsync, good))
        with pytest.raises(StorageError, match="No space left"):
            save_model(tmp_path / "m", causal(seed=2), tokenizer(), {})
    assert content(tmp_path) == before  # nothing half-written beside it either: it would keep the disk full
    save_model(tmp_path / "m", causal(seed=2), tokenizer(), {})
    assert torch.equal(load_model(tmp_path / "m", CausalLM)[0].lm_head.weight, causal(seed=2).lm_head.weight)


FAILURES: dict[str, tuple[Any, str, Callable[..., Any], int, Exception]] = {
    "the library's own error": (checkpoint, "save_file", save_file, 0, SafetensorError("I/O error: No space left")),
    "an error of the system": (checkpoint, "save_file", save_file, 0, FULL),
    "the first rename": (Path, "rename", Path.rename, 0, FULL),
    "the second rename": (Path, "rename", Path.rename, 1, FULL),
    "the new directory": (Path, "mkdir", Path.mkdir, 0, OSError(errno.EROFS, os.strerror(errno.EROFS))),
}


@pytest.mark.parametrize(("where", "name", "real", "good", "error"), FAILURES.values(), ids=FAILURES.keys())
def test_a_failed_save_leaves_the_old_state(
    where: Any,
    name: str,
    real: Callable[..., Any],
    good: int,
    error: Exception,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    save_state(tmp_path / "state", {"x": torch.zeros(4)}, {"step": 1})
    before = content(tmp_path)
    failing = FailingAt(real, good, error)
    calls = 0

    def patched(*arguments: Any, **options: Any) -> Any:
        nonlocal calls
        calls += 1
        # Only once: putting the old directory back is a rename too, and works.
        return real(*arguments, **options) if calls > good + 1 else failing(*arguments, **options)

    with monkeypatch.context() as patch:
        patch.setattr(where, name, patched)
        with pytest.raises(StorageError) as caught:
            save_state(tmp_path / "state", {"x": torch.ones(4)}, {"step": 2})
    assert len(caught.value.message.splitlines()) == 1
    assert content(tmp_path) == before
    saved = load_state(tmp_path / "state")
    assert saved is not None
    assert saved[1] == {"step": 1}


def test_a_real_full_disk_is_a_storage_error(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("not a directory")
    with pytest.raises(StorageError, match="could not write"):
        save_state(tmp_path / "file" / "state", {}, {"step": 1})


def test_an_interruption_leaves_the_old_state(tmp_path: Path) -> None:
    save_state(tmp_path / "state", {"x": torch.zeros(4)}, {"step": 1})
    before = content(tmp_path)

    def interrupted(place: Path) -> None:
        (place / "half").write_text("written")
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        replace_directory(tmp_path / "state", interrupted)
    assert content(tmp_path) == before


def test_a_crash_at_any_moment_leaves_the_old_state_or_the_new(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Takes a copy of the disk before each operation: that is what a machine that dies there finds."""
    work, copies = tmp_path / "work", tmp_path / "copies"
    save_state(work / "state", {"x": torch.zeros(4)}, {"step": 1})
    moments = 0

    def watched(real: Callable[..., Any]) -> Callable[..., Any]:
        def call(*arguments: Any, **options: Any) -> Any:
            nonlocal moments
            shutil.copytree(work, copies / str(moments))
            moments += 1
            return real(*arguments, **options)

        return call

    with monkeypatch.context() as patch:
        for owner, name in ((os, "fsync"), (Path, "rename"), (os, "rmdir"), (os, "unlink"), (Path, "mkdir")):
            patch.setattr(owner, name, watched(getattr(owner, name)))
        save_state(work / "state", {"x": torch.ones(4)}, {"step": 2})
    assert moments >= 8
    steps = []
    for i in range(moments):
        place = copies / str(i) / "state"
        saved = load_state(place)
        assert saved is not None, f"moment {i}: both are gone"
        tensors, values = saved
        assert torch.equal(tensors["x"], torch.full((4,), float(values["step"] - 1)))
        steps.append(values["step"])
        save_state(place, {"x": torch.full((4,), 2.0)}, {"step": 3})  # and the next save works
        assert sorted(p.name for p in place.parent.iterdir()) == ["state"]
    assert steps == sorted(steps)
    assert set(steps) == {1, 2}


def test_a_save_after_a_crash_between_the_renames_still_has_the_old_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    save_state(tmp_path / "state", {"x": torch.zeros(4)}, {"step": 1})
    (tmp_path / "state").rename(tmp_path / ".state.old")
    rename = Path.rename

    def no_new_one(self: Path, target: Path) -> Path:
        if self.name == ".state.new":
            raise FULL
        return rename(self, target)

    monkeypatch.setattr(Path, "rename", no_new_one)
    with pytest.raises(StorageError):
        save_state(tmp_path / "state", {"x": torch.ones(4)}, {"step": 2})
    saved = load_state(tmp_path / "state")
    assert saved is not None
    assert saved[1] == {"step": 1}


def test_no_state_is_none_and_a_damaged_one_is_an_error(tmp_path: Path) -> None:
    assert load_state(tmp_path / "state") is None
    save_state(tmp_path / "state", {"x": torch.zeros(4)}, {"step": 1})
    path = tmp_path / "state" / "state.safetensors"
    path.write_bytes(path.read_bytes()[:-4])
    with pytest.raises(ChatwheelError, match="damaged"):
        load_state(tmp_path / "state")
