"""What moved between the committed results and those of a training from nothing.

`python tools/compare.py NEW` compares the tables in NEW, such as `_build/book/book/results`, with
`book/results`. Two trainings of one specification part by rounding and end as two seeds do: a mean
over seeds has moved where it is further away than the spreads of both explain. A verdict of the
ledger has moved where it is another.
"""

import argparse
import sys
from pathlib import Path

import pandas as pd

COMMITTED = Path(__file__).parents[1] / "book" / "results"
TABLES = ("table1", "metrics", "trust", "drift", "spectral", "price_test")
STANDARD_ERRORS = 5  # of four seeds: by chance one mean in a thousand
ROUNDING = 1e-3  # relative, of what does not vary over seeds


def moved_means(before: pd.DataFrame, after: pd.DataFrame) -> pd.DataFrame:
    """The means over seeds that are another, of tables in long form: before, after, allowed."""
    both = {}
    for name, table in {"before": before, "after": after}.items():
        keys = [column for column in table if column not in ("seed", "value")]
        both[name] = table.groupby(keys, dropna=False).value.agg(["mean", "sem"]).fillna(0)
    before, after = both["before"].align(both["after"])
    noise = (before["sem"] ** 2 + after["sem"] ** 2) ** 0.5
    allowed = STANDARD_ERRORS * noise + ROUNDING * before["mean"].abs() + 1e-6
    found = pd.DataFrame({"before": before["mean"], "after": after["mean"], "allowed": allowed})
    return found[
        ~((found.after - found.before).abs() <= found.allowed)
    ]  # a row that is missing, too


def moved_verdicts(before: pd.DataFrame, after: pd.DataFrame) -> pd.DataFrame:
    """The claims with another verdict."""
    found = {
        name: table.set_index("id").verdict
        for name, table in {"before": before, "after": after}.items()
    }
    both = pd.concat(found, axis=1).fillna("no row")
    return both[both.before != both.after]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("new", type=Path, help="the folder of the new tables")
    new = parser.parse_args().new
    moved = 0
    for name in (*TABLES, "claims"):
        try:
            before, after = (pd.read_csv(folder / f"{name}.csv") for folder in (COMMITTED, new))
        except OSError as error:
            sys.exit(str(error))
        found = (moved_verdicts if name == "claims" else moved_means)(before, after)
        moved += len(found)
        print(
            f"{name}: {len(found)} of {len(before)} moved" if found.empty else f"{name}:\n{found}"
        )
    return bool(moved)


if __name__ == "__main__":
    sys.exit(main())
