"""Models by name: what is damaged or half-written hides nothing else."""

from __future__ import annotations

import logging
from pathlib import Path

import pytest

from chatwheel.errors import InputError, ModelNotFoundError
from chatwheel.model.checkpoint import save_model
from chatwheel.store.registry import Registry
from tests.tiny import causal, scalar, tokenizer


@pytest.fixture
def root(tmp_path: Path) -> Path:
    save_model(tmp_path / "run" / "ppo", causal(), tokenizer(), {"stage": "ppo"})
    save_model(tmp_path / "run" / "reward", scalar(), tokenizer(), {"stage": "reward"})
    return tmp_path


def test_models_are_named_by_their_place_and_kind(root: Path) -> None:
    assert {e.name: e.kind for e in Registry(root).list()} == {"run/ppo": "causal", "run/reward": "reward"}
    assert Registry(root).entry("run/ppo").lineage["stage"] == "ppo"


@pytest.mark.parametrize("file", ["config.json", "chatwheel.json"])
@pytest.mark.parametrize("content", [b"{", b"\xff\xfe", b"[1]"])
def test_a_damaged_model_is_left_out_with_a_warning(
    file: str, content: bytes, root: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (root / "run" / "reward" / file).write_bytes(content)
    with caplog.at_level(logging.WARNING):
        assert [e.name for e in Registry(root).list()] == ["run/ppo"]
    assert f"reward/{file}" in caplog.text
    with pytest.raises(InputError, match=file):
        Registry(root).entry("run/reward")


def test_what_is_being_written_is_not_there_yet(root: Path) -> None:
    (root / "run" / "ppo").rename(root / "run" / ".ppo.new")
    (root / "run" / "reward" / "model.safetensors").unlink()
    assert Registry(root).list() == []


def test_an_unknown_name_lists_those_that_are_known(root: Path) -> None:
    with pytest.raises(ModelNotFoundError, match="models: run/ppo, run/reward"):
        Registry(root).resolve("run/pop")
