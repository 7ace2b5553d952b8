"""One bar for a job of many parts: which part, how far, and about how long still."""

import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from threading import Event, Thread

from tqdm import tqdm

FORMAT = "{desc} {percentage:3.0f}% |{bar}| {elapsed}, about {remaining} left"
MOST = 0.95  # of a part, before it is done


class JobBar:
    """A bar over parts, by the seconds that each took once; the pace of this job scales the rest.

    `with bar.part(name):` is a part; one that raises leaves the bar where it was.
    """

    def __init__(self, seconds: Mapping[str, float]) -> None:
        self.seconds, self.started = seconds, time.monotonic()
        self.done, self.pace = 0.0, 1.0  # seconds, and how many of them in a second of this job
        self.bar = tqdm(  # on a terminal alone
            total=sum(seconds.values()), bar_format=FORMAT, smoothing=0, disable=None
        )

    @contextmanager
    def part(self, name: str) -> Iterator[None]:
        self.bar.set_description(name)
        before, stop = self.done, Event()
        ticking = Thread(target=self._tick, args=(before, self.seconds[name], stop), daemon=True)
        ticking.start()
        try:
            yield
        finally:
            stop.set()
            ticking.join()
            self._show(before)
        self._show(before + self.seconds[name])
        self.pace = self.done / max(time.monotonic() - self.started, 1e-9)

    def _tick(self, before: float, seconds: float, stop: Event) -> None:
        began = time.monotonic()
        while not stop.wait(1):
            passed = self.pace * (time.monotonic() - began)
            self._show(before + min(passed, MOST * seconds))

    def _show(self, done: float) -> None:
        self.done = done
        self.bar.update(done - self.bar.n)

    def close(self) -> None:
        self.bar.close()
