"""Entry point of `lotr-tui` and `python -m lotr_tui`, and the conversion of errors to exit codes."""

import io
import os
import re
import sys
import threading
from contextlib import suppress
from typing import NoReturn

from engine.errors import LotrError, printable, suggest_nearest


def main() -> NoReturn:
    """Run the command line. Every error becomes one line on stderr and an exit code."""
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="replace")  # file names need not be valid text
    try:
        _exit_process(_dispatch())
    except BrokenPipeError:
        # The reader of our output is gone; Python must not flush into the closed pipe at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(0)
    except KeyboardInterrupt:
        sys.exit(130)


def _dispatch() -> int:
    try:
        if len(sys.argv) == 1:
            # Building the parsers of all commands takes a fifth of the time to the first paint.
            from lotr_tui.cli.launch import open_session

            open_session()
            return 0
        from lotr_tui.cli.main import run_command

        exit_code = run_command()
        sys.stdout.flush()
        return exit_code
    except LotrError as error:
        return _report_error(str(error), error.exit_code)
    except SystemExit as error:
        if isinstance(error.__context__, BrokenPipeError):  # Typer turns a broken pipe into exit code 1
            raise error.__context__ from None
        raise
    except (BrokenPipeError, KeyboardInterrupt):
        raise
    except Exception as error:
        # Errors of the command-line parser, such as an unknown option, carry their own exit code.
        if callable(describe := getattr(error, "format_message", None)):
            return _report_error(_describe_usage_error(describe()), getattr(error, "exit_code", 2))
        return _report_error(f"{type(error).__name__}: {error}; LOTR_TUI_DEBUG=1 shows the traceback", 1)


def _describe_usage_error(message: str) -> str:
    """Return the parser's message in our form, with the nearest valid value where it lists the choices."""
    message = message.rstrip(".").replace(": Value error, ", ": ") or "a command is missing"
    if match := re.search(r"'([^']*)' is not one of (.+)$", message):
        value, choices = match[1], re.findall(r"'([^']*)'", match[2])
        message += suggest_nearest(value, choices).removesuffix(".")
    return f"{message} See lotr-tui --help" if message.endswith("?") else f"{message}; see lotr-tui --help"


def _exit_process(exit_code: int) -> NoReturn:
    """Exit without waiting for threads: everything important is saved, and a thread may read a large file for long."""
    if threading.active_count() > 1:
        for file in (sys.stdout, sys.stderr):
            with suppress(OSError, ValueError):  # the terminal is gone
                file.flush()
        # A normal exit can abort the process if a thread is still importing PyTorch.
        os._exit(exit_code)
    sys.exit(exit_code)


def _report_error(message: str, exit_code: int) -> int:
    if os.environ.get("LOTR_TUI_DEBUG") == "1":
        import traceback

        traceback.print_exc()
    print(f"lotr-tui: {printable(message)}", file=sys.stderr)
    return exit_code


if __name__ == "__main__":
    main()
