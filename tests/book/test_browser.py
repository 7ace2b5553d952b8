"""The book as it is rendered, in a headless Chromium; `make html` renders it."""

import re
from pathlib import Path

import pandas as pd
import pytest
from execute import pages
from playwright.sync_api import expect

ROOT = Path(__file__).parents[2]
BOOK = ROOT / "_build" / "html"

pytestmark = pytest.mark.skipif(
    not (BOOK / "index.html").is_file(), reason="the book is not rendered: make html"
)


def test_every_page_is_reached_from_the_contents(page):
    page.goto((BOOK / "index.html").as_uri())
    page.wait_for_url(f"**/{pages(ROOT)[-1]}.html")  # index.html sends to the root of the book
    links = page.eval_on_selector_all(
        "nav.bd-links a[href]", "links => links.map(link => link.href.split('#')[0])"
    )
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
        const outside = article.querySelectorAll('pre, code, script, style, mjx-container');
        outside.forEach(node => node.remove());
        return article.textContent;
    }""")
    assert not re.search(r"\$|\\\(|\\\[|\\(?:frac|mathcal|nu)\b", text)

    # On a phone nothing but a table, a formula or code, each in a box of its own, is wider than the
    # screen
    assert page.evaluate("document.documentElement.scrollWidth") <= page.viewport_size["width"]


CUT = """() => {
    const edge = document.querySelector('article').getBoundingClientRect().right;
    const scrolls = at => ['auto', 'scroll', 'hidden'].includes(getComputedStyle(at).overflowX)
        && at.scrollWidth > at.clientWidth + 1;
    const isCut = element => {
        for (let at = element; at.tagName !== 'ARTICLE'; at = at.parentElement)
            if (scrolls(at)) return true;
        return element.getBoundingClientRect().right > edge + 1;
    };
    return [...document.querySelectorAll('article :is(pre, table, img, mjx-container[display])')]
        .filter(element => element.checkVisibility() && isCut(element))
        .map(element => element.textContent.trim().slice(0, 60));
}"""
PALE = """() => {
    const numbers = colour => [...colour.match(/[\\d.]+/g).map(Number), 1].slice(0, 4);
    const light = colour => [0.2126, 0.7152, 0.0722].reduce((sum, weight, i) => {
        const c = colour[i] / 255;
        return sum + weight * (c <= 0.04045 ? c / 12.92 : ((c + 0.055) / 1.055) ** 2.4);
    }, 0);
    const over = (a, b) => [0, 1, 2].map(i => a[i] * a[3] + b[i] * (1 - a[3])).concat(1);
    const article = document.querySelector('article'), pale = [];
    const walker = document.createTreeWalker(article, NodeFilter.SHOW_TEXT);
    while (walker.nextNode()) {
        const text = walker.currentNode.textContent.trim(), own = walker.currentNode.parentElement;
        const aside = own.closest('script, style, mjx-assistive-mml') !== null;
        if (!text || aside || !own.checkVisibility({visibilityProperty: true})) continue;
        let grounds = [], opacity = 1;
        for (let at = own; at !== null; at = at.parentElement) {
            const style = getComputedStyle(at);
            opacity *= style.opacity;
            grounds.push(numbers(style.backgroundColor));
        }
        const ground = grounds.reverse().reduce((b, a) => over(a, b), [255, 255, 255, 1]);
        const [r, g, b, alpha] = numbers(getComputedStyle(own).color);
        const both = [light(over([r, g, b, alpha * opacity], ground)), light(ground)];
        const ratio = (Math.max(...both) + 0.05) / (Math.min(...both) + 0.05);
        if (ratio < 4.5) pale.push(`${text.slice(0, 40)}: ${ratio.toFixed(2)}`);
    }
    return pale;
}"""


@pytest.fixture
def wide(browser, request):
    """A page as on a desk, light or dark."""
    size = {"width": 1400, "height": 900}
    page = browser.new_page(viewport=size, color_scheme=getattr(request, "param", "light"))
    yield page
    page.close()


@pytest.mark.parametrize("name", pages(ROOT))
def test_nothing_is_cut_on_a_desk(name, wide):
    """And the first picture is seen without much scrolling."""
    wide.goto((BOOK / f"{name}.html").as_uri())
    wide.wait_for_function("!window.MathJax || MathJax.startup.promise.then(() => true)")
    assert wide.evaluate(CUT) == []
    if (picture := wide.locator("article img").first).count():
        assert picture.bounding_box()["y"] < 2 * wide.viewport_size["height"]


@pytest.mark.parametrize("wide", ["light", "dark"], indirect=True)
@pytest.mark.parametrize("name", pages(ROOT))
def test_text_stands_out(name, wide):
    """A contrast of 4.5 to 1 at least, as the WCAG ask for."""
    wide.goto((BOOK / f"{name}.html").as_uri())
    assert wide.evaluate(PALE) == []


def test_pale_and_cut_are_seen(wide):
    """That the two tests above can fail."""
    wide.goto((BOOK / "book/metrics.html").as_uri())
    text = "<p style='color: #888'>pale</p><pre style='overflow: auto'>" + "long " * 100
    wide.evaluate(
        "html => document.querySelector('article').insertAdjacentHTML('beforeend', html)", text
    )
    assert wide.evaluate(PALE) == ["pale: 3.54"]
    assert [each[:9] for each in wide.evaluate(CUT)] == ["long long"]


def test_formulas_are_typeset(page):
    """That the check above does not pass for want of MathJax."""
    page.goto((BOOK / "book/metrics.html").as_uri())
    page.wait_for_function("window.MathJax && MathJax.startup.promise.then(() => true)")
    assert page.locator("mjx-container").count() > 10


def test_every_link_of_the_ledger_leads_somewhere(page):
    """From the headlines to their evidence, and from there to where it was measured."""
    page.goto((BOOK / "book/claims.html").as_uri())
    links = page.eval_on_selector_all(".ledger a", "links => links.map(link => link.href)")
    assert len({*links}) > 20
    for link in sorted({*links}):
        page.goto(link)
        assert page.evaluate("document.getElementById(location.hash.slice(1)) !== null"), link


@pytest.fixture
def figure(page, request):
    """The figure to step through of a page of the book."""
    page.goto((BOOK / f"book/{request.param}.html").as_uri())
    return page.locator(".ginv-stepper")


@pytest.mark.parametrize("figure", ["table1"], indirect=True)
def test_a_digit_goes_through_its_orbit(figure):
    """And the answers of the weight-tied network stay."""
    figure.get_by_label("digit").select_option("4")
    for group, order in {"R4": 4, "T3": 3}.items():
        figure.get_by_label("group").select_option(group)
        slider = figure.get_by_role("slider")
        slider.press("Home")
        images, answers = set(), set()
        for _ in range(order):
            images.add(figure.get_by_role("img", name="image").screenshot())
            answers.add(figure.locator("tr", has_text="answer").locator("td").first.text_content())
            slider.press("ArrowRight")
        assert len(images) == order and len(answers) == 1


@pytest.mark.parametrize("figure", ["drift"], indirect=True)
def test_the_drift_slider_shows_the_results(figure):
    table = pd.read_csv(ROOT / "book/results/drift.csv")
    means = table.groupby(["group", "beta", "metric", "method"]).value.mean()
    figure.get_by_label("group").select_option("T3")
    slider, images = figure.get_by_role("slider"), set()
    slider.press("Home")
    for beta in table.beta.unique():
        expect(figure.locator("output")).to_have_text(f"{beta:g}")
        for row, metric, digits in (("accuracy", "accuracy", 1), ("DI", "DI", 3)):
            values = [
                f"{means['T3', beta, metric, method]:.{digits}f}" for method in ("WT", "DA", "IR")
            ]
            expect(figure.locator("tr", has_text=row).locator("td")).to_have_text(values)
        images.add(figure.get_by_role("img", name="image").screenshot())
        slider.press("ArrowRight")
    assert len(images) == table.beta.nunique()


@pytest.mark.parametrize(("name", "picture"), [("table1", "fig-saliency"), ("drift", "fig-strip")])
def test_a_picture_stands_where_scripts_are_off(name, picture, browser):
    page = browser.new_page(java_script_enabled=False)
    page.goto((BOOK / f"book/{name}.html").as_uri())
    assert page.locator(f"#{picture} img").bounding_box()["height"] > 100
    figure = page.locator(".ginv-stepper")
    assert figure.count() == 1 and not figure.is_visible()
    page.close()
