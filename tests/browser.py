"""A real browser for tests, Debian's Chromium driven by playwright, and pages watched for requests and messages."""

import contextlib
import dataclasses
import json
import shutil

import numpy as np
import pytest

WHERE = ("chromium", "chromium-browser", "google-chrome")  # names of programs


def chromium():
    """The path of the browser; skips the test, with what to install, where it or what drives it is missing."""
    path = next((found for name in WHERE if (found := shutil.which(name))), None)
    if path is None:
        pytest.skip(f"no Chromium: found none of {', '.join(WHERE)}; install one, as with apt-get install chromium")
    pytest.importorskip("playwright", reason='no playwright: pip install ".[browser]"')
    pytest.importorskip("axe_playwright_python", reason='no axe: pip install ".[browser]"')
    return path


@contextlib.contextmanager
def launched():
    """The browser while it runs."""
    path = chromium()
    from playwright.sync_api import sync_playwright

    with sync_playwright() as program:
        started = program.chromium.launch(executable_path=path, chromium_sandbox=False)
        yield started
        started.close()


class Watched:
    """A page of a file, and what it did that it must not do: requests beside its own file, messages, errors."""

    def __init__(self, browser, file, scheme="light", width=1200):
        self.context = browser.new_context(color_scheme=scheme, viewport={"width": width, "height": 900})
        self.page = self.context.new_page()
        self.page.set_default_timeout(15_000)
        self.faults = []
        address = file.resolve().as_uri()
        self.page.on("request", lambda r: self.faults.append(f"request of {r.url}") if r.url != address else None)
        self.page.on("console", lambda message: self.faults.append(f"{message.type}: {message.text}"))
        self.page.on("pageerror", lambda error: self.faults.append(f"error: {error}"))
        self.page.goto(address)
        self.page.wait_for_selector("html[data-ready=true]", state="attached")

    def __enter__(self):
        return self

    def __exit__(self, *fault):
        self.context.close()
        if fault[0] is None:
            assert not self.faults, self.faults

    def text(self, selector):
        return self.page.locator(selector).inner_text()

    def value(self, code, argument=None):
        """The value of an expression of JavaScript, or of a function of an argument."""
        call = f"(argument) => JSON.stringify(({code})(argument), plain)" if argument is not None else \
            f"() => JSON.stringify({code}, plain)"
        plain = "const plain = (_, v) => (ArrayBuffer.isView(v) ? Array.from(v) : v);"
        head, arrow, body = call.partition(" => ")
        return json.loads(self.page.evaluate(f"{head}{arrow}{{ {plain} return {body}; }}", argument))

    def picture(self, selector):
        """The pixels of a canvas, as numbers to 255 in a list."""
        return self.page.evaluate("""(selector) => {
            const canvas = document.querySelector(selector);
            const copy = new OffscreenCanvas(canvas.width, canvas.height).getContext("2d", {willReadFrequently: true});
            copy.drawImage(canvas, 0, 0);
            return Array.from(copy.getImageData(0, 0, canvas.width, canvas.height).data);
        }""", selector)


def coloured(data):
    """Grey images, each in a colour of its own."""
    rng = np.random.default_rng(0)

    def tinted(part):
        hues = rng.uniform(0.2, 1, (len(part), 1, 3))
        return np.rint(part[..., None] * hues / data.scale * 255).astype(np.uint8).reshape(len(part), -1)

    return dataclasses.replace(data, name="tinted-color", train=tinted(data.train), test=tinted(data.test), scale=255.0,
                               shape=(*data.shape, 3), pixels="color")  # fmt: skip
