"""Models by others, their names, and loading from folders and the Hub: what is read, refused, and never run."""

import json
import os
import pickle
import re
import shutil
from pathlib import Path

import pytest

from engine.errors import InvalidInputError, install_command
from engine.models.pretrained.loading import load_pretrained
from engine.models.pretrained.names import is_pretrained_name, parse_pretrained_name
from tests.support.pretrained import HOSTILE_TOKENIZERS, save_tokenizer


def edit_json(path, **changes):
    content = json.loads(path.read_text())
    content.update(changes)
    path.write_text(json.dumps(content))


def check_refused(name, *parts):
    """Check that loading fails with one line that names the model and contains `parts`."""
    full_name = str(name) if ":" in str(name)[:6] else f"hf:{name}"
    with pytest.raises(InvalidInputError) as error:
        load_pretrained(full_name)
    message = str(error.value)
    assert message.startswith(full_name)
    assert "\n" not in message
    for part in parts:
        assert part in message


transformers = pytest.importorskip("transformers")
filter_repo_objects = pytest.importorskip("huggingface_hub.utils").filter_repo_objects

CONFIG, WEIGHTS, INDEX = "config.json", "model.safetensors", "model.safetensors.index.json"


def test_progress_states_the_memory_before_the_weights_are_read(folder):
    steps = []
    load_pretrained(f"hf:{folder}", steps.append)
    texts = [step.text for step in steps]
    assert texts[0] == "importing torch and transformers"
    reading = next(step for step in steps if step.text.startswith("reading"))
    assert reading.memory_bytes == pytest.approx(1.2 * 4 * 28_832, rel=0.01)  # with buffers
    assert texts.index("checking the files") < texts.index(reading.text)


def test_odd_settings_that_do_not_matter_are_ignored(folder):
    edit_json(folder / CONFIG, architectures=5, return_dict=False)
    assert load_pretrained(f"hf:{folder}").description.endswith("28,832 parameters")


def settings(**changes):
    return lambda folder: edit_json(folder / CONFIG, **changes)


def file(name, content):
    def write(folder):
        (folder / name).write_bytes(content.encode() if isinstance(content, str) else content)

    return write


def without(name):
    return lambda folder: (folder / name).unlink()


def model_type(name, architecture, *, is_encoder_decoder=False):
    return settings(model_type=name, architectures=[architecture], is_encoder_decoder=is_encoder_decoder)


def of_whole_words(folder):
    words = {"type": "WordLevel", "vocab": {"<unk>": 0, "<|im_start|>": 1, "<|im_end|>": 2, "lamp": 3}}
    edit_json(folder / "tokenizer.json", model={**words, "unk_token": "<unk>"}, decoder=None, added_tokens=[])


def without_end_of_text(folder):
    save_tokenizer(folder, eos_token=None, bos_token=None, chat_template=None)
    edit_json(folder / "tokenizer.json", added_tokens=[])
    edit_json(folder / "tokenizer_config.json", added_tokens_decoder={})
    edit_json(folder / CONFIG, eos_token_id=None)
    (folder / "generation_config.json").unlink(missing_ok=True)


@pytest.mark.parametrize(
    ("damages", "parts"),
    [
        ([without(CONFIG)], ["has no config.json"]),
        ([without(CONFIG), file("x.gguf", "")], ["write gguf:", "x.gguf"]),
        ([without(CONFIG), file("adapter_config.json", "{}")], ["is an adapter (LoRA)"]),
        *(([file(CONFIG, content)], [CONFIG]) for content in ("", "[1]", "{", '"x"', "\x00", "[" * 100_000)),
        ([without(WEIGHTS)], ["has no model.safetensors; choose a model with safetensors"]),
        ([without(WEIGHTS), file(INDEX, "{}")], ["(it lacks 'weight_map'); fetch it again"]),
        ([without(WEIGHTS), file(INDEX, '{"weight_map": {"a": "../x.safetensors"}}')], [f"{INDEX} names is missing"]),
        ([file(WEIGHTS, "")], ["SafetensorError"]),
        ([file(WEIGHTS, b"\xff" * 100_000)], ["SafetensorError"]),
        ([lambda folder: os.truncate(folder / WEIGHTS, 9_000)], ["SafetensorError"]),
        ([model_type("t5", "T5Model", is_encoder_decoder=True)], ["is no causal language model"]),
        ([model_type("vit", "ViTModel")], ["is no causal language model"]),
        ([model_type("bert", "BertForMaskedLM")], ["is no causal language model"]),
        ([settings(model_type="quantum9")], ["model type `quantum9`"]),
        ([settings(model_type=None)], ["cannot be loaded with transformers"]),
        ([settings(num_hidden_layers=3)], ["of its tensors, such as model.layers.2."]),
        ([settings(hidden_size=64)], ["cannot be loaded with transformers"]),
        ([file("tokenizer.json", "{")], ["has a damaged tokenizer: tokenizer.json"]),
        ([without("tokenizer.json"), without("tokenizer_config.json")], ["tokenizer"]),
        ([of_whole_words], ["WordLevel tokenizer", "play the run that it was exported from"]),
        ([without_end_of_text], ["no token that ends a text"]),
        ([settings(model_type="gpt2", num_labels=10**9)], ["needs more than 1 GB of memory"]),
        ([settings(_attn_implementation="owner/kernel")], ["needs code of its own (_attn_implementation)"]),
        ([file("adapter_config.json", '{"base_model_name_or_path": "/"}')], ["is an adapter (LoRA)"]),
        ([lambda folder: os.truncate(folder / "generation_config.json", 60 * 10**9)], ["config.json cannot be read"]),
        ([lambda folder: edit_json(folder / "tokenizer.json", **HOSTILE_TOKENIZERS[0])], ["json: PanicException"]),
    ],
)  # fmt: skip
def test_a_damaged_or_other_model_is_refused_in_one_line(damages, parts, folder):
    for damage in damages:
        damage(folder)
    check_refused(folder, *parts)


