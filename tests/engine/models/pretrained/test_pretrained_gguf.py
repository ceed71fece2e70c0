import contextlib

import numpy as np
import pytest

from engine.data.tokenizers.base import EOS_ID
from engine.errors import InvalidInputError
from engine.models.pretrained import gguf_file, loading
from engine.models.pretrained.loading import load_pretrained
from engine.models.pretrained.names import parse_pretrained_name
from tests.support.pretrained import check_refused

pytest.importorskip("transformers")


def write_gguf(path, **changes):
    """Write a GGUF file of a one-layer Llama."""
    gguf = pytest.importorskip("gguf")
    writer = gguf.GGUFWriter(str(path), changes.get("architecture", "llama"))
    width, vocabulary = 32, 12
    writer.add_name("tiny")
    writer.add_context_length(64)
    writer.add_embedding_length(width)
    writer.add_block_count(1)
    writer.add_feed_forward_length(48)
    writer.add_head_count(4)
    writer.add_head_count_kv(4)
    writer.add_rope_freq_base(10_000.0)
    writer.add_layer_norm_rms_eps(1e-5)
    writer.add_tokenizer_model("gpt2")
    writer.add_token_list(["<|endoftext|>", "<|im_start|>", "<|im_end|>", *"abcdefg", "ab", "abc"])
    writer.add_token_types([3, 3, 3, *[1] * 9])
    writer.add_token_merges(["a b", "ab c"])
    writer.add_bos_token_id(1)
    writer.add_eos_token_id(2)
    rng = np.random.default_rng(0)
    shapes = {
        "token_embd": (vocabulary, width),
        "output_norm": (width,),
        "blk.0.attn_norm": (width,),
        "blk.0.ffn_norm": (width,),
        "blk.0.ffn_gate": (48, width),
        "blk.0.ffn_up": (48, width),
        "blk.0.ffn_down": (width, 48),
        **{f"blk.0.attn_{part}": (width, width) for part in ("q", "k", "v", "output")},
    }
    for name, shape in shapes.items():
        writer.add_tensor(f"{name}.weight", rng.normal(0, 0.3, shape).astype(np.float32))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def test_a_gguf_file_is_loaded_and_parsed_once(tmp_path, monkeypatch):
    pytest.importorskip("accelerate")
    path = tmp_path / "tiny.gguf"
    write_gguf(path)
    opened = []
    original = gguf_file._new_reader
    monkeypatch.setattr(gguf_file, "_new_reader", lambda path: opened.append(path) or original(path))
    steps = []
    model = load_pretrained(f"gguf:{path}", steps.append)
    assert opened == [path]
    assert any(step.text == "converting weights, 0 %" for step in steps)
    assert model.tokenizer.tokens[:4] == ("<|endoftext|>", "<eos>", "<|im_start|>", "a")
    assert model.tokenizer.decode(model.tokenizer.encode("abba")) == "abba"
    assert model.context_size == 64
    log_probs, _ = model.advance(model.start(), EOS_ID)
    assert np.exp(log_probs.astype(np.float64)).sum() == pytest.approx(1, abs=1e-5)
    assert loading.required_bytes(parse_pretrained_name(f"gguf:{path}")) == 2 * 4 * model.num_parameters


def test_damaged_gguf_files_are_refused(tmp_path):
    path = tmp_path / "tiny.gguf"
    write_gguf(path)
    content = path.read_bytes()
    path.write_bytes(content[:-200])
    check_refused(f"gguf:{path}", "is a damaged GGUF file")
    for length in (9, 24, 100, len(content) // 4):
        path.write_bytes(content[:length])
        check_refused(f"gguf:{path}", "damaged GGUF file")
    path.write_bytes(content[:8] + b"\xff" * 16 + content[24:])
    check_refused(f"gguf:{path}", "damaged GGUF file")
    path.write_bytes(content[:4] + b"\x09\0\0\0" + content[8:])
    check_refused(f"gguf:{path}", "version 9")
    for other in (b"", b"GG", b"PK\x03\x04" * 100):
        path.write_bytes(other)
        check_refused(f"gguf:{path}", "is not a GGUF file")


def test_noise_inside_a_gguf_file_never_escapes_as_another_error(tmp_path):
    pytest.importorskip("accelerate")
    path = tmp_path / "tiny.gguf"
    write_gguf(path)
    content = bytearray(path.read_bytes())
    rng = np.random.default_rng(3)
    for _ in range(12):
        noisy = bytearray(content)
        for position in rng.integers(8, 1200, 4).tolist():
            noisy[position] = int(rng.integers(256))
        path.write_bytes(noisy)
        with contextlib.suppress(InvalidInputError):
            load_pretrained(f"gguf:{path}")


@pytest.mark.parametrize(
    ("architecture", "message"), [("quantum9", "quantum9"), ("bert", "bert"), ("t5", "is an encoder-decoder model")]
)
def test_a_gguf_file_of_an_unknown_or_another_architecture_is_refused(architecture, message, tmp_path):
    pytest.importorskip("accelerate")
    path = tmp_path / "tiny.gguf"
    write_gguf(path, architecture=architecture)
    check_refused(f"gguf:{path}", message)


def test_a_gguf_file_larger_than_the_memory_is_refused(tmp_path, monkeypatch):
    path = tmp_path / "tiny.gguf"
    write_gguf(path)
    monkeypatch.setattr("psutil.virtual_memory", lambda: type("Memory", (), {"available": 1000}))
    check_refused(f"gguf:{path}", "of memory, and 0 MB are free")
