"""The `chatwheel` command: one file a verb; each imports what it needs when it runs, so that `--help` is quick."""

from __future__ import annotations

import importlib
import sys

from chatwheel.errors import ChatwheelError

# verb -> (module with a `command` (function or Typer), one line of help)
VERBS = {
    "quickstart": "Train a small assistant through all four stages, then serve it.",
    "data": "Import, clean and inspect data.",
    "tokenizer": "Train a tokenizer; encode text.",
    "train": "Run one stage of a recipe: pretrain, sft, reward or ppo.",
    "run": "Run all stages of a recipe, going on at the first unfinished one.",
    "generate": "Answer one prompt.",
    "chat": "Chat with a model in the terminal.",
    "serve": "Serve models: the web page and the OpenAI-compatible API.",
    "evaluate": "Measure a model on a suite.",
    "models": "List and show models.",
}
