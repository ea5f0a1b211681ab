"""Training in several processes, started by `torchrun` or Ray: FSDP2 shards weights, gradients and moments among them.

Nothing between machines is ours: PyTorch's process groups and `fully_shard` do it, by gloo on CPUs and nccl on GPUs
(which nobody has tried yet). With tensor parallelism the processes are a grid, "data" x "tensor": those of one "tensor"
group see the same rows and divide each matrix (tensor_parallel.py), and FSDP2 shards what each of them holds over
"data". Each group takes its share of a step's rows; a step is the same as in one process but for the order of
additions. How a run is saved so that it goes on in any number of processes: states.py.
"""

from __future__ import annotations

import gc
import math
import os
import time
import traceback
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import timedelta
from typing import TypeVar

import torch
import torch.distributed as dist
from torch import Tensor
from torch.distributed.device_mesh import DeviceMesh, init_device_mesh
from torch.distributed.distributed_c10d import Store, _get_default_store
from torch.distributed.fsdp import fully_shard, register_fsdp_forward_method
from torch.distributed.tensor import DTensor

from chatwheel.errors import ChatwheelError, InputError
from chatwheel.model.transformer import CausalLM, ScalarModel
from chatwheel.training.tensor_parallel import split

ModelT = TypeVar("ModelT", CausalLM, ScalarModel)

TIMEOUT = timedelta(days=7)  # the first process may prepare data for hours while the others wait
SECONDS_TO_SPEAK = 5
NOTE = "chatwheel/why"


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


