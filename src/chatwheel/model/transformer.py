"""The decoder, whole: Llama (Touvron et al., 2023), with what Mistral, Qwen2 and Qwen3 add: a sliding window, a bias on
queries, keys and values, QK-norm.

Parameter names are Hugging Face's, so that a state dict is a checkpoint. Weights are fp32 masters; a matrix is cast
to the activations' type where it is used, so `model(..., dtype=torch.bfloat16)` computes in bf16 and trains in fp32.

Shape suffixes: B batch, T time, D width, H query heads, G key/value heads, K head size, V vocabulary, S cached time.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Protocol, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from chatwheel.model.config import ModelConfig
from chatwheel.model.rope import rope_tables, rotate


class LayerCache(Protocol):
    """What attention needs of a KV cache: keep the new keys and values, give back all that the queries may see."""

    def extend(self, k_BGTK: Tensor, v_BGTK: Tensor) -> tuple[Tensor, Tensor]:
        """(keys BGSK, values BGSK), the new ones included."""
        ...


class Linear(nn.Linear):
    """A matrix, mostly without bias, cast to its input's type. adapter: what else it adds (see lora.py)."""

    def __init__(self, num_in: int, num_out: int, bias: bool = False) -> None:
        super().__init__(num_in, num_out, bias=bias)
        self.adapter: nn.Module | None = None

    def forward(self, x: Tensor) -> Tensor:
        y = F.linear(x, self.weight.to(x.dtype), None if self.bias is None else self.bias.to(x.dtype))
        return y if self.adapter is None else y + self.adapter(x)


class RMSNorm(nn.Module):
    """x / rms(x) * weight (Zhang & Sennrich, 2019)."""

    def __init__(self, size: int, eps: float) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(size))
        self.eps = eps

    def forward(self, x: Tensor) -> Tensor:
        return F.rms_norm(x, (x.shape[-1],), self.weight.to(x.dtype), self.eps)


# On CPUs two plain matrix products beat the fused kernel (1.4x in training at T = 128) until B x H x T x S gets large.
LONGEST_PLAIN = 512


def attend(q_BHTK: Tensor, k_BGSK: Tensor, v_BGSK: Tensor, mask: Tensor | None) -> Tensor:
    """softmax(q k' / sqrt(K) + mask) v, as BHTK; H / G query heads share a key head. Without a mask: causal."""
    B, H, T, K = q_BHTK.shape
    G, S = k_BGSK.shape[1:3]
    if q_BHTK.device.type != "cpu" or S > LONGEST_PLAIN:
        return F.scaled_dot_product_attention(
            q_BHTK, k_BGSK, v_BGSK, attn_mask=mask, is_causal=mask is None and T > 1, enable_gqa=H != G
        )
    if mask is None:
        mask = torch.full((T, S), -torch.inf, dtype=q_BHTK.dtype).triu(1 + S - T)
    # The heads of a group stand below each other, so that keys and values are never repeated.
    q_BGXK: Tensor = (q_BHTK * K**-0.5).reshape(B, G, -1, K)
    scores = (q_BGXK @ k_BGSK.transpose(-1, -2)).view(B, H, T, S) + mask
    return (scores.softmax(-1).view(B, G, -1, S) @ v_BGSK).view(B, H, T, K)


def packed_mask(segments_BT: Tensor, dtype: torch.dtype, branches_BT: Tensor | None = None) -> Tensor:
    """The additive mask B1TT of packed rows: causal, and never across the border of a segment.

    branches_BT: where a segment is a tree, a branch sees the trunk (0) and itself.
    """
    T = segments_BT.shape[1]
    allowed = (segments_BT[:, :, None] == segments_BT[:, None, :]).tril_()
    if branches_BT is not None:
        allowed &= (branches_BT[:, None, :] == 0) | (branches_BT[:, :, None] == branches_BT[:, None, :])
    mask = torch.zeros((len(segments_BT), 1, T, T), dtype=dtype, device=segments_BT.device)
    return mask.masked_fill_(~allowed[:, None], -torch.inf)


def window_mask(mask: Tensor | None, positions_BT: Tensor, window: int) -> Tensor | None:
    """The mask with all keys taken out that lie `window` positions or more before a query.

    Keys stand at the queries' own positions, or, in a cache, at 0..S-1.
    """
    T = positions_BT.shape[1]
    S = T if mask is None else mask.shape[-1]
    if mask is None:
        if window >= T:
            return None
        mask = torch.full((T, T), -torch.inf, device=positions_BT.device).triu(1)[None, None]
    keys_BS = positions_BT if S == T else torch.arange(S, device=positions_BT.device)[None]
    too_far_BTS = positions_BT[:, :, None] - keys_BS[:, None, :] >= window
    return mask.masked_fill(too_far_BTS[:, None], -torch.inf)


