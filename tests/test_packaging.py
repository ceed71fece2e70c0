"""Tests of the package: one version, a changelog, and a wheel with all that the program reads."""

import re
import tomllib

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