def shares(tensor_parallel: int) -> Ranks:
    """This process's share of a step's rows: the same for all of a "tensor" group, which are neighbours."""
    return Ranks(ranks().rank // tensor_parallel, ranks().size // tensor_parallel)


@contextmanager
def processes() -> Iterator[Ranks]:
    """Joins the processes that `torchrun` or Ray has started, and leaves them at the end; alone, does nothing.

    Where one ends with an error the others lose their connection to it: they end too, and the first one alone says what
    the user must mend, whosever it is. A bug's traceback is printed by the process that has it.
    """
    if dist.is_initialized():  # by Ray, which also ends it
        yield ranks()
        return
    if int(os.environ.get("WORLD_SIZE", "1")) == 1:
        yield Ranks()
        return
    dist.init_process_group(_backend(), timeout=TIMEOUT)
    first = ranks().first
    try:
        yield ranks()
        dist.barrier()  # nobody leaves while another still talks to it
    except (ChatwheelError, RuntimeError) as error:
        traceback.clear_frames(error.__traceback__)  # what they hold would keep the process group
        if first:
            if _is_loss(error) and (reason := _noted()):
                raise ChatwheelError(reason) from None
            raise
        if isinstance(error, ChatwheelError):
            _note(f"process {ranks().rank}: {error.message}")
            _leave()
            time.sleep(SECONDS_TO_SPEAK)  # torchrun ends all when the first of them has ended
        elif not _is_loss(error):
            raise
        raise SystemExit(2) from None
    finally:
        _leave()


def _is_loss(error: Exception) -> bool:
    """Whether it only says that another process is gone. Of gloo's errors nothing but the text is its own."""
    return isinstance(error, dist.DistError) or (type(error) is RuntimeError and "gloo" in str(error))


def _note(reason: str) -> None:
    """Why this process ends, for the first one, unless another has said so before."""
    with suppress(RuntimeError):  # who keeps the notes may be gone already
        _notes().compare_set(NOTE, "", reason)


def _noted() -> str | None:
    with suppress(RuntimeError):
        if _notes().check([NOTE]):
            return str(_notes().get(NOTE), "utf-8")
    return None


def _notes() -> Store:
    """Where the processes found each other; under torchrun it is torchrun's, and outlives them."""
    return _get_default_store()


def _backend() -> str:
    """What carries tensors where; this process's GPU, by its place on the machine, becomes the current one."""
    if not torch.cuda.is_available():
        return "gloo"
    torch.cuda.set_device(int(os.environ.get("LOCAL_RANK", "0")) % torch.cuda.device_count())
    return "cpu:gloo,cuda:nccl"


def _leave() -> None:
    """Ends the process group and its threads while Python still runs.

    A mesh knows its group, and DTensor's caches keep the mesh; so the threads of gloo would outlive
    `destroy_process_group`, and one that gives a tensor back when the interpreter has gone aborts the process.
    """
    if not dist.is_initialized():
        return
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


def check_shares(name: str, number: int, size: int, tensor_parallel: int = 1) -> None:
    """Raises InputError if so many cannot be shared equally among `size` processes, of which so many work as one."""
    if size % tensor_parallel:
        raise InputError(
            f"tensor_parallel ({tensor_parallel}) needs a multiple of so many processes, not {size}; start them with "
            "torchrun --nproc-per-node, or give another number"
        )
    if number % (size // tensor_parallel):
        groups = f"{size // tensor_parallel} groups of {tensor_parallel}" if tensor_parallel > 1 else str(size)
        raise InputError(f"{name} ({number}) must be a multiple of the {groups} processes")


def shard(model: CausalLM | ScalarModel, tensor_parallel: int = 1) -> None:
    """Shards a model in place, a layer at a time; `computing` is where its weights are gathered.

    tensor_parallel: how many processes divide each matrix, see tensor_parallel.py. Raises InputError if they cannot.
    """
    device, size = model.model.device.type, ranks().size
    if tensor_parallel == 1:
        mesh = init_device_mesh(device, (size,))
    else:
        grid = init_device_mesh(device, (size // tensor_parallel, tensor_parallel), mesh_dim_names=("data", "tensor"))
        split(model, grid["tensor"])
        mesh = grid["data"]
    for layer in model.model.layers:
        fully_shard(layer, mesh=mesh)
    fully_shard(model, mesh=mesh)
    register_fsdp_forward_method(model, "computing")


def whole(tensor: Tensor) -> Tensor:
    """A tensor without its shards; all processes must ask for it."""
    return tensor.full_tensor() if isinstance(tensor, DTensor) else tensor


def whole_in_turn(matrices: Sequence[Tensor], compute: Callable[[list[Tensor]], Sequence[Tensor]]) -> Sequence[Tensor]:
    """`compute` of matrices, which keeps their shapes. Of sharded ones each process gets every size-th, whole, and
    gives the others their shards of the result, which takes their place."""
    shards = [matrix for matrix in matrices if isinstance(matrix, DTensor)]
    if not shards:
        return compute(list(matrices))
    like, rank, size = shards[0].to_local(), ranks().rank, ranks().size
    blocks = [_blocks(matrix, size) for matrix in shards]
    mine = range(rank, len(shards), size)
    parts = _exchange(
        like,
        [[matrix.to_local() for matrix in shards[owner::size]] for owner in range(size)],
        [[blocks[i][source].shape for i in mine] for source in range(size)],
    )
    wholes = [like.new_empty(shards[i].shape) for i in mine]
    for source, of_one in enumerate(parts):
        for i, matrix, part in zip(mine, wholes, of_one, strict=True):
            matrix[blocks[i][source].slices] = part
    results = compute(wholes) if wholes else []
    parts = _exchange(
        like,
        [[result[blocks[i][target].slices] for i, result in zip(mine, results, strict=True)] for target in range(size)],
        [[blocks[i][rank].shape for i in range(owner, len(shards), size)] for owner in range(size)],
    )
    for i, matrix in enumerate(shards):
        matrix.to_local().copy_(parts[i % size][i // size])
    return shards


def _exchange(
    like: Tensor, sent: Sequence[Sequence[Tensor]], shapes: Sequence[Sequence[tuple[int, ...]]]
) -> list[list[Tensor]]:
    """Some tensors to each process; from each, those of the given shapes. like: of their type and device."""
    flat = torch.cat([like.new_empty(0), *(tensor.reshape(-1) for some in sent for tensor in some)])
    counts = [[math.prod(shape) for shape in some] for some in shapes]
    received = flat.new_empty(sum(map(sum, counts)))
    dist.all_to_all_single(received, flat, [*map(sum, counts)], [sum(t.numel() for t in some) for some in sent])
    parts = iter(torch.split(received, [count for some in counts for count in some]))
    return [[next(parts).view(shape) for shape in some] for some in shapes]


@dataclass(frozen=True)
class _Block:
    """What a process holds of a matrix."""

    rows: range
    columns: range

    @property
    def shape(self) -> tuple[int, int]:
        return len(self.rows), len(self.columns)

    @property
    def slices(self) -> tuple[slice, slice]:
        return slice(self.rows.start, self.rows.stop), slice(self.columns.start, self.columns.stop)


def _blocks(matrix: DTensor, size: int) -> list[_Block]:
    """Each process's block: FSDP shards the rows of what a "tensor" group has left to each."""
    blocks = []
    for rank in range(size):
        extents = [range(length) for length in matrix.shape]
        place = rank
        # The mesh's last dimension is the fastest, and what it cuts is cut first.
        for length, placement in zip(reversed(matrix.device_mesh.shape), reversed(matrix.placements), strict=True):
            place, coordinate = divmod(place, length)
            dim: int | None = getattr(placement, "dim", None)  # a Shard has it, strided or not
            if dim is not None:
                extents[dim] = _chunk(extents[dim], length, coordinate)
        blocks.append(_Block(*extents))
    return blocks


def _chunk(extent: range, number: int, index: int) -> range:
    """One of so many parts, as `torch.chunk` cuts them; the last ones may be short, or empty."""
    most = -(-len(extent) // number)
    return extent[most * index : most * (index + 1)]


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
