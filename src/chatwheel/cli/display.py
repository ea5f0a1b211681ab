"""What a run looks like in the terminal: a bar a stage, and after each model what it answers. All on standard error.

Under torchrun only the first process draws; the others are quiet.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from rich.console import Console
from rich.progress import BarColumn, Progress, TaskID, TextColumn
from rich.table import Table

if TYPE_CHECKING:
    from chatwheel.jobs.pipeline import Stage
    from chatwheel.training.loop import Progress as StepProgress

NAMES = {
    "base": "Base model",
    "sft": "After SFT",
    "ppo": "After PPO",
    "grpo": "After GRPO",
    "rloo": "After RLOO",
    "best_of_n": "After best of n",
    "dpo": "After DPO",
    "kto": "After KTO",
}


class Display:
    """Draws a run; an `Observer` of jobs.pipeline."""

    def __init__(self, quiet: bool = False) -> None:
        self._console = Console(stderr=True, highlight=False, quiet=quiet)
        self._progress = Progress(
            TextColumn("{task.description}"),
            BarColumn(bar_width=24),
            TextColumn("{task.percentage:>3.0f}%"),
            TextColumn("[dim]{task.fields[detail]}"),
            console=self._console,
            refresh_per_second=4,
            disable=quiet,
        )
        self._task: TaskID | None = None
        self._began = 0.0

    def __enter__(self) -> Display:
        self._progress.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._progress.stop()

    def say(self, text: str) -> None:
        """A line of its own."""
        self._console.print(text, soft_wrap=True)

    def begin(self, stage: Stage) -> None:
        """A stage starts, or goes on."""
        self._began = time.monotonic()
        self._task = self._progress.add_task(stage.title, total=None, detail="")

    def progress(self, progress: StepProgress) -> None:
        """A training step is done."""
        assert self._task is not None
        self._progress.update(self._task, total=progress.steps, completed=progress.step, detail=_detail(progress))

    def end(self, stage: Stage, result: dict[str, Any], *, skipped: bool) -> None:
        """A stage is finished; `skipped` if it had been before."""
        assert self._task is not None
        self._progress.remove_task(self._task)
        how = "done before" if skipped else f"{time.monotonic() - self._began:.0f} s"
        self.say(f"[green]✓[/] {stage.title} [dim]{_summary(result)}({how})[/]")

    def answers(self, model: str, pairs: Sequence[tuple[str, str]], result: dict[str, Any]) -> None:
        """What a new model says to the showcase prompts, and its examination, if there is one."""
        marks = f" [dim]· held-out examination: {result['accuracy']:.0%} right[/]" if "accuracy" in result else ""
        table = Table(title=f"{NAMES.get(model, model)}{marks}", title_justify="left", box=None, padding=(0, 2, 0, 1))
        table.add_column("prompt", style="cyan", max_width=44)
        table.add_column("answer", max_width=70)
        for prompt, answer in pairs:
            table.add_row(_short(prompt, 160), _short(answer, 200))
        self._console.print(table)


def _detail(progress: StepProgress) -> str:
    numbers = progress.metrics
    parts = [
        f"{name} {numbers[name]:.3f}"
        for name in ("loss", "pair_accuracy", "label_accuracy", "reward", "margin", "kl")
        if name in numbers
    ]
    minutes, seconds = divmod(int(progress.remaining), 60)
    return "  ".join([*parts, f"{progress.tokens_per_second:,.0f} tok/s", f"{minutes}:{seconds:02d} left"])


def _summary(result: dict[str, Any]) -> str:
    shown = {"loss": "loss {:.3f}", "pair_accuracy": "{:.1%} of held-out pairs right"}
    counted = "rankings" if result.get("rankings") else "demonstrations"
    shown[counted] = "{:,} " + counted
    parts = [text.format(result[name]) for name, text in shown.items() if result.get(name) is not None]
    return "".join(f"{part}, " for part in parts).rstrip(", ") + (" " if parts else "")


def _short(text: str, longest: int) -> str:
    line = " ".join(text.split()).replace("[", r"\[")
    return line if len(line) <= longest else line[: longest - 1] + "…"
