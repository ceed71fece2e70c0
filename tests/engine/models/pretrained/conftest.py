"""Tiny models by others, created and loaded once."""

import shutil

import pytest

from engine.models.pretrained.loading import load_pretrained
from tests.support.pretrained import save_model


@pytest.fixture(scope="session")
def folders(tmp_path_factory):
    """Return a function from a family to a folder with a tiny model of it, which is created once."""
    created = {}

    def find(family):
        if family not in created:
            created[family] = tmp_path_factory.mktemp(family)
            save_model(created[family], family)
        return created[family]

    return find


@pytest.fixture(scope="session")
def pretrained(folders):
    """Return a function from a family to a loaded tiny model of it, which is loaded once."""
    loaded = {}

    def load(family):
        if family not in loaded:
            loaded[family] = load_pretrained(f"hf:{folders(family)}")
        return loaded[family]

    return load


@pytest.fixture(scope="session")
def references(folders):
    """Return a function from a family to the model of transformers itself."""
    import transformers

    loaded = {}

    def load(family):
        if family not in loaded:
            loaded[family] = transformers.AutoModelForCausalLM.from_pretrained(folders(family)).eval()
        return loaded[family]

    return load


@pytest.fixture
def folder(folders, tmp_path):
    """A copy of the folder of a tiny Llama, which a test may damage."""
    shutil.copytree(folders("llama"), tmp_path / "model")
    return tmp_path / "model"
