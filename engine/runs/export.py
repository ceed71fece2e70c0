"""Models of runs for other programs: folders for transformers, and GGUF files for llama.cpp and Ollama."""

import json
import os
from collections.abc import Mapping
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

import gguf
import numpy as np

from engine.config import ModelConfig
from engine.data.arrays import Float32Array
from engine.data.tokenizers import EOS, EOS_ID, UNK, Tokenizer
from engine.errors import RunError
from engine.models import dialogue, numpy_transformer
from engine.models import weights as layout
from engine.models.pretrained import base, chat, gguf_file
from engine.models.pretrained.names import BASE_FILE
from engine.runs import directory, loading
from engine.storage import files, tensor_file


class _Vocabulary:
    """Tokens as other programs know them. Ids are of the pre-trained model, or else of `Tokenizer.encode`."""

    def __init__(self, tokenizer: Tokenizer) -> None:
        from engine.models.pretrained.tokenizer import PretrainedTokenizer, to_hugging_face

        line_ends: list[int] = []
        if tokenizer.is_open:  # some put a space before a text
            line_ends = [*tokenizer.encode("\n").tolist()[-1:], *tokenizer.line_end_ids.tolist()]
        if isinstance(tokenizer, PretrainedTokenizer):
            specials, texts = tokenizer.specials, tokenizer.special_texts
            self.json = tokenizer.to_json()
            self.start_id, self.end_ids, self.special_ids = specials.start_id, specials.end_ids, specials.special_ids
            self.names = {"bos_token": texts[specials.start_id], "eos_token": texts[specials.end_id]}
            self.rows = tokenizer.swapped_ids.astype(np.intp)  # our ids in their order
            line_ends = tokenizer.swapped_ids[line_ends].tolist()
        else:
            self.json = to_hugging_face(tokenizer).to_str(pretty=True)
            self.start_id, self.end_ids, self.special_ids = EOS_ID, (EOS_ID,), (EOS_ID,)
            self.names = {"bos_token": EOS, "eos_token": EOS, "pad_token": EOS}
            self.rows = np.arange(len(tokenizer))
        # Of tokens with a line feed, the line feed itself first.
        self.line_end_ids = [id for id in dict.fromkeys(line_ends) if id not in self.end_ids]


def _load_transformer(run_dir: Path, option: str, program: str) -> tuple[loading.LoadedRun, str | None]:
    """Load a run in single precision, its adapter merged, and return also the chat template of a script."""
    architecture = directory.read_config(run_dir).model.architecture
    if architecture != "transformer":
        problem = f"run {run_dir.name!r} has architecture={architecture}, which {program} does not have"
        raise RunError(f"{problem}; {option} exports runs of transformers, as of `lotr-tui train --preset gpt-tiny`")
    loaded = loading.load_model(run_dir, precision="fp32")
    model = loaded.model
    return loaded, chat.script_chat_template(model.cast) if isinstance(model, dialogue.DialogueModel) else None


def export_hugging_face(run_dir: Path, folder: Path) -> None:
    """Write the best model with its adapter for transformers, whose logits are equal up to `context_size` tokens."""
    files.check_new_folder(folder)
    loaded, template = _load_transformer(run_dir, "--hf", "transformers")
    decoder = loaded.decoder
    files.write_folder(folder, hugging_face_files(loaded.config.model, decoder.tokenizer, decoder.weights, template))


def hugging_face_files(
    config: ModelConfig, tokenizer: Tokenizer, weights: Mapping[str, Float32Array], chat_template: str | None = None
) -> dict[str, bytes]:
    """Return name and content of the files that transformers needs; with a chat template, line feeds end replies."""
    from safetensors.numpy import save

    vocabulary = _Vocabulary(tokenizer)
    swapped = {name: weights[name][vocabulary.rows] for name in base.VOCABULARY_TENSORS if name in weights}
    ends = list(vocabulary.end_ids)
    network = _network_settings(config, len(tokenizer)) | {"bos_token_id": vocabulary.start_id, "eos_token_id": ends}
    generation = {"bos_token_id": vocabulary.start_id, "eos_token_id": ends, "pad_token_id": ends[0]}
    tokenizer_config: dict[str, Any] = {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "model_max_length": config.context_size,
        "model_input_names": ["input_ids", "attention_mask"],
        # A text that contains the name of a special token is read as a text, but a chat template writes such names.
        "split_special_tokens": chat_template is None,
        "clean_up_tokenization_spaces": False,
        **vocabulary.names,
    }
    if tokenizer.unk_id is not None:  # which no text has
        tokenizer_config["unk_token"], generation["suppress_tokens"] = UNK, [tokenizer.unk_id]
    if chat_template is not None:
        tokenizer_config["chat_template"] = chat_template
        generation["eos_token_id"] = [*ends, *vocabulary.line_end_ids]
    settings = {"tokenizer_config": tokenizer_config, "generation_config": generation, "config": network}
    return {
        "tokenizer.json": vocabulary.json.encode(),
        "model.safetensors": save({**weights, **swapped}, metadata={"format": "pt"}),
        **{f"{name}.json": json.dumps(content, indent=2).encode() + b"\n" for name, content in settings.items()},
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
        "rms_norm_eps": config.norm_eps,
        "rope_theta": config.rope_base,  # read by version 4, as is rope_scaling
        **({} if config.rope_scaling == "none" else {"rope_scaling": scaling}),
        "rope_parameters": {**scaling, "rope_theta": config.rope_base},  # read by version 5
        "tie_word_embeddings": config.tie_weights,
        "pad_token_id": None,
        "dtype": "float32",
    }


