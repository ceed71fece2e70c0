"""Names of models by others that are offered."""

from engine.models.pretrained.names import BASE_FILE, SMOLLM2, base_folder
from lotr_tui.session.model_loading import add_recent_model, known_model_names
from lotr_tui.session.settings import MAX_RECENT_MODELS, Settings


def cache_model(cache, name, *files):
    snapshot = cache / name / "snapshots" / "0123abcd"
    snapshot.mkdir(parents=True)
    for file in files:
        (snapshot / file).touch()


def test_models_with_safetensors_are_listed(tmp_path, monkeypatch):
    cache_model(tmp_path, "models--owner--small-model", "config.json", "model.safetensors")
    cache_model(tmp_path, "models--gpt2", "config.json", "model.safetensors")
    cache_model(tmp_path, "models--owner--pickle", "config.json", "pytorch_model.bin")
    cache_model(tmp_path, "models--owner--tokenizer-only", "config.json")
    cache_model(tmp_path, "datasets--owner--data", "config.json", "model.safetensors")
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path / "missing"))
    assert known_model_names([]) == []
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path))
    assert known_model_names(["gguf:a.gguf", "hf:gpt2"]) == ["gguf:a.gguf", "hf:gpt2", "hf:owner/small-model"]
    monkeypatch.setenv("LOTR_TUI_HOME", str(tmp_path))
    base_folder(SMOLLM2).mkdir(parents=True)
    (base_folder(SMOLLM2) / BASE_FILE).touch()
    assert known_model_names([])[:2] == ["smollm2", "hf:gpt2"]


def test_model_used_last_comes_first():
    recent: tuple[str, ...] = ()
    for number in (*range(12), 9):
        recent = add_recent_model(f"hf:owner/m{number}", recent)
    assert recent[:3] == ("hf:owner/m9", "hf:owner/m11", "hf:owner/m10")
    assert len(recent) == MAX_RECENT_MODELS
    assert Settings.from_json(Settings(recent_models=recent).to_json()).recent_models == recent
