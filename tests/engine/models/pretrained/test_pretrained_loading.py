import contextlib
import json
import shutil
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from engine.data.tokenizers.base import EOS_ID
from engine.errors import InvalidInputError
from engine.models.pretrained import folder_checks, gguf_file, hub, loading
from engine.models.pretrained.loading import LoadingProgress, load_pretrained
from engine.models.pretrained.names import parse_pretrained_name
from tests.support.pretrained import edit_json, save_tokenizer

pytest.importorskip("transformers")


@pytest.fixture
def folder(folders: Any, tmp_path: Path) -> Path:
    """A copy of the folder of a tiny Llama, which a test may damage."""
    shutil.copytree(folders("llama"), tmp_path / "model")
    return tmp_path / "model"


def check_refused(name: str | Path, *parts: str) -> None:
    """Check that loading fails with one line that names the model and contains `parts`."""
    full_name = str(name) if ":" in str(name)[:6] else f"hf:{name}"
    with pytest.raises(InvalidInputError) as error:
        load_pretrained(full_name)
    message = str(error.value)
    assert message.startswith(full_name)
    assert "\n" not in message
    for part in parts:
        assert part in message


def test_progress_states_the_memory_before_the_weights_are_read(folder: Path) -> None:
    steps: list[LoadingProgress] = []
    model = load_pretrained(f"hf:{folder}", steps.append)
    texts = [step.text for step in steps]
    assert texts[0] == "importing torch and transformers"
    reading = next(step for step in steps if step.text.startswith("reading"))
    required = loading.required_bytes(parse_pretrained_name(f"hf:{folder}"))
    assert reading.memory_bytes == required == int(1.2 * 4 * model.num_parameters)
    assert texts.index("checking the files") < texts.index(reading.text)


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
def test_half_precision_is_converted(dtype: str, folder: Path) -> None:
    import torch
    import transformers

    module = transformers.AutoModelForCausalLM.from_pretrained(folder).to(getattr(torch, dtype))
    module.save_pretrained(folder)
    model = load_pretrained(f"hf:{folder}")
    assert model.memory_bytes == 4 * model.num_parameters
    module = transformers.AutoModelForCausalLM.from_pretrained(folder, torch_dtype=torch.float32)
    expected = module(torch.tensor([[0, 5]])).logits[0, -1].log_softmax(-1).detach().numpy()
    log_probs, _ = model.advance_tokens(model.start(), [EOS_ID, 5])
    np.testing.assert_allclose(log_probs[3:], expected[3:], atol=1e-4)


def test_weights_in_several_files_are_read(folder: Path) -> None:
    import transformers

    module = transformers.AutoModelForCausalLM.from_pretrained(folder)
    (folder / "model.safetensors").unlink()
    module.save_pretrained(folder, max_shard_size="40KB")
    parts = sorted(folder.glob("model-*.safetensors"))
    assert len(parts) > 1
    assert load_pretrained(f"hf:{folder}").num_parameters == module.num_parameters()
    parts[0].unlink()
    check_refused(folder, f"lacks {parts[0].name}")


def test_a_folder_without_config_is_refused(folder: Path) -> None:
    (folder / "config.json").unlink()
    check_refused(folder, "has no config.json")
    (folder / "x.gguf").touch()
    check_refused(folder, f"write gguf:{folder / 'x.gguf'}")
    (folder / "adapter_config.json").write_text("{}")
    check_refused(folder, "is an adapter (LoRA)")


@pytest.mark.parametrize("content", ["", "[1]", "{", '"x"', "\x00", "[" * 100_000])
def test_a_damaged_config_is_refused(content: str, folder: Path) -> None:
    (folder / "config.json").write_text(content)
    check_refused(folder, "config.json")


def test_a_folder_without_weights_is_refused(folder: Path) -> None:
    (folder / "model.safetensors").unlink()
    check_refused(folder, "has no weights: model.safetensors is missing")
    for content in ('{"weight_map": {}}', '{"weight_map": {"a": "../x.safetensors"}}', "{}"):
        (folder / "model.safetensors.index.json").write_text(content)
        check_refused(folder, "model.safetensors.index.json is damaged")


@pytest.mark.parametrize("file", ["pytorch_model.bin", "model.pt", "model.pth"])
def test_a_pickle_is_refused_and_not_opened(file: str, folder: Path, tmp_path: Path) -> None:
    import pickle

    class Attack:
        def __reduce__(self) -> Any:
            return Path.touch, (tmp_path / "attacked",)

    (folder / "model.safetensors").unlink()
    (folder / file).write_bytes(pickle.dumps(Attack()))
    check_refused(folder, f"only as a pickle ({file})", "never loaded")
    shutil.copy(folder / file, folder / "model.safetensors")
    check_refused(folder, "damaged weights")
    assert not (tmp_path / "attacked").exists()


