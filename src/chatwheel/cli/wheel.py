"""`chatwheel wheel`: what people said becomes the next model, if the gate lets it pass."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from chatwheel.cli.options import Home, Json

if TYPE_CHECKING:
    from chatwheel.jobs.wheel.turn import Turn

app = typer.Typer(help="Turn the wheel: what people said of answers becomes the next model.", no_args_is_help=True)


@app.command("turn")
def turn(
    changes: Annotated[
        list[str] | None, typer.Argument(help="Of the turn's recipe: key=value, as in ppo.rollouts=40")
    ] = None,
    model: Annotated[
        str | None, typer.Option(help="The model to begin with; the deployed one if none is named.", show_default=False)
    ] = None,
    name: Annotated[
        str | None, typer.Option(help="The turn's name; one that was begun goes on.", show_default="wheel-1, ...")
    ] = None,
    everybody: Annotated[
        bool, typer.Option("--everybody", help="Also of people who have neither agreed nor refused.")
    ] = False,
    home: Home = None,
    as_json: Json = False,
) -> None:
    """Learn from all that people said: SFT on corrections and preferred answers, a reward model on rankings, PPO; then
    hold the new model against the one that answers now. Stop it at any moment: with `--name` it goes on."""
    import json

    from chatwheel.cli.display import Display
    from chatwheel.cli.options import opened, where_to_watch
    from chatwheel.errors import InputError
    from chatwheel.jobs.recipe import parse_overrides
    from chatwheel.jobs.wheel.turn import TURN, begin, opened_turn, work
    from chatwheel.settings import Settings
    from chatwheel.store.deployments import deployed

    settings = Settings.load(home)
    if name is not None and (settings.runs / name / TURN).is_file():
        if changes or model:
            raise InputError(f"{name} was begun already; leave out the model and the changes, and it goes on")
        found = opened_turn(settings, name)
    else:
        with opened(home) as database, database.read() as session:
            if model is None:
                now = deployed(session).current
                if now is None:
                    raise InputError(
                        "no model is deployed; name one by --model, or promote it: `chatwheel models promote NAME`"
                    )
                model = now.model
            found = begin(
                settings, session, current=model, name=name, everybody=everybody, changes=parse_overrides(changes or ())
            )
    with Display() as display:
        display.say(where_to_watch(found.name, home))
        verdict = work(found, settings, display, lambda step: display.say(f"[dim]{step}[/]"))
    if as_json:
        print(json.dumps({"name": found.name, "verdict": verdict.to_json()}, ensure_ascii=False))
    else:
        print(f"{found.name}: {verdict.words}")
        if verdict.passed:
            print(f"promote it: chatwheel wheel promote {found.name} --share 0.05")


@app.command("list")
def list_turns(home: Home = None, as_json: Json = False) -> None:
    """All turns, the newest first, with their verdicts."""
    import json

    from chatwheel.jobs.wheel.turn import turns
    from chatwheel.settings import Settings

    found = turns(Settings.load(home))
    if as_json:
        print(json.dumps({"turns": [_as_json(one) for one in found]}, ensure_ascii=False))
        return
    if not found:
        print("the wheel has not turned yet; `chatwheel wheel turn` does it")
    for one in found:
        verdict = one.verdict
        print(f"{one.name:<20}{one.current:<28}{verdict['words'] if verdict else 'not at its gate yet'}")


@app.command("show")
def show(name: Annotated[str, typer.Argument(help="A turn's name.")], home: Home = None, as_json: Json = False) -> None:
    """What a turn learnt from, and what its gate says."""
    import json

    from chatwheel.jobs.wheel.turn import opened_turn
    from chatwheel.settings import Settings

    found = _as_json(opened_turn(Settings.load(home), name))
    print(json.dumps(found, ensure_ascii=False, indent=None if as_json else 2))


@app.command("promote")
def promote(
    name: Annotated[str, typer.Argument(help="A turn's name.")],
    share: Annotated[float, typer.Option(help="Of those who ask for chatwheel-latest; the others keep theirs.")] = 1.0,
    anyway: Annotated[bool, typer.Option("--anyway", help="Also what the gate did not let pass.")] = False,
    home: Home = None,
) -> None:
    """Let a turn's model answer a part of those who ask for `chatwheel-latest`, or all, if the gate let it pass."""
    from chatwheel.cli.models import promote as promote_model
    from chatwheel.errors import InputError
    from chatwheel.jobs.wheel.turn import opened_turn
    from chatwheel.settings import Settings

    found = opened_turn(Settings.load(home), name)
    verdict: dict[str, object] = found.verdict or {"passed": False, "words": "it has not come to its gate yet"}
    if not verdict["passed"] and not (anyway and found.verdict):
        raise InputError(f"{name} did not pass its gate: {verdict['words']}; --anyway promotes it all the same")
    promote_model(found.candidate, share=share, home=home)


def _as_json(turn: Turn) -> dict[str, object]:
    return {
        "name": turn.name,
        "current": turn.current,
        "candidate": turn.candidate,
        "material": turn.material,
        "verdict": turn.verdict,
    }
