"""Table 1 as the paper prints it, and the one rule by which a number of ours agrees with it."""

import math
from pathlib import Path

import pandas as pd

from ginv.refuse import require

PAPER_SEEDS = 4
METRICS = ("accuracy", "LI", "DI", "SI")


def book_file(name: str) -> Path:
    """A file that lies beside the chapters, seen from the folder that a chapter runs in.

    That is `book/`, or the folder above it, or any where `ginv` is installed from a clone. Raises
    FileNotFoundError where there is none.
    """
    fits = isinstance(name, str) and name.isprintable() and bool(name)
    require(fits, "name", name, "a file that lies beside the chapters")
    clone = Path(__file__).resolve().parents[2]
    for path in (Path(name), Path("book") / name, clone / "book" / name):
        if path.is_file():
            return path
    raise FileNotFoundError(f"no {name} here; run the chapter in the folder book/ of a clone")


def printed_table() -> pd.DataFrame:
    """`paper.csv`: rows (group, method, metric), the mean and the spread over four seeds.

    Columns: `mean` and `sd`; the same as text, `mean_text` and `sd_text`; and half a unit of their
    last digits, `mean_digit` and `sd_digit`. The spread is taken for a standard deviation.
    """
    keys = ["group", "method", "metric"]
    table = pd.read_csv(book_file("paper.csv"), dtype=str, index_col=keys)
    for name in ("mean", "sd"):
        text = table[name]
        table[f"{name}_text"], table[name] = text, text.astype(float)
        decimals = text.str.partition(".")[2].str.len()
        table[f"{name}_digit"] = 0.5 * 10.0**-decimals
    return table


def room(sd: float, seeds: int, *printed: pd.Series) -> float:
    """How far a mean of ours may be from a printed one, or from a difference of two, and agree.

    Twice the standard error of the difference, and half a unit of each printed number's last digit.
    sd: our standard deviation over so many seeds; NaN, as of one seed, stands for the paper's own.
    printed: rows of `printed_table`. The printed spread is rounded too, so half a unit of its last
    digit is added to it.
    """
    require(type(seeds) is int and seeds > 0, "seeds", seeds, "integers from 1")
    theirs = sum((row["sd"] + row["sd_digit"]) ** 2 for row in printed)
    ours = theirs if math.isnan(sd) else sd**2
    error = (ours / seeds + theirs / PAPER_SEEDS) ** 0.5
    return 2 * error + sum(row["mean_digit"] for row in printed)
