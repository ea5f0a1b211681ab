"""The commands and scripts of docs/fine-tuning.md, run as they stand against a server process and its worker, with a
small model in the place of the quickstart's."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
import torch

from chatwheel.data.world import demonstrations
from chatwheel.model.checkpoint import save_model
from chatwheel.model.tokenizer import Tokenizer
from chatwheel.model.transformer import CausalLM, initialise
from chatwheel.training.optimizers import OptimizerConfig
from chatwheel.training.sft import SFTConfig, pack_demonstrations, sft
from tests.server.process import Served, serving
from tests.tiny import config

ROOT = Path(__file__).parents[2]
TEXT = (ROOT / "docs" / "fine-tuning.md").read_text(encoding="utf-8")
URL = "http://127.0.0.1:8000/v1"
MODEL = "quickstart/sft"


def blocks(language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", TEXT, re.DOTALL)


@dataclass
class Newcomer:
    """A directory with the documentation, `chatwheel` and `python` on the path."""

    place: Path
    served: Served

    def run(self, *scripts: str) -> str:
        """Runs shell scripts in one shell."""
        environment = {
            **os.environ,
            "PATH": f"{self.place / 'bin'}{os.pathsep}{os.environ['PATH']}",
            "CHATWHEEL_HOME": str(self.served.log.parent),
            "PYTHONUNBUFFERED": "1",
        }
        script = "set -euo pipefail\n" + "\n".join(scripts).replace(URL, f"{self.served.url}/v1")
        done = subprocess.run(
            ["bash", "-c", script], cwd=self.place, env=environment, capture_output=True, text=True, timeout=500
        )
        assert done.returncode == 0, f"{script}\n{done.stdout}\n{done.stderr}"
        return done.stdout


def small_model(directory: Path) -> None:
    """Knows a little of how the world's answers read: enough to be taught something in seconds."""
    some = list(demonstrations(0, 2500, ("en",)))
    tokenizer = Tokenizer.train([message.content for one in some for message in one.messages], 800)
    model = CausalLM(
        config(vocab_size=tokenizer.vocab_size, hidden_size=64, num_kv_heads=4, head_dim=16, intermediate_size=128)
    )
    initialise(model, torch.Generator().manual_seed(0))
    settings = SFTConfig(
        epochs=1,
        rows_per_step=8,
        row_length=128,
        optimizer=OptimizerConfig(learning_rate=4e-3),
        compilation="never",
        precision="float32",
    )
    packed, _ = pack_demonstrations(some, tokenizer, settings.row_length)
    sft(settings, model, packed, directory=directory.parent / "state", seed=0)
    save_model(directory, model.eval(), tokenizer, {"stage": "sft"})


@pytest.fixture(scope="module")
def newcomer(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Newcomer]:
    home, place = tmp_path_factory.mktemp("home"), tmp_path_factory.mktemp("place")
    small_model(home / "models" / MODEL)
    (place / "docs").symlink_to(ROOT / "docs")
    (place / "bin").mkdir()
    for name, command in (("python", ""), ("chatwheel", " -m chatwheel")):
        path = place / "bin" / name
        path.write_text(f'#!/bin/sh\nexec "{sys.executable}"{command} "$@"\n')
        path.chmod(0o755)
    with serving(home) as served:
        yield Newcomer(place, served)


@pytest.mark.slow
def test_the_way_from_100_examples_to_a_better_model(newcomer: Newcomer) -> None:
    key, examples, check, script = blocks("sh")
    key = newcomer.run(key, 'echo "export OPENAI_BASE_URL=$OPENAI_BASE_URL OPENAI_API_KEY=$OPENAI_API_KEY"')
    assert "cw-" in key

    assert newcomer.run(examples).split() == ["100", "train.jsonl", "100", "test.jsonl", "200", "total"]
    learnt, asked = (
        [json.loads(line)["messages"][0]["content"] for line in (newcomer.place / f"{name}.jsonl").open()]
        for name in ("train", "test")
    )
    assert not {text.lower() for text in learnt} & {text.lower() for text in asked}
    assert set(json.loads(blocks("json")[0])) == {"messages"}

    report = json.loads(newcomer.run(key, check))
    assert (report["ok"], report["examples"], report["errors"]) == (True, 100, [])
    assert report["tokens"]["trained"] > 100

    said = newcomer.run(key, script)
    print(said)
    before, after = (int(found) / 100 for found in re.findall(r"^(?:before|after): +(\d+)%", said, re.MULTILINE))
    assert before < 0.1
    assert after > 0.5
    assert re.search(r"^ask ft:quickstart/sft:default:topics:\w+$", said, re.MULTILINE)
    assert "  The job has successfully completed" in said

    # The lines of Python are one script to whoever follows.
    (newcomer.place / "guide.py").write_text("\n".join(blocks("python")), encoding="utf-8")
    said = newcomer.run(key, "python guide.py")
    assert re.search(
        r"^ft:quickstart/sft:default:topics:\w+ says (geography|animals|history|sums|small talk)$", said, re.MULTILINE
    )
    assert "step,train_loss,train_accuracy,valid_loss,valid_mean_token_accuracy" in said


def test_everything_that_the_guide_names_is_there() -> None:
    for name in re.findall(r"\]\(([\w./-]+)", TEXT):
        assert (ROOT / "docs" / name).exists(), name
    errors = re.findall(r"`(\w+_\w+)`", TEXT[TEXT.index("## 9.") : TEXT.index("## 10.")])
    sources = "".join(path.read_text(encoding="utf-8") for path in (ROOT / "src" / "chatwheel").rglob("*.py"))
    for code in {"model_not_found", "file_not_found", "invalid_state", "worker_crashed"} & set(errors):
        assert f'"{code}"' in sources, code
