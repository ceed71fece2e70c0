"""Export of a Transformer run as a GGUF file, which llama.cpp and Ollama play, and a Modelfile for Ollama beside it."""

import math
import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import IO, Any, Literal, NamedTuple

import gguf
import numpy as np
import numpy.typing as npt

from engine.config import ModelConfig
from engine.data.arrays import Float32Array
from engine.data.speakers import STRANGER, display_name
from engine.errors import RunError
from engine.models.numpy_transformer import pair_units
from engine.models.pretrained.base import VOCABULARY_TENSORS, UnsupportedModelError
from engine.models.pretrained.chat import script_chat_template
from engine.models.pretrained.gguf_file import (
    DEFAULT_ALIGNMENT,
    LAYER_NAMES,
    NAMES,
    PERMUTED_ARCHITECTURE,
    ROPE_FACTORS,
)
from engine.models.pretrained.gguf_vocabulary import vocabulary_metadata
from engine.models.transformer_layout import (
    head_size,
    inner_size,
    num_kv_heads,
    rotary_frequencies,
    transformer_weight_shapes,
)
from engine.runs.export import answering_name, export_vocabulary, load_transformer
from engine.storage.files import atomic_replace, check_is_new
from engine.storage.tensor_file import StoredTensor, to_float32

GGUFType = Literal["f16", "q8_0"]
"""Type of the matrices in a file: half precision, or 8 bits in blocks of 32."""
MODELFILE_SUFFIX = ".Modelfile"
_FILE_TYPES: dict[GGUFType, int] = {"f16": 1, "q8_0": 7}
_STEMS = {ours: theirs for theirs, ours in (NAMES | LAYER_NAMES).items()}


class _Tensor(NamedTuple):
    name: str
    shape: tuple[int, ...]
    type: gguf.GGMLQuantizationType
    read: Callable[[], Float32Array]
    """Computes it when it is written, so that one at a time is in memory."""


def export_gguf(run_dir: Path, file: Path, matrix_type: GGUFType = "f16") -> list[Path]:
    """Write the best model of a run for llama.cpp and Ollama; an adapter is merged into its base.

    A model of scripts gets their form as its chat template, the line feed as the token that ends a reply, and a
    Modelfile, with which `ollama create NAME -f FILE` makes it a model of Ollama. Matrices whose rows are no whole
    blocks are in half precision. Return the files that were written, which must be new.
    """
    modelfile = file.with_name(file.stem + MODELFILE_SUFFIX)
    for path in (file, modelfile):
        check_is_new(path, "file")
    loaded = load_transformer(run_dir, "--gguf", "llama.cpp")
    config, tokenizer = loaded.config.model, loaded.decoder.tokenizer
    vocabulary, answering = export_vocabulary(tokenizer), answering_name(loaded)
    try:
        tokens = vocabulary_metadata(vocabulary.tokenizer_json, len(tokenizer), vocabulary.special_ids, loaded.name)
    except UnsupportedModelError as error:
        raise RunError(f"{error}; export it with --hf DIR, or train with --tokenizer bpe") from error
    architecture = "qwen2" if config.qkv_bias else PERMUTED_ARCHITECTURE
    metadata = {
        "general.type": "model",
        "general.name": loaded.name,
        "general.file_type": _FILE_TYPES[matrix_type],
        **{f"{architecture}.{key}": value for key, value in _network_metadata(config).items()},
        f"{architecture}.vocab_size": len(tokenizer),
        **tokens,
        "tokenizer.ggml.bos_token_id": vocabulary.start_id,
        "tokenizer.ggml.eos_token_id": vocabulary.end_ids[0],
        "tokenizer.ggml.add_bos_token": True,
    }
    if answering is not None:
        metadata["tokenizer.ggml.eot_token_id"] = vocabulary.line_end_ids[0]
        metadata["tokenizer.chat_template"] = script_chat_template(loaded.cast)
    is_permuted = architecture == PERMUTED_ARCHITECTURE
    tensors = list(_tensors(config, loaded.decoder.tensors, vocabulary.rows, matrix_type, is_permuted=is_permuted))
    if config.rope_scaling == "llama3":  # what its scaling divides the rotary frequencies by
        factors = rotary_frequencies(replace(config, rope_scaling="none")) / rotary_frequencies(config)
        type_ = gguf.GGMLQuantizationType.F32
        tensors.append(_Tensor(ROPE_FACTORS, factors.shape, type_, lambda: factors.astype(np.float32)))
    try:
        with ExitStack() as files:
            if answering is not None:
                recipe = files.enter_context(atomic_replace(modelfile, exclusive=True))
                recipe.write(ollama_modelfile(file.name, answering, config.context_size).encode())
            _write(files.enter_context(atomic_replace(file, exclusive=True)), architecture, metadata, tensors)
    except OSError as error:
        raise RunError(f"cannot write {file}: {error.strerror}; free some space or choose another folder") from error
    return [file] if answering is None else [file, modelfile]


