"""`chatwheel wheel`: what people said becomes the next model, if the gate lets it pass."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from chatwheel.cli.options import Home, Json

if TYPE_CHECKING:
    from sqlalchemy.orm import Session

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
    beside: Annotated[
        bool, typer.Option("--beside", hidden=True, help="Behind the server that started it, and no longer than it.")
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
    from chatwheel.jobs.wheel.state import TURN, turn_named
    from chatwheel.jobs.wheel.turn import begin, opened_turn, work
    from chatwheel.settings import Settings

    if beside:
        _end_in_order()
    settings = Settings.load(home)
    if name is not None and (settings.runs / name / TURN).is_file():
        if changes or model:
            raise InputError(f"{name} was begun already; leave out the model and the changes, and it goes on")
        if not beside:
            turn_named(settings.runs, name).resume()
        found = opened_turn(settings, name)
    else:
        with opened(home) as database, database.read() as session:
            now = _model(session, model)
            found = begin(
                settings, session, current=now, name=name, everybody=everybody, changes=parse_overrides(changes or ())
            )
    with Display() as display:
        display.say(where_to_watch(found.name, home))
        verdict = work(found, settings, display)
    if as_json:
        print(json.dumps({"name": found.name, "verdict": verdict.to_json()}, ensure_ascii=False))
    else:
        print(f"{found.name}: {verdict.words}")
        if verdict.passed:
            print(f"promote it: chatwheel wheel promote {found.name} --share 0.05")


def _end_in_order() -> None:
    """By SIGTERM as by Ctrl+C, and when the server is gone; others have the processor first."""
    import os
    import signal
    import threading

    from chatwheel.jobs.beside import end_with_parent

    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    def follow(gone: threading.Event) -> None:
        gone.wait()
        os.kill(os.getpid(), signal.SIGTERM)

    os.nice(10)
    signal.signal(signal.SIGTERM, interrupt)
    gone = threading.Event()
    threading.Thread(target=follow, args=(gone,), daemon=True).start()
    end_with_parent(gone)


@app.command("ready")
def ready(home: Home = None, as_json: Json = False) -> None:
    """What came in since the last turn, and whether it is enough for another one."""
    import json

    from chatwheel.cli.options import opened
    from chatwheel.jobs.wheel.readiness import look
    from chatwheel.settings import Settings

    settings = Settings.load(home)
    with opened(home) as database, database.read() as session:
        found = look(settings, session)
    if as_json:
        print(json.dumps(found.to_json(), ensure_ascii=False))
        return
    for kind, count in found.arrived.items():
        print(f"{kind:<12}{count['total']:>8,}{count['new']:>8,} new")
    for item in found.items:
        print(f"{ {True: 'yes', False: 'no', None: '?'}[item.ok]:<4}{item.words}")
    print(found.words)


@app.command("forecast")
def forecast(
    model: Annotated[
        str | None, typer.Option(help="Whose answers' features are used; the deployed one's if none is named.")
    ] = None,
    home: Home = None,
    as_json: Json = False,
) -> None:
    """How much better rankings would be told with twice as many: a small model of the deployed one's answers is taught
    an eighth, a quarter, half and all of them."""
    import json

    from chatwheel.cli.options import opened
    from chatwheel.jobs.wheel.gathering import gather
    from chatwheel.jobs.wheel.readiness import make_forecast
    from chatwheel.settings import Settings
    from chatwheel.store.registry import Registry, check_answers

    settings = Settings.load(home)
    with opened(home) as database, database.read() as session:
        model, rankings = _model(session, model), gather(session).rankings
    found = make_forecast(settings, check_answers(Registry(settings.models, hub=True).entry(model)), rankings)
    print(json.dumps(found, ensure_ascii=False) if as_json else found["forecast"]["sentence"])


def _model(session: Session, model: str | None) -> str:
    """The one that is named, or the deployed one. Raises InputError."""
    from chatwheel.errors import InputError
    from chatwheel.store.deployments import deployed

    if model is not None:
        return model
    now = deployed(session).current
    if now is None:
        raise InputError("no model is deployed; name one by --model, or promote it: `chatwheel models promote NAME`")
    return now.model


@app.command("list")
def list_turns(home: Home = None, as_json: Json = False) -> None:
    """All turns, the newest first, with their verdicts."""
    import json

    from chatwheel.jobs.wheel.state import turn_files
    from chatwheel.settings import Settings

    found = turn_files(Settings.load(home).runs)
    if as_json:
        print(json.dumps({"turns": [turn.to_json() for turn in found]}, ensure_ascii=False))
        return
    if not found:
        print("the wheel has not turned yet; `chatwheel wheel turn` does it")
    for one in found:
        verdict = one.verdict
        words = verdict["words"] if verdict else one.error or one.doing.get("doing") or "not at its gate yet"
        print(f"{one.name:<20}{one.begun['current']:<28}{one.state:<9}{words}")


@app.command("show")
def show(name: Annotated[str, typer.Argument(help="A turn's name.")], home: Home = None, as_json: Json = False) -> None:
    """What a turn learnt from, how far it is, and what its gate says."""
    import json

    from chatwheel.jobs.wheel.state import turn_named
    from chatwheel.settings import Settings

    found = turn_named(Settings.load(home).runs, name).to_json()
    print(json.dumps(found, ensure_ascii=False, indent=None if as_json else 2))


@app.command("stop")
def stop(name: Annotated[str, typer.Argument(help="A turn's name.")], home: Home = None) -> None:
    """Let a turn stop at its next step; `chatwheel wheel turn --name NAME` goes on with it."""
    from chatwheel.jobs.wheel.state import turn_named
    from chatwheel.settings import Settings

    turn_named(Settings.load(home).runs, name).stop()
    print(f"{name} stops; go on with it: chatwheel wheel turn --name {name}")


@app.command("lineage")
def lineage(home: Home = None) -> None:
    """Where each model is from, as JSON: people and data -> run -> model."""
    import json

    from chatwheel.cli.options import opened
    from chatwheel.jobs.wheel.ancestry import ancestry
    from chatwheel.settings import Settings

    with opened(home) as database, database.read() as session:
        print(json.dumps(ancestry(Settings.load(home), session), ensure_ascii=False, indent=1))


@app.command("promote")
def promote(
    name: Annotated[str, typer.Argument(help="A turn's name.")],
    share: Annotated[float, typer.Option(help="Of those who ask for chatwheel-latest; the others keep theirs.")] = 1.0,
    anyway: Annotated[bool, typer.Option("--anyway", help="Also what the gate did not let pass.")] = False,
    home: Home = None,
) -> None:
    """Let a turn's model answer a part of those who ask for `chatwheel-latest`, or all, if the gate let it pass."""
    from chatwheel.cli.models import promote_noted
    from chatwheel.cli.options import opened
    from chatwheel.jobs.wheel.state import turn_named
    from chatwheel.settings import Settings
    from chatwheel.store.deployments import deployed

    found = turn_named(Settings.load(home).runs, name)
    with opened(home) as database, database.read() as session:
        now = deployed(session).current
    found.check_promotable(now.model if now is not None else None, anyway=anyway)
    verdict = found.verdict or {}
    note = {"turn": name, "verdict": verdict.get("verdict"), "words": verdict.get("words")}
    promote_noted(found.candidate, share, home, note=note, turn=name, anyway=not verdict.get("passed"))
