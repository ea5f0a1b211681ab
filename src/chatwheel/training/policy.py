"""The policy that learns by its own answers: it samples, it is read, and its reference is what it began as."""

from __future__ import annotations

import copy
from collections.abc import Sequence

import torch
from torch import Tensor

from chatwheel.engine.engine import Engine
from chatwheel.engine.native.bindings import load_kernels
from chatwheel.engine.requests import Completion
from chatwheel.model.lora import LoRAConfig, adapters_of, add_lora, without_adapters
from chatwheel.model.tokenizer import Tokenizer
from chatwheel.model.transformer import CausalLM
from chatwheel.training.answers import Answers
from chatwheel.training.compilation import uncompiled
from chatwheel.training.rollouts import sample_answers

ADAPTER = "policy"


class Policy:
    """model: learns, whole or by an adapter that it is given here. dtype: of its activations. max_running: answers that
    are sampled together. with_reference: whether to keep what it began as: of a whole model a copy, of an adapter what
    is under it, which is no second copy of the weights."""

    def __init__(
        self,
        model: CausalLM,
        tokenizer: Tokenizer,
        *,
        dtype: torch.dtype,
        max_running: int,
        lora: LoRAConfig | None = None,
        seed: int = 0,
        with_reference: bool = True,
    ) -> None:
        self.model, self.dtype = model, dtype
        self.reference: CausalLM | None = None
        self._adapter: str | None = None
        if lora is None:
            if with_reference:
                self.reference = copy.deepcopy(model).requires_grad_(False)
            self.engine = Engine(model, tokenizer, max_running=max_running, dtype=dtype)
            return
        add_lora(model, lora, torch.Generator().manual_seed(seed))
        model.to(model.model.device)  # the adapter is made on the processor
        plain = without_adapters(model)
        if with_reference:
            self.reference = plain
        if self.device.type == "cpu" and load_kernels() is not None and "lm_head" not in lora.targets:
            # The kernels read the adapter beside the matrices.
            self._adapter = ADAPTER
            self.engine = Engine(
                plain, tokenizer, max_running=max_running, dtype=dtype, adapters=lambda _: adapters_of(model)
            )
        else:
            self.engine = Engine(model, tokenizer, max_running=max_running, dtype=dtype)

    @property
    def device(self) -> torch.device:
        """Where it computes."""
        return self.model.model.device

    @property
    def samples_as_it_is_read(self) -> bool:
        """Whether the sampler's log-probs are those that a trainer computes, but for rounding in fp32."""
        return self.dtype == torch.float32

    def sample(self, prompts: Sequence[Sequence[int]], *, max_tokens: int, seeds: Sequence[int]) -> list[Completion]:
        """One answer a prompt, of the weights as they are now. The sampler then gives back its memory."""
        with uncompiled(self.model.model.layers):  # they would be compiled for each new shape
            completions = sample_answers(
                self.engine, prompts, max_tokens=max_tokens, seeds=seeds, adapter=self._adapter
            )
        self.engine.sleep()  # what it has read of the weights is old with the next step
        return completions

    @torch.no_grad()
    def log_probs(self, parts: Sequence[Answers]) -> Tensor:
        """Of all tokens of the answers, N."""
        return torch.cat([part.log_probs(self.model, self.dtype) for part in parts])

    @torch.no_grad()
    def reference_log_probs(self, parts: Sequence[Answers]) -> Tensor:
        """What the reference thinks of the tokens, N."""
        assert self.reference is not None
        return torch.cat([part.log_probs(self.reference, self.dtype) for part in parts])
