"""Low-rank adapters (Hu et al., 2021) in PEFT's format: a few megabytes that turn one model into another.

A matrix W becomes W + scale B A, with A (rank x in) random, B (out x rank) zero, and only those two trained. Every
`Linear` has a place for one; merged, it is part of the matrix and costs nothing.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, Literal

import torch
import torch.nn.functional as F
from pydantic import BaseModel, ConfigDict, Field, ValidationError
from torch import Tensor, nn

from chatwheel.errors import InputError
from chatwheel.model.checkpoint import read_tensors, save_adapter_files
from chatwheel.model.layout import ADAPTER_CONFIG, ADAPTER_WEIGHTS, read_object
from chatwheel.model.tokenizer import Tokenizer
from chatwheel.model.transformer import CausalLM, Linear, ScalarModel

Target = Literal["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj", "lm_head"]
EVERY_TARGET: tuple[Target, ...] = ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj")
_PREFIX = "base_model.model."  # what PEFT's wrapping adds to a parameter's name


class LoRAConfig(BaseModel):
    """What to adapt and how. rank: of the change. alpha: its weight; the scale is alpha / rank, or alpha / sqrt(rank)
    if rank_stabilised (Kalajdzievski, 2023). dropout: of the adapters' input. targets: the matrices, in all layers.
    rank_stabilised: see alpha.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")
    rank: int = Field(default=16, ge=1)
    alpha: float = Field(default=32.0, gt=0)
    dropout: float = Field(default=0.0, ge=0, lt=1)
    targets: tuple[Target, ...] = Field(default=EVERY_TARGET, min_length=1)
    rank_stabilised: bool = False

    @property
    def scale(self) -> float:
        """The factor of B A."""
        return self.alpha / (math.sqrt(self.rank) if self.rank_stabilised else self.rank)


class LoRA(nn.Module):
    """The change of one matrix."""

    def __init__(self, num_in: int, num_out: int, config: LoRAConfig) -> None:
        super().__init__()
        self.lora_A = nn.Parameter(torch.empty(config.rank, num_in))
        self.lora_B = nn.Parameter(torch.empty(num_out, config.rank))
        self.scale, self.dropout = config.scale, config.dropout

    def forward(self, x: Tensor) -> Tensor:
        """scale B A x, in x's type."""
        x = F.dropout(x, self.dropout, self.training)
        return F.linear(F.linear(x, self.lora_A.to(x.dtype)), self.lora_B.to(x.dtype)) * self.scale

    def change(self) -> Tensor:
        """scale B A as one matrix, out x in."""
        return self.lora_B @ self.lora_A * self.scale


def add_lora(model: CausalLM | ScalarModel, config: LoRAConfig, generator: torch.Generator) -> None:
    """Freezes the model and adds adapters that do not change it yet; a reward model's head stays trainable."""
    model.requires_grad_(False)
    if isinstance(model, ScalarModel):
        model.score.requires_grad_(True)
    _check_output(model, "lm_head" in config.targets)
    found = 0
    for name, linear in _linears(model):
        if name.rpartition(".")[2] not in config.targets:
            continue
        if linear.adapter is not None:
            raise InputError("the model has an adapter already; merge it first")
        found += 1
        linear.adapter = adapter = LoRA(linear.in_features, linear.out_features, config)
        with torch.no_grad():  # PEFT's beginning: uniform up to 1 / sqrt(in)
            bound = linear.in_features**-0.5
            adapter.lora_A.uniform_(-bound, bound, generator=generator)
            adapter.lora_B.zero_()
    if not found:
        raise InputError(f"no matrix of the model is among the targets {', '.join(config.targets)}")


@torch.no_grad()
def merge(model: CausalLM | ScalarModel) -> None:
    """Adds the adapters to their matrices and takes them off: a model like any other."""
    for _, linear in _linears(model):
        if isinstance(linear.adapter, LoRA):
            linear.weight += linear.adapter.change()
            linear.adapter = None


@torch.no_grad()
def unmerge(model: CausalLM | ScalarModel, adapters: Mapping[str, LoRA]) -> None:
    """Takes adapters (as `adapters_of` gave them before `merge`) out of the matrices and puts them on again."""
    for name, linear in _linears(model):
        if name in adapters:
            linear.weight -= adapters[name].change()
            linear.adapter = adapters[name]


