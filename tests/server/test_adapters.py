"""Adapters of one base speak through it side by side, each as its own merged model would."""

from __future__ import annotations

import asyncio
import json
import shutil
from pathlib import Path

import pytest
import torch

from chatwheel.assistant.orchestrator import Assistant
from chatwheel.data.records import Message
from chatwheel.engine.requests import Completion, SamplingParams
from chatwheel.errors import InputError, ModelNotFoundError
from chatwheel.model.checkpoint import save_model
from chatwheel.model.lora import LoRAConfig, Target, add_lora, save_adapter
from chatwheel.model.tokenizer import Tokenizer
from chatwheel.model.transformer import with_scalar_head
from chatwheel.server.models import FRESH_SECONDS, ModelPool, load_assistant
from chatwheel.store.registry import ModelEntry, Registry
from tests.engine.compiled import needs_kernels
from tests.engine.test_adapters import adapted
from tests.tiny import TEXT, VOCAB, causal, tokenizer

pytestmark = needs_kernels
HELLO = [Message(role="user", content="What is the capital of France?")]
TALK = [{"role": "user", "content": "Hello"}, {"role": "assistant", "content": "Hi there!"}]
ANSWERED = [Message.model_validate(turn) for turn in TALK]
GREEDY = SamplingParams(temperature=0.0, max_tokens=40, ignore_eos=True)


def write(root: Path, name: str, seed: int, *, targets: tuple[Target, ...] = ("q_proj", "v_proj", "down_proj")) -> Path:
    """An adapter on `base`, which is written if need be."""
    if not (root / "base").exists():
        save_model(root / "base", causal(tied_embeddings=False), tokenizer(), {"stage": "base"})
    config = LoRAConfig(rank=2 + seed, alpha=8.0, targets=targets)
    model = adapted(causal(tied_embeddings=False), config, seed)
    save_adapter(root / name, model, config, tokenizer(), base=str(root / "base"), lineage={"stage": "sft"})
    return root / name


class Pool:
    """A pool of real models that counts what it opens."""

    def __init__(self, root: Path, capacity: int = 4) -> None:
        self.opened: list[str] = []
        self.pool = ModelPool(Registry(root), capacity=capacity, load=self._load)

    def _load(self, directory: Path) -> Assistant:
        self.opened.append(directory.name)
        return load_assistant(directory)

    async def ask(self, name: str, params: SamplingParams = GREEDY) -> Completion:
        async with self.pool.use(self.pool.entry(name)) as assistant:
            return await assistant.answer(HELLO, params)


def merged(directory: Path) -> Completion:
    """The same question to a model in memory of its own."""
    assistant = Assistant.load(directory)
    try:
        return asyncio.run(assistant.answer(HELLO, GREEDY))
    finally:
        assistant.close()


def check_same(found: Completion, expected: Completion) -> None:
    assert found.token_ids == expected.token_ids
    assert found.logprobs == pytest.approx(expected.logprobs, abs=1e-4)


def test_many_at_once_are_answered_each_by_its_own_and_only_the_base_is_opened(tmp_path: Path) -> None:
    names = [f"a{i}" for i in range(5)]
    for i, name in enumerate(names):
        write(tmp_path, name, i)
    expected = {name: merged(tmp_path / name) for name in [*names, "base"]}
    assert len({completion.token_ids for completion in expected.values()}) == 6

    async def run() -> None:
        pool = Pool(tmp_path, capacity=1)
        asked = [*names, "base"] * 3
        answers = await asyncio.gather(*map(pool.ask, asked))
        for name, answer in zip(asked, answers, strict=True):
            check_same(answer, expected[name])
        assert pool.opened == ["base"]
        assert set(pool.pool.metrics()) == {"base"}
        write(tmp_path, "late", 7)  # while the server runs
        check_same(await pool.ask("late"), await asyncio.to_thread(merged, tmp_path / "late"))
        assert pool.opened == ["base"]
        await pool.pool.close()

    asyncio.run(run())


def test_a_replaced_adapter_is_loaded_again_and_who_speaks_ends_with_the_old_one(tmp_path: Path) -> None:
    old = merged(write(tmp_path, "a", 1))

    async def run() -> None:
        pool = Pool(tmp_path)
        async with pool.pool.use(pool.pool.entry("a")) as assistant:
            speaking = assistant.stream(HELLO, GREEDY)
            await anext(speaking)
            new_place = await asyncio.to_thread(write, tmp_path, "a", 2)
            await asyncio.sleep(FRESH_SECONDS)
            new = await asyncio.to_thread(merged, new_place)
            assert new.token_ids != old.token_ids
            check_same(await pool.ask("a"), new)
            rest = [delta async for delta in speaking]
            assert rest[-1].completion is not None
            check_same(rest[-1].completion, old)
        check_same(await pool.ask("a"), new)
        assert pool.opened == ["base"]
        await pool.pool.close()

    asyncio.run(run())


