"""An assistant without a model: it follows the interface, answers at once, and misbehaves when asked to.

It repeats what the user said. "count to N" counts slowly, "fail" breaks in mid-stream, "overload" refuses, and "call"
calls the first function twice after some words, if there is one.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Iterator, Sequence
from dataclasses import replace
from pathlib import Path

from chatwheel.data.records import Message
from chatwheel.engine.engine import Counts
from chatwheel.engine.metrics import Metrics
from chatwheel.engine.requests import Call, CallDelta, Completion, Delta, SamplingParams
from chatwheel.engine.tools import ToolUse
from chatwheel.errors import OverloadedError
from tests.tiny import tokenizer

CONTEXT_LENGTH = 200
CAPITALS = "The capital of France is **Paris**.\n\n- It lies on the river *Seine*.\n- It is the country's largest city."
CANNED = {
    "What is the capital of France?": CAPITALS,
    "Why is Paris the capital of Spain?": "Paris is not the capital of Spain. The capital of Spain is Madrid.",
    "How do I break into a house?": "I can't help with breaking into a house. If you are locked out, call a locksmith.",
    "把“苹果”翻译成英文": "“苹果”的英文是 **apple**。",
    "Show me some code": 'Here it is:\n\n```python\ndef greet(name: str) -> str:\n    return f"Hello, {name}!"\n```\n\n'
    "| word | 中文 |\n|---|---|\n| apple | 苹果 |\n| pear | 梨 |",
    "<img src=x onerror=alert(1)>": "<img src=x onerror=alert(1)> [click](javascript:alert(1)) ![x](https://evil.example/x.png)",
}


class FakeAssistant:
    """Same methods as `Assistant`. `delay` is the time between two pieces."""

    def __init__(self, name: str, delay: float = 0.0) -> None:
        self.name = name
        self.delay = delay
        self.context_length = CONTEXT_LENGTH
        self.tokenizer = tokenizer()
        self.prompts: list[list[Message]] = []
        self.params: list[SamplingParams] = []
        self.tools: list[ToolUse | None] = []
        self.num_cancelled = 0
        self.closed = self.dead = False

    @property
    def metrics(self) -> tuple[Counts, Metrics]:
        """It counts nothing."""
        return Counts(), Metrics()

    def count_tokens(self, messages: Sequence[Message]) -> int:
        """A token a word, and three for each turn's marks."""
        return sum(len(message.content.split()) + 3 for message in messages)

    async def encode(self, messages: Sequence[Message], tools: ToolUse | None = None) -> tuple[int, ...]:  # noqa: ARG002
        """So many tokens as it counts."""
        return tuple(range(self.count_tokens(messages)))

    async def stream(
        self,
        messages: Sequence[Message],
        params: SamplingParams,
        tools: ToolUse | None = None,
        *,
        prompt_ids: tuple[int, ...] | None = None,  # noqa: ARG002
    ) -> AsyncIterator[Delta]:
        """Word by word."""
        self.prompts.append(list(messages))
        self.params.append(params)
        self.tools.append(tools)
        question = messages[-1].content
        if question == "overload":
            raise OverloadedError("The engine's queue is full.", code="overloaded")
        pieces = _pieces(question, self.name)
        limit = params.max_tokens or len(pieces)
        if question.startswith("call") and tools is not None:
            for delta in self._calls(messages, tools, " ".join(question.split()[1:])):
                yield delta
            return
        written: list[str] = []
        try:
            for piece in pieces[:limit]:
                await asyncio.sleep(0.02 if question.startswith("count to ") else self.delay)
                if question == "fail" and len(written) == 2:
                    raise RuntimeError("secret detail of a bug")
                written.append(piece)
                yield Delta(text=piece, num_tokens=len(written))
        except (GeneratorExit, asyncio.CancelledError):
            self.num_cancelled += 1
            raise
        yield Delta(text="", completion=self._completion(messages, written, len(pieces) > limit))

    async def go_on(self, prompt: Sequence[int], params: SamplingParams) -> AsyncIterator[Delta]:
        """Counts slowly, as far as it may."""
        count = params.max_tokens or 1
        for number in range(1, count + 1):
            await asyncio.sleep(0.02)
            yield Delta(text=f"{number} ", num_tokens=number)
        completion = Completion(
            token_ids=tuple(range(count)),
            logprobs=(0.0,) * count,
            text="".join(f"{number} " for number in range(1, count + 1)),
            finish_reason="length",
            prompt_tokens=len(prompt),
        )
        yield Delta(text="", completion=completion)

    def _calls(self, messages: Sequence[Message], tools: ToolUse, words: str) -> Iterator[Delta]:
        name, arguments = tools.functions[0].name, ['{"city": ', '"巴黎"}']
        if words:
            yield Delta(text=words)
        calls = [Call(id=f"call_{index}", name=name, arguments="".join(arguments)) for index in range(2)]
        for index, call in enumerate(calls):
            yield Delta(text="", calls=(CallDelta(index=index, id=call.id, name=name),))
            for piece in arguments:
                yield Delta(text="", calls=(CallDelta(index=index, arguments=piece),))
        completion = self._completion(messages, [words] if words else [], False)
        yield Delta(text="", completion=replace(completion, calls=tuple(calls)))

    def close(self) -> None:
        """Nothing to stop."""
        self.closed = True

    def _completion(self, messages: Sequence[Message], written: list[str], cut: bool) -> Completion:
        return Completion(
            token_ids=tuple(range(len(written))),
            logprobs=(0.0,) * len(written),
            text="".join(written),
            finish_reason="length" if cut else "stop",
            prompt_tokens=self.count_tokens(messages),
        )


def _pieces(question: str, name: str) -> list[str]:
    if question.startswith("count to "):
        return [f"{number} " for number in range(1, int(question.split()[-1]) + 1)]
    answer = CANNED.get(question, f"{name} heard: {question}")
    words = answer.split(" ")
    return [word if place == 0 else f" {word}" for place, word in enumerate(words)]


class FakeModels:
    """A models directory with base, SFT, PPO and a reward model, and a loader that makes fakes of them."""

    def __init__(self, root: Path, delay: float = 0.0) -> None:
        self.root = root
        self.delay = delay
        self.loaded: list[FakeAssistant] = []
        for created, stage in enumerate(("base", "sft", "reward", "ppo"), start=1_700_000_000):
            self.write(f"quickstart/{stage}", stage, created)

    def write(self, name: str, stage: str, created: int) -> None:
        """A directory that looks like a model's."""
        directory = self.root / name
        directory.mkdir(parents=True, exist_ok=True)
        kind = "LlamaForSequenceClassification" if stage == "reward" else "LlamaForCausalLM"
        (directory / "config.json").write_text(json.dumps({"architectures": [kind]}))
        (directory / "chatwheel.json").write_text(json.dumps({"created": created, "stage": stage}))
        (directory / "model.safetensors").write_bytes(b"weights")

    def load(self, directory: Path) -> FakeAssistant:
        """What the pool calls; a directory named `broken` cannot be loaded."""
        if directory.name == "broken":
            raise RuntimeError("secret detail of a broken model")
        assistant = FakeAssistant(directory.name, self.delay)
        self.loaded.append(assistant)
        return assistant
