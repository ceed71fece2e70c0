import pytest

from engine.models.pretrained.loading import load_pretrained
from tests.support.pretrained import check_refused, edit_json

pytest.importorskip("transformers")


class FakeHub:
    """A Hub with one model, or one that cannot be reached."""

    def __init__(self, monkeypatch, folder, files=None):
        self.folder, self.downloaded, self.is_cached = folder, [], False
        self.files = files
        monkeypatch.setattr("huggingface_hub.snapshot_download", self.snapshot_download)
        monkeypatch.setattr("huggingface_hub.HfApi", lambda: self)
        monkeypatch.setattr("huggingface_hub.hf_hub_download", self.hf_hub_download)

    def snapshot_download(self, repo_id, **options):
        assert options["local_files_only"]
        if not self.is_cached:
            raise FileNotFoundError("not cached")
        return str(self.folder)

    def model_info(self, repo_id, *, files_metadata, timeout):
        assert timeout <= 10
        if self.folder is None:
            raise ConnectionError("no network")
        files = self.files or [path.name for path in self.folder.iterdir()]
        siblings = [type("File", (), {"rfilename": file, "size": 1000}) for file in files]
        return type("Info", (), {"siblings": siblings, "sha": "abc"})

    def hf_hub_download(self, repo_id, file, **options):
        assert self.folder is not None
        self.downloaded.append(file)
        return str(self.folder / file)


def test_a_cached_model_is_loaded_without_the_network(folder, monkeypatch):
    fake = FakeHub(monkeypatch, folder)
    fake.is_cached = True
    steps = []
    assert load_pretrained("hf:owner/tiny", steps.append).name == "hf:owner/tiny"
    assert not any("Hub" in step.text for step in steps)
    assert fake.downloaded == []


def test_a_model_is_downloaded_without_pickles_and_code(folder, monkeypatch):
    for extra in ("pytorch_model.bin", "modeling_x.py", "README.md", "model.onnx"):
        (folder / extra).touch()
    fake = FakeHub(monkeypatch, folder)
    steps = []
    load_pretrained("hf:owner/tiny", steps.append)
    assert fake.downloaded[0] == "config.json"
    assert fake.downloaded[-1] == "model.safetensors"
    assert not {"pytorch_model.bin", "modeling_x.py", "model.onnx"} & set(fake.downloaded)
    assert "asking the Hugging Face Hub for owner/tiny" in [step.text for step in steps]
    assert any(step.text.startswith("downloading 0 MB of") for step in steps)


def test_a_model_neither_cached_nor_reachable_is_one_line(monkeypatch):
    FakeHub(monkeypatch, None)
    check_refused("hf:owner/tiny", "is neither in the local cache nor reachable (ConnectionError)")


@pytest.mark.parametrize(("error", "part"), [("GatedRepoError", "log in"), ("RepositoryNotFoundError", "no model")])
def test_refusals_of_the_hub_are_explained(error, part, monkeypatch):
    fake = FakeHub(monkeypatch, None)

    def refuse(*_, **__):
        raise type(error, (Exception,), {})

    monkeypatch.setattr(fake, "model_info", refuse)
    check_refused("hf:owner/tiny", part)


def test_pickles_and_code_on_the_hub_are_refused_before_the_download(folder, monkeypatch):
    FakeHub(monkeypatch, folder, ["config.json", "pytorch_model.bin"])
    check_refused("hf:owner/tiny", "only as a pickle")
    FakeHub(monkeypatch, folder, ["config.json"])
    check_refused("hf:owner/tiny", "no weights in safetensors")
    edit_json(folder / "config.json", auto_map={"AutoModelForCausalLM": "x.Y"})
    fake = FakeHub(monkeypatch, folder)
    check_refused("hf:owner/tiny", "needs code of its own")
    assert fake.downloaded == ["config.json"]


def test_a_partly_cached_model_without_network_names_what_is_missing(folder, monkeypatch):
    fake = FakeHub(monkeypatch, folder)
    fake.is_cached = True
    (folder / "model.safetensors").unlink()

    def fail(*_, **__):
        raise ConnectionError

    monkeypatch.setattr(fake, "model_info", fail)
    check_refused("hf:owner/tiny", "has no weights")


def test_the_library_of_the_hub_fails_offline_in_one_line(monkeypatch, tmp_path):
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    check_refused("hf:lotr-tui-tests/there-is-no-such-model", "neither in the local cache nor reachable")