@pytest.mark.parametrize("file", ["config.json", "tokenizer_config.json"])
def test_remote_code_is_refused_and_not_run(file: str, folder: Path, tmp_path: Path) -> None:
    edit_json(folder / file, auto_map={"AutoModelForCausalLM": "attack.Model", "AutoTokenizer": ["attack.T", None]})
    (folder / "attack.py").write_text(f"open({str(tmp_path / 'attacked')!r}, 'w')")
    check_refused(folder, f"needs code of its own (auto_map in {file})", "never run")
    assert not (tmp_path / "attacked").exists()


def test_models_that_do_not_predict_the_next_token_are_refused(folders: Any, folder: Path) -> None:
    check_refused(folders("bert"), "is an encoder-only model", "BertForMaskedLM")
    edit_json(folder / "config.json", model_type="t5", architectures=["T5Model"], is_encoder_decoder=True)
    check_refused(folder, "is an encoder-decoder model (T5Model)")
    edit_json(folder / "config.json", model_type="vit", architectures=["ViTModel"], is_encoder_decoder=False)
    check_refused(folder, "is no language model (ViTModel)")
    edit_json(folder / "config.json", model_type="quantum9")
    check_refused(folder, "model type 'quantum9', which transformers")
    edit_json(folder / "config.json", model_type=None)
    check_refused(folder, "model type 'None'")


def test_a_model_larger_than_the_memory_is_refused_before_it_is_read(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: Any, **__: Any) -> None:
        raise AssertionError("read too early")

    monkeypatch.setattr(loading, "_read_weights", fail)
    required = loading.required_bytes(parse_pretrained_name(f"hf:{folder}"))
    monkeypatch.setattr("psutil.virtual_memory", lambda: type("Memory", (), {"available": required - 1}))
    size = folder_checks.format_bytes(required)
    check_refused(folder, f"needs {size} of memory, and {folder_checks.format_bytes(required - 1)} are free")


@pytest.mark.parametrize(("size", "text"), [(538_000_000, "538 MB"), (14_210_000_000, "14.2 GB"), (1e12, "1,000.0 GB")])
def test_sizes_are_written_with_units(size: int, text: str) -> None:
    assert folder_checks.format_bytes(int(size)) == text


@pytest.mark.parametrize("damage", ["truncated", "empty", "noise"])
def test_damaged_weights_are_refused(damage: str, folder: Path) -> None:
    path = folder / "model.safetensors"
    content = path.read_bytes()
    path.write_bytes({"truncated": content[:-100], "empty": b"", "noise": b"\xff" * 1000}[damage])
    check_refused(folder, "damaged weights", "fetch the model again")


def test_weights_of_another_shape_or_kind_are_refused(folder: Path, folders: Any) -> None:
    edit_json(folder / "config.json", num_hidden_layers=3)
    check_refused(folder, "of its tensors, such as model.layers.2.")
    edit_json(folder / "config.json", num_hidden_layers=2, hidden_size=64)
    check_refused(folder, "transformers cannot load it")
    shutil.copy(folders("gpt2") / "model.safetensors", folder)
    edit_json(folder / "config.json", hidden_size=32)
    check_refused(folder, "of its tensors")


def test_a_missing_or_damaged_tokenizer_is_refused(folder: Path) -> None:
    (folder / "tokenizer.json").write_text("{")
    check_refused(folder, "its tokenizer")
    (folder / "tokenizer.json").unlink()
    (folder / "tokenizer_config.json").unlink()
    check_refused(folder, "tokenizer")


def test_a_model_without_end_of_text_is_refused(folder: Path) -> None:
    import tokenizers

    save_tokenizer(folder, eos_token=None, bos_token=None, chat_template=None)
    backend = tokenizers.Tokenizer.from_file(str(folder / "tokenizer.json"))
    content = json.loads(backend.to_str())
    content["added_tokens"] = []
    (folder / "tokenizer.json").write_text(json.dumps(content))
    edit_json(folder / "tokenizer_config.json", added_tokens_decoder={})
    edit_json(folder / "config.json", eos_token_id=None)
    (folder / "generation_config.json").unlink(missing_ok=True)
    check_refused(folder, "no token that ends a text")


def test_a_tokenizer_without_chat_template_has_no_chat(folder: Path) -> None:
    save_tokenizer(folder, chat_template=None)
    (folder / "chat_template.jinja").unlink(missing_ok=True)
    model = load_pretrained(f"hf:{folder}")
    assert model.chat is None
    assert model.tokenizer.end_id == 2


