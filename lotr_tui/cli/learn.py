"""`lotr-tui learn`: the class."""

import sys
from dataclasses import replace
from typing import Annotated

from engine.config import DataConfig
from engine.errors import InvalidInputError
from engine.storage.files import absolute_path
from lotr_tui.cli import options
from lotr_tui.cli.parser import add_command, argument, flag, make_group
from lotr_tui.learn.chapters import CHAPTERS, find_chapter
from lotr_tui.learn.progress import ProgressStore

CHAPTER_HELP = "Number or name of a chapter. Default: the first one whose task is not done."
commands = make_group()


@add_command(commands, "learn", "lotr-tui learn", "lotr-tui learn perplexity", "lotr-tui learn --csv dialogues.csv")
def learn(
    chapter: Annotated[str | None, argument("CHAPTER", CHAPTER_HELP)] = None,
    run: options.RunOption = None,
    csv: options.CsvOption = None,
    text: options.TextOption = None,
    text_column: options.TextColumnOption = None,
    runs_dir: options.RunsDirOption = None,
    list_chapters: Annotated[bool, flag("--list", "Print the chapters, and which tasks are done, and exit.")] = False,
    theme: options.ThemeOption = None,
    no_mouse: options.NoMouseOption = False,
) -> int:
    """Learn what a language model is: eight short chapters with something to move."""
    index = None if chapter is None else find_chapter(chapter)
    if list_chapters:
        store = ProgressStore()
        for number, each in enumerate(CHAPTERS, 1):
            print(f"{number}  {'done' if each.name in store.current.done else '    '}  {each.name:12}  {each.title}")
        if store.notice:
            print(f"lotr-tui: {store.notice}", file=sys.stderr)
        return 0
    if sum(given is not None for given in (run, csv, text)) > 1:
        raise InvalidInputError("--run, --csv and --text exclude one another; a run brings its own corpus")
    options.check_theme(theme)
    from lotr_tui.cli.launch import open_class  # imports Textual
    from lotr_tui.learn.material import Material
    from lotr_tui.session.session_model import load_session_model

    material = Material.from_session(load_session_model([run], runs_dir)) if run is not None else None
    if path := csv or text:
        data = DataConfig(corpus=str(absolute_path(path)), corpus_format="csv" if csv else "text")
        material = Material(data if text_column is None else replace(data, text_column=text_column))
        for _ in material.words():  # a corpus that cannot be used is reported before the screen is drawn
            pass
    return open_class(index, material, theme, mouse=not no_mouse)
