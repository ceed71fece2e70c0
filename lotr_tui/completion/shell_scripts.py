"""Scripts that teach bash, zsh and fish to complete the command line."""

import shlex
import sys
from pathlib import Path

from engine.errors import InvalidInputError, suggest_nearest

SHELLS = ("bash", "zsh", "fish")
_FOLDER = Path(__file__).with_name("scripts")


def completion_script(shell: str, program: str = sys.argv[0]) -> str:
    """Return the script for a shell.

    Args:
        shell: Name of the shell.
        program: Path of this program, which the script runs where `lotr-tui` is not in the search path.

    Raises:
        InvalidInputError: If there is no script for this shell.
    """
    if shell not in SHELLS:
        hint = suggest_nearest(shell, SHELLS)
        raise InvalidInputError(f"there is no completion for the shell {shell!r}{hint} The shells: {', '.join(SHELLS)}")
    path = Path(program)
    fallback = str(path.absolute()) if path.name == "lotr-tui" else "lotr-tui"
    return (_FOLDER / f"lotr-tui.{shell}").read_text(encoding="utf-8").replace("@PROGRAM@", shlex.quote(fallback))
