"""Where `lotr-tui` and `python -m lotr_tui` begin: the session at once, any command through the parser."""

import io
import os
import sys
import threading
from contextlib import suppress
from typing import NoReturn

from engine.errors import LotrError, printable


def main() -> NoReturn:
    """Run the command line; every error is one line on stderr and an exit code."""
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="replace")  # the name of a file need not be text
    try:
        _end(_run())
    except BrokenPipeError:
        # Whoever read our output has gone; Python must not try to flush into the closed pipe at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(0)
    except KeyboardInterrupt:
        sys.exit(130)


def _run() -> int:
    try:
        if len(sys.argv) == 1:
            # Without the parser: to build those of all commands takes a fifth of the time to the first paint.
            from lotr_tui.cli.launch import open_session

            open_session()
            return 0
        from lotr_tui.cli.main import run_command

        exit_code = run_command()
        sys.stdout.flush()
        return exit_code
    except LotrError as error:
        return _fail(str(error), error.exit_code)
    except SystemExit as error:
        if isinstance(error.__context__, BrokenPipeError):  # Typer makes exit code 1 of it
            raise error.__context__ from None
        raise
    except (BrokenPipeError, KeyboardInterrupt):
        raise
    except Exception as error:
        # The command-line parser's own errors (an unknown option, say) carry their exit code too.
        if callable(describe := getattr(error, "format_message", None)):
            message = describe().rstrip(".") or "a command is missing"
            return _fail(f"{message}; see lotr-tui --help", getattr(error, "exit_code", 2))
        return _fail(f"{type(error).__name__}: {error}; LOTR_TUI_DEBUG=1 shows where", 1)


def _end(exit_code: int) -> NoReturn:
    """Exit without waiting for threads: what had to be saved is, and one that reads a large file may be long at it."""
    if threading.active_count() > 1:
        for file in (sys.stdout, sys.stderr):
            with suppress(OSError, ValueError):  # the terminal is gone
                file.flush()
        # Else a thread in the midst of loading PyTorch is torn out of it, and may abort the process.
        os._exit(exit_code)
    sys.exit(exit_code)


def _fail(message: str, exit_code: int) -> int:
    if os.environ.get("LOTR_TUI_DEBUG") == "1":
        import traceback

        traceback.print_exc()
    print(f"lotr-tui: {printable(message)}", file=sys.stderr)
    return exit_code


if __name__ == "__main__":
    main()
