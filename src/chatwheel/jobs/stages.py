"""The stages of a recipe: each reads named artefacts and writes one. Read top to bottom, this is the wheel:
data -> tokenizer -> pretrain -> sft -> ranking -> reward (in `reward_stage`) -> ppo; or grpo, rloo or best_of_n in its
place; or, after ranking, dpo or kto. Of several processes the first one measures and writes; a stage's result is
nothing in the others.
"""

from __future__ import annotations

import contextlib
import copy
import ctypes
import json
import lzma
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import partial
from itertools import chain
from random import Random
from typing import Any

import torch

from chatwheel.data.preparation import prepare
from chatwheel.data.records import (
    Conversation,
    Demonstration,
    Document,
    Prompt,
    Ranking,
    Rating,
    read_jsonl,
    read_records,
    write_jsonl,
)
from chatwheel.data.splits import split
from chatwheel.data.token_shards import TokenShards
from chatwheel.data.world import (
    LABELLERS,
    Item,
    demonstrations,
    pretraining_documents,
    primer_documents,
    prompts,
    rank,
)
from chatwheel.engine.engine import Engine
from chatwheel.engine.requests import Request, SamplingParams
from chatwheel.errors import InputError
from chatwheel.jobs.held_out import held_out
from chatwheel.jobs.judges import judges
from chatwheel.jobs.opening import opened
from chatwheel.jobs.ray_data import ray_processors
from chatwheel.jobs.recipe import ArchitectureConfig, Recipe, WorldData
from chatwheel.jobs.run import Run, sha256
from chatwheel.jobs.watching import watch_answers, watch_pretraining
from chatwheel.model.chat_template import PLAIN_TEMPLATE
from chatwheel.model.checkpoint import replace_directory, save_model
from chatwheel.model.lora import LoRAConfig, save_adapter
from chatwheel.model.tokenizer import Tokenizer
from chatwheel.model.transformer import CausalLM, ScalarModel, with_scalar_head
from chatwheel.training.best_of_n import best_of_n
from chatwheel.training.distributed import ranks, wait_for_all
from chatwheel.training.dpo import dpo
from chatwheel.training.grpo import grpo
from chatwheel.training.guard import SEEN, read_looks
from chatwheel.training.kto import encode_labelled, kto
from chatwheel.training.loop import Metrics, OnProgress
from chatwheel.training.next_token import held_out_loss
from chatwheel.training.policy_gradient_config import PolicyGradientConfig
from chatwheel.training.ppo import PPOConfig, ppo
from chatwheel.training.precision import compute_dtype
from chatwheel.training.preferences import EncodedPreferences, encode_preferences
from chatwheel.training.pretrain import bits_per_byte, pretrain, shard_documents
from chatwheel.training.reward import (
    check_labellers,
)
from chatwheel.training.rloo import rloo
from chatwheel.training.rollouts import encode_prompts
from chatwheel.training.sft import pack_demonstrations, sft

HELD_OUT_BYTES = 2_000_000  # of each language, on which a base model is measured


def make_data(run: Run, on_progress: OnProgress) -> dict[str, Any]:  # noqa: ARG001
    """Documents, demonstrations and prompts, from the world or from people's files."""
    data, seed = run.recipe.data, run.recipe.seed
    if not isinstance(data, WorldData):
        result = dict(prepare(data, run.data("documents").parent, seed, workers=ray_processors()))
        _check_labellers(run, (r.labeller for r in read_records(run.data("rankings"), Ranking) if r.labeller))
        return result
    _check_labellers(run, (labeller.known_as for labeller in LABELLERS))
    languages = data.languages
    count = {
        "documents": write_jsonl(run.data("documents"), pretraining_documents(seed, data.documents, languages)),
        "demonstrations": write_jsonl(run.data("demonstrations"), demonstrations(seed, data.demonstrations, languages)),
    }
    if data.primer:
        count["primer"] = write_jsonl(run.data("primer"), primer_documents(seed, data.primer, languages))
    items = list(prompts(seed, data.ranked_prompts + data.ppo_prompts, languages))
    for name, part in (("ranked_items", items[: data.ranked_prompts]), ("prompts", items[data.ranked_prompts :])):
        values = (json.loads(item.model_dump_json()) | {"reference": item.answer} for item in part)
        count[name] = write_jsonl(run.data(name), values)
    return count


