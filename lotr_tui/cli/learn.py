"""The command that opens the class."""

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from engine.errors import InvalidInputError
from lotr_tui.cli import options

if TYPE_CHECKING:
    from lotr_tui.learn.material import Material

ChapterArgument = Annotated[
    str | None,
    typer.Argument(
        metavar="CHAPTER", help="Number or name of a chapter. Default: the first one whose task is not done."
    ),
]
CsvOption = Annotated[
    Path | None,
    typer.Option("--csv", metavar="FILE", help="Learn on a CSV, one utterance per row.", rich_help_panel=options.DATA),
]
TextOption = Annotated[
    Path | None,
    typer.Option(
        "--text", metavar="FILE", help="Learn on plain text, one utterance per line.", rich_help_panel=options.DATA
    ),
]
RunOption = Annotated[
    str | None,
    typer.Option(
        "--run",
        metavar="RUN",
        help="Learn on a run and its corpus: name or path of a run, latest, RUN@EPOCH, hf:FOLDER, hf:owner/name or "
        "gguf:FILE.",
        rich_help_panel=options.MODEL,
    ),
]


def learn(
    chapter: ChapterArgument = None,
    run: RunOption = None,
    csv: CsvOption = None,
    text: TextOption = None,
    text_column: options.TextColumnOption = None,
    runs_dir: options.RunsDirOption = None,
    list_chapters: Annotated[
        bool, typer.Option("--list", help="Print the chapters, and which tasks are done, and exit.")
    ] = False,
    theme: options.ThemeOption = None,
    no_mouse: options.NoMouseOption = False,
) -> int:
    """Learn what a language model is: eight short chapters with something to move."""
    from lotr_tui.learn.chapters import CHAPTERS, find_chapter
    from lotr_tui.learn.progress import ProgressStore

    index = None if chapter is None else find_chapter(chapter)
    if list_chapters:
        store = ProgressStore()
        for number, each in enumerate(CHAPTERS, 1):
            print(f"{number}  {'done' if each.name in store.current.done else '    '}  {each.name:12}  {each.title}")
        if store.notice:
            print(f"lotr-tui: {store.notice}", file=sys.stderr)
        return 0
    if sum(option is not None for option in (run, csv, text)) > 1:
        raise InvalidInputError("--run, --csv and --text exclude one another; a run brings its own corpus")
    options.check_theme(theme)
    from lotr_tui.cli.launch import open_class

    return open_class(index, _make_material(run, csv, text, text_column, runs_dir), theme, mouse=not no_mouse)


def _make_material(
    run: str | None, csv: Path | None, text: Path | None, text_column: str | None, runs_dir: Path | None
) -> "Material | None":
    """Return the corpus and the models that the options name, or None for the bundled ones.

    Raises:
        InvalidInputError: If a file or a run cannot be used.
    """
    if run is not None:
        from lotr_tui.learn.material import Material
        from lotr_tui.session.session_model import load_session_model

        return Material.from_session(load_session_model([run], runs_dir))
    if csv is None and text is None:
        return None
    from dataclasses import replace

    from engine.config import DataConfig
    from engine.storage.files import absolute_path
    from lotr_tui.learn.material import Material

    path = csv if csv is not None else text
    assert path is not None
    data = DataConfig(corpus=str(absolute_path(path)), corpus_format="text" if csv is None else "csv")
    material = Material(data if text_column is None else replace(data, text_column=text_column))
    for _ in material.words():  # a corpus that cannot be used is reported before the screen is drawn
        pass
    return material
