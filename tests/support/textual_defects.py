"""Expected failures of plain Textual, which `lotr_tui.textual_fixes` works around."""

from collections.abc import Iterator
from contextlib import contextmanager
from importlib.metadata import version

import pytest

HAS_ALL_DEFECTS = tuple(int(part) for part in version("textual").split(".")[:3]) >= (8, 2, 8)
"""True from the version on in which all defects were seen; earlier versions lack some."""


@contextmanager
def expect_defect(error: type[BaseException]) -> Iterator[None]:
    """Fail if the block, which uses plain Textual, does not raise `error`."""
    try:
        yield
    except error:
        return
    if HAS_ALL_DEFECTS:
        pytest.fail(f"Textual {version('textual')} no longer has this defect: delete the workaround")
