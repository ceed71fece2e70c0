"""The list of runs: what is shown, and what is done with one."""

import os
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from textual.pilot import Pilot
from textual.widgets import Input, OptionList, Static

from engine.config import BUNDLED, Config
from engine.events import Evaluated, Finished, Resume
from engine.runs import writer
from engine.runs.store import RunSummary
from lotr_tui.app import LotrApp
from lotr_tui.monitor import run_list
from lotr_tui.monitor.run_list import COLUMNS, all_runs, choose, differences, read_curve
from lotr_tui.screens.dialogs.confirm import Confirm
from lotr_tui.screens.runs import screen as module
from lotr_tui.screens.runs.overlay_chart import OverlayChart
from lotr_tui.screens.runs.screen import RunsScreen
from lotr_tui.screens.session.screen import PlayScreen
from tests.conftest import write_run
from tests.lotr_tui.monitor.test_followed_run import write
from tests.lotr_tui.screens.session.test_session_screen import until
from tests.support.runs import VOCABULARY

MakeApp = Callable[..., LotrApp]


def summary(name: str, **values: object) -> RunSummary:
    plain = RunSummary(name, Path(name), "finished", "tiny", "bundled", "line", 5.0, 80.0, 82.0, 1000.0, 10)
    return replace(plain, **values)  # type: ignore[arg-type]


def evaluations(best: float, epochs: int = 6) -> list[Evaluated]:
    return [Evaluated(n * 10, float(n), best + 90 * 0.5**n, True, float(n)) for n in range(epochs + 1)]


# --- looking through them ---------------------------------------------------------------------------------------


def test_words_typed_must_all_stand_in_it() -> None:
    runs = [summary("shire"), summary("ring", preset="paper", mode="stream"), summary("shadow", state="crashed")]
    assert [run.name for run in choose(runs, "IR", 0, False)] == ["shire"]
    assert [run.name for run in choose(runs, "crash SHA", 0, False)] == ["shadow"]
    assert [run.name for run in choose(runs, "paper stream", 0, False)] == ["ring"]
    assert choose(runs, "[", 0, False) == []


@given(st.lists(st.one_of(st.none(), st.floats(1, 500)), max_size=8), st.booleans())
def test_sorted_by_perplexity_the_unknown_last(perplexities: list[float | None], backwards: bool) -> None:
    runs = [summary(f"r{number}", valid_perplexity=value) for number, value in enumerate(perplexities)]
    column = [column.name for column in COLUMNS].index("valid")
    values = [run.valid_perplexity for run in choose(runs, "", column, backwards)]
    known = [value for value in values if value is not None]
    assert known == sorted(known, reverse=backwards)
    unknown = values[: len(values) - len(known)] if backwards else values[len(known) :]
    assert unknown == [None] * len(unknown)


def test_settings_that_differ_and_no_others(tmp_path: Path) -> None:
    runs = []
    for name, changes in (("a", {}), ("b", {"lr": 0.5, "epochs": 9}), ("c", {"epochs": 9})):
        (tmp_path / name).mkdir()
        (tmp_path / name / "config.json").write_text(Config("tiny").with_values(**changes).to_json())
        runs.append(summary(name, path=tmp_path / name))
    default = Config("tiny").training
    assert differences(runs) == [
        ("epochs", [str(default.epochs), "9", "9"]),
        ("lr", [str(default.lr), "0.5", str(default.lr)]),
    ]
    assert differences(runs[:1]) == []
    (tmp_path / "c" / "config.json").write_text("{")
    assert dict(differences(runs))["lr"][2] == "?"


def test_a_curve_is_without_what_was_done_again(tmp_path: Path) -> None:
    again = [Evaluated(50, 5.0, 70.0, True, 9.0)]
    write(tmp_path, [*evaluations(60.0), Evaluated(70, 7.0, float("nan"), False, 9.0), Resume(41), *again])
    curve = read_curve(summary("r", path=tmp_path))
    assert curve.epochs.tolist() == [0, 1, 2, 3, 4, 5]
    assert curve.perplexities[-1] == 70.0
    assert np.isfinite(curve.perplexities).all()


