"""The session in an app that runs without a terminal."""

from contextlib import asynccontextmanager

import pytest


@pytest.fixture
def opened(make_app):
    """Return a context with the pilot and the app, in a terminal of `size`; `make_app` gets the other options."""

    @asynccontextmanager
    async def opened(size=(160, 45), notifications=False, **options):
        app = make_app(**options)
        async with app.run_test(size=size, notifications=notifications) as pilot:
            yield pilot, app

    return opened
