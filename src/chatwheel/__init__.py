"""Chatwheel: the whole of ChatGPT in one Python package.

In Python, an answer is two lines away:

    import chatwheel
    model = chatwheel.load("quickstart/ppo")
    print(model.chat("What is the capital of France?"))

`model.complete(text)` goes on with a text, `model.embed(texts)` gives a vector for each, and a reward model's
`score(messages)` says what it thinks of an answer.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path

    from chatwheel.assistant.orchestrator import Assistant

__version__ = "0.1.0"
__all__ = ["__version__", "load"]


def load(name_or_directory: str | Path) -> Assistant:
    """Opens a model by name (`quickstart/ppo`, or `Qwen/Qwen3-0.6B` of the Hub) or directory: one that answers, or a
    reward model."""
    # Imported here so that `import chatwheel` and `chatwheel --help` do not wait for PyTorch.
    from chatwheel.assistant.orchestrator import Assistant
    from chatwheel.settings import Settings
    from chatwheel.store.registry import Registry

    return Assistant.load(Registry(Settings.load().models, hub=True).resolve(str(name_or_directory)))
