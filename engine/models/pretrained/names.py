"""Names of models by others: `smollm2`, `hf:FOLDER`, `hf:owner/name` and `gguf:FILE`. Nothing heavy is imported."""

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from engine.errors import InvalidInputError
from engine.storage.files import app_home

SMOLLM2 = "smollm2"
BASE_FILE = "base.json"  # describes a stored model, and in an adapter run the model it starts from
HF_PREFIX, GGUF_PREFIX = "hf:", "gguf:"
# `owner/name`, or `name` alone for old models such as gpt2
_HUB_ID_PATTERN = re.compile(r"(?!.*\.\.)(?=.{1,96}$)[A-Za-z0-9][\w.-]*(?:/[A-Za-z0-9][\w.-]*)?", re.ASCII)


@dataclass(frozen=True)
class PretrainedSource:
    name: str  # as the user gave it, with its prefix
    kind: Literal["folder", "hub", "gguf", "stored"]
    target: str  # path of the folder or file, identifier on the Hub, or name of a stored model

    @property
    def path(self) -> Path:
        return base_folder(self.target) if self.kind == "stored" else Path(self.target).expanduser()

    @property
    def short_name(self) -> str:
        """Name of the model without folders or the end `.gguf`, for titles."""
        return self.path.name.removesuffix(".gguf") or self.path.resolve().name or self.target


def base_folder(name: str) -> Path:
    """Return the folder in which a fetched model is stored, whether it is there or not."""
    return app_home() / "models" / name


def is_base_stored(name: str) -> bool:
    """Return True if a model has been fetched; its files may still be damaged."""
    return (base_folder(name) / BASE_FILE).is_file()


def is_pretrained_name(name: str | None) -> bool:
    """Return True if `name` names a model by others, and False for the name or path of a run."""
    return name is not None and (name == SMOLLM2 or name.startswith((HF_PREFIX, GGUF_PREFIX)))


def parse_pretrained_name(name: str) -> PretrainedSource:
    """Return the place of a model; an InvalidInputError if its folder or file does not exist.

    An `hf:` name that is a folder on this machine is that folder, and otherwise a model on the Hub.
    """
    if name == SMOLLM2:
        return PretrainedSource(name, "stored", name)
    prefix, _, target = name.partition(":")
    form = "gguf:FILE" if prefix == "gguf" else "hf:FOLDER or hf:owner/name"
    if not target:
        raise InvalidInputError(f"{name} names no model; write {form}")
    source = PretrainedSource(name, "gguf" if prefix == "gguf" else "folder", target)
    try:
        exists, is_folder = source.path.exists(), source.path.is_dir()
    except (OSError, RuntimeError, ValueError):  # too long, an unknown ~user, or with a zero byte
        exists = is_folder = False
    if exists and is_folder == (source.kind == "folder"):
        return source
    if exists:
        kind = "a folder" if is_folder else "a file, not a folder"
        raise InvalidInputError(f"{name} is {kind}; write {form if is_folder else f'{GGUF_PREFIX}{target}'}")
    if source.kind == "folder" and _HUB_ID_PATTERN.fullmatch(target):
        return PretrainedSource(name, "hub", target)
    raise InvalidInputError(f"{name}: there is no such {'file' if source.kind == 'gguf' else 'folder'}; write {form}")
