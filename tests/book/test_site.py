"""The site as its readers get it: built as the README says, opened from its folder in a browser, without a request.

Marked `browser`, so that only `pytest -m browser` runs it; it needs the extras `book` and `browser`, and Chromium.
"""

import base64
import io
import json
import os
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import tinyvae

pytestmark = pytest.mark.browser

ROOT = Path(__file__).resolve().parents[2]
CHAPTERS = [path.stem for path in sorted((ROOT / "docs" / "book").glob("*.py"))]
LARGEST = 15e6  # bytes of the site
PICTURE = re.compile(r'<img src="data:image/(png|gif|svg[+]xml);base64,([^"]+)" alt="([^"]+)"')


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    """The folder of the site, $TINYVAE_SITE or a new one. A warning of Sphinx, or an error in a cell, is an error."""
    if there := os.environ.get("TINYVAE_SITE"):
        return Path(there)
    pytest.importorskip("myst_nb", reason="the extra `book` is not installed")
    folder = tmp_path_factory.mktemp("site")
    done = subprocess.run([sys.executable, "-m", "sphinx", "-W", "--keep-going", "-q", "docs", str(folder)], cwd=ROOT,
                          capture_output=True, text=True, timeout=600, check=False)  # fmt: skip
    assert done.returncode == 0, done.stdout[-5000:] + done.stderr[-5000:]
    return folder


def test_the_site_is_small(site):
    sizes = {path: path.stat().st_size for path in site.rglob("*") if path.is_file()}
    print(f"{sum(sizes.values()) / 1e6:.1f} MB in {len(sizes)} files")
    assert sum(sizes.values()) <= LARGEST, sorted(sizes, key=sizes.get)[-5:]


@pytest.mark.parametrize("chapter", CHAPTERS)
def test_pictures_are_there_and_not_blank(site, chapter):
    from PIL import Image

    page = (site / "book" / f"{chapter}.html").read_text()
    pictures = PICTURE.findall(page)
    source = (ROOT / "docs" / "book" / f"{chapter}.py").read_text()
    assert len(pictures) >= len(re.findall(r"^(?:show|drawn)\(", source, re.MULTILINE)) >= 1
    for form, content, text in pictures:
        if form == "svg+xml":
            assert base64.b64decode(content).count(b"<path") > 2, text
            continue
        with Image.open(io.BytesIO(base64.b64decode(content))) as image:
            assert np.asarray(image.convert("L"), float).std() > 2, text


@pytest.mark.parametrize("chapter", CHAPTERS)
def test_a_chapter_can_be_taken_away(site, chapter):
    """As the file itself, and as a notebook with the same code."""
    page = (site / "book" / f"{chapter}.html").read_text()
    source = (ROOT / "docs" / "book" / f"{chapter}.py").read_text()
    assert (site / "book" / f"{chapter}.py").read_text() == source
    notebook = json.loads((site / "book" / f"{chapter}.ipynb").read_text())
    code = ["".join(cell["source"]).strip() for cell in notebook["cells"] if cell["cell_type"] == "code"]
    assert len(code) >= 5
    assert all(part in source for part in code)
    for form in ("py", "ipynb"):
        assert f'href="{chapter}.{form}"' in page


def test_every_public_name_is_in_the_reference(site):
    page = (site / "reference.html").read_text()
    ids = set(re.findall(r'id="(tinyvae[\w.]*)"', page))
    for name in tinyvae.__all__:
        value = getattr(tinyvae, name)
        if type(value).__name__ == "module":
            assert any(described.startswith(f"{value.__name__}.") for described in ids), name
        else:
            assert f"tinyvae.{name}" in ids


def test_links_to_lines_of_code_lead_to_them(site):
    count = 0
    for page in site.rglob("*.html"):
        for target, line in re.findall(r'href="([^"#:]*source/[^"#]+)#line-(\d+)"', page.read_text()):
            assert f'id="line-{line}"' in (page.parent / target).read_text(), (page.name, target, line)
            count += 1
    assert count >= len(CHAPTERS)


SETTLED = "() => !window.MathJax || !MathJax.startup || MathJax.startup.promise.then(() => true)"


