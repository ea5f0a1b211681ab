"""The shape of a decoder, and its Hugging Face `config.json`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, cast

from chatwheel.errors import InputError
from chatwheel.model.rope import RopeScaling

FAMILIES = {"llama": "Llama", "mistral": "Mistral", "qwen2": "Qwen2", "qwen3": "Qwen3"}
"""transformers' model types that this decoder computes, and the prefix of their class names. Llama 2 and 3, SmolLM and
SmolLM2, TinyLlama and Yi are `llama`; Qwen2.5 is `qwen2`."""

# What transformers takes where a config.json does not say; the other families divide the width, and have a key head
# for each query head.
_WIDE_HEADS = {"qwen3": 128}
_KEY_HEADS = {"mistral": 8, "qwen2": 32, "qwen3": 32}
_WINDOW = 4096

_SIZES = (
    *("vocab_size", "hidden_size", "num_layers", "num_heads", "num_kv_heads", "head_dim"),
    *("intermediate_size", "max_positions"),
)


@dataclass(frozen=True, kw_only=True)
class ModelConfig:
    """A Llama-family decoder: RMSNorm, RoPE, grouped-query attention, SwiGLU.

    hidden_size: width D. num_heads, num_kv_heads, head_dim: H query heads share their K/V in groups.
    max_positions: the context, prompt and answer together. qk_norm: RMSNorm on each query and key head (Qwen3).
    qkv_bias: queries, keys and values have a bias (Qwen2). sliding_window: how many positions, its own included, a
    token sees, in all layers but the first `num_full_layers` (Mistral). tied_embeddings: the output layer is the
    embedding's transpose. family: transformers' model type, the one that has these features unless given. dtype: in
    which weights are saved; in memory they are fp32.
    """

    vocab_size: int
    hidden_size: int
    num_layers: int
    num_heads: int
    num_kv_heads: int
    head_dim: int
    intermediate_size: int
    max_positions: int
    rope_theta: float = 10_000.0
    rope_scaling: RopeScaling | None = None
    norm_eps: float = 1e-6
    qk_norm: bool = True
    qkv_bias: bool = False
    sliding_window: int | None = None
    num_full_layers: int = 0
    tied_embeddings: bool = True
    family: str = ""
    dtype: str = "float32"

    def __post_init__(self) -> None:
        for name in _SIZES:
            if not isinstance(getattr(self, name), int) or getattr(self, name) < 1:
                raise InputError(f"model.{name} is {getattr(self, name)!r}; it must be a whole number of at least 1")
        if self.num_heads % self.num_kv_heads:
            raise InputError(
                f"model.num_heads ({self.num_heads}) must be a multiple of num_kv_heads ({self.num_kv_heads})"
            )
        if self.head_dim % 2:
            raise InputError(f"model.head_dim is {self.head_dim}; RoPE turns pairs, so it must be even")
        if self.sliding_window is not None and self.sliding_window < 1:
            raise InputError(f"model.sliding_window is {self.sliding_window}; a token must see itself at least")
        if not self.family:
            object.__setattr__(self, "family", self._family())
        self._check_family()

    def _family(self) -> str:
        if self.qk_norm:
            return "qwen3"
        if self.qkv_bias:
            return "qwen2"
        return "llama" if self.sliding_window is None else "mistral"

    def _check_family(self) -> None:
        if self.family not in FAMILIES:
            raise InputError(f"model.family is {self.family!r}; supported are {', '.join(FAMILIES)}")
        fits = (self.qk_norm, self.qkv_bias) == (self.family == "qwen3", self.family == "qwen2")
        windows = self.sliding_window is None or self.family != "llama"
        full = self.num_full_layers == 0 or self.family in ("qwen2", "qwen3")
        if not (fits and windows and full):
            raise InputError(
                f"model.family {self.family!r} does not have this combination of qk_norm ({self.qk_norm}), qkv_bias "
                f"({self.qkv_bias}), sliding_window ({self.sliding_window}) and num_full_layers "
                f"({self.num_full_layers}); leave the family out to get the one that has"
            )

    def window(self, layer: int) -> int | None:
        """How many positions a token sees in a layer, its own included; None for all."""
        return self.sliding_window if layer >= self.num_full_layers else None

    @property
    def num_parameters(self) -> int:
        """All weights, tied ones once, without a scalar head."""
        attention = self.hidden_size * self.head_dim * (2 * self.num_heads + 2 * self.num_kv_heads)
        attention += self.head_dim * (self.num_heads + 2 * self.num_kv_heads) if self.qkv_bias else 0
        norms = 2 * self.hidden_size + (2 * self.head_dim if self.qk_norm else 0)
        layer = attention + 3 * self.hidden_size * self.intermediate_size + norms
        embeddings = self.vocab_size * self.hidden_size * (1 if self.tied_embeddings else 2)
        return embeddings + self.num_layers * layer + self.hidden_size

    def to_hugging_face(self, *, head: str, eos_token_id: int | list[int], pad_token_id: int) -> dict[str, Any]:
        """The content of `config.json`. head: "CausalLM" or "SequenceClassification" (one label, a reward model)."""
        scaling = self.rope_scaling.to_hugging_face() if self.rope_scaling else None
        config: dict[str, Any] = {
            "architectures": [f"{FAMILIES[self.family]}For{head}"],
            "model_type": self.family,
            "vocab_size": self.vocab_size,
            "hidden_size": self.hidden_size,
            "intermediate_size": self.intermediate_size,
            "num_hidden_layers": self.num_layers,
            "num_attention_heads": self.num_heads,
            "num_key_value_heads": self.num_kv_heads,
            "head_dim": self.head_dim,
            "hidden_act": "silu",
            "max_position_embeddings": self.max_positions,
            "rms_norm_eps": self.norm_eps,
            "rope_theta": self.rope_theta,
            "rope_scaling": scaling,
            "attention_bias": False,
            "attention_dropout": 0.0,
            "tie_word_embeddings": self.tied_embeddings,
            "bos_token_id": None,
            "eos_token_id": eos_token_id,
            "pad_token_id": pad_token_id,
            "torch_dtype": self.dtype,
            "use_cache": True,
        }
        if self.family != "llama":
            config["sliding_window"] = self.sliding_window
        if self.family in ("qwen2", "qwen3"):
            config["use_sliding_window"] = self.sliding_window is not None
            config["max_window_layers"] = self.num_full_layers if self.sliding_window is not None else self.num_layers
        if head == "SequenceClassification":
            config |= {"num_labels": 1, "id2label": {"0": "reward"}, "label2id": {"reward": 0}}
        return config

    @staticmethod
    def from_hugging_face(config: Mapping[str, Any], *, where: str) -> ModelConfig:
        """Reads a `config.json`. Raises InputError for what this decoder does not compute."""
        family = config.get("model_type")
        if family not in FAMILIES:
            raise InputError(f"{where}: architecture {family!r} is not supported; supported are {', '.join(FAMILIES)}")
        _refuse_what_is_not_computed(config, where)
        rope = config.get("rope_parameters") or config.get("rope_scaling") or {}
        if not isinstance(rope, Mapping) or any(isinstance(value, Mapping) for value in rope.values()):
            raise InputError(f"{where}: RoPE scaling {rope!r} is not supported: not one for all layers")
        try:
            window, num_full_layers = _windows(config, family, where)
            return ModelConfig(
                vocab_size=config["vocab_size"],
                hidden_size=config["hidden_size"],
                num_layers=config["num_hidden_layers"],
                num_heads=config["num_attention_heads"],
                num_kv_heads=config.get("num_key_value_heads", _KEY_HEADS.get(family)) or config["num_attention_heads"],
                head_dim=config.get("head_dim")
                or _WIDE_HEADS.get(family)
                or config["hidden_size"] // max(1, config["num_attention_heads"]),
                intermediate_size=config["intermediate_size"],
                max_positions=config["max_position_embeddings"],
                rope_theta=float(rope.get("rope_theta") or config.get("rope_theta") or 10_000.0),
                rope_scaling=RopeScaling.from_hugging_face(rope, config["max_position_embeddings"], where=where),
                norm_eps=config["rms_norm_eps"],
                qk_norm=family == "qwen3",
                qkv_bias=family == "qwen2",
                sliding_window=window,
                num_full_layers=num_full_layers,
                tied_embeddings=bool(config.get("tie_word_embeddings", False)),
                family=family,
                dtype=_dtype(config),
            )
        except KeyError as error:
            raise InputError(f"{where}: the field {error} is missing") from None
        except InputError as error:
            raise InputError(error.message if where in error.message else f"{where}: {error.message}") from None
        except (TypeError, ValueError) as error:
            raise InputError(f"{where}: a field has the wrong type ({error})") from None


def _refuse_what_is_not_computed(config: Mapping[str, Any], where: str) -> None:
    if config.get("attention_bias") or config.get("mlp_bias") or config.get("hidden_act", "silu") != "silu":
        raise InputError(
            f"{where}: attention_bias, mlp_bias and activations other than silu are not supported; of the biases only "
            "Qwen2's are"
        )
    if config.get("quantization_config"):
        raise InputError(f"{where}: quantised weights are not supported; take the model in bfloat16 or float32")


def _dtype(config: Mapping[str, Any]) -> str:
    named = str(config.get("dtype") or config.get("torch_dtype") or "float32").removeprefix("torch.")
    return named if named in ("float32", "bfloat16", "float16") else "float32"


def _windows(config: Mapping[str, Any], family: str, where: str) -> tuple[int | None, int]:
    """(sliding window, how many of the first layers have none). transformers 5 lists the layers' types; before, Qwen
    said how many layers see everything, and Mistral's all slide."""
    window, layers = config.get("sliding_window", _WINDOW), int(config["num_hidden_layers"])
    if family == "llama" or window is None:
        return None, 0
    if family in ("qwen2", "qwen3"):
        if not config.get("use_sliding_window"):
            return None, 0
        full = min(int(config.get("max_window_layers", 28)), layers)
        types = cast(Sequence[str], config.get("layer_types") or [])
        if types:
            full = next((i for i, kind in enumerate(types) if kind == "sliding_attention"), layers)
            if any(kind != "sliding_attention" for kind in types[full:]) or len(types) != layers:
                raise InputError(
                    f"{where}: layer_types is not supported unless the layers that see everything come first"
                )
        return (int(window), full) if full < layers else (None, 0)
    return int(window), 0
