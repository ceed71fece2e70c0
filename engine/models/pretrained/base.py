"""Pre-trained models that are played and adapted without PyTorch: read by name, and stored in 8 bits to be mapped."""

import errno
import hashlib
import math
import os
import shutil
from collections import UserDict
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import cached_property, partial
from pathlib import Path
from typing import Any, Literal

import msgspec
import numpy.typing as npt

from engine.config import ModelConfig
from engine.errors import InvalidInputError, RunError, describe_error
from engine.models.adapter import MergedWeights
from engine.models.matrices import check_weights
from engine.models.numpy_transformer import MAX_TRANSFORMER_WEIGHT, NumpyTransformer
from engine.models.pretrained.chat import ChatTemplate, JinjaTemplate
from engine.models.pretrained.names import BASE_FILE, SMOLLM2, base_folder, parse_pretrained_name
from engine.models.pretrained.tokenizer import PretrainedTokenizer, SpecialTokens
from engine.models.transformer_layout import transformer_weight_shapes
from engine.runtime.process import silence_descriptors
from engine.storage.files import decode, fsync_path, parse_json, read_limited
from engine.storage.tensor_file import SCALE_SUFFIX, Int8Rows, StoredTensor, TensorFile, check_tensors

VOCABULARY_TENSORS = ("model.embed_tokens.weight", "lm_head.weight")  # with one row per token
INT8_FACTOR, FP32_FACTOR = 2.5, 9.0  # peak memory in bytes of loading one weight, in 8 bits and in single precision
TOKENIZER_FILE, WEIGHTS_FILE = "tokenizer.json", "model.safetensors"
MAX_FILE_BYTES = 64_000_000  # of the files without the weights


@dataclass(frozen=True)
class LoadingProgress:
    text: str  # such as "reading the weights"
    memory_bytes: int | None = None  # that the model needs; None before it is known


ProgressCallback = Callable[[LoadingProgress], None]


class UnsupportedModelError(InvalidInputError):
    """Error for a model by others that only transformers can load."""


class LazyTensors(UserDict[str, Any]):
    """Tensors by name that a function reads from a file at every access, so that one at a time is in memory."""

    def __init__(
        self, readers: Mapping[str, Callable[[], StoredTensor]], release_pages: Callable[[], None] = lambda: None
    ) -> None:
        super().__init__(readers)
        self.release_pages = release_pages  # gives the memory of mapped files back

    def __getitem__(self, name: str) -> StoredTensor:
        tensor: StoredTensor = self.data[name]()
        return tensor


@dataclass(frozen=True)
class Base:
    """A pre-trained model, read from files by `read_base`."""

    name: str  # as the user gave it
    family: str  # architecture and size, such as "SmolLM2 135M"
    files: tuple[Path, ...]  # of the weights
    config: ModelConfig
    tokenizer: PretrainedTokenizer
    weights: LazyTensors  # as `transformer_weight_shapes` lists them; rows of the vocabulary are in our order
    chat: ChatTemplate | None
    stored_sha256: str = ""  # if it is known without reading the files

    @cached_property
    def sha256(self) -> str:
        """SHA-256 of the content of the files of the weights, one after the other; of a stored model, of its source."""
        return self.stored_sha256 or hash_files(self.files)

    @cached_property
    def shapes(self) -> dict[str, tuple[int, ...]]:
        return transformer_weight_shapes(self.config, len(self.tokenizer))

    @property
    def description(self) -> str:
        num_parameters = sum(map(math.prod, self.shapes.values()))
        return describe_model(self.family, self.config.num_layers, self.config.embedding_size, num_parameters)

    def for_scripts(self) -> "Base":
        """Return the same model as one that reads and writes scripts, and has no chat template."""
        return replace(self, tokenizer=self.tokenizer.for_scripts(), chat=None)

    def decoder(
        self,
        *,
        int8: bool,
        on_progress: ProgressCallback | None = None,
        config: ModelConfig | None = None,
        adapter: Mapping[str, StoredTensor] | None = None,
    ) -> NumpyTransformer:
        """Return the model, changed by the adapter of a run with `config` if there is one, in 8 bits or in float32.

        Damaged weights, or too many for the free memory, raise an InvalidInputError.
        """
        required = int((INT8_FACTOR if int8 else FP32_FACTOR) * sum(map(math.prod, self.shapes.values())))
        check_memory(self.name, required)
        if on_progress is not None:
            text = f"merging the adapter into {self.family}" if adapter else "reading the weights"
            on_progress(LoadingProgress(text, required))
        config = config or self.config
        with self._refuse_damage():
            weights = MergedWeights(config, self.weights, adapter or {}, int8=int8)
            decoder = NumpyTransformer(config, self.tokenizer, weights, chat=self.chat)
        self.weights.release_pages()
        return decoder

    def check_weights(self) -> None:
        """Raise an InvalidInputError if a weight is not finite, or huge. This reads all of them."""
        with self._refuse_damage():
            check_weights(self.weights, self.shapes, MAX_TRANSFORMER_WEIGHT)

    @contextmanager
    def _refuse_damage(self) -> Iterator[None]:
        try:
            yield
        except MemoryError as error:
            raise InvalidInputError(f"{self.name} does not fit into the free memory; close other programs") from error
        except InvalidInputError as error:
            reason = str(error).removesuffix("; the run is damaged")
            raise InvalidInputError(f"{self.name}: {reason}; fetch it again") from error


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
    from engine.models.pretrained.folder import find_folder, read_folder_base

    return read_folder_base(find_folder(source, on_progress or (lambda progress: None)), name)


