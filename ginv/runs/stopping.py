"""How a command ends: at once and with one line, whatever it is in the midst of."""

import os
import signal
from collections.abc import Callable

STOPS = [getattr(signal, name) for name in ("SIGINT", "SIGTERM", "SIGHUP") if hasattr(signal, name)]
STOPPED = "stopped; the same command goes on where it was"


def end_when_told(first: Callable[[], None] = lambda: None) -> None:
    """By any signal that stops, but for those that whoever started us has us ignore.

    As if killed, which no record minds: threads would be waited for, and Python takes seconds to
    leave torch. `first`: what is to be done before.
    """

    def stop(*_: object) -> None:
        for number in STOPS:  # a terminal, make and whoever waits may all tell us
            signal.signal(number, signal.SIG_IGN)
        first()
        line = "\n" * os.isatty(2) + f"{STOPPED}\n"  # below a bar
        os.write(2, line.encode())  # another thread may be in sys.stderr
        os._exit(1)

    for number in STOPS:
        if signal.getsignal(number) != signal.SIG_IGN:
            signal.signal(number, stop)
