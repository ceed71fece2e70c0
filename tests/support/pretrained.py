"""Tiny random models of transformers with a tiny tokenizer, saved as folders and as GGUF files."""

import json
from functools import partial

from tokenizers import Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers

from engine.models.pretrained.base import read_tokenizer
from engine.models.pretrained.tokenizer import PretrainedTokenizer, SpecialTokens

CHAT_TEMPLATE = (
    "{% if messages[0]['role'] != 'system' %}<|im_start|>system\nYou help.<|im_end|>\n{% endif %}"
    "{% for m in messages %}<|im_start|>{{ m['role'] }}\n{{ m['content'] }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
TEXTS = [
    "Where is the Ring? It is safe, for tonight.",
    "Frodo has the precious. We wants it!",
    "user system assistant",
    "one\n\n\ntwo\n\n\nsix",
]
HOSTILE_TEMPLATES = {
    "{% for a in range(99999) %}{% for b in range(99999) %}{% endfor %}{% endfor %}": "it takes more than 1 seconds",
    "{{ 'A' * 10**10 }}": "it needs more than 1 GB of memory",
}  # chat templates without an end, with the reasons for which they are refused
HOSTILE_TOKENIZERS = (
    {"post_processor": {"type": "TemplateProcessing", "single": [{"SpecialToken": {"id": "[A]", "type_id": 0}}],
                        "pair": [{"Sequence": {"id": "A", "type_id": 0}}], "special_tokens": {}}},
    {"padding": {"strategy": {"Fixed": 10**11}, "direction": "Right", "pad_to_multiple_of": None, "pad_id": 0,
                 "pad_type_id": 0, "pad_token": "x"}},
)  # fmt: skip
"""Changes of a `tokenizer.json` for which the library panics, or ends the process."""
SPECIAL_TOKENS = ["<|endoftext|>", "<|im_start|>", "<|im_end|>"]
VOCABULARY_SIZE = 320
SPECIALS = SpecialTokens(start_id=0, end_id=2, end_ids=(2,), special_ids=(0, 1, 2))
SENTENCEPIECE_TOKENS = ["<unk>", "<s>", "</s>", *(f"<0x{byte:02X}>" for byte in range(256)), "▁", "a", "b", "▁a", "▁ab"]
WEIGHTS = "model.safetensors"
CONTEXT_SIZE = 64


def new_backend():
    """Return a tiny byte-level BPE tokenizer with ChatML's special tokens."""
    backend = Tokenizer(models.BPE())
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    backend.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=VOCABULARY_SIZE,
        special_tokens=SPECIAL_TOKENS,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    backend.train_from_iterator(TEXTS * 3, trainer)
    return backend


SLOW_WORD, FATAL_WORD = "a" * 22, "a" * 26  # the pattern takes 0.2 s for the first, and fails for the second


def slow_pre_tokenizer():
    """Return a pre-tokenizer by others whose pattern takes twice as long for each letter, up to a limit."""
    split = pre_tokenizers.Split(Regex(r"(\w+\w+)*!$|\s+"), "isolated")
    return pre_tokenizers.Sequence([split, pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)])


def slow_tokenizer():
    """Return a tokenizer with `slow_pre_tokenizer`."""
    backend = new_backend()
    backend.pre_tokenizer = slow_pre_tokenizer()
    return PretrainedTokenizer(backend.to_str(), VOCABULARY_SIZE, SPECIALS)


def new_sentencepiece():
    """Return a tokenizer as Llama 2 has it: a space is added before a text, and unknown characters become bytes."""
    vocabulary = {name: id for id, name in enumerate(SENTENCEPIECE_TOKENS)}
    merges = [("▁", "a"), ("▁a", "b")]
    backend = Tokenizer(models.BPE(vocab=vocabulary, merges=merges, unk_token="<unk>", byte_fallback=True))
    backend.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])
    backend.decoder = decoders.Sequence(
        [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 1, 0)]
    )
    backend.add_special_tokens(["<unk>", "<s>", "</s>"])
    return PretrainedTokenizer(backend.to_str(), len(vocabulary), SPECIALS)


def save_tokenizer(folder, **options):
    import transformers

    options = {"bos_token": "<|im_start|>", "eos_token": "<|im_end|>", "chat_template": CHAT_TEMPLATE} | options
    tokenizer = transformers.PreTrainedTokenizerFast(tokenizer_object=new_backend(), **options)
    tokenizer.save_pretrained(folder)
    return tokenizer


def save_model(folder, family, **options):
    """Save a two-layer random model of a family, with weights large enough that attention matters."""
    import torch
    import transformers

    from engine.models.pretrained.loading import silence_libraries

    silence_libraries()
    shared = {"vocab_size": VOCABULARY_SIZE, "initializer_range": 0.3, "bos_token_id": 1, "eos_token_id": 2}
    llama = {
        "hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4,
        "max_position_embeddings": CONTEXT_SIZE,
    }  # fmt: skip
    settings = {
        "llama": {**llama, "num_key_value_heads": 2, "tie_word_embeddings": True},
        "mistral": {**llama, "num_key_value_heads": 2, "sliding_window": 8},
        "qwen2": {**llama, "num_key_value_heads": 2, "tie_word_embeddings": False},
        "gpt_neox": llama,
        "gpt2": {"n_embd": 32, "n_layer": 2, "n_head": 4, "n_positions": CONTEXT_SIZE},
        "mamba": {"hidden_size": 32, "num_hidden_layers": 2, "state_size": 4},
        "gemma2": {**llama, "num_key_value_heads": 2, "head_dim": 8, "sliding_window": 8, "query_pre_attn_scalar": 8},
    }
    config = transformers.AutoConfig.for_model(family, **{**shared, **settings[family], **options})
    torch.manual_seed(5)
    model = transformers.AutoModelForCausalLM.from_config(config)
    for name, parameter in model.named_parameters():
        if name.endswith("proj.bias"):
            torch.nn.init.normal_(parameter)
    model.save_pretrained(folder)
    save_tokenizer(folder)
    return model.eval()