def test_the_end_of_a_turn_is_eos_even_if_the_tokenizer_names_another(folder: Path) -> None:
    save_tokenizer(folder, eos_token="<|endoftext|>", bos_token=None)
    edit_json(folder / "generation_config.json", eos_token_id=[0, 7])
    model = load_pretrained(f"hf:{folder}")
    assert model.tokenizer.end_id == 2
    assert set(model.info.end_ids) == {0, 2, 7}
    assert model.info.start_id == 0


def test_bos_starts_a_text_where_the_tokenizer_adds_it(folder: Path) -> None:
    content = json.loads((folder / "tokenizer.json").read_text())
    content["post_processor"] = {
        "type": "TemplateProcessing",
        "single": [{"SpecialToken": {"id": "<|im_start|>", "type_id": 0}}, {"Sequence": {"id": "A", "type_id": 0}}],
        "pair": [{"Sequence": {"id": "A", "type_id": 0}}, {"Sequence": {"id": "B", "type_id": 1}}],
        "special_tokens": {"<|im_start|>": {"id": "<|im_start|>", "ids": [1], "tokens": ["<|im_start|>"]}},
    }
    (folder / "tokenizer.json").write_text(json.dumps(content))
    # The template writes this token before each message, so it starts no text if there is a better one.
    assert load_pretrained(f"hf:{folder}").info.start_id == 0
    (folder / "chat_template.jinja").unlink(missing_ok=True)
    edit_json(folder / "tokenizer_config.json", chat_template=None)
    assert load_pretrained(f"hf:{folder}").info.start_id == 1


