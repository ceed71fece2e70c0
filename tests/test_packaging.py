"""The package: its changelog, a wheel with all that the program reads, and modules without cycles."""

import re
import tomllib
from graphlib import CycleError, TopologicalSorter

import grimp
import pytest

from tests.support.files import CHECKOUT

METADATA = tomllib.loads((CHECKOUT / "pyproject.toml").read_text())
NOT_IN_WHEEL = {".svg", ".gif"}  # suffixes of pictures, which only the README shows


def test_the_changelog_begins_with_this_version():
    headings = re.findall(r"^## \[(.*?)\]", (CHECKOUT / "assets" / "docs" / "changelog.md").read_text(), re.MULTILINE)
    assert next(heading for heading in headings if heading != "Unreleased") == METADATA["project"]["version"]


def test_install_guide_lists_the_dependencies_of_a_light_installation():
    required = {re.match(r"[\w-]+", dependency)[0] for dependency in METADATA["project"]["dependencies"]}
    guide = (CHECKOUT / "assets" / "docs" / "install.md").read_text()
    command = re.search(r"pip install (numpy .*?)(?<!\\\\)\n", guide)[1]
    assert {re.match(r"[\w-]+", word.strip("'"))[0] for word in command.split()} == required - {"torch", "pandas"}


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


def test_no_module_imports_itself_through_others():
    """Lazy and type-checking imports count."""
    graph = grimp.build_graph("engine", "lotr_tui", exclude_type_checking_imports=False)
    imports = {module: graph.find_modules_directly_imported_by(module) for module in graph.modules}
    try:
        TopologicalSorter(imports).prepare()
    except CycleError as error:
        pytest.fail(" imports ".join(error.args[1]))