def adapters_of(model: CausalLM | ScalarModel) -> dict[str, LoRA]:
    """The adapters by the names of their matrices."""
    return {name: linear.adapter for name, linear in _linears(model) if isinstance(linear.adapter, LoRA)}


def without_adapters(model: CausalLM) -> CausalLM:
    """The model without its adapters: its own weights, not a copy of them."""
    parameters = dict(model.named_parameters(remove_duplicate=False))  # a tied output is the embedding
    with torch.device("meta"):
        plain = CausalLM(model.config)
    for name, module in plain.named_modules():
        for key in dict(module.named_parameters(recurse=False)):
            setattr(module, key, parameters[f"{name}.{key}".removeprefix(".")])
    return plain.eval()


def save_adapter(
    directory: Path,
    model: CausalLM | ScalarModel,
    config: LoRAConfig,
    tokenizer: Tokenizer,
    *,
    base: str,
    lineage: Mapping[str, Any],
) -> None:
    """Writes `adapter_config.json` and `adapter_model.safetensors` as PEFT does, the tokenizer and `chatwheel.json`.

    base: the name on the Hub, or the directory, of the model that the adapter is for.
    """
    scalar = isinstance(model, ScalarModel)
    tensors = {}
    for name, adapter in adapters_of(model).items():
        tensors[f"{_PREFIX}{name}.lora_A.weight"] = adapter.lora_A.detach()
        tensors[f"{_PREFIX}{name}.lora_B.weight"] = adapter.lora_B.detach()
    if isinstance(model, ScalarModel):
        tensors[f"{_PREFIX}score.weight"] = model.score.weight.detach()
    values = {
        "peft_type": "LORA",
        "task_type": "SEQ_CLS" if scalar else "CAUSAL_LM",
        "base_model_name_or_path": base,
        "r": config.rank,
        "lora_alpha": config.alpha,
        "lora_dropout": config.dropout,
        "use_rslora": config.rank_stabilised,
        "target_modules": sorted(config.targets),
        "modules_to_save": ["score"] if scalar else None,
        "bias": "none",
        "fan_in_fan_out": False,
        "init_lora_weights": True,
        "inference_mode": True,
    }
    save_adapter_files(directory, tensors, values, tokenizer, model.config.max_positions, lineage)


def load_adapter(model: CausalLM | ScalarModel, directory: Path) -> LoRAConfig:
    """Adds an adapter from PEFT's files to a model. Raises InputError for damage, for another model's adapter, and for
    variants of LoRA that are not computed here."""
    path = directory / ADAPTER_CONFIG
    values = read_object(path)
    config = _config_of(values, path)
    linears = dict(_linears(model))
    parts: dict[str, dict[str, Tensor]] = {}
    # A new head is zero: without the adapter's every score would be.
    scores = isinstance(model, CausalLM) or bool(model.score.weight.any())
    for key, tensor in read_tensors(directory / ADAPTER_WEIGHTS).items():
        name, _, part = key.removeprefix(_PREFIX).removesuffix(".weight").rpartition(".")
        _check_output(model, name == "lm_head")
        if part == "score" and not name and isinstance(model, ScalarModel):
            _replace(model.score, tensor, key, directory)
            scores = True
        elif part == "base_layer" and name in linears:  # PEFT saves an adapted output matrix too
            _replace(linears[name], tensor, key, directory)
        elif part in ("lora_A", "lora_B") and name in linears:
            parts.setdefault(name, {})[part] = tensor.float()
        else:
            raise InputError(f"{directory}: the adapter changes {key}, which this model does not have or can't adapt")
    if not parts:
        raise InputError(f"{directory}: the adapter holds no matrices; copy it again")
    targets = _targets_of(values, linears)
    if missing := [name for name in targets if name not in parts]:
        raise InputError(
            f"{directory}: the adapter holds nothing for {missing[0]}, which its configuration names "
            f"({len(missing)} of {len(targets)} are missing); copy it again"
        )
    if not scores:
        raise InputError(f"{directory}: neither the adapter nor its base has a head that scores (score.weight)")
    for name, pair in parts.items():
        linears[name].adapter = _lora_of(name, pair, linears[name], config, directory)
    return config


