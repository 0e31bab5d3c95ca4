"""One browser for all tests of the page."""

import pytest
from browser import chromium


@pytest.fixture(scope="session")
def browser():
    path = chromium()
    from playwright.sync_api import sync_playwright

    with sync_playwright() as program:
        started = program.chromium.launch(executable_path=path, chromium_sandbox=False)
        yield started
        started.close()