def token_reader(hf_tokenizer):
    texts = {key: text for key, text in hf_tokenizer.special_tokens_map.items() if isinstance(text, str)}
    first_id = next(iter(hf_tokenizer("a")["input_ids"]), None)
    return partial(read_tokenizer, hf_tokenizer.backend_tokenizer.to_str(), texts, first_id, hf_tokenizer.chat_template)


def load_gguf(path):
    """Return the model of a GGUF file as transformers reads it, to compare with."""
    import torch
    import transformers

    from engine.models.pretrained.loading import PretrainedModel

    tokenizer = transformers.AutoTokenizer.from_pretrained(path.parent, gguf_file=path.name)
    auto = transformers.AutoModelForCausalLM
    module = auto.from_pretrained(path.parent, gguf_file=path.name, dtype=torch.float32)
    return PretrainedModel(module.eval().requires_grad_(False), token_reader(tokenizer), f"gguf:{path}")


def save_llama(folder):
    import numpy as np
    from safetensors.numpy import save_file

    from engine.models.pretrained.base import read_config
    from engine.models.weights import weight_shapes

    config = {
        "model_type": "llama", "hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2,
        "num_key_value_heads": 1, "intermediate_size": 16, "tie_word_embeddings": True,
        "max_position_embeddings": CONTEXT_SIZE,
    }  # fmt: skip
    shapes = weight_shapes(read_config(config), VOCABULARY_SIZE)
    rng = np.random.default_rng(0)
    folder.mkdir()
    save_file({name: rng.normal(size=shape).astype(np.float32) for name, shape in shapes.items()}, folder / WEIGHTS)
    (folder / "config.json").write_text(json.dumps(config))
    (folder / "tokenizer.json").write_text(new_backend().to_str())
    texts = {"bos_token": "<|im_start|>", "eos_token": "<|im_end|>", "chat_template": CHAT_TEMPLATE}
    (folder / "tokenizer_config.json").write_text(json.dumps(texts))


def write_gguf(path, folder, architecture="llama", quantization="F32", *, edit=None, settings=None):
    """Write the model in `folder` as llama.cpp's converter does; matrices are quantized.

    `edit` changes the dictionary of tensors; `settings` add to the metadata, replace it, or with None remove it.
    """
    import gguf
    import numpy as np
    from safetensors.numpy import load_file

    config = json.loads((folder / "config.json").read_text())
    vocabulary = json.loads((folder / "tokenizer.json").read_text())
    heads, kv_heads = config["num_attention_heads"], config["num_key_value_heads"]
    tokens = sorted(vocabulary["model"]["vocab"], key=vocabulary["model"]["vocab"].get)
    special = {token["content"] for token in vocabulary["added_tokens"]}
    values = {
        f"{architecture}.context_length": config["max_position_embeddings"],
        f"{architecture}.embedding_length": config["hidden_size"],
        f"{architecture}.block_count": config["num_hidden_layers"],
        f"{architecture}.feed_forward_length": config["intermediate_size"],
        f"{architecture}.attention.head_count": heads, f"{architecture}.attention.head_count_kv": kv_heads,
        f"{architecture}.attention.layer_norm_rms_epsilon": config["rms_norm_eps"],
        f"{architecture}.rope.freq_base": config["rope_parameters"]["rope_theta"], "tokenizer.ggml.model": "gpt2",
        "tokenizer.ggml.pre": "smollm", "tokenizer.ggml.tokens": tokens,
        "tokenizer.ggml.token_type": [3 if token in special else 1 for token in tokens],
        "tokenizer.ggml.merges": [" ".join(merge) for merge in vocabulary["model"]["merges"]],
        "tokenizer.ggml.bos_token_id": 1, "tokenizer.ggml.eos_token_id": 2, "tokenizer.chat_template": CHAT_TEMPLATE,
        **(settings or {}),
    }  # fmt: skip
    tensors = {}
    names = gguf.get_tensor_name_map(gguf.MODEL_ARCH.LLAMA, config["num_hidden_layers"])  # the same for Qwen2
    for name, array in load_file(folder / WEIGHTS).items():
        stem = name.rpartition(".")[0]
        if architecture == "llama" and stem.endswith(("q_proj", "k_proj")):
            num_heads = heads if stem.endswith("q_proj") else kv_heads
            array = array.reshape(num_heads, 2, -1, *array.shape[1:]).swapaxes(1, 2).reshape(array.shape)
        tensors[names.get_name(name, try_suffixes=(".weight", ".bias"))] = array
    if edit is not None:
        edit(tensors)
    writer = gguf.GGUFWriter(str(path), architecture)
    add = {str: writer.add_string, bool: writer.add_bool, int: writer.add_uint32, float: writer.add_float32}
    for key, value in values.items():
        if value is not None:
            (writer.add_array if isinstance(value, list) else add[type(value)])(key, value)
    for name, array in tensors.items():
        type_ = gguf.GGMLQuantizationType[quantization if array.ndim == 2 else "F32"]
        writer.add_tensor(name, gguf.quants.quantize(np.ascontiguousarray(array), type_), raw_dtype=type_)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