def ollama_modelfile(file_name: str, answering: str, context_size: int) -> str:
    """Return a Modelfile of Ollama for the GGUF file of a model of scripts, see `script_chat_template`.

    Ollama reads templates in the language of Go, and a line feed in quotes only as such.
    """
    return f'''\
FROM ./{file_name}
TEMPLATE """{{{{- $answering := "{answering}" }}}}{{{{ if .System }}}}{{{{ $answering = .System }}}}{{{{ end }}}}
{{{{- range .Messages }}}}
{{{{- if eq .Role "user" }}}}{display_name(STRANGER)}: {{{{ .Content }}}}
{{{{ else if eq .Role "assistant" }}}}{{{{ $answering }}}}: {{{{ .Content }}}}
{{{{ end }}}}
{{{{- end }}}}{{{{ $answering }}}}:"""
PARAMETER stop """
"""
PARAMETER num_ctx {context_size}
PARAMETER temperature 0.7
PARAMETER min_p 0.05
PARAMETER repeat_penalty 1.05
'''


def _network_metadata(config: ModelConfig) -> dict[str, Any]:
    """Return the settings of the network. Llama 3's scaling of rotary positions is a tensor instead."""
    size = head_size(config)
    settings: dict[str, Any] = {
        "context_length": config.context_size,
        "embedding_length": config.embedding_size,
        "block_count": config.num_layers,
        "feed_forward_length": inner_size(config),
        "attention.head_count": config.num_heads,
        "attention.head_count_kv": num_kv_heads(config),
        "attention.key_length": size,
        "attention.value_length": size,
        "attention.layer_norm_rms_epsilon": config.norm_eps,
        "rope.dimension_count": size,
        "rope.freq_base": config.rope_base,
    }
    if config.rope_scaling == "linear":
        settings |= {"rope.scaling.type": "linear", "rope.scaling.factor": config.rope_factor}
    return settings


def _tensors(
    config: ModelConfig,
    weights: Mapping[str, StoredTensor],
    rows: npt.NDArray[np.intp],
    matrix_type: GGUFType,
    *,
    is_permuted: bool,
) -> Iterable[_Tensor]:
    types, block_size = gguf.GGMLQuantizationType, gguf.GGML_QUANT_SIZES[gguf.GGMLQuantizationType.Q8_0][0]

    def read(name: str) -> Float32Array:
        tensor = to_float32(weights[name])
        if name in VOCABULARY_TENSORS:
            return tensor[rows]
        is_rotated = name.endswith(("q_proj.weight", "k_proj.weight"))
        return pair_units(tensor, head_size(config)) if is_permuted and is_rotated else tensor

    for name, shape in transformer_weight_shapes(config, len(rows)).items():
        is_in_blocks = matrix_type == "q8_0" and shape[-1] % block_size == 0
        type_ = types.F32 if len(shape) == 1 else types.Q8_0 if is_in_blocks else types.F16
        stem, _, kind = name.rpartition(".")
        layer = stem.removeprefix("model.layers.").split(".", 1) if stem not in _STEMS else None
        prefix = f"blk.{layer[0]}.{_STEMS[layer[1]]}" if layer else _STEMS[stem]
        yield _Tensor(f"{prefix}.{kind}", shape, type_, partial(read, name))


def _write(output: IO[bytes], architecture: str, metadata: Mapping[str, Any], tensors: Sequence[_Tensor]) -> None:
    """Write a file: the header by the package gguf, and then the tensors, with errors that name their cause."""
    writer = gguf.GGUFWriter(None, architecture)
    writer.add_quantization_version(gguf.GGML_QUANT_VERSION)
    add: dict[type, Callable[[str, Any], None]] = {
        str: writer.add_string, bool: writer.add_bool, int: writer.add_uint32, float: writer.add_float32,
    }  # fmt: skip
    for key, value in metadata.items():
        if isinstance(value, (list, np.ndarray)):
            writer.add_array(key, value if isinstance(value, list) else value.tolist())
        else:
            add[type(value)](key, value)
    for tensor in tensors:
        num_bytes = math.prod(gguf.quant_shape_to_byte_shape(tensor.shape, tensor.type))
        writer.add_tensor_info(tensor.name, tensor.shape, np.dtype(np.float32), num_bytes, tensor.type)
    try:
        writer.write_header_to_file(Path(output.name))
        writer.write_kv_data_to_file()
        writer.write_ti_data_to_file()
    finally:
        writer.close()
    output.seek(0, os.SEEK_END)
    for tensor in tensors:
        output.write(bytes(-output.tell() % DEFAULT_ALIGNMENT))
        output.write(gguf.quants.quantize(np.ascontiguousarray(tensor.read()), tensor.type).tobytes())
    output.write(bytes(-output.tell() % DEFAULT_ALIGNMENT))
