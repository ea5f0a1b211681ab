"""Training in several processes, started by `torchrun` or Ray: FSDP2 shards weights, gradients and moments among them.

Nothing between machines is ours: PyTorch's process groups and `fully_shard` do it, on CPUs by gloo; GPUs are not
served yet. Each process takes its share of a step's rows; a step is the same as in one process but for the order of
additions. How a run is saved so that it goes on in any number of processes: states.py.
"""

from __future__ import annotations

import gc
import math
import os
import traceback
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from typing import TypeVar

import torch
import torch.distributed as dist
from torch import Tensor
from torch.distributed.device_mesh import DeviceMesh, init_device_mesh
from torch.distributed.fsdp import fully_shard, register_fsdp_forward_method
from torch.distributed.tensor import DTensor

from chatwheel.errors import ChatwheelError, InputError
from chatwheel.model.transformer import CausalLM, ScalarModel

ModelT = TypeVar("ModelT", CausalLM, ScalarModel)

TIMEOUT = timedelta(days=7)  # the first process may prepare data for hours while the others wait


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
    """Joins the processes that `torchrun` or Ray has started, and leaves them at the end; alone, does nothing.

    Where one ends with an error the others lose their connection to it: they end too, and the first one alone speaks.
    """
    if dist.is_initialized():  # by Ray, which also ends it
        yield ranks()
        return
    if int(os.environ.get("WORLD_SIZE", "1")) == 1:
        yield Ranks()
        return
    dist.init_process_group("gloo", timeout=TIMEOUT)
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


def check_shares(name: str, number: int, size: int) -> None:
    """Raises InputError if so many cannot be shared equally among `size` processes."""
    if number % size:
        raise InputError(f"{name} ({number}) must be a multiple of the {size} processes")


def shard(model: CausalLM | ScalarModel) -> None:
    """Shards a model in place, a layer at a time; `computing` is where its weights are gathered."""
    mesh = init_device_mesh("cpu", (ranks().size,))
    for layer in model.model.layers:
        fully_shard(layer, mesh=mesh)
    fully_shard(model, mesh=mesh)
    register_fsdp_forward_method(model, "computing")


def whole(tensor: Tensor) -> Tensor:
    """A tensor without its shards; all processes must ask for it."""
    return tensor.full_tensor() if isinstance(tensor, DTensor) else tensor


def whole_in_turn(matrices: Sequence[Tensor], compute: Callable[[list[Tensor]], Sequence[Tensor]]) -> Sequence[Tensor]:
    """`compute` of matrices, which keeps their shapes. Of sharded ones each process gets every size-th, whole, and
    gives the others their shards of the result."""
    shards = [matrix for matrix in matrices if isinstance(matrix, DTensor)]
    if not shards:
        return compute(list(matrices))
    rank, size = ranks().rank, ranks().size
    rows = [_shard_sizes(matrix.shape[0], size) for matrix in shards]
    mine = range(rank, len(shards), size)
    parts = _exchange(
        [[matrix.to_local() for matrix in shards[owner::size]] for owner in range(size)],
        [[(rows[i][source], shards[i].shape[1]) for i in mine] for source in range(size)],
    )
    wholes = [torch.cat(of_one) for of_one in zip(*parts, strict=True)]
    results = compute(wholes) if wholes else []
    cut = [torch.split(result, rows[i]) for i, result in zip(mine, results, strict=True)]
    parts = _exchange(
        [[of_one[target] for of_one in cut] for target in range(size)],
        [[tuple(matrix.to_local().shape) for matrix in shards[owner::size]] for owner in range(size)],
    )
    return [
        DTensor.from_local(
            parts[i % size][i // size],
            matrix.device_mesh,
            matrix.placements,
            run_check=False,
            shape=matrix.shape,
            stride=matrix.stride(),
        )
        for i, matrix in enumerate(shards)
    ]


def _exchange(sent: Sequence[Sequence[Tensor]], shapes: Sequence[Sequence[tuple[int, ...]]]) -> list[list[Tensor]]:
    """Some tensors to each process; from each, those of the given shapes."""
    flat = torch.cat([torch.empty(0), *(tensor.reshape(-1) for some in sent for tensor in some)])
    counts = [[math.prod(shape) for shape in some] for some in shapes]
    received = flat.new_empty(sum(map(sum, counts)))
    dist.all_to_all_single(received, flat, [*map(sum, counts)], [sum(t.numel() for t in some) for some in sent])
    parts = iter(torch.split(received, [count for some in counts for count in some]))
    return [[next(parts).view(shape) for shape in some] for some in shapes]


def _shard_sizes(rows: int, size: int) -> list[int]:
    """How many rows each process has: as `torch.chunk` cuts them."""
    most = -(-rows // size)
    return [min(most, max(0, rows - most * rank)) for rank in range(size)]


def gathered(model: ModelT, plain: Callable[[], ModelT]) -> ModelT | None:
    """The trained model without shards, in the first process; the others only help, a tensor at a time.

    plain: makes a model of the same shape, whose weights don't matter.
    """
    if ranks().size == 1:
        return model
    result = plain() if ranks().first else None
    for name, sharded in model.named_parameters():
        tensor = whole(sharded.detach())
        if result is not None:
            result.get_parameter(name).data.copy_(tensor)
    return result.train(model.training) if result is not None else None
