"""Names of models by others: `smollm2`, `hf:FOLDER`, `hf:owner/name` and `gguf:FILE`. Nothing heavy is imported."""

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from engine.errors import InvalidInputError
from engine.storage.files import app_home

SMOLLM2 = "smollm2"
"""Name of the model that `lotr-tui fetch` stores, and that adapters start from."""
BASE_FILE = "base.json"
"""Description of a stored model, and in an adapter run that of the model it starts from."""
HF_PREFIX, GGUF_PREFIX = "hf:", "gguf:"
_HUB_ID_PATTERN = re.compile(r"[A-Za-z0-9][\w.-]*(?:/[A-Za-z0-9][\w.-]*)?", re.ASCII)
"""Identifier of a model on the Hugging Face Hub: `owner/name`, or `name` alone for old models such as gpt2."""
MAX_HUB_ID_LENGTH = 96


@dataclass(frozen=True)
class PretrainedSource:
    """The place that a model by others is loaded from."""

    name: str
    """Name as the user gave it, with its prefix."""
    kind: Literal["folder", "hub", "gguf", "stored"]
    target: str
    """Path of the folder or file, or identifier on the Hub, or name of a stored model."""

    @property
    def path(self) -> Path:
        """Path of the folder or file; relative to the current directory if the user gave it so."""
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
    """Return the place that `name` (see `is_pretrained_name`) loads a model from.

    An `hf:` name that is a folder on this machine is that folder, and otherwise a model on the Hub.

    Raises:
        InvalidInputError: If no path or identifier follows the prefix, or the folder or file does not exist.
    """
    if name == SMOLLM2:
        return PretrainedSource(name, "stored", name)
    if name.startswith(GGUF_PREFIX):
        source = PretrainedSource(name, "gguf", name.removeprefix(GGUF_PREFIX))
        if not source.target:
            raise InvalidInputError(f"{name} names no file; write gguf:FILE, such as gguf:models/smollm2.gguf")
        if not _exists(source.path):
            raise InvalidInputError(f"{name}: there is no such file; give the path of a GGUF file")
        if source.path.is_dir():
            raise InvalidInputError(f"{name} is a folder; give the path of a GGUF file in it, or hf:FOLDER")
        return source
    target = name.removeprefix(HF_PREFIX)
    if not target:
        raise InvalidInputError(f"{name} names no model; write hf:FOLDER or hf:owner/name")
    source = PretrainedSource(name, "folder", target)
    if _exists(source.path):
        if source.path.is_dir():
            return source
        hint = f"; write {GGUF_PREFIX}{target}" if target.endswith(".gguf") else "; give the folder that it is in"
        raise InvalidInputError(f"{name} is a file, not a folder{hint}")
    if not _HUB_ID_PATTERN.fullmatch(target) or len(target) > MAX_HUB_ID_LENGTH or ".." in target:
        raise InvalidInputError(f"{name}: there is no such folder; give the path of a folder, or hf:owner/name")
    return PretrainedSource(name, "hub", target)


def _exists(path: Path) -> bool:
    try:
        return path.exists()
    except (OSError, ValueError):  # too long, or with a zero byte
        return False