def test_a_missing_extra_is_one_line(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    check_refused(folder, "needs transformers; pip install 'lotr-tui[hf]'")
    path = folder / "x.gguf"
    path.touch()
    check_refused(f"gguf:{path}", "needs transformers and gguf and accelerate; pip install 'lotr-tui[hf]'")


def test_names_are_parsed_without_heavy_imports() -> None:
    code = (
        "import sys; from engine.models.pretrained.names import parse_pretrained_name as parse; parse('hf:gpt2'); "
        "assert not {'torch', 'transformers', 'tokenizers'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_nothing_is_printed_while_a_model_is_loaded_and_generates(folder: Path) -> None:
    code = f"""
from engine.models.pretrained.loading import load_pretrained
from engine.models.pretrained.chat import ChatMessage
model = load_pretrained({f"hf:{folder}"!r})
ids = model.chat.encode([ChatMessage("user", "Hi " * 100)])
state = model.advance_tokens(model.start_chat(), ids)[1]
for token in range(70):
    _, state = model.advance(state, 9)
model.record_attention(model.tokenizer.encode("Hi"))
"""
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert (result.stdout, result.stderr) == ("", "")


# GGUF


def write_gguf(path: Path, **changes: Any) -> None:
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
    shapes: dict[str, tuple[int, ...]] = {
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


def test_a_gguf_file_is_loaded_and_parsed_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("accelerate")
    path = tmp_path / "tiny.gguf"
    write_gguf(path)
    opened: list[Path] = []
    original = gguf_file._new_reader
    monkeypatch.setattr(gguf_file, "_new_reader", lambda path: opened.append(path) or original(path))
    steps: list[LoadingProgress] = []
    model = load_pretrained(f"gguf:{path}", steps.append)
    assert opened == [path]
    assert any(step.text == "converting weights, 0 %" for step in steps)
    assert model.tokenizer.tokens[:4] == ("<|endoftext|>", "<eos>", "<|im_start|>", "a")
    assert model.tokenizer.decode(model.tokenizer.encode("abba")) == "abba"
    assert model.context_size == 64
    log_probs, _ = model.advance(model.start(), EOS_ID)
    assert np.exp(log_probs.astype(np.float64)).sum() == pytest.approx(1, abs=1e-5)
    assert loading.required_bytes(parse_pretrained_name(f"gguf:{path}")) == 2 * 4 * model.num_parameters


def test_damaged_gguf_files_are_refused(tmp_path: Path) -> None:
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


def test_noise_inside_a_gguf_file_never_escapes_as_another_error(tmp_path: Path) -> None:
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


def test_a_gguf_file_of_an_unknown_or_another_architecture_is_refused(tmp_path: Path) -> None:
    pytest.importorskip("accelerate")
    path = tmp_path / "tiny.gguf"
    write_gguf(path, architecture="quantum9")
    check_refused(f"gguf:{path}", "quantum9")


def test_a_gguf_file_larger_than_the_memory_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "tiny.gguf"
    write_gguf(path)
    monkeypatch.setattr("psutil.virtual_memory", lambda: type("Memory", (), {"available": 1000}))
    check_refused(f"gguf:{path}", "of memory, and 0 MB are free")


# The Hub


class FakeHub:
    """A Hub with one model, or one that cannot be reached."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, folder: Path | None, files: list[str] | None = None) -> None:
        self.folder, self.downloaded, self.is_cached = folder, list[str](), False
        self.files = files
        monkeypatch.setattr("huggingface_hub.snapshot_download", self.snapshot_download)
        monkeypatch.setattr("huggingface_hub.HfApi", lambda: self)
        monkeypatch.setattr("huggingface_hub.hf_hub_download", self.hf_hub_download)

    def snapshot_download(self, repo_id: str, **options: Any) -> str:
        assert options["local_files_only"]
        if not self.is_cached:
            raise FileNotFoundError("not cached")
        return str(self.folder)

    def model_info(self, repo_id: str, *, files_metadata: bool, timeout: float) -> Any:
        assert timeout <= 10
        if self.folder is None:
            raise ConnectionError("no network")
        files = self.files or [path.name for path in self.folder.iterdir()]
        siblings = [type("File", (), {"rfilename": file, "size": 1000}) for file in files]
        return type("Info", (), {"siblings": siblings, "sha": "abc"})

    def hf_hub_download(self, repo_id: str, file: str, **options: Any) -> str:
        assert self.folder is not None
        self.downloaded.append(file)
        return str(self.folder / file)


def test_a_cached_model_is_loaded_without_the_network(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fake = FakeHub(monkeypatch, folder)
    fake.is_cached = True
    monkeypatch.setattr(fake, "model_info", None)
    assert load_pretrained("hf:owner/tiny").name == "hf:owner/tiny"


def test_a_model_is_downloaded_without_pickles_and_code(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for extra in ("pytorch_model.bin", "modeling_x.py", "README.md", "model.onnx"):
        (folder / extra).touch()
    fake = FakeHub(monkeypatch, folder)
    steps: list[LoadingProgress] = []
    load_pretrained("hf:owner/tiny", steps.append)
    assert fake.downloaded[0] == "config.json"
    assert fake.downloaded[-1] == "model.safetensors"
    assert not {"pytorch_model.bin", "modeling_x.py", "model.onnx"} & set(fake.downloaded)
    assert "asking the Hugging Face Hub for owner/tiny" in [step.text for step in steps]
    assert any(step.text.startswith("downloading 0 MB of") for step in steps)


def test_a_model_neither_cached_nor_reachable_is_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    FakeHub(monkeypatch, None)
    check_refused("hf:owner/tiny", "is neither in the local cache nor reachable (ConnectionError)")


@pytest.mark.parametrize(("error", "part"), [("GatedRepoError", "log in"), ("RepositoryNotFoundError", "no model")])
def test_refusals_of_the_hub_are_explained(error: str, part: str, monkeypatch: pytest.MonkeyPatch) -> None:
    fake = FakeHub(monkeypatch, None)

    def refuse(*_: Any, **__: Any) -> None:
        raise type(error, (Exception,), {})

    monkeypatch.setattr(fake, "model_info", refuse)
    check_refused("hf:owner/tiny", part)


def test_pickles_and_code_on_the_hub_are_refused_before_the_download(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    FakeHub(monkeypatch, folder, ["config.json", "pytorch_model.bin"])
    check_refused("hf:owner/tiny", "only as a pickle")
    FakeHub(monkeypatch, folder, ["config.json"])
    check_refused("hf:owner/tiny", "no weights in safetensors")
    edit_json(folder / "config.json", auto_map={"AutoModelForCausalLM": "x.Y"})
    fake = FakeHub(monkeypatch, folder)
    check_refused("hf:owner/tiny", "needs code of its own")
    assert fake.downloaded == ["config.json"]


def test_a_partly_cached_model_without_network_names_what_is_missing(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fake = FakeHub(monkeypatch, folder)
    fake.is_cached = True
    (folder / "model.safetensors").unlink()

    def fail(*_: Any, **__: Any) -> None:
        raise ConnectionError

    monkeypatch.setattr(fake, "model_info", fail)
    check_refused("hf:owner/tiny", "has no weights")


def test_the_real_hub_is_given_up_soon(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    start = time.monotonic()
    check_refused("hf:lotr-tui-tests/there-is-no-such-model", "neither in the local cache nor reachable")
    assert time.monotonic() - start < 60
    assert hub.TIMEOUT_SECONDS <= 10
