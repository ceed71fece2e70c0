import json
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from engine.data.tokenizers.base import EOS_ID
from engine.models.pretrained import folder_checks, loading
from engine.models.pretrained.loading import load_pretrained
from engine.models.pretrained.names import parse_pretrained_name
from tests.support.pretrained import check_refused, edit_json, save_tokenizer

pytest.importorskip("transformers")


def test_progress_states_the_memory_before_the_weights_are_read(folder):
    steps = []
    model = load_pretrained(f"hf:{folder}", steps.append)
    texts = [step.text for step in steps]
    assert texts[0] == "importing torch and transformers"
    reading = next(step for step in steps if step.text.startswith("reading"))
    required = loading.required_bytes(parse_pretrained_name(f"hf:{folder}"))
    assert reading.memory_bytes == required == int(1.2 * 4 * model.num_parameters)
    assert texts.index("checking the files") < texts.index(reading.text)


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
def test_half_precision_is_converted(dtype, folder):
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


def test_weights_in_several_files_are_read(folder):
    import transformers

    module = transformers.AutoModelForCausalLM.from_pretrained(folder)
    (folder / "model.safetensors").unlink()
    module.save_pretrained(folder, max_shard_size="40KB")
    parts = sorted(folder.glob("model-*.safetensors"))
    assert len(parts) > 1
    assert load_pretrained(f"hf:{folder}").num_parameters == module.num_parameters()
    parts[0].unlink()
    check_refused(folder, f"lacks {parts[0].name}")


def test_a_folder_without_config_is_refused(folder):
    (folder / "config.json").unlink()
    check_refused(folder, "has no config.json")
    (folder / "x.gguf").touch()
    check_refused(folder, f"write gguf:{folder / 'x.gguf'}")
    (folder / "adapter_config.json").write_text("{}")
    check_refused(folder, "is an adapter (LoRA)")


@pytest.mark.parametrize("content", ["", "[1]", "{", '"x"', "\x00", "[" * 100_000])
def test_a_damaged_config_is_refused(content, folder):
    (folder / "config.json").write_text(content)
    check_refused(folder, "config.json")


def test_a_folder_without_weights_is_refused(folder):
    (folder / "model.safetensors").unlink()
    check_refused(folder, "has no weights: model.safetensors is missing")
    for content in ('{"weight_map": {}}', '{"weight_map": {"a": "../x.safetensors"}}', "{}"):
        (folder / "model.safetensors.index.json").write_text(content)
        check_refused(folder, "model.safetensors.index.json is damaged")


@pytest.mark.parametrize("file", ["pytorch_model.bin", "model.pt", "model.pth"])
def test_a_pickle_is_refused_and_not_opened(file, folder, tmp_path):
    import pickle

    class Attack:
        def __reduce__(self):
            return Path.touch, (tmp_path / "attacked",)

    (folder / "model.safetensors").unlink()
    (folder / file).write_bytes(pickle.dumps(Attack()))
    check_refused(folder, f"only as a pickle ({file})", "never loaded")
    shutil.copy(folder / file, folder / "model.safetensors")
    check_refused(folder, "damaged weights")
    assert not (tmp_path / "attacked").exists()


@pytest.mark.parametrize("file", ["config.json", "tokenizer_config.json"])
def test_remote_code_is_refused_and_not_run(file, folder, tmp_path):
    edit_json(folder / file, auto_map={"AutoModelForCausalLM": "attack.Model", "AutoTokenizer": ["attack.T", None]})
    (folder / "attack.py").write_text(f"open({str(tmp_path / 'attacked')!r}, 'w')")
    check_refused(folder, f"needs code of its own (auto_map in {file})", "never run")
    assert not (tmp_path / "attacked").exists()


def test_models_that_do_not_predict_the_next_token_are_refused(folders, folder):
    check_refused(folders("bert"), "is an encoder-only model", "BertForMaskedLM")
    edit_json(folder / "config.json", model_type="t5", architectures=["T5Model"], is_encoder_decoder=True)
    check_refused(folder, "is an encoder-decoder model (T5Model)")
    edit_json(folder / "config.json", model_type="vit", architectures=["ViTModel"], is_encoder_decoder=False)
    check_refused(folder, "is no language model (ViTModel)")
    edit_json(folder / "config.json", model_type="quantum9")
    check_refused(folder, "model type 'quantum9', which transformers")
    edit_json(folder / "config.json", model_type=None)
    check_refused(folder, "model type 'None'")