class Attention(nn.Module):
    """Causal grouped-query attention (Ainslie et al., 2023)."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        D, H, G, K = config.hidden_size, config.num_heads, config.num_kv_heads, config.head_dim
        self.head_dim = K
        bias = config.qkv_bias
        self.q_proj, self.k_proj, self.v_proj = Linear(D, H * K, bias), Linear(D, G * K, bias), Linear(D, G * K, bias)
        self.o_proj = Linear(H * K, D)
        self.q_norm = RMSNorm(K, config.norm_eps) if config.qk_norm else nn.Identity()
        self.k_norm = RMSNorm(K, config.norm_eps) if config.qk_norm else nn.Identity()

    def forward(
        self, x_BTD: Tensor, rope: tuple[Tensor, Tensor], mask: Tensor | None, cache: LayerCache | None
    ) -> Tensor:
        """What each position reads from those that it may see, BTD. `cache` holds earlier positions when decoding."""
        B, T, _ = x_BTD.shape
        q_BHTK = self.q_norm(self.q_proj(x_BTD).view(B, T, -1, self.head_dim)).transpose(1, 2)
        k_BGTK = self.k_norm(self.k_proj(x_BTD).view(B, T, -1, self.head_dim)).transpose(1, 2)
        v_BGTK = self.v_proj(x_BTD).view(B, T, -1, self.head_dim).transpose(1, 2)
        q_BHTK, k_BGTK = rotate(q_BHTK, rope), rotate(k_BGTK, rope)
        if cache is not None:
            k_BGTK, v_BGTK = cache.extend(k_BGTK, v_BGTK)
        y_BHTK = attend(q_BHTK, k_BGTK, v_BGTK, mask)
        y_BTD: Tensor = self.o_proj(y_BHTK.transpose(1, 2).reshape(B, T, -1))
        return y_BTD


class MLP(nn.Module):
    """SwiGLU (Shazeer, 2020)."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.gate_proj = Linear(config.hidden_size, config.intermediate_size)
        self.up_proj = Linear(config.hidden_size, config.intermediate_size)
        self.down_proj = Linear(config.intermediate_size, config.hidden_size)

    def forward(self, x_BTD: Tensor) -> Tensor:
        y_BTD: Tensor = self.down_proj(F.silu(self.gate_proj(x_BTD)) * self.up_proj(x_BTD))
        return y_BTD


class Layer(nn.Module):
    """Pre-norm attention and MLP around one residual stream."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.input_layernorm = RMSNorm(config.hidden_size, config.norm_eps)
        self.self_attn = Attention(config)
        self.post_attention_layernorm = RMSNorm(config.hidden_size, config.norm_eps)
        self.mlp = MLP(config)

    def forward(
        self, x_BTD: Tensor, rope: tuple[Tensor, Tensor], mask: Tensor | None, cache: LayerCache | None
    ) -> Tensor:
        x_BTD = x_BTD + self.self_attn(self.input_layernorm(x_BTD), rope, mask, cache)
        y_BTD: Tensor = x_BTD + self.mlp(self.post_attention_layernorm(x_BTD))
        return y_BTD


class Trunk(nn.Module):
    """Tokens in, final hidden states out: what the language model, the reward model and the critic share.

    recompute: layers keep their inputs only and are computed again on the way back (Chen et al., 2016): less memory for
    a third more time.
    """

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.config = config
        self.recompute = False
        self.embed_tokens = nn.Embedding(config.vocab_size, config.hidden_size)
        self.layers = nn.ModuleList(Layer(config) for _ in range(config.num_layers))
        self.norm = RMSNorm(config.hidden_size, config.norm_eps)

    @property
    def device(self) -> torch.device:
        """Where its weights are."""
        return self.embed_tokens.weight.device

    def forward(
        self,
        tokens_BT: Tensor,
        *,
        positions_BT: Tensor | None = None,
        mask: Tensor | None = None,
        caches: Sequence[LayerCache] | None = None,
        dtype: torch.dtype = torch.float32,
    ) -> Tensor:
        """Hidden states BTD after the final norm.

        positions_BT: 0..T-1 unless given. mask: additive, B1TS; plain causal attention without one.
        caches: one a layer, when decoding.
        """
        if positions_BT is None:
            positions_BT = torch.arange(tokens_BT.shape[1], device=tokens_BT.device)[None]
        rope = rope_tables(positions_BT, self.config, dtype)
        x_BTD = self.embed_tokens(tokens_BT).to(dtype)
        narrow = mask
        if self.config.sliding_window is not None:
            narrow = window_mask(mask, positions_BT, self.config.sliding_window)
            narrow = narrow if narrow is None else narrow.to(dtype)
        for i, layer in enumerate(self.layers):
            sees = mask if self.config.window(i) is None else narrow
            if self.recompute and torch.is_grad_enabled():
                x_BTD = checkpoint(layer, x_BTD, rope, sees, None, use_reentrant=False)
            else:
                x_BTD = layer(x_BTD, rope, sees, caches[i] if caches is not None else None)
        return self.norm(x_BTD)  # type: ignore[no-any-return]


class CausalLM(nn.Module):
    """The decoder as a language model."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.config = config
        self.model = Trunk(config)
        self.lm_head = Linear(config.hidden_size, config.vocab_size)
        if config.tied_embeddings:
            self.lm_head.weight = self.model.embed_tokens.weight

    def computing(self, compute: Callable[[], Tensor]) -> Tensor:
        """What `compute` gives, which uses the weights outside of `forward`: where sharded ones are gathered."""
        return compute()

    def logits(self, hidden: Tensor) -> Tensor:
        """Logits ...V of hidden states ...D, in their type."""
        return self.lm_head(hidden)  # type: ignore[no-any-return]

    def forward(self, tokens_BT: Tensor) -> Tensor:
        """Logits BTV in fp32 of plain sequences: what transformers gives, for whoever just wants to look."""
        return self.logits(self.model(tokens_BT))


