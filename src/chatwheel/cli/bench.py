"""`chatwheel bench`: speed and memory beside peers, as ratios of one run."""

from __future__ import annotations

from typing import Annotated, Any, Literal

import typer

app = typer.Typer(help="Measure speed and memory beside peers, in one run.", no_args_is_help=True)

Against = Annotated[str, typer.Option(help="Peers, by commas; they must be installed (the extra `bench`).")]
Rounds = Annotated[int, typer.Option(min=1, help="How often each contender runs; medians are given.")]
Precision = Annotated[Literal["auto", "float32", "bfloat16"], typer.Option(help="Of the activations.")]
Device = Annotated[Literal["cpu", "cuda"], typer.Option(help="Where all contenders train.")]
Json = Annotated[bool, typer.Option("--json", help="Print one JSON object.")]


def _bench(benchmark: str, against: str, rounds: int, precision: str, device: str, as_json: bool) -> None:
    import json

    import torch
    from rich.console import Console

    from chatwheel.benchmarks.compare import compare
    from chatwheel.benchmarks.workloads import Settings
    from chatwheel.errors import InputError

    if device == "cuda" and not torch.cuda.is_available():
        raise InputError("--device cuda: PyTorch finds no GPU here")
    console = Console(stderr=True, highlight=False)
    result = compare(
        benchmark,
        [name.strip() for name in against.split(",") if name.strip()],
        Settings(precision=precision, device=device),
        rounds,
        lambda name, number: console.print(f"[dim]round {number + 1} of {rounds}: {name}[/]"),
    )
    if as_json:
        print(json.dumps(result))
    else:
        _show(result)


def _show(result: dict[str, Any]) -> None:
    from rich.console import Console
    from rich.table import Table

    for workload in result["workloads"]:
        table = Table(title=f"{result['benchmark']} · {workload['name']} · {workload['settings']['dtype']}")
        for column in ("", "tokens/s", "of the matrix peak", "memory, MB", "ours is faster by", "and takes less by"):
            table.add_column(column, justify="left" if not column else "right")
        for name, row in {"chatwheel": workload["ours"], **workload["peers"]}.items():
            ratios = [f"{row[key]:.2f} x" if key in row else "" for key in ("ratio", "memory_ratio")]
            share = f"{row['share_of_peak']:.0%}"
            table.add_row(name, f"{row['tokens_per_second']:,.0f}", share, f"{row['peak_memory_mb']:,.0f}", *ratios)
        Console().print(table)
        Console().print(f"matrix peak: {workload['limit']['matrix_gflops']:,.0f} GFLOP/s")


def _add(benchmark: str, peer: str, text: str) -> None:
    @app.command(benchmark, help=text)
    def _(
        against: Against = peer,
        rounds: Rounds = 3,
        precision: Precision = "auto",
        device: Device = "cpu",
        as_json: Json = False,
    ) -> None:
        _bench(benchmark, against, rounds, precision, device, as_json)


for _benchmark, _peer, _text in (
    (
        "pretrain",
        "transformers",
        "Pretraining steps of 16 rows of 256 tokens, against a loop over transformers' model, plain and compiled.",
    ),
    (
        "sft",
        "trl",
        "An epoch of conversations of uneven length, against TRL's SFTTrainer as it comes, grouped, and packed.",
    ),
):
    _add(_benchmark, _peer, _text)


def _add_rollouts(benchmark: str, text: str) -> None:
    @app.command(benchmark, help=text)
    def _(
        against: Against = "trl",
        rounds: Rounds = 3,
        rollouts: Annotated[int, typer.Option(min=1, help="Timed ones of a round, after one that is not.")] = 2,
        precision: Precision = "auto",
        as_json: Json = False,
    ) -> None:
        import json

        from rich.console import Console

        from chatwheel.benchmarks.compare_rlhf import compare_rlhf
        from chatwheel.benchmarks.rlhf import Settings

        console = Console(stderr=True, highlight=False)
        result = compare_rlhf(
            benchmark,
            [name.strip() for name in against.split(",") if name.strip()],
            Settings(rollouts=rollouts, precision=precision),
            rounds,
            lambda name, number: console.print(f"[dim]round {number + 1} of {rounds}: {name}[/]"),
        )
        if as_json:
            print(json.dumps(result))
        else:
            _show_rollouts(result)


for _benchmark, _text in (
    (
        "ppo",
        "Rollouts of 64 answers and four epochs on them, against TRL's PPOTrainer as it comes, in fp32 and in bf16.",
    ),
    ("grpo", "Rollouts of 8 answers to 8 prompts and a step on them, against TRL's GRPOTrainer in the same ways."),
):
    _add_rollouts(_benchmark, _text)


