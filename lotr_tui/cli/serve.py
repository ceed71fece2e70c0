"""The command that shows the session or the dashboard in a browser."""

import sys
from importlib.util import find_spec
from pathlib import Path
from typing import Annotated

import typer

from engine.errors import InvalidInputError, printable
from lotr_tui.cli import options
from lotr_tui.cli.parser import int_option

WEB = "Web"
"""Section of the help text."""


def serve(
    run: options.RunsOption = None,
    attach: Annotated[
        str | None,
        typer.Option(
            "--attach",
            metavar="RUN",
            help="Show the dashboard of a run in place of the session: its name or path, or latest.",
            rich_help_panel=options.MODEL,
        ),
    ] = None,
    runs_dir: options.RunsDirOption = None,
    theme: options.ThemeOption = None,
    host: Annotated[
        str, typer.Option("--host", metavar="HOST", help="Address to listen on.", rich_help_panel=WEB)
    ] = "127.0.0.1",
    port: Annotated[
        int,
        int_option("--port", minimum=0, maximum=65535, help="Port; 0 takes any free one.", rich_help_panel=WEB),
    ] = 8000,
    public: Annotated[
        bool,
        typer.Option("--public", help="Allow a host that other machines can reach.", rich_help_panel=WEB),
    ] = False,
    allow_host: Annotated[
        list[str] | None,
        typer.Option(
            "--allow-host",
            metavar="NAME",
            help="Name under which browsers reach this server, such as that of a reverse proxy; repeatable.",
            rich_help_panel=WEB,
        ),
    ] = None,
    max_browsers: Annotated[
        int,
        int_option("--max-browsers", minimum=1, maximum=100, help="Browsers at once.", rich_help_panel=WEB),
    ] = 8,
) -> int:
    """Show the session, or the dashboard of a run, in a browser."""
    if any(find_spec(name) is None for name in ("textual_serve", "aiohttp")):
        raise InvalidInputError("serve needs textual-serve; pip install 'lotr-tui[serve]'")
    options.check_theme(theme)
    arguments = _app_arguments(run or [], attach, runs_dir, theme)
    from lotr_tui.serve.access import TOKEN_PARAMETER, AccessGuard, AllowedHosts, bind, url_host
    from lotr_tui.serve.server import BrowserServer, ServedProgram
    from lotr_tui.serve.server import serve as run_server

    listening = bind(host, port, public=public)
    port = listening.getsockname()[1]
    guard = AccessGuard(AllowedHosts([host, *(allow_host or [])], public=public))

    def print_address() -> None:
        print(f"http://{url_host(listening)}:{port}/?{TOKEN_PARAMETER}={guard.token}")
        if public:
            print("the network can read the token and the session, unless a proxy adds HTTPS; an SSH tunnel is safe")
        else:
            print(f"from another machine: ssh -L {port}:localhost:{port} USER@THIS-MACHINE; then open the URL there")
        print("ctrl+c ends the server", flush=True)

    title = "lotr-tui" if attach is None else f"{attach} · lotr-tui"
    program = ServedProgram([sys.executable, "-m", "lotr_tui", *arguments], printable(title), _page_background(theme))
    server = BrowserServer(program, guard, max_browsers, lambda line: print(printable(line), flush=True))
    return run_server(server, listening, print_address)


def _app_arguments(runs: list[str], attach: str | None, runs_dir: Path | None, theme: str | None) -> list[str]:
    """Return the arguments of the app in each browser.

    Raises:
        InvalidInputError: If the options exclude each other, or a run does not exist.
    """
    if attach is not None and runs:
        raise InvalidInputError("--run and --attach exclude each other; --attach shows the dashboard of one run")
    shared = [] if runs_dir is None else ["--runs-dir", str(runs_dir)]
    shared += [] if theme is None else ["--theme", theme]
    from engine.models.pretrained.names import is_pretrained_name
    from engine.runs.directory import resolve_run

    if attach is not None:
        return ["attach", str(resolve_run(attach, runs_dir).absolute()), *shared]
    for run in runs:
        if not is_pretrained_name(run):
            resolve_run(run.rpartition("@")[0] or run, runs_dir)
    return [*(argument for run in runs for argument in ("--run", run)), *shared]


def _page_background(theme: str | None) -> str:
    """Return the background colour of a theme, or of the saved one, for the page before the app is drawn."""
    from textual.theme import BUILTIN_THEMES

    from lotr_tui.session.settings import SettingsStore
    from lotr_tui.theme import OWN_THEMES, SHIRE

    themes = BUILTIN_THEMES | {own.name: own for own in OWN_THEMES}
    chosen = themes.get(theme or SettingsStore().current.theme, SHIRE)
    background = chosen.to_color_system().generate().get("background", "")
    return background if background.startswith("#") else "#000000"
