import shutil
import sys
from pathlib import Path

import hypothesis
import pytest
import torch

from ginv.machine import threads_kept

# The same examples in every run, and no file of them
hypothesis.settings.register_profile(
    "fixed", derandomize=True, database=None, deadline=None, max_examples=60
)
hypothesis.settings.load_profile("fixed")

ROOT = Path(__file__).parents[1]
CHROMIUMS = "chromium", "chromium-browser", "google-chrome"
FLAGS = ["--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking",
         "--disable-component-update", "--disable-sync"]  # fmt: skip
PHONE = {"width": 390, "height": 844}


@pytest.fixture(autouse=True)
def empty_store(tmp_path, monkeypatch):
    """No test reads or writes the user's store, or finds the trained networks of the clone."""
    monkeypatch.setenv("GINV_RUNS", str(tmp_path / "runs"))
    monkeypatch.setenv("GINV_FRESH", "1")


@pytest.fixture
def installed(tmp_path):
    """A folder where make works and has nothing to install: its Python is the one that tests."""
    shutil.copytree(ROOT / "tools", tmp_path / "tools")
    for name in ("Makefile", "pyproject.toml"):
        shutil.copy(ROOT / name, tmp_path)
    python = tmp_path / ".venv/bin/python"
    python.parent.mkdir(parents=True)
    python.write_text(f'#!/bin/sh\nexec {sys.executable} "$@"\n')
    python.chmod(0o755)
    (tmp_path / ".venv/ready").touch()
    return tmp_path


@pytest.fixture
def generator():
    return torch.Generator().manual_seed(0)


@pytest.fixture
def one_thread():
    """For tiny networks: more threads are no faster, and on a busy machine far slower."""
    with threads_kept():
        torch.set_num_threads(1)
        yield


@pytest.fixture(scope="module")
def browser():
    """A headless Chromium, where there is one."""
    path = next(filter(None, map(shutil.which, CHROMIUMS)), None)
    if path is None:
        pytest.skip("no Chromium")
    from playwright.sync_api import sync_playwright  # here: most tests need none

    with sync_playwright() as playwright:
        chromium = playwright.chromium
        browser = chromium.launch(executable_path=path, args=FLAGS, chromium_sandbox=False)
        yield browser
        browser.close()


@pytest.fixture
def page(browser):
    """A page of a phone's width that notes its errors and what it asks the network for."""
    page = browser.new_page(viewport=PHONE)
    page.errors, page.requested = [], []

    def note_error(message):
        if message.type == "error":
            page.errors.append(message.text)

    page.on("console", note_error)
    page.on("pageerror", lambda error: page.errors.append(str(error)))
    page.on("request", lambda request: page.requested.append(request.url))
    yield page
    page.close()