def export_peft(run_dir: Path, folder: Path) -> None:
    """Write the best adapter of a run for PEFT, in single precision, also if the run has it in 8 bits."""
    files.check_new_folder(folder)
    config = directory.read_config(run_dir).model
    if not config.lora_rank:
        raise RunError(f"run {run_dir.name!r} is no adapter; --peft exports runs of `lotr-tui finetune`")
    adapter = loading.read_adapter(run_dir, config, None)
    tensors = {name: tensor_file.to_float32(tensor) for name, tensor in adapter.items()}
    reference = directory.read_json(loading.BaseReference, run_dir / BASE_FILE)
    settings = loading.base_files(reference, config)[directory.ADAPTER_CONFIG_FILE]
    content = loading.serialize_adapter(tensors, run_dir)
    files.write_folder(folder, {directory.ADAPTER_CONFIG_FILE: settings, directory.ADAPTER_FILE: content})


def export_gguf(run_dir: Path, file: Path, matrix_type: Literal["f16", "q8_0"] = "f16") -> None:
    """Write the best model, its adapter merged, for llama.cpp and Ollama; rows of no whole blocks stay in f16."""
    if os.path.lexists(file):
        raise RunError(f"{file} exists, and nothing is overwritten; choose a new file")
    loaded, template = _load_transformer(run_dir, "--gguf", "llama.cpp")
    config, vocabulary = loaded.config.model, _Vocabulary(loaded.decoder.tokenizer)
    num_tokens, size = len(vocabulary.rows), layout.head_size(config)
    try:
        tokens = gguf_file.vocabulary_metadata(vocabulary.json, num_tokens, vocabulary.special_ids, loaded.name)
    except base.UnsupportedModelError as error:
        raise RunError(f"{error}; export it with --hf DIR, or train with --tokenizer bpe") from error
    settings = _network_settings(config, num_tokens)
    architecture = settings["model_type"]
    network = {theirs: settings[name] for theirs, name in gguf_file.SETTINGS.items() if name in settings}
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
    if template is not None:
        metadata["tokenizer.ggml.eot_token_id"] = vocabulary.line_end_ids[0]
        metadata["tokenizer.chat_template"] = template
    values, kinds = gguf.GGUFValueType, gguf.GGMLQuantizationType
    value_types = {str: values.STRING, bool: values.BOOL, int: values.UINT32, float: values.FLOAT32, list: values.ARRAY}
    permuted = ("q_proj.weight", "k_proj.weight") if architecture == gguf_file.PERMUTED_ARCHITECTURE else ()
    names = gguf.get_tensor_name_map(gguf.MODEL_ARCH.LLAMA, config.num_layers)
    try:
        # Each tensor is quantized when it is read, into a temporary file, so that one at a time is in memory.
        with (
            files.atomic_replace(file, exclusive=True) as output,
            closing(gguf.GGUFWriter(output.name, architecture, use_temp_file=True)) as writer,
        ):
            writer.add_quantization_version(gguf.GGML_QUANT_VERSION)
            for key, value in metadata.items():
                plain = value.tolist() if isinstance(value, np.ndarray) else value
                writer.add_key_value(key, plain, value_types[type(plain)])
            for name, shape in layout.weight_shapes(config, num_tokens).items():
                tensor = tensor_file.to_float32(loaded.decoder.tensors[name])
                if name in base.VOCABULARY_TENSORS:
                    tensor = tensor[vocabulary.rows]
                if name.endswith(permuted):
                    tensor = numpy_transformer.pair_units(tensor, size)
                is_in_blocks = matrix_type == "q8_0" and shape[-1] % gguf.GGML_QUANT_SIZES[kinds.Q8_0][0] == 0
                kind = kinds.F32 if len(shape) == 1 else kinds.Q8_0 if is_in_blocks else kinds.F16
                quantized = gguf.quants.quantize(np.ascontiguousarray(tensor), kind)
                writer.add_tensor(names.get_name(name, (".weight", ".bias")) or name, quantized, raw_dtype=kind)
            if config.rope_scaling == "llama3":  # what its scaling divides the rotary frequencies by
                unscaled = layout.rotary_frequencies(replace(config, rope_scaling="none"))
                factors = unscaled / layout.rotary_frequencies(config)
                writer.add_tensor(gguf_file.ROPE_FACTORS, factors.astype(np.float32))
            writer.write_header_to_file()
            writer.write_kv_data_to_file()
            writer.write_tensors_to_file()
    except OSError as error:
        reason = error.strerror or error  # numpy gives no errno
        raise RunError(f"cannot write {file}: {reason}; free some space or choose another folder") from error