# --- the screen -------------------------------------------------------------------------------------------------


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """From the latest on: ring (with a model), shire, held (being trained), ends when the fixture does."""
    folder = tmp_path / "runs"
    for number, (name, best, epochs) in enumerate((("held", 90.0, 3), ("shire", 80.0, 6), ("ring", 70.0, 6))):
        if name == "ring":
            path = write_run(folder / name)
        else:
            config = Config("tiny").with_values(lr=0.1 * (number + 1))
            run = writer.create(config, VOCABULARY, name, folder)
            path = run.path
            if name == "held":
                held = run
            else:
                run.lock.close()
        last = [] if name == "held" else [Finished("done", name, float(epochs), best, best + 2, 9.0)]
        write(path, [*evaluations(best, epochs), *last])
        os.utime(path / "config.json", (1_000_000_000 + number,) * 2)
    yield folder
    held.lock.close()


async def show(pilot: Pilot[None], folder: Path) -> list[str | None]:
    """Open the screen; the list gets what it is dismissed with."""
    answers: list[str | None] = []
    pilot.app.push_screen(RunsScreen(folder, folder.parent), answers.append)
    await until(pilot, lambda: isinstance(pilot.app.screen, RunsScreen) and len(rows(pilot)) >= 4)
    return answers


def rows(pilot: Pilot[None]) -> list[str]:
    found = pilot.app.screen.query(OptionList)
    return [str(option.prompt) for options in found for option in options.options]


def names(pilot: Pilot[None]) -> list[str]:
    return [row.replace("1 ", "  ", 1).replace("2 ", "  ", 1).split()[0] for row in rows(pilot)]


def said(pilot: Pilot[None]) -> str:
    return str(pilot.app.screen.query_one("#said", Static).render())


def drawn(pilot: Pilot[None]) -> str:
    chart = pilot.app.screen.query_one(OverlayChart)
    return "\n".join(chart.render_line(row).text for row in range(chart.size.height))


@pytest.mark.parametrize("width", [60, 80, 200])
async def test_the_list(make_host: MakeApp, folder: Path, width: int) -> None:
    async with make_host().run_test(size=(width, 24)) as pilot:
        await show(pilot, folder)
        listed = {row.split()[0]: row for row in rows(pilot)}
        assert set(listed) == {"bundled", "ring", "shire", "held"}
        assert listed["held"].split()[1:3] == ["running", "101.2"]  # 90 + 90 / 8
        assert "finished" in listed["ring"]
        assert "72.0" in listed["ring"]
        header = str(pilot.app.screen.query_one("#columns", Static).render())
        assert header.index("state") + len("state") == rows(pilot)[0].index("finished") + len("finished") - 3
        assert ("size" in header) == (width >= 80)
        assert all(len(row) <= width for row in rows(pilot))


async def test_sorting(make_host: MakeApp, folder: Path) -> None:
    async with make_host().run_test(size=(120, 24)) as pilot:
        await show(pilot, folder)
        latest = [name for name in names(pilot) if name != "bundled"]
        assert latest == ["ring", "shire", "held"]
        await pilot.press("s", "s")  # size, then the name
        assert names(pilot) == ["bundled", "held", "ring", "shire"]
        await pilot.press("S")
        assert names(pilot) == ["shire", "ring", "held", "bundled"]


@pytest.mark.parametrize("width", [60, 80])
async def test_what_is_sorted_by_is_always_seen(
    make_host: MakeApp, folder: Path, monkeypatch: pytest.MonkeyPatch, width: int
) -> None:
    monkeypatch.setattr(run_list, "ago", lambda seconds: "3 h")  # not another second between a look and the next
    for number in range(20):  # more than there is room for, so that there is a scroll bar
        write_run(folder / f"other{number}")
    async with make_host().run_test(size=(width, 24)) as pilot:
        await show(pilot, folder)
        seen = set()
        for _ in COLUMNS:
            await pilot.press("s")
            await pilot.pause()
            options = pilot.app.screen.query_one("#runs", OptionList)
            header = " " * 3 + str(pilot.app.screen.query_one("#columns", Static).render())
            sorted_by = next(column for column in COLUMNS if f"{column.name}↓" in header)
            seen.add(sorted_by.name)
            lines = [options.render_line(line).text for line in range(5)]
            row = next(line for line in lines if "other" in line)
            run = next(run for run in all_runs(folder) if run.name == row.split()[0])
            if sorted_by.name == "run":
                assert row.strip().startswith(run.name)
            else:
                assert row[: header.index("↓") + 1].endswith(f" {sorted_by.show(run)}")
        assert seen == {column.name for column in COLUMNS}


def test_sizes() -> None:
    column = next(column for column in COLUMNS if column.name == "size")
    sizes = [
        column.show(summary("r", bytes=size)) for size in (0, 4_150_000, 999_940_000, 999_960_000, 1_600_000_000_000)
    ]
    assert sizes == ["0.0 MB", "4.2 MB", "999.9 MB", "1.0 GB", "1,600.0 GB"]


