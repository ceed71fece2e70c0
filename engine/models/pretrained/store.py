"""Pre-trained models by name, and those that are stored on the disk of a user, in 8 bits and ready to be mapped."""

import errno
import os
import shutil
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any, Literal

import msgspec
import numpy.typing as npt

from engine.config import ModelConfig
from engine.errors import InvalidInputError, RunError, describe_error
from engine.models.adapter import MergedWeights
from engine.models.matrices import check_weights
from engine.models.numpy_transformer import MAX_TRANSFORMER_WEIGHT
from engine.models.pretrained.base import Base, LazyTensors, ProgressCallback, hash_files
from engine.models.pretrained.chat import ChatTemplate, JinjaTemplate
from engine.models.pretrained.names import BASE_FILE, SMOLLM2, base_folder, parse_pretrained_name
from engine.models.pretrained.tokenizer import PretrainedTokenizer, SpecialTokens
from engine.models.transformer_layout import transformer_weight_shapes
from engine.runtime.process import silence_descriptors
from engine.storage.files import FileLock, fsync_path, read_limited
from engine.storage.schema import decode_json
from engine.storage.tensor_file import SCALE_SUFFIX, Int8Rows, TensorFile, check_tensors

TOKENIZER_FILE, WEIGHTS_FILE = "tokenizer.json", "model.safetensors"
MAX_FILE_BYTES = 64_000_000  # of the files without the weights


@dataclass(frozen=True)
class StoredBase:  # content of the file that describes a stored model
    version: Literal[1]
    name: str
    family: str
    config: ModelConfig
    sha256: str  # of the file that the model was converted from
    source: str  # of that file, in words
    num_tokens: int
    specials: SpecialTokens
    template: JinjaTemplate | None
    weights_bytes: int
    weights_sha256: str  # of the converted weights


@contextmanager
def locked_store() -> Iterator[Path]:
    folder = base_folder(SMOLLM2).parent
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with FileLock(folder / "lock"):
            yield folder
    except BlockingIOError as error:
        raise InvalidInputError(f"another process fetches a model into {folder}; wait until it has finished") from error
    except OSError as error:
        raise InvalidInputError(
            f"{folder} cannot be written: {error.strerror or error}; free some space, or set LOTR_TUI_HOME"
        ) from error


def store_base(base: Base, name: str, sha256: str, source: str) -> None:
    """Convert a model to 8 bits and store it as `name`, in place of an earlier one. Call this in `locked_store`.

    `sha256` is that of the model's file, and `source` says where it comes from.
    """
    from safetensors import SafetensorError
    from safetensors.numpy import save_file

    target = base_folder(name)
    folder, old = (target.with_name(f".{name}-{kind}") for kind in ("new", "old"))
    shutil.rmtree(folder, ignore_errors=True)  # of a process that was killed
    in_int8 = MergedWeights(base.config, base.weights, {}, int8=True)
    with ThreadPoolExecutor(os.cpu_count()) as threads:
        weights = dict(zip(in_int8, threads.map(in_int8.__getitem__, in_int8), strict=True))
    check_weights(weights, transformer_weight_shapes(base.config, len(base.tokenizer)), MAX_TRANSFORMER_WEIGHT)
    tensors: dict[str, npt.NDArray[Any]] = {}
    for tensor, part in weights.items():
        if isinstance(part, Int8Rows):
            tensors[tensor], tensors[tensor + SCALE_SUFFIX] = part.values, part.scales
        else:
            tensors[tensor] = part
    try:
        folder.mkdir()
        save_file(tensors, folder / WEIGHTS_FILE)
        (folder / TOKENIZER_FILE).write_text(base.tokenizer.to_json(), "utf-8")
        stored = StoredBase(
            version=1,
            name=name,
            family=base.family,
            config=base.config,
            sha256=sha256,
            source=source,
            num_tokens=len(base.tokenizer),
            specials=base.tokenizer.specials,
            template=base.chat.template if base.chat else None,
            weights_bytes=(folder / WEIGHTS_FILE).stat().st_size,
            weights_sha256=hash_files([folder / WEIGHTS_FILE]),
        )
        (folder / BASE_FILE).write_bytes(msgspec.json.encode(stored))
        for path in (*folder.iterdir(), folder):
            fsync_path(path)
        if target.exists():
            target.rename(old)
        folder.rename(target)
        fsync_path(target.parent)
    except SafetensorError as error:  # the library's name for a full disk, too
        raise OSError(errno.EIO, str(error)) from error
    finally:
        for leftover in (folder, old):
            shutil.rmtree(leftover, ignore_errors=True)


def read_base(name: str, on_progress: ProgressCallback | None = None) -> Base:
    """Return the pre-trained model `smollm2`, `gguf:FILE`, `hf:FOLDER` or `hf:owner/name`, without PyTorch.

    Its weights are read when they are needed. A model that only transformers can load raises an UnsupportedModelError,
    a missing or damaged one an InvalidInputError: one line that names it and the remedy.
    """
    if name == SMOLLM2:
        return read_stored_base(name)
    source = parse_pretrained_name(name)
    silence_descriptors()
    if source.kind == "gguf":  # what a kind of files needs is imported when one is read
        from engine.models.pretrained.gguf_file import read_gguf_base

        return read_gguf_base(source.path, name)
    from engine.models.pretrained.base_folder import fetch_folder, read_folder_base

    folder = source.path
    if source.kind == "hub":
        folder = fetch_folder(source.target, name, on_progress or (lambda progress: None))
    return read_folder_base(folder, name)


def read_stored_base(name: str, *, check_bytes: bool = False) -> Base:
    # Its size, names and shapes are checked, or with `check_bytes` all bytes.
    folder = base_folder(name)
    try:
        stored = decode_json(StoredBase, read_limited(folder / BASE_FILE, MAX_FILE_BYTES))
        content = read_limited(folder / TOKENIZER_FILE, MAX_FILE_BYTES).decode()
        tokenizer = PretrainedTokenizer(content, stored.num_tokens, stored.specials)
        file = TensorFile(folder / WEIGHTS_FILE)
        if (size := file.path.stat().st_size) != stored.weights_bytes:
            raise RunError(f"{WEIGHTS_FILE} has {size:,} bytes, not {stored.weights_bytes:,}")
        if check_bytes and hash_files([file.path]) != stored.weights_sha256:
            raise RunError(f"{WEIGHTS_FILE} has changed")
        shapes = transformer_weight_shapes(stored.config, stored.num_tokens)
        check_tensors(file.tensors, shapes)
    except FileNotFoundError as error:
        reason = "is damaged" if folder.exists() else "has not been fetched"
        raise InvalidInputError(f"{name} {reason}; run `lotr-tui fetch {name}`") from error
    except Exception as error:  # tokenizers raise `Exception` itself
        raise InvalidInputError(
            f"{name} is damaged ({describe_error(error).removesuffix('.')}); run `lotr-tui fetch {name}`"
        ) from error
    return Base(
        name,
        stored.family,
        (file.path,),
        stored.config,
        tokenizer,
        LazyTensors({tensor: partial(file.read_weight, tensor) for tensor in shapes}, file.release_pages),
        ChatTemplate(replace(stored.template, is_trusted=True), tokenizer) if stored.template else None,
        stored.sha256,
    )
