"""Copies of runs for other programs: folders for transformers, GGUF files for llama.cpp and Ollama, compact runs."""

import json
import math
import shutil
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any, Literal

import gguf
import numpy as np
import numpy.typing as npt

from engine.config import ModelConfig
from engine.data.arrays import Float32Array
from engine.data.speakers import STRANGER, display_name, first_to_answer
from engine.data.tokenizers.base import EOS, EOS_ID, UNK, Tokenizer
from engine.errors import RunError
from engine.events import Checkpointed, RecordedEvent, Sampled, Step, event_to_dict
from engine.models import transformer_layout as layout
from engine.models.numpy_transformer import pair_units
from engine.models.pretrained.base import VOCABULARY_TENSORS, UnsupportedModelError
from engine.models.pretrained.chat import script_chat_template
from engine.models.pretrained.gguf_file import PERMUTED_ARCHITECTURE, ROPE_FACTORS, SETTINGS, vocabulary_metadata
from engine.models.pretrained.names import BASE_FILE
from engine.runs import directory, loading
from engine.runs.metrics import read_events
from engine.storage.files import atomic_replace, check_is_new, write_folder
from engine.storage.tensor_file import SCALE_SUFFIX, quantize_rows, serialize_weights, to_float32

GGUFType = Literal["f16", "q8_0"]  # half precision, or 8 bits in blocks of 32
CompactPrecision = Literal["fp16", "int8"]

_COPIED_FILES = (BASE_FILE, directory.ADAPTER_CONFIG_FILE, *directory.DIALOGUE_FILES)
MAX_EVENTS: dict[type[RecordedEvent], int] = {Step: 200, Sampled: 50}
"""Number of events of a kind that a compact copy keeps; a chart has about as many columns as steps are kept."""


@dataclass(frozen=True)
class _Vocabulary:
    """Tokens as other programs know them. Ids are of the pre-trained model, or else of `Tokenizer.encode`."""

    tokenizer_json: str
    start_id: int
    start_text: str
    end_ids: tuple[int, ...]  # of tokens that end a text
    end_text: str  # of the first of them
    special_ids: tuple[int, ...]
    line_end_ids: tuple[int, ...]  # of tokens with a line feed, the line feed itself first
    rows: npt.NDArray[np.intp]  # our ids in their order

    @classmethod
    def of(cls, tokenizer: Tokenizer) -> "_Vocabulary":
        from engine.data.tokenizers.bpe import to_hugging_face
        from engine.models.pretrained.tokenizer import PretrainedTokenizer

        line_ends: list[int] = []
        if tokenizer.is_open:  # some put a space before a text
            line_ends = [*tokenizer.encode("\n").tolist()[-1:], *tokenizer.line_end_ids.tolist()]
        if isinstance(tokenizer, PretrainedTokenizer):
            specials, texts = tokenizer.specials, tokenizer.special_texts
            content, rows = tokenizer.to_json(), tokenizer.swapped_ids.astype(np.intp)
            start_id, end_ids, special_ids = specials.start_id, specials.end_ids, specials.special_ids
            start_text, end_text = texts[start_id], texts[specials.end_id]
            line_ends = tokenizer.swapped_ids[line_ends].tolist()
        else:
            content, rows = to_hugging_face(tokenizer).to_str(pretty=True), np.arange(len(tokenizer))
            start_id, end_ids, special_ids, start_text, end_text = EOS_ID, (EOS_ID,), (EOS_ID,), EOS, EOS
        line_end_ids = tuple(id for id in dict.fromkeys(line_ends) if id not in end_ids)
        return cls(content, start_id, start_text, end_ids, end_text, special_ids, line_end_ids, rows)


