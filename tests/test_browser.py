"""The book as it is rendered, in a headless Chromium; `make html` renders it."""

import re
import shutil
from pathlib import Path

import pytest
from execute import pages
from playwright.sync_api import sync_playwright

ROOT = Path(__file__).parents[1]
BOOK = ROOT / "_build" / "html"
CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
FLAGS = ["--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking",
         "--disable-component-update", "--disable-sync"]  # fmt: skip
PHONE = {"width": 390, "height": 844}

pytestmark = [
    pytest.mark.skipif(not CHROMIUM, reason="no Chromium"),
    pytest.mark.skipif(not (BOOK / "index.html").is_file(), reason="the book is not rendered: make html"),
]


@pytest.fixture(scope="module")
def browser():
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=FLAGS, chromium_sandbox=False)
        yield browser
        browser.close()


@pytest.fixture
def page(browser):
    """A page of a phone's width that notes its errors and what it asks the network for."""
    page = browser.new_page(viewport=PHONE)
    page.errors, page.requested = [], []
    page.on("console", lambda message: page.errors.append(message.text) if message.type == "error" else None)
    page.on("pageerror", lambda error: page.errors.append(str(error)))
    page.on("request", lambda request: page.requested.append(request.url))
    yield page
    page.close()


def test_every_page_is_reached_from_the_contents(page):
    page.goto((BOOK / "index.html").as_uri())
    page.wait_for_url(f"**/{pages(ROOT)[-1]}.html")  # index.html sends to the root of the book
    links = page.eval_on_selector_all("nav.bd-links a[href]", "links => links.map(link => link.href.split('#')[0])")
    assert {(BOOK / f"{name}.html").as_uri() for name in pages(ROOT)} <= set(links)


@pytest.mark.parametrize("name", pages(ROOT))
def test_page(name, page):
    page.goto((BOOK / f"{name}.html").as_uri(), wait_until="load")
    page.wait_for_function("!window.MathJax || MathJax.startup.promise.then(() => true)")
    assert page.errors == []
    assert [url for url in page.requested if not url.startswith(("file:", "data:", "blob:"))] == []
    assert page.locator("article h1").count() == 1

    # Formulas: as many as the source has are typeset, and no delimiter is left in the text
    formulas = page.locator("article .math").count()
    assert page.locator("article mjx-container").count() >= formulas
    text = page.evaluate("""() => {
        const article = document.querySelector('article').cloneNode(true);
        article.querySelectorAll('pre, code, script, style, mjx-container').forEach(node => node.remove());
        return article.textContent;
    }""")
    assert not re.search(r"\$\$|\\\(|\\\[|\\(?:frac|mathcal|nu)\b", text)

    # On a phone nothing but a table, a formula or code, each in a box of its own, is wider than the screen
    assert page.evaluate("document.documentElement.scrollWidth") <= PHONE["width"]


def test_formulas_are_typeset(page):
    """That the check above does not pass for want of MathJax."""
    page.goto((BOOK / "book/metrics.html").as_uri())
    page.wait_for_function("window.MathJax && MathJax.startup.promise.then(() => true)")
    assert page.locator("mjx-container").count() > 10
