"""`lotr-tui serve`, `learn`, `doctor`, `locate` and `completion`: the app in a browser, the class, and this machine."""

import asyncio
import logging
import sys
from dataclasses import asdict, replace
from functools import partial
from pathlib import Path
from typing import Annotated, Literal

from rich.table import Table
from rich.text import Text

from engine.config import DataConfig
from engine.errors import InvalidInputError, install_command, printable
from engine.models.pretrained.names import SMOLLM2, base_folder, is_pretrained_name
from engine.runs.directory import resolve_run
from engine.storage.files import absolute_path, app_home, assets_dir, default_runs_dir
from lotr_tui import completion as completion_package
from lotr_tui.cli import console, main
from lotr_tui.cli.main import option
from lotr_tui.doctor.checks import run_checks
from lotr_tui.formatting import plural
from lotr_tui.learn.chapters import CHAPTERS, find_chapter
from lotr_tui.learn.progress import ProgressStore, progress_file
from lotr_tui.session import session_file, settings
from lotr_tui.session.model_loading import ModelLoader

WEB = "Web"
ATTACH_HELP = "Show the dashboard of a run in place of the session: its name or path, or latest."
API_HELP = "Answer other programs in place of browsers, as OpenAI's API does; each speaker is a model too."
BROWSERS_HELP = "Browsers at once. Default: 8."
ALLOW_HELP = "Name under which browsers reach this server, such as that of a reverse proxy; repeatable."
ORIGIN_HELP = "Origin whose pages may use --api, such as http://localhost:3000; repeatable."
CHAPTER_HELP = "Number or name of a chapter. Default: the first one whose task is not done."
STYLES = {"ok": "green", "warning": "yellow", "problem": "bold red"}
commands = main.Commands()


@commands.command("serve", cls=main.Command, epilog="lotr-tui serve --run latest\nlotr-tui serve --api --run film")
def serve(
    run: main.RunsOption = None,
    attach: Annotated[str | None, option("--attach RUN", ATTACH_HELP, main.MODEL)] = None,
    runs_dir: main.RunsDirOption = None,
    theme: main.ThemeOption = None,
    host: Annotated[str, option("--host HOST", "Address to listen on.", WEB)] = "127.0.0.1",
    port: Annotated[int, option("--port N", "Port; 0 takes any free one.", WEB, min=0, max=65535)] = 8000,
    public: Annotated[bool, option("--public", "Allow a host that other machines can reach.", WEB)] = False,
    allow_host: Annotated[list[str] | None, option("--allow-host NAME", ALLOW_HELP, WEB)] = None,
    allow_origin: Annotated[list[str] | None, option("--allow-origin ORIGIN", ORIGIN_HELP, WEB)] = None,
    max_browsers: Annotated[int | None, option("--max-browsers N", BROWSERS_HELP, WEB, min=1, max=100)] = None,
    as_api: Annotated[bool, option("--api", API_HELP, WEB)] = False,
) -> int:
    """Show the session or the dashboard of a run in a browser, or answer other programs."""
    try:
        from lotr_tui.serve import access

        if not as_api:
            from lotr_tui.serve import server
    except ImportError as error:
        extra = "api" if as_api else "serve"
        raise InvalidInputError(f"serve needs the package {error.name}; {install_command(extra)}") from error
    for_browsers = {"--attach": attach, "--theme": theme, "--max-browsers": max_browsers} if as_api else {}
    excluded = [name for name, value in for_browsers.items() if value is not None]
    if excluded or (attach is not None and run):
        one, other = ("--api", excluded[0]) if excluded else ("--run", "--attach")
        raise InvalidInputError(f"{one} and {other} exclude each other; leave out one")
    arguments = [] if attach is None else ["attach", str(resolve_run(attach, runs_dir).absolute())]
    for name in run or []:
        if not is_pretrained_name(name):
            resolve_run(name.rpartition("@")[0] or name, runs_dir)
        arguments += ["--run", name]
    arguments += [] if runs_dir is None else ["--runs-dir", str(runs_dir)]
    arguments += [] if theme is None else ["--theme", theme]
    listening, address = access.bind(host, port, public=public)
    port = listening.getsockname()[1]
    guard = access.AccessGuard([host, *(allow_host or [])], public=public)
    report = partial(print, flush=True)
    logging.getLogger().addHandler(access.ErrorLog(report))
    with listening:
        if as_api:
            from lotr_tui.serve.api import ApiServer  # imports numpy

            api = ApiServer(ModelLoader(run or (), runs_dir)(), guard, allow_origin or ())
            name, *people = api.speakers
            application, names = api.make_application(), ", ".join(each.rpartition("/")[2] for each in people)
            names = printable(f"{name}{names and f', {name}/NAME with one of these names: {names}'}")
            lines = [f"export OPENAI_BASE_URL={address}v1 OPENAI_API_KEY={guard.token}", f"models: {names}"]
        else:
            title = printable("lotr-tui" if attach is None else f"{attach} · lotr-tui")
            command = [sys.executable, "-m", "lotr_tui", *arguments]
            application = server.BrowserServer(command, title, guard, max_browsers or 8, report).make_application()
            lines = [f"{address}?{access.TOKEN_PARAMETER}={guard.token}"]
        tunnel = f"from another machine: ssh -L {port}:localhost:{port} USER@THIS-MACHINE; then use the URL there"
        if public:
            tunnel = "the network can read the token and the session, unless a proxy adds HTTPS; an SSH tunnel is safe"
        on_ready = partial(report, *lines, tunnel, "ctrl+c ends the server", sep="\n")
        return asyncio.run(access.serve_until_signal(application, guard, listening, on_ready))


