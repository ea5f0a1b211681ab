"""Who runs: Chatwheel and its peers, each in a process of its own: `python -m chatwheel.benchmarks.contenders`.

Every contender gets the same numbers of the same tokens and the same optimizer, AdamW with the same rate, and gives
real tokens a second: padding does not count. What a peer has as its default stays its default.
"""

from __future__ import annotations

import dataclasses
import json
import resource
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import torch

from chatwheel.benchmarks.workloads import LONGEST, NANO, Settings, conversations, rows

if TYPE_CHECKING:
    from chatwheel.data.packing import Packed

Result = dict[str, float]


def matrix_peak(settings: Settings) -> Result:
    """The best rate at which this machine multiplies matrices, in GFLOP/s."""
    from chatwheel.training.throughput import matrix_peak

    return {"gflops": matrix_peak(settings.dtype, seconds=60, device=settings.device) / 1e9}


# Pretraining ----------------------------------------------------------------------------------------------------------


def pretrain_chatwheel(settings: Settings) -> Result:
    """The objective and the optimizers of `training/pretrain.py`, its layers compiled."""
    from chatwheel.data.packing import pack

    packed = pack(rows(settings, settings.rows * (settings.warmup + settings.steps)), settings.row_length)
    with _ours(settings) as trainer_of:
        return _steps(settings, trainer_of(packed))


@contextmanager
def _ours(settings: Settings) -> Iterator[Callable[[Packed], Callable[[int], None]]]:
    """Chatwheel's model, compiled while the block lasts: gives, of packed rows, what trains on those of a step."""
    from chatwheel.model.transformer import CausalLM, initialise
    from chatwheel.training.compilation import compiled
    from chatwheel.training.next_token import NextTokenObjective
    from chatwheel.training.optimizers import OptimizerConfig, Optimizers

    model = CausalLM(NANO)
    initialise(model, torch.Generator().manual_seed(0))
    model.to(settings.device)
    optimizers = Optimizers([model], OptimizerConfig(learning_rate=settings.learning_rate, matrices="adamw"))
    size = settings.rows

    def trainer_of(packed: Packed) -> Callable[[int], None]:
        objective = NextTokenObjective(
            model, packed, rows_per_step=size, rows_at_once=size, seed=0, dtype=settings.dtype
        )

        def step(number: int) -> None:
            for batch in objective.batches(number):
                loss, _ = objective.loss(batch)
                loss.backward()  # type: ignore[no-untyped-call]
            optimizers.step(settings.learning_rate)

        return step

    with compiled(model.model.layers, enabled=True):
        yield trainer_of


def pretrain_transformers(settings: Settings, compile_model: bool = False) -> Result:
    """A plain loop over transformers' Llama: its loss, AdamW, clipping; weights in the activations' type."""
    model = _llama(settings)
    optimizer = torch.optim.AdamW(model.parameters(), lr=settings.learning_rate, fused=True)
    called = torch.compile(model) if compile_model else model
    count = settings.warmup + settings.steps
    numbers = torch.tensor(rows(settings, settings.rows * count), device=settings.device)
    tokens = numbers.view(count, settings.rows, settings.row_length)

    def step(number: int) -> None:
        called(input_ids=tokens[number], labels=tokens[number], use_cache=False).loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad()

    return _steps(settings, step)


def pretrain_transformers_compiled(settings: Settings) -> Result:
    """The same under torch.compile."""
    return pretrain_transformers(settings, compile_model=True)


def _steps(settings: Settings, step: Callable[[int], None]) -> Result:
    for number in range(settings.warmup):
        step(number)
    times = []
    for number in range(settings.warmup, settings.warmup + settings.steps):
        with _timed(settings) as seconds:
            step(number)
        times += seconds
    return {"tokens_per_second": settings.rows * settings.row_length / statistics.median(times)}


# SFT ------------------------------------------------------------------------------------------------------------------