@pytest.mark.parametrize("name", ["pytorch_model.bin", "model.pth"])
def test_a_pickle_is_refused_and_not_opened(name, folder, tmp_path):
    class Attack:
        def __reduce__(self):
            return Path.touch, (tmp_path / "attacked",)

    (folder / WEIGHTS).unlink()
    (folder / name).write_bytes(pickle.dumps(Attack()))
    check_refused(folder, f"only a pickle ({name})", "never loaded")
    shutil.copy(folder / name, folder / WEIGHTS)
    check_refused(folder, "cannot be loaded with transformers")
    assert not (tmp_path / "attacked").exists()


@pytest.mark.parametrize("name", [CONFIG, "tokenizer_config.json"])
def test_remote_code_is_refused_and_not_run(name, folder, tmp_path):
    edit_json(folder / name, auto_map={"AutoModelForCausalLM": "attack.Model", "AutoTokenizer": ["attack.T", None]})
    (folder / "attack.py").write_text(f"open({str(tmp_path / 'attacked')!r}, 'w')")
    check_refused(folder, f"needs code of its own (auto_map in {name})", "never run")
    assert not (tmp_path / "attacked").exists()


def test_a_missing_extra_is_one_line(folder, monkeypatch):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    check_refused(folder, f"needs torch and transformers; {install_command('hf')}")


def test_a_tokenizer_without_chat_template_has_no_chat(folder):
    save_tokenizer(folder, chat_template=None)
    (folder / "chat_template.jinja").unlink(missing_ok=True)
    model = load_pretrained(f"hf:{folder}")
    assert model.chat is None
    assert model.tokenizer.specials.end_id == 2


def test_the_end_of_a_turn_is_eos_even_if_the_tokenizer_names_another(folder):
    save_tokenizer(folder, eos_token="<|endoftext|>", bos_token=None)
    edit_json(folder / "generation_config.json", eos_token_id=[0, 7])
    model = load_pretrained(f"hf:{folder}")
    assert model.tokenizer.specials.end_id == 2
    assert set(model.tokenizer.specials.end_ids) == {0, 2, 7}
    assert model.tokenizer.specials.start_id == 0


def test_bos_starts_a_text_where_the_tokenizer_adds_it(folder):
    start, text = {"SpecialToken": {"id": "<|im_start|>", "type_id": 0}}, {"Sequence": {"id": "A", "type_id": 0}}
    processor = {
        "type": "TemplateProcessing",
        "single": [start, text],
        "pair": [text, {"Sequence": {"id": "B", "type_id": 1}}],
        "special_tokens": {"<|im_start|>": {"id": "<|im_start|>", "ids": [1], "tokens": ["<|im_start|>"]}},
    }
    edit_json(folder / "tokenizer.json", post_processor=processor)
    assert load_pretrained(f"hf:{folder}").tokenizer.specials.start_id == 1


class FakeHub:
    """A Hub with one model, or one that cannot be reached."""

    def __init__(self, monkeypatch, folder, error=ConnectionError, *, is_cached=False):
        self.folder, self.error, self.is_cached = folder, error, is_cached
        self.downloaded = []
        monkeypatch.setattr("huggingface_hub.snapshot_download", self.snapshot_download)
        monkeypatch.setattr("huggingface_hub.hf_hub_download", self.hf_hub_download)

    def snapshot_download(self, repo_id, *, allow_patterns, ignore_patterns, local_files_only=False):
        if not local_files_only:
            names = [path.name for path in self.folder.iterdir()]
            self.downloaded += filter_repo_objects(names, allow_patterns=allow_patterns)
        elif not self.is_cached:
            raise FileNotFoundError("not cached")
        return str(self.folder)

    def hf_hub_download(self, repo_id, file):
        if self.folder is None or self.is_cached:
            raise self.error("no network")
        self.downloaded.append(file)
        return str(self.folder / file)