def _show_rollouts(result: dict[str, Any]) -> None:
    from rich.console import Console
    from rich.table import Table

    for workload in result["workloads"]:
        table = Table(title=f"{result['benchmark']} · {workload['name']} · {workload['settings']['dtype']}")
        columns = ("", "answers/s", "generation, s", "scoring, s", "update, s", "of the matrix peak", "memory, MB")
        for column in (*columns, "ours is faster by", "and takes less by"):
            table.add_column(column, justify="left" if not column else "right")
        ours = {"chatwheel": workload["ours"]}
        if "ours_head" in workload:
            ours["chatwheel, critic as a head"] = workload["ours_head"]
        for name, row in {**ours, **workload["peers"]}.items():
            seconds = [f"{row[f'{part}_seconds']:.2f}" for part in ("generation", "scoring", "update")]
            ratios = [f"{row[key]:.2f} x" if key in row else "" for key in ("ratio", "memory_ratio")]
            share = f"{row['update_share_of_peak']:.0%}" if "update_share_of_peak" in row else ""
            memory = f"{row['peak_memory_mb']:,.0f}"
            table.add_row(name, f"{row['answers_per_second']:.2f}", *seconds, share, memory, *ratios)
        Console().print(table)
        Console().print(f"matrix peak: {workload['limit']['matrix_gflops']:,.0f} GFLOP/s")


@app.command()
def serve(
    against: Against = "llama.cpp,transformers",
    model: Annotated[Literal["nano", "mid"], typer.Option(help="5.7 or 222 million parameters.")] = "nano",
    precision: Annotated[
        Literal["float32", "bfloat16", "int8", "int4"], typer.Option(help="Of the weights.")
    ] = "float32",
    concurrency: Annotated[str, typer.Option(help="Requests at a time, by commas.")] = "1,8,32",
    rate: Annotated[
        float, typer.Option(min=0, help="Requests a second, at random; --concurrency then is the most that run.")
    ] = 0.0,
    prompt_tokens: Annotated[int, typer.Option(min=2, help="Mean length of the prompts.")] = 128,
    answer_tokens: Annotated[int, typer.Option(min=2, help="Length of the answers.")] = 64,
    adapters: Annotated[int, typer.Option(min=0, help="LoRA adapters that the requests are spread over.")] = 0,
    rounds: Rounds = 3,
    as_json: Json = False,
) -> None:
    """Answers of the engine, against llama.cpp, transformers and vLLM on the same weights."""
    import json

    from rich.console import Console

    from chatwheel.benchmarks.compare_serving import compare_serving
    from chatwheel.benchmarks.serving import Settings
    from chatwheel.errors import InputError

    if not all(part.strip().isdecimal() and int(part) for part in concurrency.split(",")):
        raise InputError(f"--concurrency {concurrency}: expected numbers by commas, as in 1,8,32")
    console = Console(stderr=True, highlight=False)
    result = compare_serving(
        [name.strip() for name in against.split(",") if name.strip()],
        Settings(
            model=model,
            precision=precision,
            rate=rate,
            prompt_tokens=prompt_tokens,
            answer_tokens=answer_tokens,
            adapters=adapters,
        ),
        [int(part) for part in concurrency.split(",")],
        rounds,
        lambda name, number: console.print(f"[dim]round {number + 1} of {rounds}: {name}[/]"),
    )
    if as_json:
        print(json.dumps(result))
    else:
        _show_serving(result)


def _show_serving(result: dict[str, Any]) -> None:
    from rich.console import Console
    from rich.table import Table

    settings = result["settings"]
    table = Table(title=f"serve · {settings['model']} · {settings['precision']}")
    columns = (
        "requests at a time",
        "",
        "tokens/s",
        "first token, ms",
        "a token, ms",
        "prompt tokens/s",
        "MB",
        "ours is",
    )
    for column in columns:
        table.add_column(column, justify="left" if not column else "right")
    for workload in result["workloads"]:
        for name, row in {"chatwheel": workload["ours"], **workload["peers"]}.items():
            figures = (
                f"{row[key]:,.{digits}f}" if key in row else ""
                for key, digits in (
                    ("tokens_per_second", 0),
                    ("ttft_ms", 1),
                    ("tpot_ms", 2),
                    ("prompt_tokens_per_second", 0),
                    ("peak_memory_mb", 0),
                )
            )
            ratio = f"{row['ratios']['tokens_per_second']:.2f} x" if "ratios" in row else ""
            table.add_row(str(workload["concurrency"]), name, *figures, ratio)
    Console().print(table)
    Console().print(f"memory is read at {result['limit']['memory_gigabytes_per_second']:.0f} GB/s")


