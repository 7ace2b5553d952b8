"""The bar of a job: parts by what they took once, at the pace of this job."""

import time

import pytest
from job_bar import MOST, JobBar


@pytest.fixture
def clock(monkeypatch):
    """A time that goes on when it is told to."""
    now = [0.0]
    monkeypatch.setattr(time, "monotonic", lambda: now[0])
    return lambda seconds: now.__setitem__(0, now[0] + seconds)


def test_a_part_counts_as_what_it_took_once(clock):
    bar = JobBar({"short": 10, "long": 90})
    with bar.part("short"):
        clock(20)
    assert bar.done == pytest.approx(10) and bar.pace == pytest.approx(0.5)
    with bar.part("long"):
        clock(180)
    assert bar.done == pytest.approx(100)
    bar.close()


def test_a_part_that_takes_longer_is_not_done_before_it_is(clock, monkeypatch):
    bar = JobBar({"part": 100, "other": 100})
    waits = iter([False, False, True])

    class Stop:
        def wait(self, seconds):
            clock(1000)
            return next(waits)

    bar._tick(0, 100, Stop())
    assert bar.done == pytest.approx(100 * MOST)
    bar.close()


def test_one_that_fails_is_not_counted(clock):
    bar = JobBar({"part": 100})
    with pytest.raises(KeyError), bar.part("part"):
        raise KeyError
    assert bar.done == 0
    bar.close()