def _load_transformer(run_dir: Path, option: str, program: str) -> tuple[loading.LoadedRun, str | None]:
    """Load a run in single precision, its adapter merged, and return also who answers until someone is named."""
    architecture = directory.read_config(run_dir).model.architecture
    if architecture != "transformer":
        raise RunError(
            f"run {run_dir.name!r} has architecture={architecture}, which {program} does not have; "
            f"{option} exports runs with architecture=transformer, such as those of `lotr-tui train --preset gpt-tiny`"
        )
    loaded = loading.load_model(run_dir, precision="fp32")
    return loaded, display_name(first_to_answer(loaded.cast)) if loaded.cast else None


def export_hugging_face(run_dir: Path, folder: Path) -> None:
    """Write the best model of a run in the layout of Hugging Face's transformers.

    `AutoModelForCausalLM` and `AutoTokenizer` load the folder without remote code. The logits equal those of the run
    for texts of at most `context_size` tokens; transformers has no counterpart of the sliding window. An adapter is
    merged into its base. Token ids are those of the base, or else equal those of `Tokenizer.encode`, with `<eos>`
    before them, which starts a text. The folder must be new, and appears once it is complete.
    """
    check_is_new(folder)
    loaded, answering = _load_transformer(run_dir, "--hf", "transformers")
    tokenizer, weights = loaded.decoder.tokenizer, loaded.decoder.weights
    template = None if answering is None else script_chat_template(loaded.cast)
    num_parameters = sum(weight.size for weight in weights.values())
    facts, text = [f"It has {num_parameters:,} parameters and needs no remote code."], '"Where is"'
    if tokenizer.name == "pretrained":
        base = loading.read_reference(loaded.path).name
        facts.append(f"It is {base}, which was trained on other text, trained further.")
    if loaded.bits_per_character:
        facts.append(f"On its validation text it has {loaded.bits_per_character:.3f} bits per character.")
    if answering is not None:
        text = '[{"role": "user", "content": "Where is the Ring?"}]'
        facts.append(
            f"A stranger speaks and {answering} answers, one message a line. A system message that is a name says who "
            "answers instead, and the field `name` of a message who says it."
        )
    card = _MODEL_CARD.format(name=loaded.name, facts="\n".join(f"- {fact}" for fact in facts), text=text)
    contents = hugging_face_files(loaded.config.model, tokenizer, weights, template)
    write_folder(folder, {**contents, "README.md": card.encode()})


def hugging_face_files(
    config: ModelConfig, tokenizer: Tokenizer, weights: Mapping[str, Float32Array], chat_template: str | None = None
) -> dict[str, bytes]:
    """Return name and content of the files that transformers needs; with a chat template, line feeds end replies."""
    from safetensors.numpy import save

    vocabulary = _Vocabulary.of(tokenizer)
    weights = {name: each[vocabulary.rows] if name in VOCABULARY_TENSORS else each for name, each in weights.items()}
    tokens = {"bos_token": vocabulary.start_text, "eos_token": vocabulary.end_text}
    tokens |= {} if tokenizer.name == "pretrained" else {"pad_token": EOS}
    tokens |= {} if tokenizer.unk_id is None else {"unk_token": UNK}
    start_id, end_ids = vocabulary.start_id, list(vocabulary.end_ids)
    end_id = end_ids[0] if len(end_ids) == 1 else end_ids
    reply_ends = end_id if chat_template is None else [*end_ids, *vocabulary.line_end_ids]
    # A text starts and ends with special tokens, and has no `<unk>`.
    suppressed = {} if tokenizer.unk_id is None else {"suppress_tokens": [tokenizer.unk_id]}
    tokenizer_config = {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "model_max_length": config.context_size,
        "model_input_names": ["input_ids", "attention_mask"],
        **tokens,
        # A text that contains the name of a special token is read as a text, but a chat template writes such names.
        "split_special_tokens": chat_template is None,
        "clean_up_tokenization_spaces": False,
        **({} if chat_template is None else {"chat_template": chat_template}),
    }
    settings = {
        "config.json": _network_settings(config, len(tokenizer)) | {"bos_token_id": start_id, "eos_token_id": end_id},
        "generation_config.json": {
            "bos_token_id": start_id, "eos_token_id": reply_ends, "pad_token_id": end_ids[0], **suppressed,
        },
        "tokenizer_config.json": tokenizer_config,
    }  # fmt: skip
    return {
        **{name: json.dumps(content, indent=2).encode() + b"\n" for name, content in settings.items()},
        "tokenizer.json": vocabulary.tokenizer_json.encode(),
        "model.safetensors": save(dict(weights), metadata={"format": "pt"}),
    }