def _check_labellers(run: Run, known: Iterable[str]) -> None:
    """Before the hours until the reward model. Raises InputError."""
    if run.recipe.reward is not None and run.recipe.reward.labellers:
        check_labellers(run.recipe.reward, known)


def train_tokenizer(run: Run, on_progress: OnProgress) -> dict[str, Any]:  # noqa: ARG001
    """Byte-level BPE on the training text and the demonstrations."""
    config, model = run.recipe.tokenizer, run.recipe.model
    assert config is not None
    assert isinstance(model, ArchitectureConfig)

    def texts() -> Iterator[str]:
        yield from (document.text for document in read_records(run.data("documents"), Document))

    def turns() -> Iterator[str]:
        for conversation in read_records(run.data("demonstrations"), Conversation):
            yield from (m.content for m in conversation.messages)

    most = round(config.max_megabytes * 1_000_000)
    tokenizer = Tokenizer.train(chain(_first_bytes(texts(), most), _first_bytes(turns(), most)), config.vocab_size)
    replace_directory(run.stage("tokenizer"), lambda place: tokenizer.save(place, max_positions=model.max_positions))
    _give_back_memory()
    return {"vocab_size": tokenizer.vocab_size}


def _give_back_memory() -> None:
    """To the system: glibc keeps what was freed, and learning merges took more than any later stage may."""
    with contextlib.suppress(OSError, AttributeError):  # another C library
        ctypes.CDLL(None).malloc_trim(0)


def _first_bytes(texts: Iterable[str], most: int) -> Iterator[str]:
    """The first texts, until they have so many bytes together."""
    total = 0
    for text in texts:
        total += len(text.encode())
        yield text
        if total >= most:
            return


def pretrain_base(run: Run, on_progress: OnProgress) -> dict[str, Any]:
    """A base model: continues text."""
    recipe, tokenizer = run.recipe, Tokenizer.load(run.stage("tokenizer"))
    config = recipe.pretrain
    assert config is not None
    assert isinstance(recipe.model, ArchitectureConfig)
    sources = ["documents", *(["primer"] if config.primer else [])]
    rows = {name: _tokens(run, name, tokenizer).packed(config.row_length) for name in sources}
    model, metrics = pretrain(
        config,
        recipe.model.model_config_for(tokenizer.vocab_size),
        rows["documents"],
        primer=rows.get("primer"),
        directory=run.stage("pretrain"),
        seed=recipe.seed,
        tensor_parallel=recipe.tensor_parallel,
        on_progress=on_progress,
        watch=watch_pretraining(run, tokenizer, config.precision),
    )
    if model is None:
        return {}
    summary: dict[str, Any] = {"loss": metrics.get("loss"), "parameters": model.config.num_parameters}
    if run.data("documents.held_out").is_file():
        summary |= _held_out_bits_per_byte(run, model, tokenizer, config.row_length)
    # A base model has seen no chat: its template is the plain text of the messages, which it goes on from.
    plain = tokenizer.with_template(PLAIN_TEMPLATE)
    save_model(run.model("base"), model, plain, run.lineage("pretrain", parents=[], data=sources, metrics=summary))
    return summary


def _tokens(run: Run, name: str, tokenizer: Tokenizer) -> TokenShards:
    """The documents of a file as tokens on disk; the first process writes them."""
    directory = run.directory / "tokens" / name
    if ranks().first:
        plan = {"documents": sha256(run.data(name)), "tokenizer": sha256(run.stage("tokenizer") / "tokenizer.json")}
        shard_documents(read_records(run.data(name), Document), tokenizer, directory, plan)
    wait_for_all()
    return TokenShards(directory)


