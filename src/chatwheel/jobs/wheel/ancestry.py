"""Where each model is from: people <- data <- run <- model, as nodes and edges of a picture."""

from __future__ import annotations

from typing import Any

from sqlalchemy.orm import Session

from chatwheel.jobs.wheel.state import TURN, TurnFiles
from chatwheel.settings import Settings
from chatwheel.store.deployments import deployed
from chatwheel.store.registry import ModelEntry, Registry
from chatwheel.store.runs import NAME

Json = dict[str, Any]


def ancestry(settings: Settings, session: Session) -> Json:
    """Of every model of the installation that says where it is from. A run's models hang on it, and it on the model
    that it began with, on its data, and, where it is a turn of the wheel, on the people who gave that. Labels and words
    are English; the numbers and kinds in them stand beside them: `stage` of a model, `source` of data (`people`,
    `world`, `files`) with `rankings` and `demonstrations` or `files`, `people` and `prompts` of people."""
    now = deployed(session)
    shares = {row.model: row.share for row in (now.current, now.candidate) if row is not None}
    nodes: dict[str, Json] = {}
    edges: dict[tuple[str, str], Json] = {}

    def edge(source: str, target: str) -> None:
        edges.setdefault((source, target), {"from": source, "to": target})

    entries = {entry.name: entry for entry in Registry(settings.models).list()}
    for entry in entries.values():
        run = entry.lineage.get("run")
        if not isinstance(run, str) or not NAME.fullmatch(run):
            continue
        nodes[f"model:{entry.name}"] = _model(entry, shares.get(entry.name))
        edge(f"run:{run}", f"model:{entry.name}")
        if f"run:{run}" not in nodes:
            nodes |= _run(settings, run, entry)
            edge(f"data:{run}", f"run:{run}")
            if f"people:{run}" in nodes:
                edge(f"people:{run}", f"data:{run}")
        start = entry.lineage.get("recipe", {}).get("model")
        if isinstance(start, str):
            gone = {"id": f"model:{start}", "kind": "model", "label": start, "words": "", "stage": None, "at": None}
            known = _model(entries[start], shares.get(start)) if start in entries else gone
            nodes.setdefault(f"model:{start}", known)
            edge(f"model:{start}", f"run:{run}")
    return {"nodes": list(nodes.values()), "edges": list(edges.values())}


def _model(entry: ModelEntry, share: float | None) -> Json:
    stage = entry.lineage.get("stage")
    return {
        "id": f"model:{entry.name}",
        "kind": "model",
        "label": entry.name,
        "words": stage if isinstance(stage, str) else "",
        "stage": stage if isinstance(stage, str) else None,
        "model": entry.name,
        "deployed": share,
        "at": _changed(entry),
    }


def _changed(entry: ModelEntry) -> float | None:
    try:
        return (entry.directory / "config.json").stat().st_mtime
    except OSError:
        return None


def _run(settings: Settings, run: str, entry: ModelEntry) -> dict[str, Json]:
    """The run, its data, and those who gave it."""
    turn = TurnFiles(settings.runs / run)
    is_turn = (turn.directory / TURN).is_file()
    found: dict[str, Json] = {}
    node: Json = {"id": f"run:{run}", "kind": "run", "label": run, "words": "", "run": run, "at": None}
    data = entry.lineage.get("recipe", {}).get("data", {})
    kind = data.get("kind") if isinstance(data, dict) else None
    if is_turn:
        begun, verdict = turn.begun, turn.verdict
        material = begun.get("material", {})
        node |= {"at": begun.get("begun_at"), "verdict": verdict["verdict"] if verdict else None}
        rankings, demonstrations = material.get("rankings", 0), material.get("demonstrations", 0)
        found[f"data:{run}"] = {
            "id": f"data:{run}",
            "kind": "data",
            "label": "what people said",
            "words": f"{rankings:,} rankings, {demonstrations:,} demonstrations",
            "source": "people",
            "rankings": rankings,
            "demonstrations": demonstrations,
            "at": node["at"],
        }
        people, prompts = material.get("people", 0), material.get("prompts", 0)
        found[f"people:{run}"] = {
            "id": f"people:{run}",
            "kind": "people",
            "label": f"{people:,} people",
            "words": f"on {prompts:,} prompts",
            "people": people,
            "prompts": prompts,
            "at": node["at"],
        }
    else:
        files = sorted(entry.lineage.get("data", {}))
        found[f"data:{run}"] = {
            "id": f"data:{run}",
            "kind": "data",
            "label": f"data of {run}",
            "words": "a small world, simulated" if kind == "world" else ", ".join(files),
            "source": "world" if kind == "world" else "files",
            "files": files,
            "at": None,
        }
    return {f"run:{run}": node, **found}