def _network_settings(config: ModelConfig, vocabulary_size: int) -> dict[str, Any]:
    """Return the settings for transformers 4.50 or later: a Llama, or with biases a Qwen2."""
    scaling: dict[str, Any] = {"rope_type": "default"}
    if config.rope_scaling != "none":
        scaling = {"rope_type": config.rope_scaling, "factor": config.rope_factor}
    if config.rope_scaling == "llama3":
        scaling |= {
            "low_freq_factor": layout.LLAMA3_LOW_FACTOR,
            "high_freq_factor": layout.LLAMA3_HIGH_FACTOR,
            "original_max_position_embeddings": config.rope_original_context,
        }
    return {
        "architectures": ["Qwen2ForCausalLM" if config.qkv_bias else "LlamaForCausalLM"],
        "model_type": "qwen2" if config.qkv_bias else "llama",
        "vocab_size": vocabulary_size,
        "hidden_size": config.embedding_size,
        "intermediate_size": layout.inner_size(config),
        "num_hidden_layers": config.num_layers,
        "num_attention_heads": config.num_heads,
        "num_key_value_heads": layout.num_kv_heads(config),
        "head_dim": layout.head_size(config),
        "max_position_embeddings": config.context_size,
        "hidden_act": "silu",
        "rms_norm_eps": config.norm_eps,
        "rope_theta": config.rope_base,  # read by version 4, as is rope_scaling
        **({} if config.rope_scaling == "none" else {"rope_scaling": scaling}),
        "rope_parameters": {**scaling, "rope_theta": config.rope_base},  # read by version 5
        "attention_bias": False,
        "mlp_bias": False,
        "tie_word_embeddings": config.tie_weights,
        "pad_token_id": None,
        "dtype": "float32",
    }


_MODEL_CARD = """\
---
library_name: transformers
pipeline_tag: text-generation
---

# {name}, trained with lotr-tui

{facts}

```python
from transformers import pipeline

generate = pipeline("text-generation", ".")
print(generate({text}, do_sample=True, temperature=0.7, min_p=0.05, max_new_tokens=100))
```
"""


