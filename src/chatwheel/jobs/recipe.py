"""A recipe: one YAML file that says how a whole run is made. Every key is checked; a misspelt one is named."""

from __future__ import annotations

import difflib
from collections.abc import Sequence
from importlib.resources import files
from pathlib import Path
from typing import Annotated, Any, Literal

import yaml
from pydantic import BaseModel, ConfigDict, Discriminator, Field, Tag, ValidationError, model_validator

import chatwheel
from chatwheel.data.mixture import FilesData
from chatwheel.data.records import describe
from chatwheel.errors import InputError
from chatwheel.model.config import ModelConfig
from chatwheel.training.best_of_n import BestOfNConfig
from chatwheel.training.dpo import DPOConfig
from chatwheel.training.grpo import GRPOConfig
from chatwheel.training.guard import GuardConfig
from chatwheel.training.kto import KTOConfig
from chatwheel.training.policy_gradient_config import PolicyGradientConfig
from chatwheel.training.ppo import PPOConfig
from chatwheel.training.precision import Precision
from chatwheel.training.pretrain import PretrainConfig
from chatwheel.training.reward import RewardConfig
from chatwheel.training.rewards import OWN
from chatwheel.training.rloo import RLOOConfig
from chatwheel.training.sft import SFTConfig


class _Strict(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class WorldData(_Strict):
    """Data from the generator that ships with the package: how many records of each kind. primer: documents that
    pretraining begins with, for the share of its steps that `pretrain.primer` says."""

    kind: Literal["world"]
    languages: tuple[Literal["en", "zh"], ...] = ("en", "zh")
    documents: int = Field(ge=1)
    primer: int = Field(default=0, ge=0)
    demonstrations: int = Field(ge=1)
    ranked_prompts: int = Field(ge=1)
    ppo_prompts: int = Field(ge=1)
    examination: int = Field(default=600, ge=1)


class TokenizerConfig(_Strict):
    """vocab_size: the 256 bytes and 5 special tokens included.

    max_megabytes: text to learn from, of the documents and of the demonstrations, the first ones (they are shuffled);
    the memory that learning takes is some thirty times that, and more text changes few tokens.
    """

    vocab_size: int = Field(ge=262)
    max_megabytes: float = Field(default=20.0, gt=0)


class ArchitectureConfig(_Strict):
    """The decoder's shape; the vocabulary comes from the tokenizer."""

    hidden_size: int = Field(ge=2)
    num_layers: int = Field(ge=1)
    num_heads: int = Field(ge=1)
    num_kv_heads: int = Field(ge=1)
    head_dim: int = Field(ge=2)
    intermediate_size: int = Field(ge=1)
    max_positions: int = Field(ge=8)
    rope_theta: float = Field(default=10_000.0, gt=0)
    qk_norm: bool = True
    tied_embeddings: bool = True

    @model_validator(mode="after")
    def _is_a_decoder(self) -> ArchitectureConfig:
        self.model_config_for(vocab_size=1)  # says what does not fit, before any data is made
        return self

    def model_config_for(self, vocab_size: int) -> ModelConfig:
        """The whole configuration."""
        return ModelConfig(vocab_size=vocab_size, **self.model_dump())


# recipes/real-small.yaml's, at a width of 256. Wider models want smaller ones, by the root of the width, as in
# nanochat; not swept here.
_RATES = {
    **{"pretrain": 6e-3, "sft": 2e-3, "reward": 3e-4},
    **dict.fromkeys(("ppo", "grpo", "rloo", "best_of_n", "dpo", "kto"), 5e-5),
}
SAMPLING = ("ppo", "grpo", "rloo", "best_of_n")
"""The parts of a recipe that learn from answers of their own, which somebody judges."""
IMPROVING = (*SAMPLING, "dpo", "kto")
"""The parts that make the SFT model better, or, without sft, the one that is named."""


def derived(values: dict[str, Any]) -> dict[str, Any]:
    """A recipe's values with all that its `model.depth` says: so many layers, 64 times as wide, heads of 64 whose keys
    are shared by two where that comes out even, an MLP of 8/3 of the width; and the stages' learning rates. What a
    recipe gives itself stays. Raises ValueError for a depth that is not a whole number of at least 1."""
    model = dict(values["model"])
    depth = model.pop("depth")
    if not isinstance(depth, int) or isinstance(depth, bool) or depth < 1:
        raise ValueError(f"model.depth is {depth!r}; it must be a whole number of at least 1")
    both = [name for name in ("hidden_size", "num_layers") if name in model]
    if both:
        raise ValueError(f"model.depth and model.{both[0]} say the same; take one of them out")
    width, heads = 64 * depth, model.get("num_heads", depth)
    shape = {
        "hidden_size": width,
        "num_layers": depth,
        "num_heads": heads,
        "num_kv_heads": heads // 2 if isinstance(heads, int) and heads > 1 and heads % 2 == 0 else heads,
        "head_dim": 64,
        "intermediate_size": -(-8 * width // (3 * 64)) * 64,
        "max_positions": 512,
    }
    parts = {**values, "model": {**shape, **model}}
    for name, rate in _RATES.items():
        part = parts.get(name)
        optimizer = part.get("optimizer", {}) if isinstance(part, dict) else None
        if isinstance(part, dict) and isinstance(optimizer, dict):
            scaled = float(f"{rate * (256 / width) ** 0.5:.3g}")
            parts[name] = {**part, "optimizer": {"learning_rate": scaled, **optimizer}}
    return parts


class RankingConfig(_Strict):
    """How answers to be ranked are sampled from the SFT model: K answers a prompt.

    reference: rank a written answer among them, as Stiennon et al. (2020, "Learning to summarize from human feedback")
    ranked the reference summaries: where no sample is right, the reward model still sees what right would have been.
    It says nothing to people's own rankings, which are data already.
    """

    answers: int = Field(default=4, ge=2)
    reference: bool = False
    temperature: float = Field(default=1.0, gt=0)
    max_tokens: int = Field(default=64, ge=1)
    held_out: float = Field(default=0.1, gt=0, lt=1)
    precision: Precision = "auto"


class Recipe(_Strict):
    """A whole run: data, and the stages that it has.

    model: the decoder's shape, which is then pretrained with a tokenizer of its own; or a model to begin with, by its
    name here or on the Hub or its directory, which then needs neither. `model: {depth: 6}` derives the shape, and the
    learning rates that are not given (`derived`). data: the generator's or people's files; one path is a file of
    demonstrations, or, without sft, of rankings (dpo) or ratings (kto). sft, reward, ppo and its like: left out, the
    stage is. Those that improve (`IMPROVING`) begin with the SFT model, or, without sft, with the model that is named.
    tensor_parallel: of the processes that train, how many divide each matrix among them; a run may go on with another
    number.
    """

    name: str = Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$")
    seed: int = Field(default=0, ge=0, lt=2**15)  # sampling seeds are made of it and fit 64 bits
    data: Annotated[WorldData | FilesData, Field(discriminator="kind")]
    tokenizer: TokenizerConfig | None = None
    model: Annotated[
        Annotated[ArchitectureConfig, Tag("shape")] | Annotated[str, Tag("name")],
        Discriminator(lambda value: "name" if isinstance(value, str) else "shape"),
    ]
    pretrain: PretrainConfig | None = None
    sft: SFTConfig | None = None
    ranking: RankingConfig = RankingConfig()
    reward: RewardConfig | None = None
    ppo: PPOConfig | None = None
    grpo: GRPOConfig | None = None
    rloo: RLOOConfig | None = None
    best_of_n: BestOfNConfig | None = None
    dpo: DPOConfig | None = None
    kto: KTOConfig | None = None
    tensor_parallel: int = Field(default=1, ge=1)

    @model_validator(mode="before")
    @classmethod
    def _from_depth(cls, values: Any) -> Any:
        model = values.get("model") if isinstance(values, dict) else None
        return derived(values) if isinstance(model, dict) and "depth" in model else values

    @model_validator(mode="before")
    @classmethod
    def _one_file(cls, values: Any) -> Any:
        """A path alone is of what the first stage reads; what is too long is left to the rows."""
        if not isinstance(values, dict) or not isinstance(path := values.get("data"), str):
            return values
        first = next((name for name in ("sft", "dpo", "kto") if values.get(name) is not None), "sft")
        kind = {"sft": "demonstrations", "dpo": "rankings", "kto": "ratings"}[first]
        return {**values, "data": {"kind": "files", kind: [{"path": path}], "max_bytes": 10**6}}

    @model_validator(mode="after")
    def _stages_have_what_they_need(self) -> Recipe:
        fresh = isinstance(self.model, ArchitectureConfig)
        for part in ("tokenizer", "pretrain"):
            if (getattr(self, part) is not None) != fresh:
                raise ValueError(
                    f"a model made from its shape needs {part}"
                    if fresh
                    else f"model {self.model!r} is there already: take {part} out, or give the model's shape instead"
                )
        improving = [name for name in IMPROVING if getattr(self, name) is not None]
        if improving and self.sft is None and fresh:
            raise ValueError(f"{improving[0]} needs sft, or a model by its name to begin with")
        for name, sampling in self.sampling.items():
            if self.reward is None and sampling.judged_by_the_run:
                raise ValueError(f"{name} needs reward, or judges of its own ({name}.rewards)")
            if sampling.guard is not None:
                self._can_guard(name, sampling.guard)
            if sampling.ptx and self.sft is None:
                raise ValueError(f"{name}.ptx mixes in sft's demonstrations, and there is no sft; take it out")
        if self.reward is not None and self.sft is None:
            raise ValueError("reward needs sft")
        if self.pretrain is None and self.sft is None and not improving:
            raise ValueError(f"a run needs pretrain or sft, or, with a model by its name, {', '.join(IMPROVING)}")
        return self

    def _can_guard(self, name: str, guard: GuardConfig) -> None:
        if guard.gold and not isinstance(self.data, WorldData):
            raise ValueError(f"{name}.guard.judge: gold marks the world's answers; name a model, function, url or rule")
        if guard.judge.model == OWN and self.reward is None:
            raise ValueError(f"{name}.guard.judge needs reward; add it, or name another judge")
        if isinstance(self.data, FilesData) and not self.data.held_out_prompts:
            raise ValueError(f"{name}.guard asks held-out prompts; raise data.held_out_prompts, or take the guard out")

    @property
    def sampling(self) -> dict[str, PolicyGradientConfig]:
        """Those of `SAMPLING` that the recipe has."""
        return {name: part for name in SAMPLING if (part := getattr(self, name)) is not None}

    @property
    def start(self) -> Literal["base", "sft"]:
        """The model that answers to be ranked come from, and that those begin with which improve it."""
        return "base" if self.sft is None else "sft"

    @model_validator(mode="after")
    def _dropout_is_not_divided(self) -> Recipe:
        for name in ("sft", "reward", "dpo", "kto"):  # the others sample, and have no dropout
            part = getattr(self, name)
            if self.tensor_parallel > 1 and part is not None and part.lora is not None and part.lora.dropout:
                raise ValueError(f"{name}.lora.dropout is not computed with tensor_parallel; give 0, or take one out")
        return self

    @model_validator(mode="after")
    def _rows_fit_the_context(self) -> Recipe:
        parts = (self.pretrain, self.sft, self.reward, *(getattr(self, name) for name in IMPROVING))
        rows = [part.row_length for part in parts if part is not None]
        if isinstance(self.model, ArchitectureConfig) and max(rows) > self.model.max_positions:
            raise ValueError(f"a row_length of {max(rows)} is beyond model.max_positions ({self.model.max_positions})")
        primer = self.pretrain is not None and self.pretrain.primer > 0
        if (isinstance(self.data, WorldData) and self.data.primer > 0) != primer:
            raise ValueError("data.primer (documents) and pretrain.primer (share of the steps) need each other")
        for name, sampling in self.sampling.items():
            if sampling.max_tokens >= sampling.row_length:
                raise ValueError(
                    f"{name}.max_tokens ({sampling.max_tokens}) leaves no room in {name}.row_length for a prompt"
                )
        return self

    @staticmethod
    def load(path: Path, overrides: Sequence[str] = ()) -> Recipe:
        """Reads a YAML recipe, or by its name one that comes with Chatwheel; `overrides` are `key.path=value` with a
        YAML value. Raises InputError naming the key.

        A relative `data.root` counts from the recipe's own directory; paths given as `data=` and `model=` from the
        current one.
        """
        if not path.exists() and str(path) == path.stem:
            path = shipped(str(path))
        try:
            values = yaml.safe_load(path.read_text(encoding="utf-8"))
        except FileNotFoundError:
            raise InputError(f"{path}: no such recipe") from None
        except (yaml.YAMLError, UnicodeDecodeError) as error:
            raise InputError(f"{path}: not a YAML file ({' '.join(str(error).split())})") from None
        if not isinstance(values, dict):
            raise InputError(f"{path}: expected keys and values at the top (name, data, model, ...)")
        for override in overrides:
            _set(values, override)
        recipe = Recipe.parse(values, where=str(path))
        if isinstance(recipe.data, FilesData):
            recipe = recipe.model_copy(update={"data": recipe.data.located(path.parent)})
        return recipe

    def sampled_by(self, stage: str, workers: int | None) -> tuple[Recipe, int]:
        """The same with so many workers that sample for a stage, unless None, and how many there are then. Raises
        InputError if nobody may sample for it."""
        part = self.sampling.get(stage)
        if part is None:
            raise InputError(f"the recipe {self.name} has no {stage}; add it, or run another stage")
        if part.asynchronous is None:
            raise InputError(
                f"{stage} learns in one process; with {stage}.asynchronous='{{staleness: 1}}' others may sample for it"
            )
        ahead = part.asynchronous.model_copy(update={"workers": workers or max(1, part.asynchronous.workers)})
        changed = part.model_copy(update={"asynchronous": ahead})
        return self.model_copy(update={stage: changed}), ahead.workers

    @staticmethod
    def parse(values: dict[str, Any], *, where: str) -> Recipe:
        """Checks a recipe's values. Raises InputError."""
        try:
            return Recipe.model_validate(values)
        except ValidationError as error:
            raise InputError(f"{where}: {_explain(error)}") from None


def shipped(name: str) -> Path:
    """A recipe that comes with Chatwheel: in the package, or in the checkout that it is installed from."""
    package = Path(str(files(chatwheel)))
    places = (package / "recipes", package.parents[1] / "recipes")
    for directory in places:
        if (path := directory / f"{name}.yaml").is_file():
            return path
    known = sorted(p.stem for d in places for p in d.glob("*.yaml"))
    raise InputError(f"no recipe {name!r}: neither a file here nor one that comes with Chatwheel ({', '.join(known)})")


def parse_overrides(overrides: Sequence[str]) -> dict[str, Any]:
    """`key.path=value` with YAML values, as keys in keys. Raises InputError."""
    values: dict[str, Any] = {}
    for override in overrides:
        _set(values, override)
    return values


def _set(values: dict[str, Any], override: str) -> None:
    key, equals, value = override.partition("=")
    if not equals or not key:
        raise InputError(f"{override!r}: expected key=value, as in sft.epochs=3")
    *path, last = key.split(".")
    for part in path:
        values = values.setdefault(part, {})
        if not isinstance(values, dict):
            raise InputError(f"{override!r}: {part!r} holds a value, not further keys")
    try:
        values[last] = yaml.safe_load(value)
        if key in ("data", "model") and isinstance(values[last], str) and Path(values[last]).expanduser().exists():
            values[last] = str(Path(values[last]).expanduser().absolute())
    except yaml.YAMLError:
        raise InputError(f"{override!r}: {value!r} is not a YAML value") from None


def _explain(error: ValidationError) -> str:
    """Names the first faulty key; for one that does not exist, the nearest that does."""
    errors = error.errors(include_url=False)
    # A misspelt key is also a missing one: the misspelling says more.
    first = next((e for e in errors if e["type"] == "extra_forbidden"), errors[0])
    location = [str(part) for part in first["loc"]]
    if not location:  # parts of the recipe that do not go together
        return describe(error)
    if location[0] in ("data", "model"):
        # Pydantic puts the union's tag ("world", "shape") into the path; a reader of the recipe does not see it there.
        del location[1:2]
    if first["type"].startswith("union_tag"):
        return f"data.kind: expected 'world' or 'files', found {first['ctx'].get('tag')!r}"
    if first["type"] != "extra_forbidden":
        return f"{'.'.join(location)}: {describe(error).partition(': ')[2] or first['msg']}"
    *parents, wrong = location
    known = _keys_at(parents)
    near = difflib.get_close_matches(wrong, known, n=1)
    hint = f"did you mean {near[0]!r}?" if near else f"known keys: {', '.join(known)}"
    return f"unknown key {'.'.join(location)!r}; {hint}"


def _keys_at(path: Sequence[str]) -> list[str]:
    kinds: list[Any] = [Recipe]
    for part in (p for p in path if not p.isdigit()):  # places in a list
        fields = [k.model_fields[part].annotation for k in kinds if part in getattr(k, "model_fields", {})]
        kinds = [k for f in fields for k in ([f] if isinstance(f, type) else getattr(f, "__args__", ()))]
    return [name for k in kinds for name in getattr(k, "model_fields", {})]
