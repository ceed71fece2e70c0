"""Names of the models by others that are offered: used last, fetched, and in the local cache of Hugging Face."""

import os
from collections.abc import Sequence
from pathlib import Path

from engine.models.pretrained.names import HF_PREFIX, SMOLLM2, is_base_stored
from lotr_tui.session.settings import MAX_RECENT_MODELS

MAX_CACHED_MODELS = 50
"""Maximum number of models of the cache that are listed."""


def add_recent_model(name: str, recent: Sequence[str]) -> tuple[str, ...]:
    """Return the names of the models used last after another one was used, the latest first."""
    return (name, *(other for other in recent if other != name))[:MAX_RECENT_MODELS]


def known_model_names(recent: Sequence[str]) -> list[str]:
    """Return the names of the models used last, SmolLM2 if it was fetched, then the sorted names in the local cache."""
    fetched = [SMOLLM2] if is_base_stored(SMOLLM2) else []
    return list(dict.fromkeys([*recent, *fetched, *cached_model_names(hub_cache())]))


def hub_cache() -> Path:
    """Return the folder in which the libraries of Hugging Face keep models."""
    if cache := os.environ.get("HF_HUB_CACHE"):
        return Path(cache)
    default = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "huggingface"
    return Path(os.environ.get("HF_HOME") or default) / "hub"


def cached_model_names(cache: Path) -> list[str]:
    """Return the sorted names `hf:owner/name` of the models in a cache whose weights are in safetensors."""
    names = []
    try:
        for folder in sorted(cache.glob("models--*"))[:MAX_CACHED_MODELS]:
            if any(folder.glob("snapshots/*/*.safetensors")) and any(folder.glob("snapshots/*/config.json")):
                names.append(HF_PREFIX + folder.name.removeprefix("models--").replace("--", "/"))
    except OSError:  # an unreadable cache has no models
        pass
    return [name for name in names if name.isprintable()]
