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
    path: Path  # of the folder or file; on the Hub the model's identifier

    @property
    def short_name(self) -> str:
        """Name of the model without folders or the end `.gguf`, for titles."""
        return self.path.name.removesuffix(".gguf") or self.path.resolve().name or self.name


def base_folder(name: str) -> Path:
    """Return the folder in which a fetched model is stored, whether it is there or not."""
    return app_home() / "models" / name


def is_base_stored(name: str) -> bool:
    """Return True if a model has been fetched; its files may still be damaged."""
    return (base_folder(name) / BASE_FILE).is_file()


def is_pretrained_name(name: str | None) -> bool:
    """Return True if `name` names a model by others, and False for the name or path of a run."""
    return name is not None and (name == SMOLLM2 or name.startswith((HF_PREFIX, GGUF_PREFIX)))


def short_name(name: str) -> str:
    """Return the name of a run or of a model by others without folders, for titles."""
    return parse_pretrained_name(name).short_name if is_pretrained_name(name) else Path(name).name


def parse_pretrained_name(name: str) -> PretrainedSource:
    """Return the place of a model; an InvalidInputError if its folder or file does not exist.

    An `hf:` name that is a folder on this machine is that folder, and otherwise a model on the Hub.
    """
    if name == SMOLLM2:
        return PretrainedSource(name, "stored", base_folder(name))
    is_gguf, target = name.startswith(GGUF_PREFIX), name.partition(":")[2]
    form, kind = ("gguf:FILE", "file") if is_gguf else ("hf:FOLDER or hf:owner/name", "folder")
    if not target:
        raise InvalidInputError(f"{name} names no model; write {form}")
    try:
        path = Path(target).expanduser()
        exists, is_folder = path.exists(), path.is_dir()
    except (OSError, RuntimeError, ValueError):  # too long, an unknown ~user, or with a zero byte
        exists = is_folder = False
    if exists and is_folder != is_gguf:
        return PretrainedSource(name, "gguf" if is_gguf else "folder", path)
    if exists:
        actual = "a folder" if is_folder else "a file, not a folder"
        raise InvalidInputError(f"{name} is {actual}; write {form if is_gguf else f'{GGUF_PREFIX}{target}'}")
    if not is_gguf and _HUB_ID_PATTERN.fullmatch(target):
        return PretrainedSource(name, "hub", Path(target))
    raise InvalidInputError(f"{name}: there is no such {kind}; write {form}")