def sft_chatwheel(settings: Settings) -> Result:
    """Exact packing, as `training/sft.py` does it: conversations of a row never see each other. Two epochs; the second
    is timed, and packs again."""
    from chatwheel.data.packing import pack

    sequences = conversations(settings)
    steps = max(1, len(pack(sequences, settings.row_length)) // settings.rows)

    with _ours(settings) as trainer_of:

        def epoch() -> float:
            packed = pack(sequences, settings.row_length)
            step = trainer_of(packed)
            for number in range(steps):
                step(number)
            return min(1.0, steps * settings.rows / len(packed))  # a last step that is not full is left out

        epoch()
        with _timed(settings) as seconds:
            trained = epoch()
    return {"tokens_per_second": trained * sum(map(len, sequences)) / seconds[0]}


def sft_trl(settings: Settings, **options: Any) -> Result:
    """TRL's SFTTrainer as it comes. Two epochs; the second is timed."""
    from datasets import Dataset
    from transformers import PreTrainedTokenizerFast, TrainerCallback
    from trl import SFTConfig, SFTTrainer

    from chatwheel.model.tokenizer import Tokenizer

    sequences = conversations(settings)
    marks: list[float] = []

    class Clock(TrainerCallback):  # type: ignore[misc]
        def on_epoch_end(self, *_: Any, **__: Any) -> None:
            marks.append(time.perf_counter())

    with tempfile.TemporaryDirectory() as directory:
        # Any tokenizer does: the data are ids already, and only the padding token is asked for.
        small = Tokenizer.train([" ".join(map(chr, range(33, 127)))], 262)
        arguments = SFTConfig(
            output_dir=directory,
            per_device_train_batch_size=settings.rows,
            num_train_epochs=2,
            learning_rate=settings.learning_rate,
            max_length=LONGEST,
            optim="adamw_torch_fused",
            use_cpu=settings.device == "cpu",
            bf16=False,
            report_to="none",
            save_strategy="no",
            logging_strategy="no",
            disable_tqdm=True,
            **options,
        )
        trainer = SFTTrainer(
            model=_llama(settings),
            args=arguments,
            train_dataset=Dataset.from_dict({"input_ids": sequences}),
            processing_class=PreTrainedTokenizerFast(
                tokenizer_object=small.backend, pad_token="<|endoftext|>", eos_token="<|end|>"
            ),
            callbacks=[Clock()],
        )
        trainer.train()
    return {"tokens_per_second": sum(map(len, sequences)) / (marks[1] - marks[0])}


def sft_trl_grouped(settings: Settings) -> Result:
    """Rows of similar lengths together, and no checkpointing of activations."""
    return sft_trl(settings, train_sampling_strategy="group_by_length", gradient_checkpointing=False)


def sft_trl_wrapped(settings: Settings) -> Result:
    """Packed with conversations cut at rows' ends and seeing each other, and no checkpointing of activations."""
    return sft_trl(settings, packing=True, packing_strategy="wrapped", gradient_checkpointing=False)


def _llama(settings: Settings) -> Any:
    from transformers import LlamaForCausalLM

    torch.manual_seed(0)
    return LlamaForCausalLM(llama_config()).to(settings.device, settings.dtype)


def llama_config(**more: Any) -> Any:
    """NANO as transformers describes it."""
    from transformers import LlamaConfig

    values = NANO.to_hugging_face(head="CausalLM", eos_token_id=4, pad_token_id=0)
    kept = {k: v for k, v in values.items() if k not in ("architectures", "model_type", "torch_dtype")}
    return LlamaConfig(**{**kept, **more})


@contextmanager
def _timed(settings: Settings) -> Iterator[list[float]]:
    """Seconds of the block, in the list when it has ended and the device has done what it was given."""
    seconds: list[float] = []
    began = time.perf_counter()
    yield seconds
    if settings.device != "cpu":
        torch.cuda.synchronize()
    seconds.append(time.perf_counter() - began)


CONTENDERS: dict[str, Callable[[Settings], Result]] = {
    f.__name__: f
    for f in (
        matrix_peak,
        pretrain_chatwheel,
        pretrain_transformers,
        pretrain_transformers_compiled,
        sft_chatwheel,
        sft_trl,
        sft_trl_grouped,
        sft_trl_wrapped,
    )
}


def main() -> None:
    """Runs one contender and prints its result as the last line."""
    name, settings = sys.argv[1], Settings(**json.loads(sys.argv[2]))
    result = CONTENDERS[name](settings)
    on_device = torch.cuda.max_memory_allocated() / 2**20 if settings.device != "cpu" else peak_memory_mb()
    result["peak_memory_mb"] = on_device
    print(json.dumps(result))


def peak_memory_mb() -> float:
    """The most that this process has had in memory."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def as_json(settings: Settings) -> str:
    """Settings for another process."""
    return json.dumps(dataclasses.asdict(settings))


if __name__ == "__main__":
    main()
