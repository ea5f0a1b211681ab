"""Stage 1, pretraining: a decoder learns to predict the next token of text.

data: documents -> model: fresh weights -> loss: next_token -> loop.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field

from chatwheel.data.packing import Packed, RowSource, pack
from chatwheel.data.records import Document
from chatwheel.data.token_shards import TokenShards, write_shards
from chatwheel.errors import InputError
from chatwheel.model.config import ModelConfig
from chatwheel.model.tokenizer import Tokenizer
from chatwheel.model.transformer import CausalLM, initialise
from chatwheel.training.compilation import Compilation, compiled, worth_compiling
from chatwheel.training.distributed import gathered, ranks, shard
from chatwheel.training.loop import Loop, Metrics, OnProgress
from chatwheel.training.next_token import NextTokenObjective, held_out_loss
from chatwheel.training.optimizers import OptimizerConfig
from chatwheel.training.precision import Precision, compute_dtype, training_device
from chatwheel.training.samples import Watch

TEXTS_AT_ONCE = 1000


class PretrainConfig(BaseModel):
    """How to pretrain.

    row_length: tokens of a packed row; longer documents are cut. primer: the share of the steps, the first ones, that
    see nothing but the primer's documents, where there are some. recompute: keep fewer activations and compute them
    again: less memory, more time.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")
    steps: int = Field(ge=1)
    rows_per_step: int = Field(default=32, ge=1)
    rows_at_once: int = Field(default=32, ge=1)
    row_length: int = Field(default=128, ge=2)
    primer: float = Field(default=0.0, ge=0, lt=1)
    optimizer: OptimizerConfig = OptimizerConfig(learning_rate=3e-3)
    precision: Precision = "auto"
    compilation: Compilation = "auto"
    recompute: bool = False


def shard_documents(
    documents: Iterable[Document], tokenizer: Tokenizer, directory: Path, plan: dict[str, Any]
) -> TokenShards:
    """Each document between two end-of-text tokens, on disk; goes on where it stopped. plan: see `write_shards`.

    Raises InputError if there are none.
    """
    return write_shards(
        directory,
        # A document that spells out a special token must not become one.
        (tokenizer.template.without_special_tokens(document.text) for document in documents),
        tokenizer.encode_batch,
        border=tokenizer.end_of_text_id,
        vocab_size=tokenizer.vocab_size,
        plan=plan,
    )


def pack_documents(documents: Iterable[Document], tokenizer: Tokenizer, row_length: int) -> Packed:
    """The same in rows in memory, for some megabytes."""
    texts = (tokenizer.template.without_special_tokens(document.text) for document in documents)
    border = tokenizer.end_of_text_id
    sequences: list[NDArray[np.int32]] = []
    # Some at a time, and as arrays: a list of Python integers is nine times as large.
    while some := list(islice(texts, TEXTS_AT_ONCE)):
        sequences += [np.array([border, *ids, border], np.int32) for ids in tokenizer.encode_batch(some)]
    if not sequences:
        raise InputError("pretraining: no documents; check the recipe's data.documents")
    return pack(sequences, row_length)


def pretrain(
    config: PretrainConfig,
    model_config: ModelConfig,
    packed: RowSource,
    *,
    directory: Path,
    seed: int,
    primer: RowSource | None = None,
    tensor_parallel: int = 1,
    on_progress: OnProgress = lambda _: None,
    watch: Watch = Watch(),
) -> tuple[CausalLM | None, Metrics]:
    """Trains a fresh model on packed documents, the primer's first, in `directory`, going on from its last save.
    Of several processes the first one gets the model; so many divide each matrix (`tensor_parallel`)."""
    model = CausalLM(model_config)
    initialise(model, torch.Generator().manual_seed(seed))
    model.to(training_device())
    objective = NextTokenObjective(
        model,
        packed,
        rows_per_step=config.rows_per_step,
        rows_at_once=config.rows_at_once,
        seed=seed,
        dtype=compute_dtype(config.precision, model.model.device.type),
        primer=primer,
        primer_steps=int(config.primer * config.steps),
        tensor_parallel=tensor_parallel,
    )
    model.model.recompute = config.recompute
    if ranks().size > 1:
        shard(model, tensor_parallel)
    loop = Loop(
        directory=directory,
        modules={"model": model},
        optimizer=config.optimizer,
        steps=config.steps,
        seed=seed,
        on_progress=on_progress,
        peak=watch.peak,
        sampler=watch.sampler(model, objective.dtype),
    )
    with compiled(model.model.layers, worth_compiling(config.compilation, loop.steps) and ranks().size == 1):
        metrics = loop.run(objective)
    return gathered(model, lambda: CausalLM(model_config)), metrics


def bits_per_byte(model: CausalLM, tokenizer: Tokenizer, texts: list[str], row_length: int) -> float:
    """Held-out compression: the loss in bits over the bytes of the text, whatever the tokenizer."""
    packed = pack_documents((Document(text=t) for t in texts), tokenizer, row_length)
    result = held_out_loss(model, packed, rows_at_once=16, dtype=torch.float32)
    return float(result["nats"]) / math.log(2) / sum(len(t.encode()) for t in texts)
