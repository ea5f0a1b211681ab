"""A live server with real, tiny models of random weights, and the official client for it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import httpx
import tokenizers
import torch
from openai import OpenAI

from chatwheel.model.checkpoint import save_model
from chatwheel.model.tokenizer import Tokenizer
from chatwheel.server.app import create_app
from chatwheel.server.models import ModelPool
from chatwheel.settings import Settings
from chatwheel.store.database import Database
from chatwheel.store.registry import Registry
from tests.server.live import run_server
from tests.tiny import VOCAB, causal, scalar, tokenizer

MARKS = ("<|fim_prefix|>", "<|fim_suffix|>", "<|fim_middle|>", "<|fim_pad|>")
SCALE = {"mean": 0.5, "std": 2.0}
MODEL, CODE, REWARD = "tiny/sft", "tiny/code", "tiny/reward"


@dataclass(frozen=True)
class Real:
    """The client, a plain one, and where it is."""

    client: OpenAI
    http: httpx.Client
    url: str
    models: Path


@cache
def code_tokenizer() -> Tokenizer:
    """Knows how a middle is filled in."""
    backend = tokenizers.Tokenizer.from_str(tokenizer().backend.to_str())
    backend.add_special_tokens([tokenizers.AddedToken(mark, special=True, normalized=False) for mark in MARKS])
    return Tokenizer(backend)


@contextmanager
def run_real(home: Path) -> Iterator[Real]:
    """Serves `tiny/sft`, `tiny/code` and `tiny/reward` of `home` until the block ends."""
    settings = Settings(home=home, database_url=f"sqlite:///{home / 'chatwheel.db'}")
    save_model(settings.models / MODEL, causal(max_positions=1024), tokenizer(), {"stage": "sft"})
    save_model(settings.models / CODE, causal(vocab_size=VOCAB + len(MARKS)), code_tokenizer(), {"stage": "sft"})
    save_model(settings.models / REWARD, scalar(), tokenizer(), {"metrics": {"reward_scale": SCALE}})
    pool, database = ModelPool(Registry(settings.models)), Database.open(settings.database_url)
    app = create_app(settings=settings, models_pool=pool, database=database, api_key=None, check_host=True)
    with (
        run_server(app) as url,
        OpenAI(base_url=f"{url}/v1", api_key="unused", max_retries=0, timeout=60) as client,
        httpx.Client(base_url=url, timeout=60) as http,
    ):
        yield Real(client, http, url, settings.models)


@torch.no_grad()
def logprobs_of(ids: list[int]) -> torch.Tensor:
    """Of `tiny/sft`, computed by PyTorch: T x V, row t about what comes after token t."""
    return causal()(torch.tensor([ids]))[0].log_softmax(-1)
