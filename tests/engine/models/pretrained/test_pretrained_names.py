"""Names of models by others, which are parsed without torch and transformers."""

import pytest

from engine.errors import InvalidInputError
from engine.models.pretrained.names import is_pretrained_name, parse_pretrained_name


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
    with pytest.raises(InvalidInputError) as error:
        parse_pretrained_name(name)
    assert message in str(error.value)


def test_a_gguf_file_is_named_and_a_file_for_a_folder_and_a_folder_for_a_file_are_explained(tmp_path):
    file = tmp_path / "SmolLM2-135M.Q4_1.gguf"
    file.touch()
    source = parse_pretrained_name(f"gguf:{file}")
    assert (source.kind, source.path, source.short_name) == ("gguf", file, "SmolLM2-135M.Q4_1")
    with pytest.raises(InvalidInputError, match=r"is a file, not a folder; write gguf:"):
        parse_pretrained_name(f"hf:{file}")
    with pytest.raises(InvalidInputError, match="is a folder; write gguf:FILE"):
        parse_pretrained_name(f"gguf:{tmp_path}")