@commands.command("learn", cls=main.Command, epilog="lotr-tui learn perplexity\nlotr-tui learn --csv dialogues.csv")
def learn(
    chapter: Annotated[str | None, option("CHAPTER", CHAPTER_HELP)] = None,
    run: main.RunOption = None,
    csv: main.CsvOption = None,
    text: main.TextOption = None,
    text_column: main.TextColumnOption = None,
    runs_dir: main.RunsDirOption = None,
    list_chapters: Annotated[bool, option("--list", "Print the chapters, and which tasks are done, and exit.")] = False,
    theme: main.ThemeOption = None,
    no_mouse: main.NoMouseOption = False,
) -> int:
    """Learn what a language model is: short chapters with something to move."""
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
    from lotr_tui.cli.launch import open_class  # imports Textual
    from lotr_tui.learn.material import Material
    from lotr_tui.session.session_model import load_session_model

    material = Material.from_session(load_session_model([run], runs_dir)) if run is not None else None
    if path := csv or text:
        data = DataConfig(corpus=str(absolute_path(path)), corpus_format="csv" if csv else "text")
        data = data if text_column is None else replace(data, text_column=text_column)
        material = Material(main.ask_for_columns(data))
        for _ in material.words():  # a corpus that cannot be used is reported before the screen is drawn
            pass
    return open_class(index, material, theme, mouse=not no_mouse)


@commands.command("doctor", cls=main.Command, epilog="lotr-tui doctor\nlotr-tui doctor --json > report.json")
def doctor(as_json: main.JsonOption = False) -> int:
    """Show what works on this machine and what to do about the rest, on one screen for a bug report."""
    findings = list(run_checks())
    states = [finding.state for finding in findings]
    problems, warnings = states.count("problem"), states.count("warning")
    if as_json:
        console.print_json({"ok": not problems, "findings": [asdict(finding) for finding in findings]}, indent=2)
        return 1 if problems else 0
    table = Table.grid(padding=(0, 1))
    for finding in findings:
        advice = f"\n→ {finding.advice}" if finding.advice else ""
        text = Text(printable(finding.summary) + advice)
        table.add_row(Text(finding.state, STYLES[finding.state]), Text(finding.name), text)
    output = console.make_console()
    output.print(table, width=min(console.terminal_width(), 100))
    counts = f"{plural(problems, 'problem')}, {plural(warnings, 'warning')}"
    output.print(f"{len(findings)} checks: {counts}".replace(" 0 ", " no "))
    return 1 if problems else 0


@commands.command("locate", cls=main.Command)
def locate() -> None:
    """Print the paths of runs, models, settings, history, sessions, the progress in the class, and bundled files."""
    paths = {
        "home": app_home(),
        "runs": default_runs_dir(),
        "models": base_folder(SMOLLM2).parent,
        "settings": settings.settings_file(),
        "history": settings.history_file(),
        "sessions": session_file.sessions_folder(),
        "progress": progress_file(),
        "assets": assets_dir(),
    }
    for name, path in paths.items():
        print(f"{name:8}  {path}")


@commands.command("completion", cls=main.Command, epilog='eval "$(lotr-tui completion bash)"')
def completion(shell: Annotated[Literal["bash", "zsh", "fish"], option("SHELL", "bash, zsh or fish.")]) -> None:
    """Print the completion for a shell: commands, options, runs, presets, settings and speakers.

    bash: add `eval "$(lotr-tui completion bash)"` to ~/.bashrc. zsh: add `eval "$(lotr-tui completion zsh)"` to
    ~/.zshrc, after compinit. fish: run `lotr-tui completion fish > ~/.config/fish/completions/lotr-tui.fish` once.
    """
    print(Path(completion_package.__file__).with_name(f"lotr-tui.{shell}").read_text(encoding="utf-8"), end="")
