"""Tiny random models of transformers with a tiny tokenizer, saved as folders."""

from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

from engine.models.pretrained.loading import silence_libraries

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
SPECIAL_TOKENS = ["<|endoftext|>", "<|im_start|>", "<|im_end|>"]
VOCABULARY_SIZE = 320
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

    silence_libraries()
    shared = {"vocab_size": VOCABULARY_SIZE, "initializer_range": 0.3, "bos_token_id": 1, "eos_token_id": 2}
    llama = {
        "hidden_size": 32,
        "intermediate_size": 48,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "max_position_embeddings": CONTEXT_SIZE,
    }
    settings = {
        "llama": {**llama, "num_key_value_heads": 2, "tie_word_embeddings": True},
        "mistral": {**llama, "num_key_value_heads": 2, "sliding_window": 8},
        "gpt_neox": llama,
        "gpt2": {"n_embd": 32, "n_layer": 2, "n_head": 4, "n_positions": CONTEXT_SIZE},
        "mamba": {"hidden_size": 32, "num_hidden_layers": 2, "state_size": 4},
        "gemma2": {**llama, "num_key_value_heads": 2, "head_dim": 8, "sliding_window": 8, "query_pre_attn_scalar": 8},
    }
    config = transformers.AutoConfig.for_model(family, **{**shared, **settings[family], **options})
    torch.manual_seed(5)
    model = transformers.AutoModelForCausalLM.from_config(config)
    model.save_pretrained(folder)
    save_tokenizer(folder)
    return model.eval()
