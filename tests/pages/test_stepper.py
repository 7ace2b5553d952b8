"""A figure to step through: what is in the page, and what a reader sees."""

import base64
import html
import io
import json
import math
import re

import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image
from playwright.sync_api import expect

from ginv.pages.stepper import COLUMNS, stepper

STATES = [("a", 0), ("a", 1), ("a", 2), ("b", 0), ("b", 1)]


@pytest.fixture
def figure():
    index = pd.MultiIndex.from_tuples(STATES, names=["choice", "step"])
    share = pd.Series([0, 0.25, 0.5, 0.75, 1], index)
    columns = {
        ("number", "WT"): share,
        ("number", "DA"): 1 - share,
        ("word", "WT"): [*"vwxyz"],
        ("word", "DA"): "<b>",
    }
    pictures = [torch.full((36, 36, 3), value) for value in share]
    maps = {"WT": pictures[::-1], "DA": pictures}
    formats = {"number": "{:.2f}", "word": "{}"}
    return stepper(pd.DataFrame(columns), pictures, "it's < & >", formats, maps)


def test_numbers_that_are_none_are_refused():
    index = pd.MultiIndex.from_tuples([("a", 0)], names=["choice", "step"])
    values = pd.DataFrame({("number", "WT"): [math.nan]}, index)
    with pytest.raises(
        ValueError, match=r"^values is \[\[nan\]\]; allowed: finite numbers, or words$"
    ):
        stepper(values, [torch.zeros(36, 36, 3)], "", {"number": "{}"})


def data_of(figure):
    """What the script reads."""
    (quoted,) = re.findall(r"data-stepper='([^']*)'", figure)
    return json.loads(html.unescape(quoted))


def test_each_state_has_its_texts_shares_and_tiles(figure):
    data = data_of(figure)
    assert data["choices"] == [["choice", ["a", "b"]]] and data["slider"] == "step"
    assert data["heads"] == ["WT", "DA"] and data["caption"] == "it's < & >"
    states = {
        (choice, int(state[0])): state[1:]
        for choice, rows in data["states"].items()
        for state in rows
    }
    assert [*states] == STATES
    assert states["a", 1][1:] == [["0.25", "0.75", "w", "<b>"], [0.25, 0.75, 0, 0]]
    assert states["b", 1][1:] == [["1.00", "0.00", "z", "<b>"], [1, 0, 0, 0]]

    sheet = Image.open(io.BytesIO(base64.b64decode(data["sheet"].partition("base64,")[2])))
    sheet = np.asarray(sheet.convert("L"))
    assert sheet.shape == (36, 36 * COLUMNS)  # equal tiles are one
    for (tiles, *_), share in zip(states.values(), (0, 0.25, 0.5, 0.75, 1), strict=True):
        greys = [sheet[18, 36 * tile + 18] for tile in tiles]  # the image, WT's map, DA's map
        assert greys == [round(255 * value) for value in (share, 1 - share, share)]


def test_nothing_comes_from_outside(figure):
    assert re.findall(r"(?:src|href)=|https?://|import\b|fetch\b", figure) == []


def grey(tile):
    """The colour in the middle of what the browser paints."""
    image = Image.open(io.BytesIO(tile.screenshot())).convert("L")
    return image.getpixel((image.width // 2, image.height // 2))


def test_two_figures_on_one_page(page, figure):
    """Each shows the pictures and numbers of its own state, also where a choice has fewer steps
    than another.
    """
    page.set_content(figure + figure)
    first, second = page.locator(".ginv-stepper").all()
    slider, image = first.get_by_role("slider", name="step"), first.get_by_role("img", name="image")
    expect(first.locator("p")).to_have_text("it's < & >")

    slider.press("End")
    expect(first.locator("output")).to_have_text("2")
    assert grey(image) == 128
    first.get_by_role("combobox", name="choice").select_option("b")  # it has no step 2
    expect(first.locator("output")).to_have_text("1")
    expect(slider).to_have_attribute("aria-valuetext", "1")
    expect(first.locator("td")).to_have_text(["", "", "1.00", "0.00", "z", "<b>"])
    tiles = [image, *first.get_by_role("img", name="looks at").all()]
    assert [*map(grey, tiles)] == [255, 0, 255]

    expect(second.locator("td")).to_have_text(["", "", "0.00", "1.00", "v", "<b>"])
    assert grey(second.get_by_role("img", name="image")) == 0
    assert page.errors == [] and page.requested == []
    assert page.evaluate("document.documentElement.scrollWidth") <= page.viewport_size["width"]