def test_a_cached_model_is_loaded_without_the_network(folder, monkeypatch):
    hub, steps = FakeHub(monkeypatch, folder, is_cached=True), []
    assert load_pretrained("hf:owner/tiny", steps.append).name == "hf:owner/tiny"
    assert not any("Hub" in step.text for step in steps)
    (folder / WEIGHTS).unlink()
    check_refused("hf:owner/tiny", "has no model.safetensors")
    assert hub.downloaded == []


def test_a_model_is_downloaded_without_pickles_and_code(folder, monkeypatch):
    for extra in ("pytorch_model.bin", "modeling_x.py", "README.md", "model.onnx"):
        (folder / extra).touch()
    hub, steps = FakeHub(monkeypatch, folder), []
    load_pretrained("hf:owner/tiny", steps.append)
    assert hub.downloaded[0] == CONFIG
    assert WEIGHTS in hub.downloaded
    assert not {"pytorch_model.bin", "modeling_x.py", "model.onnx"} & set(hub.downloaded)
    assert "asking the Hugging Face Hub for owner/tiny" in [step.text for step in steps]
    assert "downloading owner/tiny" in [step.text for step in steps]


def test_refusals_of_the_hub_and_code_on_it_are_explained_before_the_download(folder, monkeypatch):
    for error, part in (("GatedRepoError", "log in"), ("RepositoryNotFoundError", "is not on the Hugging Face Hub")):
        FakeHub(monkeypatch, None, error=type(error, (Exception,), {}))
        check_refused("hf:owner/tiny", part)
    edit_json(folder / CONFIG, auto_map={"AutoModelForCausalLM": "x.Y"})
    hub = FakeHub(monkeypatch, folder)
    check_refused("hf:owner/tiny", "needs code of its own")
    assert hub.downloaded == [CONFIG]


def test_the_library_of_the_hub_fails_offline_in_one_line(monkeypatch, tmp_path):
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    check_refused("hf:lotr-tui-tests/there-is-no-such-model", "neither in the local cache nor reachable")


def test_a_model_larger_than_the_memory_is_refused(folder, monkeypatch):
    monkeypatch.setattr("psutil.virtual_memory", lambda: type("Memory", (), {"available": 1000}))
    check_refused(folder, "MB of memory, and ", "are free; choose a smaller model")


def test_prefixed_names_are_models_by_others_and_other_names_are_runs():
    assert all(map(is_pretrained_name, ["hf:gpt2", "hf:owner/name", "hf:/some/folder", "gguf:file.gguf", "hf:"]))
    assert not any(map(is_pretrained_name, [None, "", "middle-earth", "runs/hf", "gpt2", "HF:x", "./hf:x"]))


def test_folders_come_before_the_hub(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert parse_pretrained_name("hf:owner/name").kind == "hub"
    (tmp_path / "owner" / "name").mkdir(parents=True)
    source = parse_pretrained_name("hf:owner/name")
    assert (source.kind, source.short_name) == ("folder", "name")
    assert parse_pretrained_name(f"hf:{tmp_path}/owner/name/").short_name == "name"
    assert parse_pretrained_name("hf:gpt2").kind == "hub"


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("hf:", "hf: names no model; write hf:FOLDER or hf:owner/name"), ("gguf:", "gguf: names no model"),
        ("gguf:missing.gguf", "gguf:missing.gguf: there is no such file"),
        ("hf:./missing", "hf:./missing: there is no such folder"), ("hf:/no/such/folder", "there is no such folder"),
        ("hf:a/b/c", "there is no such folder"), ("hf:owner/..", "there is no such folder"),
        ("hf:owner/na me", "there is no such folder"), ("hf:" + "x" * 5000, "there is no such folder"),
        ("hf:a\0b", "there is no such folder"), ("gguf:a\0b", "there is no such file"),
    ],
)  # fmt: skip
def test_impossible_names_are_refused(name, message, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(InvalidInputError, match=re.escape(message)):
        parse_pretrained_name(name)


def test_a_gguf_file_is_named_and_a_file_for_a_folder_and_a_folder_for_a_file_are_explained(tmp_path):
    file = tmp_path / "SmolLM2-135M.Q4_1.gguf"
    file.touch()
    source = parse_pretrained_name(f"gguf:{file}")
    assert (source.kind, source.path, source.short_name) == ("gguf", file, "SmolLM2-135M.Q4_1")
    with pytest.raises(InvalidInputError, match=r"is a file, not a folder; write gguf:"):
        parse_pretrained_name(f"hf:{file}")
    with pytest.raises(InvalidInputError, match="is a folder; write gguf:FILE"):
        parse_pretrained_name(f"gguf:{tmp_path}")
