"""Models by their name on the Hugging Face Hub: downloaded once, gone on with if interrupted, found again offline."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from chatwheel.errors import InputError
from chatwheel.model.layout import ADAPTER_CONFIG, base_of, is_adapter, read_object

# What this package reads; never pickled weights, nor other formats of the same ones.
_FILES = ("*.safetensors", "*.json", "*.jinja", "merges.txt", "tokenizer.model")
MOST_ADAPTERS = 8
_NOT = ("*/*", "consolidated*")


def is_hub_name(name: str) -> bool:
    """Whether a name can be one of the Hub's: `organisation/model`."""
    from huggingface_hub.errors import HFValidationError
    from huggingface_hub.utils import validate_repo_id  # type: ignore[attr-defined]

    if name.count("/") != 1 or not name.isascii():
        return False
    try:
        validate_repo_id(name)
    except HFValidationError:
        return False
    return True


def fetch(name: str, *, download: bool = True) -> Path:
    """The directory of a model or an adapter of the Hub, in the Hub's own cache ($HF_HOME), downloaded with a progress
    bar unless it is there. The configuration comes first: what can't be opened, or doesn't fit the memory, is not
    downloaded. Without `download` the cache alone is looked at.

    Raises InputError if there is no such model, no right to it, no way to it, or no room for it.
    """
    from huggingface_hub import snapshot_download

    with _explained(name):
        if not download:
            return Path(snapshot_download(name, local_files_only=True))
        _check(name)
        return Path(snapshot_download(name, allow_patterns=list(_FILES), ignore_patterns=list(_NOT)))


def fetch_base(adapter: Path, *, download: bool = True) -> Path:
    """The directory of the model that an adapter is for: where its configuration says, or from the Hub. Raises
    InputError."""
    base = base_of(adapter)
    place = Path(base).expanduser()
    if base and place.is_absolute() and place.is_dir():
        return place
    if not is_hub_name(base):
        raise InputError(
            f"{adapter}: the model that this adapter is for, {base!r}, is not there; put it back, or name its whole "
            f"path as base_model_name_or_path in {ADAPTER_CONFIG}"
        )
    return fetch(base, download=download)


def fetch_bases(adapter: Path, *, download: bool = True) -> list[Path]:
    """What is below an adapter, its base first, down to a whole model: a base may be an adapter itself. Raises
    InputError, also for adapters that are on each other in a circle, or too many deep."""
    found: list[Path] = []
    seen, place = [adapter.resolve()], adapter
    while is_adapter(place):
        below = fetch_base(place, download=download)
        found.append(below)
        if below.resolve() in seen:
            raise InputError(
                f"{place}: its base, {below}, is an adapter on it in turn; name a whole model as "
                f"base_model_name_or_path in {ADAPTER_CONFIG} of one of them"
            )
        if len(found) > MOST_ADAPTERS:
            raise InputError(f"{adapter}: more than {MOST_ADAPTERS} adapters on each other; merge some of them")
        seen.append(below.resolve())
        place = below
    return found


def _check(name: str) -> None:
    """Raises InputError for an architecture that is not supported, and for a model larger than the memory. An adapter
    is as large as its base, which is fetched on its own."""
    import psutil
    from huggingface_hub import hf_hub_download
    from huggingface_hub.errors import EntryNotFoundError

    from chatwheel.model.config import ModelConfig

    try:
        raw = read_object(Path(hf_hub_download(name, "config.json")))
    except EntryNotFoundError:
        hf_hub_download(name, ADAPTER_CONFIG)
        return
    config = ModelConfig.from_hugging_face(raw, where=f"{name}/config.json")
    # In fp32, and the largest matrix once more while it is read.
    needed = 4 * (config.num_parameters + config.vocab_size * config.hidden_size)
    free = psutil.virtual_memory().available
    if needed > free:
        raise InputError(
            f"{name} needs {needed / 2**30:.1f} GB of memory and {free / 2**30:.1f} GB are free; "
            "take a smaller model, or close other programs"
        )


@contextmanager
def _explained(name: str) -> Iterator[None]:
    """The Hub's errors in one line each."""
    from huggingface_hub.errors import (  # type: ignore[attr-defined]  # HTTPError: its transport's, whichever that is
        EntryNotFoundError,
        GatedRepoError,
        HTTPError,
        LocalEntryNotFoundError,
        RepositoryNotFoundError,
    )

    try:
        yield
    except GatedRepoError:
        raise InputError(
            f"{name}: its owner asks for consent; accept the conditions on its page and set HF_TOKEN"
        ) from None
    except RepositoryNotFoundError:
        raise InputError(f"{name}: no such model here or on the Hub (for a private one, set HF_TOKEN)") from None
    except LocalEntryNotFoundError:
        raise InputError(
            f"{name}: not a model here, not in the Hub's cache, and the Hub can't be reached, or is not asked now; "
            "check the connection and HF_HUB_OFFLINE, and open it once from the command line"
        ) from None
    except EntryNotFoundError:
        raise InputError(
            f"{name}: the Hub has no config.json or {ADAPTER_CONFIG} for it, so it is not a model in this layout"
        ) from None
    except HTTPError as error:
        first = (str(error) or type(error).__name__).splitlines()[0]
        raise InputError(f"{name}: the download broke off ({first}); the same command goes on with it") from None
    except OSError as error:
        raise InputError(
            f"{name}: could not be stored ({error.strerror or error}); make room and run it again"
        ) from None
