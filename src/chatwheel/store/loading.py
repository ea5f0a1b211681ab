"""Opening a model, whole or as an adapter on another one."""

from __future__ import annotations

from pathlib import Path

from chatwheel.engine.adapters import changes_layers_only
from chatwheel.errors import InputError
from chatwheel.model.checkpoint import ModelT, load_model, load_tokenizer, save_model
from chatwheel.model.layout import ADAPTER_CONFIG, is_adapter, read_object
from chatwheel.model.lora import load_adapter, merge
from chatwheel.model.tokenizer import Tokenizer
from chatwheel.model.transformer import CausalLM, ScalarModel, with_scalar_head
from chatwheel.store.hub import fetch_bases
from chatwheel.store.registry import ModelEntry


def open_model(directory: Path, kind: type[ModelT]) -> tuple[ModelT, Tokenizer]:
    """A model directory as CausalLM or ScalarModel. An adapter's base is opened from where its `adapter_config.json`
    says (a directory, or the Hub's cache: `Registry.resolve` has downloaded it), whole or an adapter in turn, and the
    adapter merged into it. Raises InputError."""
    if not is_adapter(directory):
        return load_model(directory, kind)
    *between, whole = fetch_bases(directory, download=False)
    scalar = kind is ScalarModel and is_reward_model(whole)
    model: CausalLM | ScalarModel
    model, tokenizer = load_model(whole, ScalarModel) if scalar else load_model(whole, CausalLM)
    for adapter in (*reversed(between), directory):
        if kind is ScalarModel and isinstance(model, CausalLM) and (adapter == directory or is_reward_model(adapter)):
            model = with_scalar_head(model)
        load_adapter(model, adapter)
        merge(model)
        if (adapter / "tokenizer.json").is_file():
            tokenizer = load_tokenizer(adapter, model.config)
    assert isinstance(model, kind)
    return model, tokenizer


def shared_base(directory: Path) -> Path | None:
    """The whole model that an adapter is on, if the two can be spoken through side by side: not a reward model, nor one
    on another adapter, nor one that changes more than matrices of layers. Raises InputError."""
    if not is_adapter(directory) or is_reward_model(directory) or not changes_layers_only(directory):
        return None
    base, *further = fetch_bases(directory, download=False)
    return None if further or is_reward_model(base) else base


def open_draft(draft: Path, directory: Path) -> CausalLM:
    """A model that guesses for another one. Raises InputError."""
    check_draft(draft, directory)
    return open_model(draft, CausalLM)[0]


def check_draft(draft: Path, directory: Path) -> None:
    """Raises InputError for a draft model that reads other tokens than the model that it guesses for."""
    theirs, ours = (tokenizer_of(place).backend.get_vocab() for place in (draft, directory))
    if theirs != ours:
        raise InputError(
            f"{draft}: has other tokens than {directory}, so it can't guess for it; choose one of its family"
        )


def tokenizer_of(directory: Path) -> Tokenizer:
    """A model's tokenizer; an adapter's may be its base's. Raises InputError."""
    while is_adapter(directory) and not (directory / "tokenizer.json").is_file():
        directory = fetch_bases(directory, download=False)[0]
    return Tokenizer.load(directory)


def save_merged(entry: ModelEntry, directory: Path) -> None:
    """Writes an adapter and what it is on as one whole model, which any program opens. Raises InputError if it is whole
    already, or if something is in the way."""
    if not is_adapter(entry.directory):
        raise InputError(f"{entry.name}: is a whole model already, {entry.directory}; copy that directory")
    if directory.exists():
        raise InputError(f"{directory}: is there already; choose another place")
    lineage = {**entry.lineage, "merged": entry.name}
    if entry.kind == "reward":
        save_model(directory, *open_model(entry.directory, ScalarModel), lineage)
    else:
        save_model(directory, *open_model(entry.directory, CausalLM), lineage)


def reward_scale(directory: Path) -> tuple[float, float]:
    """Mean and deviation of the demonstrations' rewards under a reward model, which become 0 and 1. The scores of one
    of which nothing is known stay as they are."""
    path = directory / "chatwheel.json"
    known = read_object(path).get("metrics", {}) if path.is_file() else {}
    scale = known.get("reward_scale", {"mean": 0.0, "std": 1.0})
    return float(scale["mean"]), float(scale["std"])


def is_reward_model(directory: Path) -> bool:
    """Whether a whole model scores, or an adapter makes one that does."""
    if is_adapter(directory):
        return read_object(directory / ADAPTER_CONFIG).get("task_type") == "SEQ_CLS"
    named = read_object(directory / "config.json").get("architectures") or []
    return any("SequenceClassification" in str(name) for name in named)
