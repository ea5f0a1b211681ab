"""Each matrix divided among processes that compute on the same rows (tensor parallelism; Shoeybi et al., 2019,
Megatron-LM), by PyTorch's `parallelize_module`.

Attention by its heads, the MLP by its width, embedding and output by the vocabulary: what reads the residual stream is
cut by rows of the weight ("column-wise": its outputs are shared out), what writes to it by columns, so that a layer
sums twice on the way forth and twice on the way back. Norms and a scalar head are whole everywhere. The residual
stream is a plain tensor, the same in all; hooks turn it into DTensors where a matrix is.
"""

from __future__ import annotations

import logging
from typing import Any

from torch import Tensor, nn
from torch.distributed.device_mesh import DeviceMesh
from torch.distributed.tensor import DTensor, Placement, Replicate, Shard, distribute_module, distribute_tensor
from torch.distributed.tensor.parallel import (
    ColwiseParallel,
    ParallelStyle,
    PrepareModuleInput,
    RowwiseParallel,
    parallelize_module,
)

from chatwheel.errors import InputError
from chatwheel.model.config import ModelConfig
from chatwheel.model.lora import adapters_of
from chatwheel.model.transformer import CausalLM, Linear, ScalarModel

HEADS = 2  # the dimension of BTHK


def check_divides(config: ModelConfig, tensor_parallel: int) -> None:
    """Raises InputError, which names it, if heads or width of a decoder cannot be shared equally."""
    for name in ("num_heads", "num_kv_heads", "intermediate_size"):
        if getattr(config, name) % tensor_parallel:
            raise InputError(
                f"the model's {name} ({getattr(config, name)}) must be a multiple of tensor_parallel "
                f"({tensor_parallel}); choose another number"
            )


def split(model: CausalLM | ScalarModel, mesh: DeviceMesh) -> None:
    """Divides a model in place among the processes of a mesh with one dimension. Raises InputError."""
    check_divides(model.config, mesh.size())
    adapters = adapters_of(model)
    for name, adapter in adapters.items():
        if adapter.dropout:
            raise InputError(
                f"lora.dropout ({adapter.dropout}) is not computed with tensor_parallel ({mesh.size()}); give 0"
            )
        _linear(model, name).adapter = None  # PyTorch's styles take a matrix to be alone
    # That a grid's sums take two steps is no news.
    logging.getLogger("torch.distributed.tensor._redistribute").setLevel(logging.ERROR)
    parallelize_module(model, mesh, _plan(model))
    if isinstance(model, CausalLM) and model.config.tied_embeddings:
        model.lm_head.weight = model.model.embed_tokens.weight  # both are cut by the vocabulary
    for name, adapter in adapters.items():
        linear = _linear(model, name)
        assert isinstance(linear.weight, DTensor)
        by_rows = linear.weight.placements == (Shard(0),)
        adapter.lora_A = _distributed(adapter.lora_A, mesh, Replicate() if by_rows else Shard(1))
        adapter.lora_B = _distributed(adapter.lora_B, mesh, Shard(0) if by_rows else Replicate())
        linear.adapter = adapter


def _plan(model: CausalLM | ScalarModel) -> dict[str, ParallelStyle]:
    """How each part is divided, by its name."""
    read, write = ColwiseParallel, RowwiseParallel
    layer: dict[str, ParallelStyle] = {
        "input_layernorm": _Whole(),
        "post_attention_layernorm": _Whole(),
        # Made a DTensor once, so that the gradients of what reads it are summed once.
        "self_attn": _reading(num_others=3),
        "mlp": _reading(num_others=0),
        **{f"self_attn.{name}": read() for name in ("q_proj", "k_proj", "v_proj")},
        **{f"mlp.{name}": read() for name in ("gate_proj", "up_proj")},
        **{name: write() for name in ("self_attn.o_proj", "mlp.down_proj")},
    }
    if model.config.qk_norm:
        layer |= {f"self_attn.{name}": _Whole(Shard(HEADS)) for name in ("q_norm", "k_norm")}
    head: dict[str, ParallelStyle] = (
        {"lm_head": read(output_layouts=Replicate())} if isinstance(model, CausalLM) else {"score": _Whole()}
    )
    return {
        "model.embed_tokens": write(input_layouts=Replicate()),
        **{f"model.layers.*.{name}": style for name, style in layer.items()},
        "model.norm": _Whole(),
        **head,
    }


def _reading(num_others: int) -> PrepareModuleInput:
    layouts = (Replicate(), *[None] * num_others)
    return PrepareModuleInput(input_layouts=layouts, desired_input_layouts=layouts)


class _Whole(ParallelStyle):
    """Weights whole in each process; input and output in one layout, as plain tensors outside."""

    def __init__(self, layout: Placement | None = None) -> None:
        self.layout = layout or Replicate()

    def _apply(self, module: nn.Module, device_mesh: DeviceMesh) -> nn.Module:
        def distributed(_: nn.Module, inputs: tuple[Tensor], mesh: DeviceMesh) -> DTensor:
            return DTensor.from_local(inputs[0], mesh, [self.layout], run_check=False)

        def local(_: nn.Module, output: Any, mesh: DeviceMesh) -> Tensor:  # noqa: ARG001
            return output.redistribute(placements=[self.layout]).to_local()  # type: ignore[no-any-return]

        return distribute_module(module, device_mesh, None, distributed, local)  # type: ignore[arg-type]


def _linear(model: nn.Module, name: str) -> Linear:
    linear = model.get_submodule(name)
    assert isinstance(linear, Linear)
    return linear


def _distributed(parameter: Tensor, mesh: DeviceMesh, placement: Placement) -> nn.Parameter:
    return nn.Parameter(distribute_tensor(parameter.detach(), mesh, [placement]))