async def test_filtering_as_one_types(make_host: MakeApp, folder: Path) -> None:
    async with make_host().run_test(size=(80, 24)) as pilot:
        answers = await show(pilot, folder)
        await pilot.press("slash", "r", "i", "n")
        await until(pilot, lambda: names(pilot) == ["ring"])
        await pilot.press("d")  # a letter, not the action
        await until(pilot, lambda: names(pilot) == [])
        assert not pilot.app.screen.has_class("-differences")
        await pilot.press("backspace", "enter")
        await until(pilot, lambda: names(pilot) == ["ring"])
        assert not answers
        await pilot.press("enter")
        await until(pilot, lambda: answers)
        assert answers == [str(folder / "ring")]


async def test_escape_leaves_the_filter_first(make_host: MakeApp, folder: Path) -> None:
    async with make_host().run_test(size=(80, 24)) as pilot:
        answers = await show(pilot, folder)
        await pilot.press("slash", "x", "escape")
        await until(pilot, lambda: len(names(pilot)) == 4)
        assert pilot.app.screen.query_one("#filter", Input).value == ""
        assert not answers
        await pilot.press("escape")
        await until(pilot, lambda: answers)
        assert answers == [None]


async def test_marked_runs_are_drawn_over_each_other_and_their_settings_compared(
    make_host: MakeApp, folder: Path
) -> None:
    async with make_host().run_test(size=(140, 40)) as pilot:
        await show(pilot, folder)
        place = names(pilot).index("ring")
        await pilot.press(*["down"] * place, "space", "down", "space", "d")
        await until(pilot, lambda: "1 ring 71.4" in drawn(pilot) and "2 shire 81.4" in drawn(pilot))
        picture = drawn(pilot).split("\n", 1)[1]
        assert "1" in picture
        assert "2" in picture
        assert any(0x2800 < ord(character) < 0x2900 for character in picture)
        settings = pilot.app.screen.query_one("#settings", Static)
        await until(pilot, lambda: "lr " in str(settings.render()))
        assert "embedding_size" in str(settings.render())
        assert "dropout" not in str(settings.render())
        await pilot.press("space")  # no mark any more
        await until(pilot, lambda: "shire" not in drawn(pilot))


async def test_renaming(make_host: MakeApp, folder: Path) -> None:
    async with make_host().run_test(size=(80, 24)) as pilot:
        await show(pilot, folder)
        await pilot.press(*["down"] * names(pilot).index("ring"), "r")
        await until(pilot, lambda: pilot.app.screen.query("#name"))
        await pilot.press(*"other", "enter")
        await until(pilot, lambda: "run ring is now other" in said(pilot))
        assert (folder / "other").is_dir()
        await pilot.press("r")
        await until(pilot, lambda: pilot.app.screen.query("#name"))
        pilot.app.screen.query_one("#name", Input).value = "../x"
        await pilot.press("enter")
        await until(pilot, lambda: "no folder name" in said(pilot))
        assert (folder / "other").is_dir()


async def test_deleting_asks(make_host: MakeApp, folder: Path) -> None:
    async with make_host().run_test(size=(80, 24)) as pilot:
        await show(pilot, folder)
        await pilot.press(*["down"] * names(pilot).index("ring"), "x")
        await until(pilot, lambda: isinstance(pilot.app.screen, Confirm))
        await pilot.press("n")
        await pilot.pause()
        assert (folder / "ring").is_dir()
        await pilot.press("x")
        await until(pilot, lambda: isinstance(pilot.app.screen, Confirm))
        await pilot.press("y")
        await until(pilot, lambda: "ring is deleted" in said(pilot))
        assert not (folder / "ring").exists()
        assert "ring" not in names(pilot)


@pytest.mark.parametrize("key", ["r", "x"])
async def test_a_run_being_trained_stays_as_it_is(make_host: MakeApp, folder: Path, key: str) -> None:
    async with make_host().run_test(size=(80, 24)) as pilot:
        await show(pilot, folder)
        await pilot.press(*["down"] * names(pilot).index("held"), key)
        await pilot.pause()
        if key == "r":
            await until(pilot, lambda: pilot.app.screen.query("#name"))
            await pilot.press(*"other", "enter")
        await until(pilot, lambda: "being trained; stop it first" in said(pilot))
        assert (folder / "held").is_dir()