def test_a_model_larger_than_the_memory_is_refused_before_it_is_read(folder, monkeypatch):
    def fail(*_, **__):
        raise AssertionError("read too early")

    monkeypatch.setattr(loading, "_read_weights", fail)
    required = loading.required_bytes(parse_pretrained_name(f"hf:{folder}"))
    monkeypatch.setattr("psutil.virtual_memory", lambda: type("Memory", (), {"available": required - 1}))
    size = folder_checks.format_bytes(required)
    check_refused(folder, f"needs {size} of memory, and {folder_checks.format_bytes(required - 1)} are free")




@pytest.mark.parametrize("damage", ["truncated", "empty", "noise"])
def test_damaged_weights_are_refused(damage, folder):
    path = folder / "model.safetensors"
    content = path.read_bytes()
    path.write_bytes({"truncated": content[:-100], "empty": b"", "noise": b"\xff" * 1000}[damage])
    check_refused(folder, "damaged weights", "fetch the model again")


def test_weights_of_another_shape_or_kind_are_refused(folder, folders):
    edit_json(folder / "config.json", num_hidden_layers=3)
    check_refused(folder, "of its tensors, such as model.layers.2.")
    edit_json(folder / "config.json", num_hidden_layers=2, hidden_size=64)
    check_refused(folder, "transformers cannot load it")
    shutil.copy(folders("gpt2") / "model.safetensors", folder)
    edit_json(folder / "config.json", hidden_size=32)
    check_refused(folder, "of its tensors")


def test_a_missing_or_damaged_tokenizer_is_refused(folder):
    (folder / "tokenizer.json").write_text("{")
    check_refused(folder, "its tokenizer")
    (folder / "tokenizer.json").unlink()
    (folder / "tokenizer_config.json").unlink()
    check_refused(folder, "tokenizer")


def test_more_layers_than_tensors_are_refused_before_they_are_built(folder):
    edit_json(folder / "config.json", num_hidden_layers=10**12)
    check_refused(folder, "states 1,000,000,000,000 layers, but the weights have")


def test_a_tokenizer_of_whole_words_is_refused(folder):
    words = {"type": "WordLevel", "vocab": {"<unk>": 0, "<|im_start|>": 1, "<|im_end|>": 2, "lamp": 3}}
    edit_json(folder / "tokenizer.json", model={**words, "unk_token": "<unk>"}, decoder=None, added_tokens=[])
    check_refused(folder, "WordLevel tokenizer", "play the run that it was exported from")


def test_a_model_without_end_of_text_is_refused(folder):
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


def test_a_tokenizer_without_chat_template_has_no_chat(folder):
    save_tokenizer(folder, chat_template=None)
    (folder / "chat_template.jinja").unlink(missing_ok=True)
    model = load_pretrained(f"hf:{folder}")
    assert model.chat is None
    assert model.tokenizer.end_id == 2


def test_the_end_of_a_turn_is_eos_even_if_the_tokenizer_names_another(folder):
    save_tokenizer(folder, eos_token="<|endoftext|>", bos_token=None)
    edit_json(folder / "generation_config.json", eos_token_id=[0, 7])
    model = load_pretrained(f"hf:{folder}")
    assert model.tokenizer.end_id == 2
    assert set(model.info.end_ids) == {0, 2, 7}
    assert model.info.start_id == 0


def test_bos_starts_a_text_where_the_tokenizer_adds_it(folder):
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


def test_a_missing_extra_is_one_line(folder, monkeypatch):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    check_refused(folder, "needs torch and transformers; pip install 'lotr-tui[hf]'")
    path = folder / "x.gguf"
    path.touch()
    check_refused(f"gguf:{path}", "needs torch and transformers and gguf and accelerate; pip install 'lotr-tui[hf]'")


def test_names_are_parsed_without_heavy_imports():
    code = (
        "import sys; from engine.models.pretrained.names import parse_pretrained_name as parse; parse('hf:gpt2'); "
        "assert not {'torch', 'transformers', 'tokenizers'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_nothing_is_printed_while_a_model_is_loaded_and_generates(folder):
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
