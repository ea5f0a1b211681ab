"""The shape of a decoder, and its Hugging Face `config.json`."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from chatwheel.errors import InputError


@dataclass(frozen=True, kw_only=True)
class ModelConfig:
    """A Llama-family decoder: RMSNorm, RoPE, grouped-query attention, SwiGLU.

    hidden_size: width D. num_heads, num_kv_heads, head_dim: H query heads share their K/V in groups.
    max_positions: the context, prompt and answer together. qk_norm: RMSNorm on each query and key head (Qwen3).
    tied_embeddings: the output layer is the embedding's transpose.
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
    norm_eps: float = 1e-6
    qk_norm: bool = True
    tied_embeddings: bool = True

    def __post_init__(self) -> None:
        for name in ("vocab_size", "hidden_size", "num_layers", "num_heads", "num_kv_heads", "head_dim"):
            if getattr(self, name) < 1:
                raise InputError(f"model.{name} is {getattr(self, name)}; it must be at least 1")
        if self.num_heads % self.num_kv_heads:
            raise InputError(
                f"model.num_heads ({self.num_heads}) must be a multiple of num_kv_heads ({self.num_kv_heads})"
            )
        if self.head_dim % 2:
            raise InputError(f"model.head_dim is {self.head_dim}; RoPE turns pairs, so it must be even")

    @property
    def family(self) -> str:
        """The transformers model type that computes the same thing."""
        return "qwen3" if self.qk_norm else "llama"

    @property
    def num_parameters(self) -> int:
        """All weights, tied ones once, without a scalar head."""
        attention = self.hidden_size * self.head_dim * (2 * self.num_heads + 2 * self.num_kv_heads)
        norms = 2 * self.hidden_size + (2 * self.head_dim if self.qk_norm else 0)
        layer = attention + 3 * self.hidden_size * self.intermediate_size + norms
        embeddings = self.vocab_size * self.hidden_size * (1 if self.tied_embeddings else 2)
        return embeddings + self.num_layers * layer + self.hidden_size

    def to_hugging_face(self, *, head: str, eos_token_id: int, pad_token_id: int) -> dict[str, Any]:
        """The content of `config.json`. head: "CausalLM" or "SequenceClassification" (one label, a reward model)."""
        prefix = {"qwen3": "Qwen3", "llama": "Llama"}[self.family]
        config: dict[str, Any] = {
            "architectures": [f"{prefix}For{head}"],
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
            "rope_scaling": None,
            "attention_bias": False,
            "attention_dropout": 0.0,
            "tie_word_embeddings": self.tied_embeddings,
            "bos_token_id": None,
            "eos_token_id": eos_token_id,
            "pad_token_id": pad_token_id,
            "torch_dtype": "float32",
            "use_cache": True,
        }
        if head == "SequenceClassification":
            config |= {"num_labels": 1, "id2label": {"0": "reward"}, "label2id": {"reward": 0}}
        return config

    @staticmethod
    def from_hugging_face(config: dict[str, Any], *, where: str) -> ModelConfig:
        """Reads a `config.json`. Raises InputError for what this decoder does not compute."""
        family = config.get("model_type")
        if family not in ("llama", "qwen3"):
            raise InputError(f"{where}: architecture {family!r} is not supported; supported are llama and qwen3")
        rope = config.get("rope_parameters") or config.get("rope_scaling") or {}
        if rope.get("rope_type", rope.get("type", "default")) != "default":
            raise InputError(f"{where}: RoPE scaling {rope!r} is not supported yet")
        if config.get("attention_bias") or config.get("mlp_bias") or config.get("hidden_act", "silu") != "silu":
            raise InputError(f"{where}: biases and activations other than silu are not supported yet")
        if config.get("use_sliding_window"):
            raise InputError(f"{where}: sliding-window attention is not supported yet")
        try:
            return ModelConfig(
                vocab_size=config["vocab_size"],
                hidden_size=config["hidden_size"],
                num_layers=config["num_hidden_layers"],
                num_heads=config["num_attention_heads"],
                num_kv_heads=config.get("num_key_value_heads") or config["num_attention_heads"],
                head_dim=config.get("head_dim") or config["hidden_size"] // config["num_attention_heads"],
                intermediate_size=config["intermediate_size"],
                max_positions=config["max_position_embeddings"],
                rope_theta=float(rope.get("rope_theta") or config.get("rope_theta") or 10_000.0),
                norm_eps=config["rms_norm_eps"],
                qk_norm=family == "qwen3",
                tied_embeddings=bool(config.get("tie_word_embeddings", False)),
            )
        except KeyError as error:
            raise InputError(f"{where}: the field {error} is missing") from None
        except (TypeError, ValueError) as error:
            raise InputError(f"{where}: a field has the wrong type ({error})") from None
