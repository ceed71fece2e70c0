"""Version checks, one-time failure reports, and quarantine of damaged files."""

import pytest

from engine.errors import InvalidInputError
from lotr_tui.session.json_store import FailureReporter, check_version, quarantine_file


@pytest.mark.parametrize(
    ("version", "message"),
    [
        (None, "version is missing"),
        ("1", "version is missing"),
        (True, "version is missing"),
        (0, "version is missing"),
        (1, "written by an older lotr-tui"),
        (3, "written by a newer lotr-tui"),
    ],
)
def test_another_version_is_refused(version, message):
    check_version(2, 2)
    with pytest.raises(InvalidInputError, match=message):
        check_version(version, 2)


def test_versions_down_to_the_oldest_one_are_read():
    check_version(2, 3, oldest=2)
    check_version(3, 3, oldest=2)
    for version in (1, 4):
        with pytest.raises(InvalidInputError, match=f"format {version}"):
            check_version(version, 3, oldest=2)


def test_repeated_failure_is_reported_once_until_a_success():
    failures = FailureReporter()
    assert [failures.report("full"), failures.report("full")] == ["full", ""]
    failures.reset()
    assert failures.report("full") == "full"


def test_quarantined_file_does_not_replace_an_earlier_one(tmp_path):
    for number in (1, 2):
        (tmp_path / "kept").write_text(f"damage {number}")
        assert f"set aside as kept.damaged-{number}" in quarantine_file(tmp_path / "kept", InvalidInputError("damage"))
    assert [(tmp_path / f"kept.damaged-{n}").read_text() for n in (1, 2)] == ["damage 1", "damage 2"]


def test_deleted_file_cannot_be_quarantined(tmp_path):
    assert "cannot be set aside" in quarantine_file(tmp_path / "gone", InvalidInputError("damage"))
    assert list(tmp_path.iterdir()) == []
