"""Tiny models by others, created and loaded once."""

import shutil
from functools import cache

import pytest

from engine.models.pretrained.loading import load_pretrained
from tests.support.pretrained import save_model


@pytest.fixture(scope="session")
def folders(tmp_path_factory):
    """Return a function from a family to a folder with a tiny model of it, which is created once."""

    @cache
    def create(family):
        path = tmp_path_factory.mktemp(family)
        save_model(path, family)
        return path

    return create


@pytest.fixture(scope="session")
def pretrained(folders):
    """Return a function from a family to a loaded tiny model of it, which is loaded once."""
    return cache(lambda family: load_pretrained(f"hf:{folders(family)}"))


@pytest.fixture
def folder(folders, tmp_path):
    """A copy of the folder of a tiny Llama, which a test may damage."""
    shutil.copytree(folders("llama"), tmp_path / "model")
    return tmp_path / "model"
