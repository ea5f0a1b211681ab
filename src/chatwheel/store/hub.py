"""Models by their name on the Hugging Face Hub: downloaded once, gone on with if interrupted, found again offline."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from chatwheel.errors import InputError

_NAME = re.compile(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*")
# What this package reads; never pickled weights, nor other formats of the same ones.
_FILES = ("*.safetensors", "*.safetensors.index.json", "*.json", "*.jinja", "merges.txt", "tokenizer.model")
_NOT = ("*/*", "consolidated*")


def is_hub_name(name: str) -> bool:
    """Whether a name can be one of the Hub's: `organisation/model`."""
    return _NAME.fullmatch(name) is not None


def fetch(name: str) -> Path:
    """The directory of a model of the Hub, in the Hub's own cache ($HF_HOME), downloaded with a progress bar unless it
    is there. The configuration comes first: what can't be opened, or doesn't fit the memory, is not downloaded.

    Raises InputError if there is no such model, no right to it, no way to it, or no room for it.
    """
    from huggingface_hub import hf_hub_download, snapshot_download

    with _explained(name):
        _check(name, Path(hf_hub_download(name, "config.json")))
        return Path(snapshot_download(name, allow_patterns=list(_FILES), ignore_patterns=list(_NOT)))


def _check(name: str, path: Path) -> None:
    """Raises InputError for an architecture that is not supported, and for a model larger than the memory."""
    import psutil

    from chatwheel.model.config import ModelConfig

    try:
        raw = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise InputError(f"{name}: its config.json is damaged ({error})") from None
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
    import httpx
    from huggingface_hub.errors import (
        EntryNotFoundError,
        GatedRepoError,
        HfHubHTTPError,
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
            f"{name}: not a model here, not in the Hub's cache, and the Hub can't be reached; check the connection and "
            "HF_HUB_OFFLINE"
        ) from None
    except EntryNotFoundError:
        raise InputError(f"{name}: the Hub has no config.json for it, so it is not a model in this layout") from None
    except (HfHubHTTPError, httpx.HTTPError) as error:
        first = (str(error) or type(error).__name__).splitlines()[0]
        raise InputError(f"{name}: the download broke off ({first}); the same command goes on with it") from None
    except OSError as error:
        raise InputError(
            f"{name}: could not be stored ({error.strerror or error}); make room and run it again"
        ) from None