class ScalarModel(nn.Module):
    """The decoder with a scalar head: a reward model (the value at the last token) or a critic (at each token)."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.config = config
        self.model = Trunk(config)
        self.score = Linear(config.hidden_size, 1)

    def computing(self, compute: Callable[[], Tensor]) -> Tensor:
        """What `compute` gives, which uses the weights outside of `forward`: where sharded ones are gathered."""
        return compute()

    def values(self, hidden_BTD: Tensor) -> Tensor:
        """Values BT in fp32."""
        return self.score(hidden_BTD.float()).squeeze(-1)  # type: ignore[no-any-return]

    def forward(self, tokens_BT: Tensor) -> Tensor:
        """Values BT of plain sequences."""
        return self.values(self.model(tokens_BT))


def with_scalar_head(start: CausalLM) -> ScalarModel:
    """The same trunk (not a copy) with a scalar head of zeros, in evaluation mode."""
    with torch.device("meta"):
        model = ScalarModel(start.config)
    model.model = start.model
    model.score.weight = nn.Parameter(torch.zeros(1, start.config.hidden_size))
    return model.eval()


def initialise(model: CausalLM | ScalarModel, generator: torch.Generator) -> None:
    """Fresh weights: normal of deviation 1/sqrt(fan-in), the MLPs' outputs scaled down by depth (GPT-2, section 2.3),
    and attention that begins as trained attention looks: see `_mimic_trained_attention`.
    """
    depth_scale = (2 * model.config.num_layers) ** -0.5
    for name, parameter in model.named_parameters():
        with torch.no_grad():
            if parameter.dim() < 2:
                parameter.fill_(0.0 if name.endswith("bias") else 1.0)
            elif name.endswith("score.weight"):
                parameter.zero_()
            elif "embed_tokens" in name or "lm_head" in name:
                parameter.normal_(0.0, 0.02, generator=generator)
            else:
                std = parameter.shape[1] ** -0.5 * (depth_scale if name.endswith("down_proj.weight") else 1.0)
                parameter.normal_(0.0, std, generator=generator)
    _mimic_trained_attention(model.model, generator)


@torch.no_grad()
def _mimic_trained_attention(trunk: Trunk, generator: torch.Generator) -> None:
    """Where trained heads end up, small models start (Trockman & Kolter, 2023): the loss falls faster in the first
    hundreds of steps (docs/LOG.md).

    Queries equal keys (in a group, the first query does), so that a token finds its like; but for the fastest third of
    RoPE's pairs, where they are opposed, so that it finds its like elsewhere rather than itself: whether something has
    been said before is then learnt in half the steps. (A head size below 16 is too small for it.) From the second
    layer on the scores are twice as large where there is a QK-norm to scale them. Outputs are transposed values, so
    that what a head reads it writes. All embeddings share a vector, which a softmax over tied outputs does not see; by
    it the first head of the first layer looks at the token before, wherever that is, as induction heads need (Olsson et
    al., 2022).
    """
    c = trunk.config
    D, H, G, K = c.hidden_size, c.num_heads, c.num_kv_heads, c.head_dim
    shared_D = torch.randn(D, generator=generator)
    shared_D *= D**0.5 / shared_D.norm()
    trunk.embed_tokens.weight += 0.02 * shared_D
    attentions = [cast(Layer, layer).self_attn for layer in trunk.layers]
    for attention in attentions:
        queries_HKD = attention.q_proj.weight.view(H, K, D)
        attention.k_proj.weight.copy_(queries_HKD[:: H // G].reshape(G * K, D))
        for first in (0, K // 2):
            queries_HKD[:, first : first + K // 6] *= -1
        if attention is not attentions[0] and isinstance(attention.q_norm, RMSNorm):
            attention.q_norm.weight.fill_(2.0)
        values_HKD = attention.v_proj.weight.view(G, 1, K, D).expand(G, H // G, K, D)
        attention.o_proj.weight.copy_(0.5 * values_HKD.reshape(H * K, D).T)
    # q' R(t - s) k is largest at s = t - 1 if q is k turned back by one; only fast pairs tell neighbours apart.
    fast = min(3, K // 2)
    angle = c.rope_theta ** (-torch.arange(fast) * 2 / K)
    query_K, key_K = torch.zeros(K), torch.zeros(K)
    key_K[:fast] = 1
    query_K[:fast], query_K[K // 2 : K // 2 + fast] = angle.cos(), -angle.sin()
    for projection, wanted_K in ((attentions[0].q_proj, query_K), (attentions[0].k_proj, key_K)):
        projection.weight[:K] *= 0.3
        projection.weight[:K] += 4 / D * wanted_K[:, None] * shared_D
