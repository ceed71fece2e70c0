"""The checks of `lotr-tui doctor`, in the order in which they are printed."""

from collections.abc import Callable, Iterator, Sequence

from engine.errors import describe_error
from lotr_tui.doctor.copying import check_clipboard
from lotr_tui.doctor.environment import Environment
from lotr_tui.doctor.extras import check_extras
from lotr_tui.doctor.finding import Finding
from lotr_tui.doctor.folders import check_home
from lotr_tui.doctor.machine import check_numpy, check_processor, check_torch_and_gpu
from lotr_tui.doctor.terminal import check_colors, check_encoding, check_terminal
from lotr_tui.doctor.versions import check_versions

Check = Callable[[Environment], list[Finding]]
"""Function that looks at one part of the environment and changes nothing."""

CHECKS: tuple[Check, ...] = (
    check_versions,
    check_terminal,
    check_colors,
    check_encoding,
    check_clipboard,
    check_processor,
    check_numpy,
    check_torch_and_gpu,
    check_home,
    check_extras,
)


def run_checks(environment: Environment, checks: Sequence[Check] = CHECKS) -> Iterator[Finding]:
    """Yield the findings of each check; a check that fails is a problem itself, and the others still run."""
    for check in checks:
        try:
            yield from check(environment)
        except Exception as error:
            name = check.__name__.removeprefix("check_").replace("_", " ")
            yield Finding(name, "problem", f"the check failed: {describe_error(error)}", "report this line")
