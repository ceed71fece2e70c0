"""`lotr-tui serve`: the session or the dashboard in a browser."""

import asyncio
import sys
from importlib.util import find_spec
from typing import Annotated

from engine.errors import InvalidInputError, install_command, printable
from engine.models.pretrained.names import is_pretrained_name
from engine.runs.directory import resolve_run
from lotr_tui.cli import options
from lotr_tui.cli.parser import add_command, flag, make_group, number, option

WEB = "Web"
ATTACH_HELP = "Show the dashboard of a run in place of the session: its name or path, or latest."
ALLOW_HELP = "Name under which browsers reach this server, such as that of a reverse proxy; repeatable."
commands = make_group()


@add_command(commands, "serve", "lotr-tui serve --run latest --port 0", "lotr-tui serve --attach latest")
def serve(
    run: options.RunsOption = None,
    attach: Annotated[str | None, option("--attach", "RUN", ATTACH_HELP, options.MODEL)] = None,
    runs_dir: options.RunsDirOption = None,
    theme: options.ThemeOption = None,
    host: Annotated[str, option("--host", "HOST", "Address to listen on.", WEB)] = "127.0.0.1",
    port: Annotated[int, number("--port", int, "Port; 0 takes any free one.", WEB, 0, 65535)] = 8000,
    public: Annotated[bool, flag("--public", "Allow a host that other machines can reach.", WEB)] = False,
    allow_host: Annotated[list[str] | None, option("--allow-host", "NAME", ALLOW_HELP, WEB)] = None,
    max_browsers: Annotated[int, number("--max-browsers", int, "Browsers at once.", WEB, 1, 100)] = 8,
) -> int:
    """Show the session, or the dashboard of a run, in a browser."""
    if any(find_spec(name) is None for name in ("textual_serve", "aiohttp")):
        raise InvalidInputError(f"serve needs textual-serve; {install_command('serve')}")
    options.check_theme(theme)
    if attach is not None and run:
        raise InvalidInputError("--run and --attach exclude each other; --attach shows the dashboard of one run")
    arguments = [] if attach is None else ["attach", str(resolve_run(attach, runs_dir).absolute())]
    for name in run or []:
        if not is_pretrained_name(name):
            resolve_run(name.rpartition("@")[0] or name, runs_dir)
        arguments += ["--run", name]
    arguments += [] if runs_dir is None else ["--runs-dir", str(runs_dir)]
    arguments += [] if theme is None else ["--theme", theme]
    from lotr_tui.serve.access import TOKEN_PARAMETER, AccessGuard, bind
    from lotr_tui.serve.server import BrowserServer  # imports aiohttp

    listening, address = bind(host, port, public=public)
    port, guard = listening.getsockname()[1], AccessGuard([host, *(allow_host or [])], public=public)

    def print_address() -> None:
        print(f"{address}?{TOKEN_PARAMETER}={guard.token}")
        if public:
            print("the network can read the token and the session, unless a proxy adds HTTPS; an SSH tunnel is safe")
        else:
            print(f"from another machine: ssh -L {port}:localhost:{port} USER@THIS-MACHINE; then open the URL there")
        print("ctrl+c ends the server", flush=True)

    title = printable("lotr-tui" if attach is None else f"{attach} · lotr-tui")
    command = [sys.executable, "-m", "lotr_tui", *arguments]
    server = BrowserServer(command, title, guard, max_browsers, lambda line: print(printable(line), flush=True))
    with listening:
        return asyncio.run(server.run(listening, print_address))
