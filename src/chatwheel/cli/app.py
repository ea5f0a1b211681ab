"""The `chatwheel` command: a file a verb, imported when it is used, so that `chatwheel --help` is quick."""

from __future__ import annotations

import importlib
import os
import sys
from typing import Any, ClassVar

import typer
from typer.core import TyperGroup

from chatwheel import __version__
from chatwheel.errors import ChatwheelError, StorageError

# verb -> its line in the help. `cli/<verb>.py` has `command`, a function, or `app`, a Typer with verbs of its own.
VERBS = {
    "quickstart": "Train a small assistant through all four stages, then serve it.",
    "data": "Import, clean and inspect data.",
    "tokenizer": "Train a tokenizer; encode text.",
    "train": "Run one stage of a recipe: pretrain, sft, reward, ppo, grpo, rloo, best_of_n, dpo or kto.",
    "run": "Run all stages of a recipe, going on at the first unfinished one.",
    "generate": "Answer one prompt.",
    "chat": "Chat with a model in the terminal.",
    "serve": "Serve models: the web page and the OpenAI-compatible API.",
    "worker": "Do fine-tuning jobs; `serve` starts one by itself.",
    "evaluate": "Measure a model on a suite.",
    "study": "What a method's result owes to its seed, and what becomes of it when it goes too far.",
    "bench": "Measure speed and memory beside peers.",
    "moderation": "Train and measure moderation; judge a text.",
    "feedback": "Export what people said about answers, to learn from.",
    "wheel": "Turn what people said into the next model, if the gate lets it pass.",
    "models": "List models, show where they come from, promote them.",
    "keys": "Create, list, rotate and revoke API keys.",
    "users": "Add, list and change users.",
    "projects": "Create, list and limit projects.",
    "prices": "Set and list what tokens cost.",
    "settings": "Show and set how long chats and the audit log are kept.",
    "db": "Upgrade, back up and restore the database and the uploaded files.",
}

# What typer makes of Ctrl+C.
INTERRUPTED = 130


class LazyGroup(TyperGroup):
    """A group whose commands are imported when they are looked up."""

    loaded: ClassVar[dict[str, Any]] = {}

    def list_commands(self, ctx: Any) -> list[str]:  # noqa: ARG002
        """The verbs in the order of the wheel."""
        return list(VERBS)

    def get_command(self, ctx: Any, cmd_name: str) -> Any:
        """The verb's command; for the overview, only its name and its line of help."""
        if cmd_name not in VERBS:
            return super().get_command(ctx, cmd_name)
        if ctx.resilient_parsing or not _is_called(cmd_name):
            stub = typer.Typer()
            stub.command(name=cmd_name, help=VERBS[cmd_name])(lambda: None)
            return typer.main.get_command(stub)
        if cmd_name not in self.loaded:
            self.loaded[cmd_name] = _load(cmd_name)
        return self.loaded[cmd_name]


def _is_called(verb: str) -> bool:
    """Whether the verb is the first word of the command line, and not merely listed in the help."""
    return verb in sys.argv[1:]


def _load(verb: str) -> Any:
    module = importlib.import_module(f"chatwheel.cli.{verb}")
    command: Any
    if hasattr(module, "app"):
        command = typer.main.get_group(module.app)
    else:
        single = typer.Typer(add_completion=False, rich_markup_mode=None)
        single.command(help=module.command.__doc__)(module.command)
        command = typer.main.get_command(single)
    command.name = verb
    return command


app = typer.Typer(
    cls=LazyGroup,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
    help="The whole of ChatGPT in one package: text -> base model -> SFT -> reward model -> PPO -> page and API.",
)


def _show_version(value: bool) -> None:
    if value:
        typer.echo(__version__)
        raise typer.Exit


@app.callback()
def _options(
    version: bool = typer.Option(False, "--version", callback=_show_version, is_eager=True, help="Show the version."),
) -> None:
    pass


def main() -> None:
    """Runs the command; what the user can mend becomes one line and exit code 2."""
    try:
        app()
    except ChatwheelError as error:
        _fail(error.message)
    except OSError as error:
        if error.errno is None:
            raise
        _fail(StorageError(f"{error.filename or 'input or output'}: {os.strerror(error.errno)}").message)
    except SystemExit as end:
        if end.code == INTERRUPTED:
            print("stopped; the same command goes on from here", file=sys.stderr)
        raise


def _fail(message: str) -> None:
    print(f"chatwheel: {' '.join(message.split())}", file=sys.stderr)
    sys.exit(2)