def change_template(directory: Path) -> None:
    path = directory / "tokenizer_config.json"
    config = json.loads(path.read_text())
    path.write_text(json.dumps(config | {"chat_template": config["chat_template"] + "{# other #}"}))


def other_tokens(directory: Path) -> None:
    Tokenizer.train([*TEXT, "other words than those of the base"] * 4, VOCAB).save(directory, max_positions=256)


@pytest.mark.parametrize("change", [change_template, other_tokens])
def test_one_with_its_own_template_or_tokens_has_a_model_of_its_own(tmp_path: Path, change: object) -> None:
    assert callable(change)
    change(write(tmp_path, "a", 1))
    expected = merged(tmp_path / "a")

    async def run() -> None:
        pool = Pool(tmp_path)
        for _ in range(2):
            check_same(await pool.ask("a"), expected)
        assert pool.opened == ["base", "a"]
        await pool.pool.close()

    asyncio.run(run())


def test_one_that_changes_more_than_layers_one_on_another_and_a_judge_are_merged(tmp_path: Path) -> None:
    write(tmp_path, "head", 1, targets=("q_proj", "lm_head"))
    path = write(tmp_path, "on_another", 2) / "adapter_config.json"
    write(tmp_path, "below", 3)
    path.write_text(json.dumps(json.loads(path.read_text()) | {"base_model_name_or_path": str(tmp_path / "below")}))
    expected = {name: merged(tmp_path / name) for name in ("head", "on_another")}
    config = LoRAConfig(rank=4)
    judge = with_scalar_head(causal(tied_embeddings=False))
    add_lora(judge, config, torch.Generator().manual_seed(1))
    with torch.no_grad():
        judge.score.weight.fill_(0.1)
        judged = float(judge(torch.tensor([tokenizer().encode_conversation(TALK)[0]]))[0, -1])
    save_adapter(tmp_path / "judge", judge, config, tokenizer(), base=str(tmp_path / "base"), lineage={})

    async def run() -> None:
        pool = Pool(tmp_path)
        for name in expected:
            check_same(await pool.ask(name), expected[name])
        assert pool.opened == ["head", "on_another"]
        async with pool.pool.use(pool.pool.entry("judge")) as assistant:
            asked = await assistant.read_score(assistant.encode_answered(ANSWERED))
            assert asked == pytest.approx(judged, abs=1e-5)
        write(tmp_path, "below", 4)  # what it was merged with has changed
        await asyncio.sleep(FRESH_SECONDS)
        check_same(await pool.ask("on_another"), await asyncio.to_thread(merged, tmp_path / "on_another"))
        await pool.pool.close()

    asyncio.run(run())


def test_an_adapter_has_its_own_way_to_sample(tmp_path: Path) -> None:
    path = write(tmp_path, "a", 1) / "generation_config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"temperature": 0.25}))

    async def run() -> None:
        pool = Pool(tmp_path)
        async with pool.pool.use(pool.pool.entry("a")) as assistant:
            assert assistant.default_params.temperature == 0.25
        async with pool.pool.use(pool.pool.entry("base")) as assistant:
            assert assistant.default_params.temperature == 0.7
        assert pool.opened == ["base"]
        await pool.pool.close()

    asyncio.run(run())


def test_a_damaged_adapter_or_one_whose_base_is_gone_is_one_line_and_others_go_on(tmp_path: Path) -> None:
    good = merged(write(tmp_path, "good", 1))
    (write(tmp_path, "bad", 2) / "adapter_model.safetensors").write_bytes(b"nothing")
    path = write(tmp_path, "lost", 3) / "adapter_config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"base_model_name_or_path": "/nowhere"}))

    async def run() -> None:
        pool = Pool(tmp_path)
        for name, message in (("bad", "damaged"), ("lost", "/nowhere")):
            with pytest.raises(InputError, match=message):
                await pool.ask(name)
        check_same(await pool.ask("good"), good)
        write(tmp_path, "bad", 2)  # mended
        assert (await pool.ask("bad")).token_ids
        await pool.pool.close()

    asyncio.run(run())


def test_one_that_is_deleted_after_it_was_looked_up_is_not_there(tmp_path: Path) -> None:
    """Neither the loader's nor the engine's words are said, which would tell where its files were."""

    async def ask_and_delete(pool: Pool, entry: ModelEntry) -> None:
        async with pool.pool.use(entry) as assistant:
            shutil.rmtree(entry.directory, ignore_errors=True)
            await assistant.answer(HELLO, GREEDY)

    async def run() -> None:
        pool = Pool(tmp_path)
        for steps in ("before", "between"):
            entry = pool.pool.entry(write(tmp_path, f"gone-{steps}", 1).name)
            if steps == "before":
                shutil.rmtree(entry.directory)
            with pytest.raises(ModelNotFoundError) as caught:
                await ask_and_delete(pool, entry)
            assert caught.value.code == "model_not_found"
            assert str(tmp_path) not in caught.value.message
        await pool.pool.close()

    asyncio.run(run())
