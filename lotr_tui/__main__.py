"""Entry point of `lotr-tui` and `python -m lotr_tui`, and the conversion of errors to exit codes."""

import io
import os
import sys
from contextlib import suppress
from pathlib import Path
from typing import Any, NoReturn

if sys.platform == "win32":  # before the import of a module that Windows does not have
    sys.exit("lotr-tui: Windows is not supported, because it has no flock, SIGHUP and pseudo-terminals; use WSL")

try:
    from engine.errors import LotrError, OutputError, describe_error, printable
except (ImportError, AttributeError) as error:
    from lotr_tui.engine_package import describe_engine_problem

    problem = describe_engine_problem(error)
    if not problem or os.environ.get("LOTR_TUI_DEBUG") == "1":
        raise
    sys.exit(f"lotr-tui: {problem}")
from lotr_tui.completion import COMPLETE_VARIABLE


class _Output(io.FileIO):
    """Standard output on which a failure is an `OutputError`, apart from a broken pipe; standard error loses a text."""

    loses_text = False

    def write(self, data: Any) -> int:
        try:
            return super().write(data)
        except OSError as error:
            if self.loses_text:
                return memoryview(data).nbytes
            if isinstance(error, BrokenPipeError):
                raise
            raise OutputError(f"standard output cannot be written: {error.strerror}") from error


def main() -> NoReturn:
    """Run the command line. Every error becomes one line on stderr and an exit code."""
    for name, mode in (("stdin", "r"), ("stdout", "w"), ("stderr", "w")):
        if getattr(sys, name) is None:  # it is closed, and another file would be opened in its place
            file = Path(os.devnull).open(mode, encoding="utf-8")  # noqa: SIM115 - takes the lowest free number
            os.set_inheritable(file.fileno(), True)
            setattr(sys, name, file)
            setattr(sys, f"__{name}__", file)
    # Descriptors of their own, so that `silence_descriptors` can take 1 and 2 from libraries.
    for name, errors in (("stdout", "replace"), ("stderr", "backslashreplace")):  # file names need not be valid text
        stream = getattr(sys, name)
        with suppress(OSError, ValueError):  # a stream without a file stays
            fd = os.dup(stream.fileno())
            by_line = getattr(stream, "line_buffering", False) or getattr(stream, "write_through", False)
            plain, own = io.FileIO(fd, "w", closefd=False), _Output(fd, "w", closefd=False)
            own.loses_text = name == "stderr"
            for target, file, on_error in ((f"__{name}__", plain, stream.errors), (name, own, errors)):
                text = io.TextIOWrapper(io.BufferedWriter(file), stream.encoding, on_error, line_buffering=by_line)
                setattr(sys, target, text)
    try:
        exit_code = run()
    except BrokenPipeError:
        exit_code = 0
    except KeyboardInterrupt:
        exit_code = 130
    try:
        sys.stdout.flush()
    except (OSError, ValueError, OutputError):  # the terminal is gone, or the failure was reported
        from lotr_tui.cli.console import discard_output

        with suppress(OSError, ValueError):  # a standard output without a file
            discard_output()  # Python would write the rest at exit
    # Everything important is saved, and a thread may read a large file for long.
    threading = sys.modules.get("threading")  # without this module there are no threads
    if threading and threading.active_count() > 1:
        with suppress(OSError, ValueError):
            sys.stderr.flush()
        # A normal exit can abort the process if a thread is still importing PyTorch.
        os._exit(exit_code)
    sys.exit(exit_code)


def run() -> int:
    """Run the command that `sys.argv` names, and return its exit code. An error becomes one line on stderr."""
    try:
        if len(sys.argv) == 1 and COMPLETE_VARIABLE not in os.environ:
            # Building the parsers of all commands takes a fifth of the time to the first paint.
            from lotr_tui.cli.launch import open_session

            return open_session()
        from lotr_tui.cli.main import run_command

        exit_code = run_command()
        sys.stdout.flush()
        return exit_code
    except SystemExit as error:
        if isinstance(error.__context__, BrokenPipeError):  # Typer turns a broken pipe into exit code 1
            raise error.__context__ from None
        raise
    except BrokenPipeError:
        raise
    except Exception as error:
        exit_code, engine_problem = 1, ""
        if isinstance(error, ImportError | AttributeError):
            from lotr_tui.engine_package import describe_engine_problem

            engine_problem = describe_engine_problem(error)
        if isinstance(error, LotrError):
            message, exit_code = str(error), error.exit_code
        elif hasattr(error, "format_message"):  # of the parser of the command line, such as an unknown option
            from lotr_tui.cli.main import describe_usage_error

            message, exit_code = describe_usage_error(error), getattr(error, "exit_code", 2)
        elif isinstance(error, MemoryError) or "can't allocate memory" in str(error):  # as PyTorch says it
            message = "the memory is full; close other programs, or use a smaller model"
        else:
            message = engine_problem or f"{describe_error(error)}; LOTR_TUI_DEBUG=1 shows the traceback"
        if os.environ.get("LOTR_TUI_DEBUG") == "1":
            import traceback

            traceback.print_exc()
        print(f"lotr-tui: {printable(message)}", file=sys.stderr)
        return exit_code


if __name__ == "__main__":
    main()