def _held_out_bits_per_byte(
    run: Run, model: CausalLM, tokenizer: Tokenizer, length: int
) -> dict[str, dict[str, float]]:
    """What the model makes of text that it has not seen, and what `xz -9` makes of the same text, by language."""
    by_language: dict[str, list[str]] = {}
    sizes: Counter[str] = Counter()
    for document in read_records(run.data("documents.held_out"), Document):
        name = document.language or "unknown"
        sizes[name] += len(document.text.encode())
        if sizes[name] <= HELD_OUT_BYTES or name not in by_language:
            by_language.setdefault(name, []).append(document.text)
    ours, theirs = {}, {}
    for language, texts in sorted(by_language.items()):
        ours[language] = round(bits_per_byte(model, tokenizer, texts, length), 4)
        whole = "".join(texts).encode()
        # As `xz -9`, but for a dictionary that is no larger than the text: that of 64 MB takes ten times the memory.
        xz = [{"id": lzma.FILTER_LZMA2, "preset": 9, "dict_size": max(4096, len(whole))}]
        theirs[language] = round(8 * len(lzma.compress(whole, filters=xz)) / len(whole), 4)
    return {"bits_per_byte": ours, "xz_bits_per_byte": theirs}


def fine_tune(run: Run, on_progress: OnProgress) -> dict[str, Any]:
    """An assistant that imitates the demonstrations: the whole base model trained, or an adapter."""
    config, seed = run.recipe.sft, run.recipe.seed
    assert config is not None
    model, tokenizer = opened(run, run.base(), CausalLM)
    if (run.stage("tokenizer") / "tokenizer.json").is_file():  # the base model's has no chat template
        tokenizer = Tokenizer.load(run.stage("tokenizer"))
    _check_row_length(run, "sft", config.row_length, model)
    packed, dropped = pack_demonstrations(_demonstrations(run), tokenizer, config.row_length)
    watch = watch_answers(run, tokenizer, config.precision, config.row_length // 2)
    trained, metrics = sft(
        config,
        model,
        packed,
        directory=run.stage("sft"),
        seed=seed,
        tensor_parallel=run.recipe.tensor_parallel,
        on_progress=on_progress,
        watch=watch,
    )
    if trained is None:
        return {}
    summary: dict[str, Any] = {"loss": metrics.get("loss"), "dropped": dropped}
    held_out_path = run.data("demonstrations.held_out")
    held_out = list(read_records(held_out_path, Demonstration)) if held_out_path.is_file() else []
    with contextlib.suppress(InputError):  # all of them too long, or none: nothing to measure on
        rows, _ = pack_demonstrations(held_out, tokenizer, config.row_length)
        result = held_out_loss(trained.eval(), rows, rows_at_once=config.rows_at_once, dtype=torch.float32)
        summary["held_out_loss"] = round(result["nats"] / result["tokens"], 4)
    lineage = run.lineage("sft", parents=["base"], data=["demonstrations"], metrics=summary)
    if config.lora is None:
        save_model(run.model("sft"), trained, tokenizer, lineage)
    else:
        save_adapter(run.model("sft"), trained, config.lora, tokenizer, base=run.base_name(), lineage=lineage)
    return summary


def _check_row_length(run: Run, stage: str, row_length: int, model: CausalLM) -> None:
    if row_length > model.config.max_positions:
        raise InputError(
            f"{stage}.row_length ({row_length}) is beyond the context of {run.recipe.model} "
            f"({model.config.max_positions})"
        )


def rank_answers(run: Run, on_progress: OnProgress) -> dict[str, Any]:  # noqa: ARG001
    """K answers of the SFT model to each prompt, and perhaps the written one, ranked by simulated labellers; people's
    rankings and ratings are data already."""
    recipe = run.recipe
    if not isinstance(recipe.data, WorldData):
        return {name: sum(1 for _ in read_jsonl(run.data(name))) for name in _judged(run)}
    items = [Item.model_validate(value) for value in read_jsonl(run.data("ranked_items"))]
    model, tokenizer = _start(run)
    engine = Engine(
        model, tokenizer, max_running=256, dtype=compute_dtype(recipe.ranking.precision, model.model.device.type)
    )
    answers = _sample(engine, items, recipe)
    if recipe.ranking.reference:
        answers = [[*given, item.answer] for item, given in zip(items, answers, strict=True)]
    random = Random(f"ranking {recipe.seed}")
    rankings = [
        rank(item, given, LABELLERS[i % len(LABELLERS)], random)
        for i, (item, given) in enumerate(zip(items, answers, strict=True))
    ]
    parts: dict[str, list[Ranking]] = {"train": [], "held_out": []}
    for ranking in rankings:
        # By the prompt's text: no prompt is in both.
        key = "\n".join(m.content for m in ranking.messages)
        parts[split(key, recipe.ranking.held_out)].append(ranking)
    write_jsonl(run.data("rankings.held_out"), parts["held_out"])
    return {"rankings": write_jsonl(run.data("rankings"), parts["train"]), "held_out": len(parts["held_out"])}


def _sample(engine: Engine, items: list[Item], recipe: Recipe) -> list[list[str]]:
    ranking = recipe.ranking
    requests = [
        Request(
            prompt_ids=tuple(engine.tokenizer.encode_prompt([m.model_dump() for m in item.messages])),
            params=SamplingParams(
                temperature=ranking.temperature,
                max_tokens=ranking.max_tokens,
                seed=(recipe.seed << 32) + i * ranking.answers + k,
            ),
        )
        for i, item in enumerate(items)
        for k in range(ranking.answers)
    ]
    texts = [completion.text for completion in engine.generate(requests)]
    return [texts[i : i + ranking.answers] for i in range(0, len(texts), ranking.answers)]


def learn_by_ppo(run: Run, on_progress: OnProgress) -> dict[str, Any]:
    """The assistant after PPO; the critic begins as the reward model, or as the policy where others judge."""
    config = run.recipe.ppo
    assert config is not None

    def learn(model: CausalLM, **given: Any) -> tuple[CausalLM, Metrics]:
        return ppo(config, model, _critic(run, config, model), **given)

    return _learn_from_own(run, "ppo", config, on_progress, learn)


def learn_by_grpo(run: Run, on_progress: OnProgress) -> dict[str, Any]:
    """The assistant after GRPO."""
    config = run.recipe.grpo
    assert config is not None
    return _learn_from_own(run, "grpo", config, on_progress, partial(grpo, config))


def learn_by_rloo(run: Run, on_progress: OnProgress) -> dict[str, Any]:
    """The assistant after RLOO."""
    config = run.recipe.rloo
    assert config is not None
    return _learn_from_own(run, "rloo", config, on_progress, partial(rloo, config))


def learn_from_best(run: Run, on_progress: OnProgress) -> dict[str, Any]:
    """The assistant after it has imitated its own best answers."""
    config = run.recipe.best_of_n
    assert config is not None
    return _learn_from_own(run, "best_of_n", config, on_progress, partial(best_of_n, config))


def _critic(run: Run, config: PPOConfig, policy: CausalLM) -> ScalarModel | None:
    if config.critic == "head":
        return None
    if run.recipe.reward is not None:
        critic, _ = opened(run, run.model("reward"), ScalarModel)
    else:
        critic = with_scalar_head(copy.deepcopy(policy))
    critic.to(policy.model.device)
    torch.nn.init.zeros_(critic.score.weight)
    return critic


def _learn_from_own(
    run: Run,
    name: str,
    config: PolicyGradientConfig,
    on_progress: OnProgress,
    learn: Callable[..., tuple[CausalLM, Metrics]],
) -> dict[str, Any]:
    """What learns from answers of its own, by one of the methods."""
    recipe = run.recipe
    model, tokenizer = _start(run)
    _check_row_length(run, name, config.row_length, model)
    reward = judges(run, config, tokenizer)
    # The reward model puts an end-of-turn token after an answer that was cut off: it needs room too.
    longest = config.row_length - config.max_tokens - 1
    questions = encode_prompts(read_records(run.data("prompts"), Prompt), tokenizer, longest, name)
    packed = None
    if config.ptx:
        assert recipe.sft is not None
        packed, _ = pack_demonstrations(_demonstrations(run), tokenizer, recipe.sft.row_length)
    trained, metrics = learn(
        model,
        reward=reward,
        tokenizer=tokenizer,
        questions=questions,
        directory=run.stage(name),
        seed=recipe.seed,
        demonstrations=packed,
        held_out=held_out(run, name, config, tokenizer, longest),
        on_progress=on_progress,
        watch=watch_answers(run, tokenizer, config.precision, longest),
    )
    summary = {"loss": metrics.get("loss")} | {key: metrics[key] for key in SEEN if key in metrics}
    data = ["prompts", *(["demonstrations"] if packed is not None else [])]
    result = _improved(run, name, data, trained, tokenizer, config.lora, summary)
    looks = read_looks(run.stage(name))
    return result | ({"guard_seconds": round(sum(look["seconds"] for look in looks), 3)} if looks else {})


def learn_from_pairs(run: Run, on_progress: OnProgress) -> dict[str, Any]:
    """The assistant after DPO on the rankings, whole or as an adapter."""
    recipe, config = run.recipe, run.recipe.dpo
    assert config is not None
    model, tokenizer = _start(run)
    _check_row_length(run, "dpo", config.row_length, model)
    encoded, dropped = encode_preferences(read_records(run.data("rankings"), Ranking), tokenizer, config.row_length)
    trained, metrics = dpo(
        config,
        model,
        encoded,
        directory=run.stage("dpo"),
        seed=recipe.seed,
        held_out=_held_out_preferences(run, tokenizer, config.row_length),
        tensor_parallel=recipe.tensor_parallel,
        on_progress=on_progress,
        watch=watch_answers(run, tokenizer, config.precision, config.row_length // 2),
    )
    return _improved(run, "dpo", ["rankings"], trained, tokenizer, config.lora, {**metrics, "dropped": dropped})


def learn_from_thumbs(run: Run, on_progress: OnProgress) -> dict[str, Any]:
    """The assistant after KTO on the rankings' good and bad answers and on people's thumbs, whole or as an adapter."""
    recipe, config = run.recipe, run.recipe.kto
    assert config is not None
    model, tokenizer = _start(run)
    _check_row_length(run, "kto", config.row_length, model)
    rankings = read_records(run.data("rankings"), Ranking)
    ratings = read_records(run.data("ratings"), Rating) if run.data("ratings").is_file() else ()
    encoded, dropped = encode_labelled(rankings, ratings, tokenizer, config.row_length)
    trained, metrics = kto(
        config,
        model,
        encoded,
        directory=run.stage("kto"),
        seed=recipe.seed,
        held_out=_held_out_preferences(run, tokenizer, config.row_length),
        tensor_parallel=recipe.tensor_parallel,
        on_progress=on_progress,
        watch=watch_answers(run, tokenizer, config.precision, config.row_length // 2),
    )
    return _improved(run, "kto", _judged(run), trained, tokenizer, config.lora, {**metrics, "dropped": dropped})


def _start(run: Run) -> tuple[CausalLM, Tokenizer]:
    """What is to become better, and answers to be ranked: the SFT model, or, without SFT, the named one."""
    return opened(run, run.model("sft") if run.recipe.start == "sft" else run.base(), CausalLM)


def _held_out_preferences(run: Run, tokenizer: Tokenizer, length: int) -> list[EncodedPreferences]:
    """Those on which pairs are counted; there may be none."""
    return encode_preferences(read_records(run.data("rankings.held_out"), Ranking), tokenizer, length)[0]


def _improved(
    run: Run,
    name: str,
    data: Sequence[str],
    model: CausalLM | None,
    tokenizer: Tokenizer,
    lora: LoRAConfig | None,
    summary: dict[str, Any],
) -> dict[str, Any]:
    """Saves what has become better; the summary."""
    if model is None:
        return {}
    sampling = run.recipe.sampling.get(name)
    judged = sampling is not None and sampling.judged_by_the_run
    parents = [run.recipe.start, *(["reward"] if judged else [])]
    lineage = run.lineage(name, parents=parents, data=data, metrics=summary)
    if lora is None:
        save_model(run.model(name), model, tokenizer, lineage)
    else:  # what it is on may be an adapter in turn
        base = str(run.model("sft").absolute()) if run.recipe.start == "sft" else run.base_name()
        save_adapter(run.model(name), model, lora, tokenizer, base=base, lineage=lineage)
    return summary


def _judged(run: Run) -> list[str]:
    """The files of judged answers that the run has."""
    return [name for name in ("rankings", "ratings") if run.data(name).is_file()]


def _demonstrations(run: Run) -> Iterable[Demonstration]:
    return read_records(run.data("demonstrations"), Demonstration)
