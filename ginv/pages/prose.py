"""What a page says in words, held against the run that it shows."""

from html import escape
from typing import Any

import numpy as np
from IPython.display import display

from ginv.refuse import require

BANNER = (
    '<div role="note" style="border-left: 4px solid #C77C00; padding: .3em .8em">'
    "<b>In this run it is different.</b> The text that follows says: {}.</div>"
)


def expect(words: str, condition: Any) -> None:
    """Nothing where the prose that follows is true of this run; else a banner that says so.

    words: what the prose says, a sentence without its full stop. condition: a truth value, or a
    table of them, all of which have to be true. Raises ValueError for one without truth values.
    """
    require(isinstance(words, str) and bool(words), "words", words, "a sentence")
    held = np.asarray(condition)
    fits = held.dtype == bool and held.size > 0
    require(fits, "condition", condition, "True, False or a table of them")
    if not held.all():
        plain = f"In this run it is different. The text that follows says: {words}."
        html = BANNER.format(escape(words))
        display({"text/html": html, "text/plain": plain}, raw=True)