def _targets_of(values: Mapping[str, Any], linears: Iterable[str]) -> list[str]:
    """The matrices that an adapter's configuration names; none where it names them by an expression, which PEFT matches
    in ways of its own."""
    targets, excluded = values.get("target_modules"), values.get("exclude_modules") or []
    if not isinstance(targets, list) or not isinstance(excluded, list):
        return []
    layers = values.get("layers_to_transform")
    wanted = layers if isinstance(layers, list) else [layers]

    def among(name: str, endings: list[Any]) -> bool:
        return any(name == ending or name.endswith(f".{ending}") for ending in endings)

    def of_a_layer(name: str) -> bool:  # model.layers.3.mlp.up_proj
        return layers is None or (name.startswith("model.layers.") and int(name.split(".")[2]) in wanted)

    return [n for n in linears if among(n, targets) and not among(n, excluded) and of_a_layer(n)]


def _check_output(model: CausalLM | ScalarModel, adapted: bool) -> None:
    if adapted and isinstance(model, CausalLM) and model.config.tied_embeddings:
        raise InputError("lm_head can't be adapted: this model's output is its embedding, which would change with it")


@torch.no_grad()
def _replace(linear: Linear, tensor: Tensor, key: str, directory: Path) -> None:
    if tensor.shape != linear.weight.shape:
        found, wanted = tuple(tensor.shape), tuple(linear.weight.shape)
        raise InputError(f"{directory}: {key} should be {wanted}, found {found}; the adapter is for another model")
    linear.weight.copy_(tensor)


def _lora_of(name: str, pair: dict[str, Tensor], linear: Linear, config: LoRAConfig, directory: Path) -> LoRA:
    adapter = LoRA(linear.in_features, linear.out_features, config)
    for part, parameter in adapter.named_parameters():
        if part not in pair or pair[part].shape != parameter.shape:
            found = tuple(pair[part].shape) if part in pair else "nothing"
            raise InputError(
                f"{directory}: {part} of {name} should be {tuple(parameter.shape)}, found {found}; the adapter is for "
                "another model"
            )
    adapter.lora_A, adapter.lora_B = nn.Parameter(pair["lora_A"]), nn.Parameter(pair["lora_B"])
    return adapter.train(linear.training)


def _config_of(values: Mapping[str, Any], path: Path) -> LoRAConfig:
    refused = [
        key
        for key, value in values.items()
        # Variants of LoRA are switched on by such keys; two only tell how an adapter began.
        if value
        and (
            key in ("fan_in_fan_out", "rank_pattern", "alpha_pattern", "lora_bias", "alora_invocation_tokens")
            or (key.startswith("use_") and key != "use_rslora")
            or (key.endswith("_config") and key not in ("loftq_config", "eva_config"))
        )
    ]
    for key, usual in (("peft_type", ["LORA"]), ("bias", ["none"]), ("init_lora_weights", [True, False, "gaussian"])):
        if values.get(key, usual[0]) not in usual:
            refused.append(f"{key} {values[key]!r}")
    if refused:
        raise InputError(f"{path}: {', '.join(refused)} is not supported; plain LoRA without biases is")
    try:
        # Which matrices it is for is told by the weights: here it may be a pattern.
        return LoRAConfig(
            rank=values["r"],
            alpha=values["lora_alpha"],
            dropout=values.get("lora_dropout") or 0.0,
            rank_stabilised=bool(values.get("use_rslora")),
        )
    except KeyError as error:
        raise InputError(f"{path}: the field {error} is missing; copy the adapter again") from None
    except ValidationError as error:
        first = error.errors()[0]
        raise InputError(f"{path}: {first['loc'][0]} is {first['input']!r}: {first['msg']}") from None


def _linears(model: CausalLM | ScalarModel) -> Iterator[tuple[str, Linear]]:
    for name, module in model.named_modules():
        if isinstance(module, Linear) and name != "score":
            yield name, module
