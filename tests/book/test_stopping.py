"""A signal to make ends what make started, with one line, and nothing is left half-written."""

import os
import shutil
import signal
import subprocess
import time
from pathlib import Path

import psutil
import pytest

ROOT = Path(__file__).parents[2]
TOC = "format: jb-book\nroot: book/endless\nparts: [{chapters: []}]\n"
ENDLESS = """\
# %%
import ginv
from ginv.runs import checkpoints

checkpoints.MOST_LOST = 0  # writes all the time
short = dict(width=16, depth=2, train_images=200)
ginv.train([ginv.Run(epochs=1_000_000, **short)], device="cpu", progress=False)
"""
PATIENCE = 600  # seconds; on an idle machine it takes six


@pytest.fixture
def book(installed):
    """A book of one chapter, which trains and does not come to an end."""
    shutil.copy(ROOT / "_config.yml", installed)
    (installed / "book/results").mkdir(parents=True)
    (installed / "book/endless.py").write_text(ENDLESS)
    (installed / "_toc.yml").write_text(TOC)
    return installed


def wait_until(condition):
    end = time.monotonic() + PATIENCE
    while not (reached := condition()) and time.monotonic() < end:
        time.sleep(0.1)
    return reached


def started(store):
    """The processes that have this store: make's, and whatever they started in turn."""
    found = []
    for process in psutil.process_iter():
        try:
            running = process.status() != psutil.STATUS_ZOMBIE
            if running and process.environ().get("GINV_RUNS") == store:
                found.append(process)
        except psutil.Error:  # gone by now, or another user's
            continue
    return found


@pytest.fixture
def make(book):
    """`make book` in a session of its own, once the chapter trains."""
    store = book / "runs"
    # Called as from a shell, whichever make has called these tests
    outer = {name: value for name, value in os.environ.items() if not name.startswith("MAKE")}
    environment = {**outer, "GINV_RUNS": str(store), "PYTHONPATH": str(ROOT)}
    pipes = dict(stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    process = subprocess.Popen(
        ["make", "book"], cwd=book, env=environment, start_new_session=True, **pipes
    )
    try:
        trains = wait_until(lambda: [*store.glob(".checkpoints/*")] or process.poll())
        assert trains and process.poll() is None
        yield process
    finally:
        for each in started(str(store)):
            each.kill()
        process.communicate()


NUMBERS = signal.SIGTERM, signal.SIGINT, signal.SIGHUP


@pytest.mark.parametrize(
    ("number", "send"),
    [
        *((number, os.kill) for number in NUMBERS),
        *((number, os.killpg) for number in NUMBERS[1:]),  # as a terminal does
        (signal.SIGKILL, os.kill),
    ],
    ids=lambda value: getattr(value, "name", None) or value.__name__,
)
def test_a_signal_to_make_ends_what_make_started(number, send, make, book):
    assert len(started(str(book / "runs"))) == 3  # make, the script and the kernel
    send(make.pid, number)
    assert wait_until(lambda: not started(str(book / "runs")))
    said = make.communicate()[1].splitlines()
    assert make.returncode == -number
    line = "stopped; the same command goes on where it was"
    assert [text for text in said if not text.startswith("make: ***")] == [line]
    # Where a kernel was writing into the store, the next that does removes it
    assert {path.parent.name for path in book.rglob(".writing*")} <= {"runs"}
    assert not [*book.rglob("*.ipynb")]


def test_a_second_make_leaves_the_book_of_the_first_alone(make, book):
    command, here = ["make", "book"], book / "_build/book/book/endless.py"
    outer = {name: value for name, value in os.environ.items() if not name.startswith("MAKE")}
    before = here.stat().st_ino
    second = subprocess.run(
        command, cwd=book, env={**outer, "PYTHONPATH": str(ROOT)}, capture_output=True, text=True
    )
    said = [line for line in second.stderr.splitlines() if not line.startswith("make: ***")]
    assert said == ["a book is executed in _build/book by another process"]
    assert second.returncode and make.poll() is None and here.stat().st_ino == before
