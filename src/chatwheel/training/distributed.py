"""Training in several processes, started by `torchrun`: FSDP2 shards weights, gradients and moments among them.

Nothing between machines is ours: PyTorch's process groups and `fully_shard` do it, on CPUs by gloo; GPUs are not
served yet. Each process takes its share of a step's rows; a step is the same as in one process but for the order of
additions. Saves hold whole tensors, written by the first process, so that a run goes on in any number of processes.
"""

from __future__ import annotations

import gc
import os
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta

import torch
import torch.distributed as dist
from torch import Tensor
from torch.distributed.device_mesh import DeviceMesh, init_device_mesh
from torch.distributed.fsdp import fully_shard, register_fsdp_forward_method
from torch.distributed.tensor import DTensor, distribute_tensor

from chatwheel.errors import ChatwheelError
from chatwheel.model.lora import LoRAConfig, add_lora
from chatwheel.model.transformer import CausalLM


@dataclass(frozen=True)
class Ranks:
    """Which of how many processes this is."""

    rank: int = 0
    size: int = 1

    @property
    def first(self) -> bool:
        """The one that writes, and speaks."""
        return self.rank == 0


def ranks() -> Ranks:
    """This process's place; the first of one outside of `processes`."""
    return Ranks(dist.get_rank(), dist.get_world_size()) if dist.is_initialized() else Ranks()


@contextmanager
def processes() -> Iterator[Ranks]:
    """Joins the processes that `torchrun` has started, and leaves them at the end; alone, does nothing.

    Where one ends with an error the others lose their connection to it: they end too, and the first one alone speaks.
    """
    if int(os.environ.get("WORLD_SIZE", "1")) == 1:
        yield Ranks()
        return
    # The first one may prepare data for hours while the others wait.
    dist.init_process_group("gloo", timeout=timedelta(days=7))
    first = ranks().first
    try:
        yield ranks()
        dist.barrier()  # nobody leaves while another still talks to it
    except (ChatwheelError, RuntimeError) as error:
        traceback.clear_frames(error.__traceback__)  # what they hold would keep the process group
        if first:
            raise
        raise SystemExit(2) from None
    finally:
        _leave()


def _leave() -> None:
    """Ends the process group and its threads while Python still runs.

    A mesh knows its group, and DTensor's caches keep the mesh; so the threads of gloo would outlive
    `destroy_process_group`, and one that gives a tensor back when the interpreter has gone aborts the process.
    """
    dist.destroy_process_group()
    for mesh in [thing for thing in gc.get_objects() if type(thing) is DeviceMesh]:
        vars(mesh).get("_pg_registry", {}).clear()
    gc.collect()


def wait_for_all() -> None:
    """Goes on when all processes have come here."""
    if ranks().size > 1:
        dist.barrier()


def agreed(value: bool) -> bool:
    """What the first process says: clocks differ."""
    if ranks().size == 1:
        return value
    said = torch.tensor([value])
    dist.broadcast(said, 0)
    return bool(said.item())


def mean(value: float) -> float:
    """The mean over all processes."""
    if ranks().size == 1:
        return value
    total = torch.tensor([value], dtype=torch.float64)
    dist.all_reduce(total)
    return float(total) / ranks().size


def shard(model: CausalLM) -> None:
    """Shards a language model in place, a layer at a time; `computing` is where its weights are gathered."""
    mesh = init_device_mesh("cpu", (ranks().size,))
    for layer in model.model.layers:
        fully_shard(layer, mesh=mesh)
    fully_shard(model, mesh=mesh)
    register_fsdp_forward_method(model, "computing")


def whole(tensor: Tensor) -> Tensor:
    """A tensor without its shards; all processes must ask for it."""
    return tensor.full_tensor() if isinstance(tensor, DTensor) else tensor


def like(tensor: Tensor, example: Tensor) -> Tensor:
    """A whole tensor in the shards of another one of its shape."""
    if not isinstance(example, DTensor) or tensor.shape != example.shape:
        return tensor
    return distribute_tensor(tensor, example.device_mesh, example.placements)


def gathered(model: CausalLM, lora: LoRAConfig | None = None) -> CausalLM:
    """The same model, with its adapters if it has some, without shards, in every process."""
    if ranks().size == 1:
        return model
    plain = CausalLM(model.config)
    if lora is not None:
        add_lora(plain, lora, torch.Generator())
    with torch.no_grad():
        for ours, sharded in zip(plain.parameters(), model.parameters(), strict=True):
            ours.copy_(whole(sharded))
    return plain.train(model.training)
