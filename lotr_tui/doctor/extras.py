"""Check of the optional extras of the installation."""

import re

from lotr_tui.doctor.environment import Environment
from lotr_tui.doctor.finding import Finding

_REQUIREMENT = re.compile(r"""([A-Za-z0-9._-]+).*;.*\bextra == ['"]([A-Za-z0-9._-]+)['"]""")
DEVELOPMENT = "dev"


def check_extras(environment: Environment) -> list[Finding]:
    """Report which extras are installed completely; none of them is needed."""
    packages: dict[str, list[str]] = {}
    for requirement in environment.requirements:
        if (match := _REQUIREMENT.match(requirement)) and match[2] != DEVELOPMENT:
            packages.setdefault(match[2], []).append(match[1])
    if not packages:
        return [Finding("extras", "ok", "unknown: lotr-tui runs from source files")]
    present = [extra for extra, names in packages.items() if all(map(environment.find_version, names))]
    missing = [extra for extra in packages if extra not in present]
    summary = f"installed: {', '.join(present) or 'none'}"
    if missing:
        summary += f"; not installed: {', '.join(missing)} (`pip install 'lotr-tui[{missing[0]}]'`)"
    return [Finding("extras", "ok", summary)]