def export_gguf(run_dir: Path, file: Path, matrix_type: GGUFType = "f16") -> list[Path]:
    """Write the best model of a run for llama.cpp and Ollama; an adapter is merged into its base.

    A model of scripts gets their form as its chat template, the line feed as the token that ends a reply, and a
    Modelfile, with which `ollama create NAME -f FILE` makes it a model of Ollama. Matrices whose rows are no whole
    blocks are in half precision. Return the files that were written, which must be new.
    """
    modelfile = file.with_name(f"{file.stem}.Modelfile")
    for path in (file, modelfile):
        check_is_new(path, "file")
    loaded, answering = _load_transformer(run_dir, "--gguf", "llama.cpp")
    config, vocabulary = loaded.config.model, _Vocabulary.of(loaded.decoder.tokenizer)
    num_tokens, size = len(vocabulary.rows), layout.head_size(config)
    try:
        tokens = vocabulary_metadata(vocabulary.tokenizer_json, num_tokens, vocabulary.special_ids, loaded.name)
    except UnsupportedModelError as error:
        raise RunError(f"{error}; export it with --hf DIR, or train with --tokenizer bpe") from error
    settings = _network_settings(config, num_tokens)
    architecture = settings["model_type"]
    network = {theirs: settings[name] for theirs, name in SETTINGS.items() if name in settings}
    network |= {"vocab_size": num_tokens, "attention.value_length": size, "rope.dimension_count": size}
    if config.rope_scaling == "linear":
        network |= {"rope.scaling.type": "linear", "rope.scaling.factor": config.rope_factor}
    metadata = {
        "general.type": "model",
        "general.name": loaded.name,
        "general.file_type": {"f16": 1, "q8_0": 7}[matrix_type],
        **{f"{architecture}.{key}": value for key, value in network.items()},
        **tokens,
        "tokenizer.ggml.bos_token_id": vocabulary.start_id,
        "tokenizer.ggml.eos_token_id": vocabulary.end_ids[0],
        "tokenizer.ggml.add_bos_token": True,
    }
    if answering is not None:
        metadata["tokenizer.ggml.eot_token_id"] = vocabulary.line_end_ids[0]
        metadata["tokenizer.chat_template"] = script_chat_template(loaded.cast)

    def read(name: str) -> Float32Array:
        tensor = to_float32(loaded.decoder.tensors[name])
        if name in VOCABULARY_TENSORS:
            return tensor[vocabulary.rows]
        is_paired = architecture == PERMUTED_ARCHITECTURE and name.endswith(("q_proj.weight", "k_proj.weight"))
        return pair_units(tensor, size) if is_paired else tensor

    names = gguf.get_tensor_name_map(gguf.MODEL_ARCH.LLAMA, config.num_layers)
    tensors: dict[str, tuple[tuple[int, ...], Callable[[], Float32Array]]] = {
        names.get_name(name, (".weight", ".bias")) or name: (shape, partial(read, name))
        for name, shape in layout.transformer_weight_shapes(config, num_tokens).items()
    }
    if config.rope_scaling == "llama3":  # what its scaling divides the rotary frequencies by
        factors = layout.rotary_frequencies(replace(config, rope_scaling="none")) / layout.rotary_frequencies(config)
        tensors[ROPE_FACTORS] = factors.shape, lambda: factors.astype(np.float32)
    try:
        with ExitStack() as files:
            if answering is not None:
                recipe = files.enter_context(atomic_replace(modelfile, exclusive=True))
                recipe.write(_ollama_modelfile(file.name, answering, config.context_size).encode())
            output = files.enter_context(atomic_replace(file, exclusive=True))
            _write_gguf(Path(output.name), architecture, metadata, tensors, matrix_type)
    except OSError as error:
        reason = error.strerror or error  # numpy gives no errno
        raise RunError(f"cannot write {file}: {reason}; free some space or choose another folder") from error
    return [file] if answering is None else [file, modelfile]


def _write_gguf(
    path: Path,
    architecture: str,
    metadata: Mapping[str, Any],
    tensors: Mapping[str, tuple[tuple[int, ...], Callable[[], Float32Array]]],
    matrix_type: GGUFType,
) -> None:
    # Each tensor is read when it is written, so that one at a time is in memory.
    kinds, values = gguf.GGMLQuantizationType, gguf.GGUFValueType
    value_types = {str: values.STRING, bool: values.BOOL, int: values.UINT32, float: values.FLOAT32}
    writer = gguf.GGUFWriter(path, architecture)
    writer.add_quantization_version(gguf.GGML_QUANT_VERSION)
    for key, value in metadata.items():
        if isinstance(value, (list, np.ndarray)):
            writer.add_array(key, value if isinstance(value, list) else value.tolist())
        else:
            writer.add_key_value(key, value, value_types[type(value)])
    types = {}
    for name, (shape, _) in tensors.items():
        is_in_blocks = matrix_type == "q8_0" and shape[-1] % gguf.GGML_QUANT_SIZES[kinds.Q8_0][0] == 0
        types[name] = kinds.F32 if len(shape) == 1 else kinds.Q8_0 if is_in_blocks else kinds.F16
        num_bytes = math.prod(gguf.quant_shape_to_byte_shape(shape, types[name]))
        writer.add_tensor_info(name, shape, np.dtype(np.float32), num_bytes, types[name])
    try:
        writer.write_header_to_file()
        writer.write_kv_data_to_file()
        writer.write_ti_data_to_file()
        for name, (_, read) in tensors.items():
            writer.write_tensor_data(gguf.quants.quantize(np.ascontiguousarray(read()), types[name]))
    finally:
        writer.close()