async def test_the_bundled_model_is_played_with_and_stays(make_host: MakeApp, folder: Path) -> None:
    async with make_host().run_test(size=(80, 24)) as pilot:
        answers = await show(pilot, folder)
        await pilot.press(*["down"] * names(pilot).index("bundled"), "x")
        await until(pilot, lambda: isinstance(pilot.app.screen, Confirm))
        await pilot.press("y")
        await until(pilot, lambda: "stays" in said(pilot))
        await pilot.press("enter")
        await until(pilot, lambda: answers)
        assert answers == ["bundled"]


async def test_exporting_twice_overwrites_nothing(make_host: MakeApp, folder: Path) -> None:
    async with make_host().run_test(size=(80, 24)) as pilot:
        await show(pilot, folder)
        await pilot.press(*["down"] * names(pilot).index("ring"), "c")
        await until(pilot, lambda: "written to" in said(pilot) and said(pilot).endswith("ring-csv"))
        await pilot.press("c")
        await until(pilot, lambda: said(pilot).endswith("ring-csv-2"))
        assert (folder.parent / "ring-csv" / "evaluated.csv").is_file()


async def test_a_run_that_ends_meanwhile_and_no_runs(make_host: MakeApp, tmp_path: Path) -> None:
    async with make_host().run_test(size=(60, 20)) as pilot:
        pilot.app.push_screen(RunsScreen(tmp_path / "none"))
        await until(pilot, lambda: pilot.app.screen.query("#said"))
        await until(pilot, lambda: "no run of yours yet" in said(pilot))
        assert names(pilot) == ["bundled"]
        write_run(tmp_path / "none" / "first")
        await pilot.press("f5")
        await until(pilot, lambda: "first" in names(pilot))


async def test_a_tiny_terminal(make_host: MakeApp, folder: Path) -> None:
    async with make_host().run_test(size=(20, 6)) as pilot:
        await show(pilot, folder)
        await pilot.press("down", "space", "d", "slash", "r", "escape", "s")
        await pilot.resize_terminal(80, 24)
        await until(pilot, lambda: len(names(pilot)) == 4)


async def test_from_the_session_another_run_is_played_with(make_app: MakeApp, folder: Path) -> None:
    async with make_app().run_test(size=(80, 24)) as pilot:
        await pilot.press("ctrl+o")
        await until(pilot, lambda: isinstance(pilot.app.screen, RunsScreen) and len(rows(pilot)) >= 4)
        await pilot.press("slash", *"ring", "enter", "enter")
        await until(pilot, lambda: isinstance(pilot.app.screen, PlayScreen))
        status = pilot.app.screen.query_one("#status")
        await until(pilot, lambda: "ring" in str(status.render()))  # type: ignore[attr-defined]


@pytest.mark.parametrize("size", [(60, 20), (80, 24), (160, 45)], ids=lambda size: f"{size[0]}x{size[1]}")
def test_how_it_looks(
    snap_compare: Callable[..., bool],
    make_host: MakeApp,
    folder: Path,
    monkeypatch: pytest.MonkeyPatch,
    size: tuple[int, int],
) -> None:
    """`pytest --snapshot-update` after a change that was looked at."""
    monkeypatch.setattr(module, "LOOK_SECONDS", 1000)
    monkeypatch.setattr(run_list, "ago", lambda seconds: "3 h")

    async def compare(pilot: Pilot[None]) -> None:
        await show(pilot, folder)
        runs = pilot.app.screen
        assert isinstance(runs, RunsScreen)
        runs._all = [replace(run, bytes=4_200_000) for run in runs._all if run.name != BUNDLED]
        await pilot.press("s", "s", "space", "down", "down", "space", *(["d"] if size != (80, 24) else []))
        settings = runs.query_one("#settings", Static)
        await until(pilot, lambda: "lr  0.1  0.2" in str(settings.render()))
        await pilot.pause(0.2)

    assert snap_compare(make_host(), terminal_size=size, run_before=compare)


@pytest.mark.parametrize("gone", ["*", "#curves", "#settings"])
async def test_left_before_its_comparison_begins(make_host: MakeApp, folder: Path, gone: str) -> None:
    async with make_host().run_test(size=(120, 24)) as pilot:
        await show(pilot, folder)
        screen = pilot.app.screen
        assert isinstance(screen, RunsScreen)
        await screen.query(gone).remove()  # as at the end, where its widgets go first
        screen._compare()
        screen.action_refresh()
        await until(pilot, lambda: not screen.workers._workers)
        assert pilot.app._exception is None