# The paragraphs in which a dollar is left: a formula whose other end was not found.
OPEN_FORMULAS = """() => [...document.querySelectorAll("article p, article li, article dd")].map(part => {
  const copy = part.cloneNode(true);
  copy.querySelectorAll("code, pre, mjx-container").forEach(inner => inner.remove());
  return copy.textContent;
}).filter(text => text.includes("$"))"""

# The formulas in a line of text that do not end inside a narrow window. Those of a table move with it.
CUT_FORMULAS = """() => [...document.querySelectorAll('article mjx-container:not([display="true"]) svg')]
  .filter(formula => !formula.closest("table") && formula.getBoundingClientRect().right > innerWidth)
  .map(formula => formula.closest("p, li, dd, h1, h2, h3")?.textContent)"""


@pytest.fixture
def opened(site, browser):
    """A function that opens a page of the site, and notes in `page.wrong` what it must not do."""
    pages = []

    def look(name):
        page = browser.new_page(viewport={"width": 1280, "height": 900})
        pages.append(page)
        page.wrong = []
        page.on("request", lambda request: request.url.startswith(("file:", "data:")) or page.wrong.append(request.url))
        page.on("requestfailed", lambda request: page.wrong.append(f"failed: {request.url}"))
        page.on("pageerror", lambda error: page.wrong.append(str(error)))
        page.on("console", lambda message: page.wrong.append(message.text) if message.type == "error" else None)
        page.goto(f"file://{site}/{name}")
        page.wait_for_function(SETTLED)
        return page

    yield look
    for page in pages:
        page.close()


PAGES = ["index.html", "reference.html", "source/tinyvae/inference/estimators.py.html",
         *(f"book/{name}.html" for name in CHAPTERS), "book/12_sources.html",
         *(f"{path.stem}.html" for path in sorted((ROOT / "docs").glob("*.md")) if path.stem != "index")]  # fmt: skip

# axe takes its time for the parts of formulas, which are MathJax's, and for the colours of code, which looks alike on
# all pages: it looks at the code of these pages, and everywhere at the first signatures and the first names in a text.
PAGES_OF_CODE = ("source/tinyvae/inference/estimators.py.html", "book/04_architecture.html", "speed.html")
# It is given by selector how many of the parts stay as they are; the others lose what is in them.
LEAVE_OUT = """parts => Object.entries(parts).forEach(([part, first]) =>
  [...document.querySelectorAll(part)].slice(first).forEach(element => element.replaceChildren()))"""


@pytest.mark.parametrize("name", PAGES)
def test_a_page_can_be_read_by_all(opened, name):
    """It asks for nothing, its formulas are formulas, axe finds nothing serious, and it fits into a narrow window."""
    axe = pytest.importorskip("axe_playwright_python.sync_playwright", reason="the extra `browser` is not installed")
    page = opened(name)
    assert page.locator("mjx-merror, [data-mjx-error]").count() == 0
    if name.startswith("book/"):
        assert page.evaluate(OPEN_FORMULAS) == []
    if name.removeprefix("book/").removesuffix(".html") in CHAPTERS:
        assert page.locator("mjx-container").count() > 10
    page.set_viewport_size({"width": 320, "height": 900})
    assert page.evaluate("document.documentElement.scrollWidth") <= 320
    assert page.evaluate(CUT_FORMULAS) == []
    page.set_viewport_size({"width": 1280, "height": 900})
    code = {} if name in PAGES_OF_CODE else {"pre": 0}
    page.evaluate(LEAVE_OUT, {"mjx-container": 0, "dt.sig": 50, "p > code": 50, **code})
    # its preload would ask for the files of a server, and the thousands of parts that pass need no description
    found = axe.Axe().run(page, options={"preload": False, "resultTypes": ["violations"]})
    serious = [f"{wrong['id']}: {wrong['nodes'][0]['html'][:200]}" for wrong in found.response["violations"]
               if wrong["impact"] in ("serious", "critical")]  # fmt: skip
    assert serious == []
    assert page.wrong == []


def test_the_search_finds_a_chapter(opened):
    page = opened("search.html?q=evidence")
    page.wait_for_selector("#search-results li a")
    assert any("book/" in (link.get_attribute("href") or "") for link in page.locator("#search-results li a").all())
