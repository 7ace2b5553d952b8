"""The book as it is rendered, in a headless Chromium; `make html` renders it."""

import io
import re
import shutil
from pathlib import Path

import pandas as pd
import pytest
import torch
from execute import pages
from PIL import Image
from playwright.sync_api import expect, sync_playwright

from ginv.figures import touch

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
    assert not re.search(r"\$|\\\(|\\\[|\\(?:frac|mathcal|nu)\b", text)

    # On a phone nothing but a table, a formula or code, each in a box of its own, is wider than the screen
    assert page.evaluate("document.documentElement.scrollWidth") <= PHONE["width"]


def test_formulas_are_typeset(page):
    """That the check above does not pass for want of MathJax."""
    page.goto((BOOK / "book/metrics.html").as_uri())
    page.wait_for_function("window.MathJax && MathJax.startup.promise.then(() => true)")
    assert page.locator("mjx-container").count() > 10


def grey(tile):
    """The colour in the middle of what the browser paints."""
    image = Image.open(io.BytesIO(tile.screenshot())).convert("L")
    return image.getpixel((image.width // 2, image.height // 2))


def test_two_figures_to_touch_on_one_page(page):
    """Each shows the pictures and numbers of its own state, also where a choice has fewer steps than another."""
    index = pd.MultiIndex.from_tuples([("a", 0), ("a", 1), ("a", 2), ("b", 0), ("b", 1)], names=["choice", "step"])
    share = pd.Series([0, 0.25, 0.5, 0.75, 1], index)
    columns = {("number", "WT"): share, ("number", "DA"): 1 - share, ("word", "WT"): [*"vwxyz"], ("word", "DA"): "<b>"}
    pictures = [torch.full((36, 36, 3), value) for value in share]
    maps = {"WT": pictures[::-1], "DA": pictures}
    figure = touch(pd.DataFrame(columns), pictures, "it's < & >", {"number": "{:.2f}", "word": "{}"}, maps)
    page.set_content(figure + figure)
    first, second = page.locator(".ginv-touch").all()
    slider, image = first.get_by_role("slider", name="step"), first.get_by_role("img", name="image")
    expect(first.locator("p")).to_have_text("it's < & >")

    slider.press("End")
    expect(first.locator("output")).to_have_text("2")
    assert grey(image) == 128
    first.get_by_role("combobox", name="choice").select_option("b")  # it has no step 2
    expect(first.locator("output")).to_have_text("1")
    expect(slider).to_have_attribute("aria-valuetext", "1")
    expect(first.locator("td")).to_have_text(["", "", "1.00", "0.00", "z", "<b>"])
    assert [grey(tile) for tile in (image, *first.get_by_role("img", name="looks at").all())] == [255, 0, 255]

    expect(second.locator("td")).to_have_text(["", "", "0.00", "1.00", "v", "<b>"])
    assert grey(second.get_by_role("img", name="image")) == 0
    assert page.errors == [] and page.requested == []
    assert page.evaluate("document.documentElement.scrollWidth") <= PHONE["width"]


@pytest.fixture
def touched(page, request):
    """The figure to touch of a page of the book."""
    page.goto((BOOK / f"book/{request.param}.html").as_uri())
    return page.locator(".ginv-touch")


@pytest.mark.parametrize("touched", ["table1"], indirect=True)
def test_a_digit_goes_through_its_orbit(touched):
    """And the answers of the weight-tied network stay."""
    touched.get_by_label("digit").select_option("4")
    for group, order in {"R4": 4, "T3": 3}.items():
        touched.get_by_label("group").select_option(group)
        slider = touched.get_by_role("slider")
        slider.press("Home")
        images, answers = set(), set()
        for _ in range(order):
            images.add(touched.get_by_role("img", name="image").screenshot())
            answers.add(touched.locator("tr", has_text="answer").locator("td").first.text_content())
            slider.press("ArrowRight")
        assert len(images) == order and len(answers) == 1


@pytest.mark.parametrize("touched", ["drift"], indirect=True)
def test_the_drift_slider_shows_the_results(touched):
    table = pd.read_csv(ROOT / "book/results/drift.csv")
    means = table.groupby(["group", "beta", "metric", "method"]).value.mean()
    touched.get_by_label("group").select_option("T3")
    slider, images = touched.get_by_role("slider"), set()
    slider.press("Home")
    for beta in table.beta.unique():
        expect(touched.locator("output")).to_have_text(f"{beta:g}")
        for row, metric, digits in (("accuracy", "accuracy", 1), ("DI", "DI", 3)):
            values = [f"{means['T3', beta, metric, method]:.{digits}f}" for method in ("WT", "DA", "IR")]
            expect(touched.locator("tr", has_text=row).locator("td")).to_have_text(values)
        images.add(touched.get_by_role("img", name="image").screenshot())
        slider.press("ArrowRight")
    assert len(images) == table.beta.nunique()


@pytest.mark.parametrize(("name", "figure"), [("table1", "fig-saliency"), ("drift", "fig-strip")])
def test_a_picture_stands_where_scripts_are_off(name, figure, browser):
    page = browser.new_page(java_script_enabled=False)
    page.goto((BOOK / f"book/{name}.html").as_uri())
    assert page.locator(f"#{figure} img").bounding_box()["height"] > 100
    touched = page.locator(".ginv-touch")
    assert touched.count() == 1 and not touched.is_visible()
    page.close()
