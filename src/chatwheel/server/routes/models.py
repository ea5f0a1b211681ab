"""GET /v1/models, and the page's own list with friendly names."""

from __future__ import annotations

import anyio.to_thread
from fastapi import APIRouter, Depends

from chatwheel import __version__
from chatwheel.server.catalog import TUNED
from chatwheel.server.identity import PrincipalDep, needs
from chatwheel.server.routes.report import report_file
from chatwheel.server.services import ServicesDep
from chatwheel.server.shapes import ModelList, ModelView
from chatwheel.store import deployments
from chatwheel.store.registry import ModelEntry
from chatwheel.store.tables import DeploymentRow

router = APIRouter(dependencies=[Depends(needs("models"))])

# What a stage is called in lineage or in a name, the page's word for it, and the order from raw to finished.
STAGES = {
    "pretrain": ("base", "Base"),
    "base": ("base", "Base"),
    "sft": ("sft", "SFT"),
    "ppo": ("ppo", "PPO"),
    "grpo": ("grpo", "GRPO"),
    "rloo": ("rloo", "RLOO"),
    "best_of_n": ("best_of_n", "Best of n"),
    "dpo": ("dpo", "DPO"),
    "kto": ("kto", "KTO"),
}
ORDER = ("base", "sft", "kto", "dpo", "best_of_n", "rloo", "grpo", "ppo")
Json = dict[str, object]


@router.get("/v1/models")
async def list_models(services: ServicesDep, who: PrincipalDep) -> Json:
    """All models, reward models too; the first one is the latest, if one is deployed."""
    entries = await anyio.to_thread.run_sync(services.catalog.entries, who)
    current = (await services.read(deployments.deployed)).current
    latest = {
        "id": deployments.LATEST,
        "object": "model",
        "created": int(current.started_at) if current is not None else 0,
        "owned_by": "chatwheel",
        "kind": "causal",
    }
    data = [_openai_model(entry) for entry in entries]
    return {"object": "list", "data": [latest, *data] if current is not None else data}


@router.get("/v1/models/{model_id:path}")
async def get_model(model_id: str, services: ServicesDep, who: PrincipalDep) -> Json:
    """One model; names may contain slashes."""
    return _openai_model(await services.catalog.find(who, model_id))


@router.get("/api/models")
async def list_models_for_page(services: ServicesDep, who: PrincipalDep) -> ModelList:
    """The models that can answer; by default the latest one, or, where none is deployed, the most finished of the
    newest run."""
    entries = await anyio.to_thread.run_sync(services.catalog.entries, who)
    has_report = who.may("runs") and await anyio.to_thread.run_sync(report_file, services.settings) is not None
    models = sorted((_view(entry) for entry in entries if entry.kind != "reward"), key=_rank)
    current = (await services.read(deployments.deployed)).current
    finished = max(models, key=lambda model: (_rank(model)[0], model.created)).id if models else None
    return ModelList(
        data=[*([_latest(current)] if current is not None else []), *models],
        default=deployments.LATEST if current is not None else finished,
        report="/report" if has_report else None,
        version=__version__,
    )


def _openai_model(entry: ModelEntry) -> Json:
    return {
        "id": entry.name,
        "object": "model",
        "created": entry.created,
        "owned_by": "project" if entry.name.startswith(TUNED) else "chatwheel",
        "kind": entry.kind,
    }


def _view(entry: ModelEntry) -> ModelView:
    group, _, last = entry.name.rpartition("/")
    stage, label = STAGES.get(str(entry.lineage.get("stage") or last), ("other", last))
    return ModelView(id=entry.name, label=label, stage=stage, group=group, created=entry.created)


def _latest(current: DeploymentRow) -> ModelView:
    return ModelView(
        id=deployments.LATEST, label="Latest", stage="other", group="Chatwheel", created=int(current.started_at)
    )


def _rank(model: ModelView) -> tuple[int, str]:
    return (ORDER.index(model.stage) if model.stage in ORDER else -1, model.id)