def _ollama_modelfile(file_name: str, answering: str, context_size: int) -> str:
    # Ollama reads templates in the language of Go, and a line feed in quotes only as such.
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


def write_compact_copy(run_dir: Path, folder: Path, precision: CompactPrecision) -> tuple[int, int, int]:
    """Write a copy of a run that is as small as possible and can be played and evaluated, but not resumed.

    The matrices are stored in half precision, or in 8 bits with one scale per row; all other tensors are unchanged.
    The folder must be new, and appears once it is complete. Return sizes in bytes: of the weights before and after, and
    of all files.
    """
    check_is_new(folder)
    config = directory.read_config(run_dir)
    contents = {name: _thin_events(run_dir / name) for name in (directory.METRICS_FILE, directory.SAMPLES_FILE)}
    contents[directory.CONFIG_FILE] = config.to_json().encode()
    contents |= {name: file.read_bytes() for name in _COPIED_FILES if (file := run_dir / name).is_file()}
    if config.model.lora_rank:
        weights_file, adapter = directory.ADAPTER_FILE, loading.read_adapter(run_dir, config.model)
        tensors = _compact_tensors({name: to_float32(tensor) for name, tensor in adapter.items()}, precision)
        contents[weights_file] = loading.serialize_adapter(tensors, loading.read_reference(run_dir).sha256)
    else:
        weights_file, decoder = directory.MODEL_FILE, loading.load_model(run_dir).decoder
        contents |= loading.tokenizer_files(decoder.tokenizer)
        contents[weights_file] = serialize_weights(_compact_tensors(decoder.weights, precision))
    write_folder(folder, contents)
    # The time of the configuration is the start of the training.
    shutil.copystat(run_dir / directory.CONFIG_FILE, folder / directory.CONFIG_FILE)
    before = (run_dir / weights_file).stat().st_size
    return before, len(contents[weights_file]), sum(map(len, contents.values()))


def _compact_tensors(weights: Mapping[str, Float32Array], precision: CompactPrecision) -> dict[str, npt.NDArray[Any]]:
    tensors: dict[str, npt.NDArray[Any]] = {}
    for name, weight in weights.items():
        if weight.ndim != 2 or name.startswith("punctuation_softmax."):
            tensors[name] = weight
        elif precision == "int8":
            tensors[name], tensors[name + SCALE_SUFFIX] = quantize_rows(weight)
        else:
            if (largest := float(np.abs(weight).max())) > float(np.finfo(np.float16).max):
                raise RunError(f"{name} holds {largest:g}, too large for half precision; use --precision int8")
            tensors[name] = weight.astype(np.float16)
    return tensors


def _thin_events(path: Path) -> bytes:
    """Return the lines of a file of events with fewer steps and samples, and the last event about the best weights."""
    events = list(read_events(path))
    numbers: dict[type[RecordedEvent], list[int]] = {}
    for number, event in enumerate(events):
        if not isinstance(event, Checkpointed) or event.file in directory.WEIGHT_FILES:
            numbers.setdefault(type(event), []).append(number)
    kept = set(numbers.pop(Checkpointed, [])[-1:])
    for kind, candidates in numbers.items():
        count = min(len(candidates), MAX_EVENTS.get(kind, len(candidates)))
        kept.update(candidates[round(index)] for index in np.linspace(0, len(candidates) - 1, count))
    return b"".join(json.dumps(event_to_dict(events[number])).encode() + b"\n" for number in sorted(kept))