@app.command()
def api(
    requests: Annotated[int, typer.Option(min=20, help="Short ones of a round, through the engine and the API.")] = 200,
    answer_tokens: Annotated[int, typer.Option(min=1, help="Of a short answer.")] = 8,
    busy: Annotated[int, typer.Option(min=1, help="Streams that answer at a time.")] = 32,
    idle: Annotated[int, typer.Option(min=0, help="Streams that only watch, beside them.")] = 200,
    stream_tokens: Annotated[int, typer.Option(min=2, max=400, help="Of each answering stream.")] = 96,
    rounds: Rounds = 3,
    as_json: Json = False,
) -> None:
    """What the API costs over the engine, many streams at once, and /health meanwhile: a real server, metered."""
    import json

    from rich.console import Console

    from chatwheel.benchmarks.api import Settings, measure_api

    console = Console(stderr=True, highlight=False)
    result = measure_api(
        Settings(requests=requests, answer_tokens=answer_tokens, busy=busy, idle=idle, stream_tokens=stream_tokens),
        rounds,
        lambda name, number: console.print(f"[dim]round {number + 1} of {rounds}: {name}[/]"),
    )
    if as_json:
        print(json.dumps(result))
    else:
        _show_api(result)


def _show_api(result: dict[str, Any]) -> None:
    from rich.console import Console
    from rich.table import Table

    for workload in result["workloads"]:
        table = Table("", "", title=f"api · {workload['name']}", show_header=False)
        for name, value in workload["ours"].items():
            aim = f"  (at most {workload['limit'][name]:g})" if name in workload["limit"] else ""
            table.add_row(name.replace("_", " "), f"{value:,.2f}{aim}")
        Console().print(table)


@app.command("fine-tune")
def fine_tune(
    jobs: Annotated[int, typer.Option(min=1, help="Jobs, one after the other; medians are given.")] = 3,
    examples: Annotated[int, typer.Option(min=1, help="Of each job.")] = 100,
    adapters: Annotated[str, typer.Option(help="How many side by side, by commas.")] = "1,4,16,64",
    rounds: Rounds = 3,
    as_json: Json = False,
) -> None:
    """From a file to a tuned model's first answer, and what many adapters in one batch cost."""
    import json

    from rich.console import Console

    from chatwheel.benchmarks.fine_tuning import Settings, bench
    from chatwheel.errors import InputError

    counts = [part.strip() for part in adapters.split(",")]
    if not all(count.isdecimal() and int(count) for count in counts):
        raise InputError(f"--adapters {adapters}: expected numbers by commas, as in 1,4,16,64")
    console = Console(stderr=True, highlight=False)
    result = bench(
        Settings(jobs=jobs, examples=examples, adapters=tuple(sorted(map(int, set(counts)))), rounds=rounds),
        lambda part: console.print(f"[dim]{part}[/]"),
    )
    if as_json:
        print(json.dumps(result))
    else:
        _show_fine_tuning(result)


def _show_fine_tuning(result: dict[str, Any]) -> None:
    from rich.console import Console
    from rich.table import Table

    (workload,) = result["workloads"]
    table = Table(title=f"fine-tune · {workload['name']}")
    for column in ("", "measured", "aim", "met by"):
        table.add_column(column, justify="left" if not column else "right")
    for name, value in workload["ours"].items():
        aim = workload["limit"].get(name)
        met = [f"{aim:,.0f}", f"{workload['ratios'][name]:.2f} x"] if aim is not None else ["", ""]
        table.add_row(name.replace("_", " "), f"{value:,.1f}", *met)
    Console().print(table)
    table = Table(title=f"adapters of rank {workload['settings']['rank']} in one batch")
    for column in ("adapters", "tokens/s", "of that without", "first token, ms", "a token, ms", "MB", "MB an adapter"):
        table.add_column(column, justify="right")
    for count, row in workload["adapters"].items():
        ratio, each = (f"{row[key]:.2f}" if key in row else "" for key in ("ratio", "memory_mb_per_adapter"))
        speed, first, token, memory = (
            f"{row[key]:,.1f}" for key in ("tokens_per_second", "ttft_ms", "tpot_ms", "peak_memory_mb")
        )
        table.add_row(count, speed, ratio, first, token, memory, each)
    Console().print(table)