def hash_files(files: Iterable[Path]) -> str:
    digest = hashlib.sha256()
    for path in files:
        with path.open("rb") as file:
            hashlib.file_digest(file, lambda: digest)
    return digest.hexdigest()


def check_memory(name: str, required: int) -> None:
    """Raise an InvalidInputError if loading a model takes more memory than is free on this machine."""
    import psutil

    if required > (free := psutil.virtual_memory().available):
        raise InvalidInputError(
            f"{name} needs {format_bytes(required)} of memory, and {format_bytes(free)} are free; "
            "choose a smaller model, or close other programs"
        )


def format_bytes(size: int) -> str:
    return f"{size / 1e9:,.1f} GB" if size >= 1e9 else f"{size / 1e6:,.0f} MB"


def describe_model(family: str, num_layers: int | None, width: int | None, num_parameters: int) -> str:
    """Return family, layers and size, such as "Llama · 30 layers of 576 · 135 M parameters"."""
    layers = f" · {num_layers} layers of {width:,}" if num_layers and width else ""
    millions = num_parameters / 1e6
    size = f"{millions:.1f} M" if millions >= 0.1 else f"{num_parameters:,}"
    if millions >= 10:
        size = f"{millions / 1000:.1f} B" if millions >= 1000 else f"{millions:.0f} M"
    return f"{family}{layers} · {size} parameters"


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


def store_base(base: Base, name: str, sha256: str, source: str) -> None:
    """Convert a model to 8 bits and store it as `name`, in place of a damaged one, while no other process does.

    `sha256` is that of the model's file, and `source` says where it comes from.
    """
    from safetensors import SafetensorError
    from safetensors.numpy import save_file

    target = base_folder(name)
    folder = target.with_name(f".{name}-new")
    shutil.rmtree(folder, ignore_errors=True)  # of a process that was killed
    in_int8 = MergedWeights(base.config, base.weights, {}, int8=True)
    with ThreadPoolExecutor(os.cpu_count()) as threads:
        weights = dict(zip(in_int8, threads.map(in_int8.__getitem__, in_int8), strict=True))
    check_weights(weights, base.shapes, MAX_TRANSFORMER_WEIGHT)
    tensors: dict[str, npt.NDArray[Any]] = {}
    for tensor, part in weights.items():
        if isinstance(part, Int8Rows):
            tensors[tensor], tensors[tensor + SCALE_SUFFIX] = part
        else:
            tensors[tensor] = part
    try:
        folder.mkdir()
        save_file(tensors, file := folder / WEIGHTS_FILE)
        (folder / TOKENIZER_FILE).write_text(base.tokenizer.to_json(), "utf-8")
        num_tokens, template = len(base.tokenizer), base.chat.template if base.chat else None
        facts = name, base.family, base.config, sha256, source, num_tokens, base.tokenizer.specials, template
        stored = StoredBase(1, *facts, file.stat().st_size, hash_files([file]))
        (folder / BASE_FILE).write_bytes(msgspec.json.encode(stored))
        for path in (*folder.iterdir(), folder):
            fsync_path(path)
        shutil.rmtree(target, ignore_errors=True)
        folder.rename(target)
        fsync_path(target.parent)
    except SafetensorError as error:  # the library's name for a full disk, too
        raise OSError(errno.EIO, str(error)) from error
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def read_stored_base(name: str, *, check_bytes: bool = False) -> Base:
    # Its size, names and shapes are checked, or with `check_bytes` all bytes.
    folder = base_folder(name)
    try:
        stored = decode(StoredBase, parse_json(read_limited(folder / BASE_FILE, MAX_FILE_BYTES)))
        content = read_limited(folder / TOKENIZER_FILE, MAX_FILE_BYTES).decode()
        tokenizer = PretrainedTokenizer(content, stored.num_tokens, stored.specials)
        file = TensorFile(folder / WEIGHTS_FILE)
        if (size := file.path.stat().st_size) != stored.weights_bytes:
            raise RunError(f"{WEIGHTS_FILE} has {size:,} bytes, not {stored.weights_bytes:,}")
        if check_bytes and hash_files([file.path]) != stored.weights_sha256:
            raise RunError(f"{WEIGHTS_FILE} has changed")
        shapes = transformer_weight_shapes(stored.config, stored.num_tokens)
        check_tensors(file.tensors, shapes)
    except Exception as error:  # tokenizers raise `Exception` itself
        reason = (
            f"is damaged ({describe_error(error).removesuffix('.')})" if folder.exists() else "has not been fetched"
        )
        raise InvalidInputError(f"{name} {reason}; run `lotr-tui fetch {name}`") from error
    readers = {tensor: partial(file.read_weight, tensor) for tensor in shapes}
    weights = LazyTensors(readers, file.release_pages)
    chat = ChatTemplate(replace(stored.template, is_trusted=True), tokenizer) if stored.template else None
    return Base(name, stored.family, (file.path,), stored.config, tokenizer, weights, chat, stored.sha256)
