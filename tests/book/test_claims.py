"""The ledger at the paper profile: its verdicts follow from its numbers, and its numbers from the
stored tables.

A change in the code that flips a verdict fails here, until `make notebooks` has refreshed the
ledger and the flip shows in the diff; the commit then says why.
"""

import math
import operator
import re
import shutil
from pathlib import Path

import pandas as pd
import pytest
from docutils.nodes import fully_normalize_name, make_id
from execute import execute

BOOK = Path(__file__).parents[2] / "book"
TABLES = [
    BOOK / "results" / f"{name}.csv"
    for name in ("table1", "metrics", "drift", "spectral", "proposition")
]
COLUMNS = ["id", "section", "claim", "statistic", "value", "low", "high", "threshold", "verdict"]
RELATIONS = {"<": operator.lt, "<=": operator.le, ">": operator.gt, ">=": operator.ge}


def read(file):
    if not file.is_file():
        pytest.skip(f"no {file.name} yet: `make notebooks` writes it")
    return pd.read_csv(file)


@pytest.fixture(scope="module")
def ledger():
    return read(BOOK / "results" / "claims.csv")


def verdict(value, low, high, threshold):
    """The rule of the page, written a second time."""
    if " to " in threshold:
        least, most = map(float, threshold.split(" to "))
        return "reproduced" if least <= value <= most else "not reproduced"
    relation, limit = threshold.split()
    ends = [value] if math.isnan(low) else [low, high]
    on_side = [RELATIONS[relation](end, float(limit)) for end in ends]
    return "reproduced" if all(on_side) else "partly" if any(on_side) else "not reproduced"


@pytest.mark.parametrize(
    ("numbers", "expected"),
    [
        ((1.0, 0.9, 1.1, ">= 0.9"), "reproduced"),
        ((1.0, 0.9, 1.1, "> 0.9"), "partly"),
        ((1.0, 0.9, 1.1, "< 0.9"), "not reproduced"),
        ((1.0, math.nan, math.nan, "<= 1"), "reproduced"),
        ((1.0, 0.0, 2.0, "0.9 to 1.1"), "reproduced"),
        ((1.2, 0.0, 2.0, "0.9 to 1.1"), "not reproduced"),
    ],
)
def test_the_rule(numbers, expected):
    assert verdict(*numbers) == expected


def test_verdicts_follow_from_the_numbers(ledger):
    assert list(ledger.columns) == COLUMNS
    assert ledger.id.is_unique
    assert not ledger[["id", "section", "claim", "statistic"]].isna().any(axis=None)
    tested = ledger[ledger.verdict != "not testable"]
    assert tested.value.notna().all() and tested.threshold.notna().all()
    inside = tested.low.isna() | tested.value.between(tested.low, tested.high)
    assert inside.all(), tested[~inside].id.tolist()
    expected = [
        verdict(*row)
        for row in tested[["value", "low", "high", "threshold"]].itertuples(index=False)
    ]
    wrong = tested.id[tested.verdict != expected].tolist()
    assert wrong == []
    assert (
        ledger[ledger.verdict == "not testable"][["value", "low", "high", "threshold"]]
        .isna()
        .all(axis=None)
    )


def test_the_ledger_follows_from_the_stored_tables(ledger, tmp_path):
    """The page is run again on the tables that the other pages stored."""
    (tmp_path / "results").mkdir()
    for table in TABLES:
        read(table)
        shutil.copy(table, tmp_path / "results")
    shutil.copy(BOOK / "claims.py", tmp_path)
    execute(tmp_path / "claims.py", "paper")
    again = read(tmp_path / "results" / "claims.csv")
    flips = changes(ledger, again)
    assert not flips, "refresh with `make notebooks` and explain in the commit: " + ", ".join(flips)
    # Numbers may differ by rounding between machines
    tested = ledger.verdict != "not testable"
    pd.testing.assert_frame_equal(again[COLUMNS[:4]], ledger[COLUMNS[:4]])
    before, after = ledger[tested].value, again[tested].value
    close = (after - before).abs() <= 1e-3 * before.abs() + 1e-6
    assert close.all(), ledger[tested].id[~close].tolist()


def changes(before, after):
    """What differs between the verdicts of two ledgers, by id."""
    ledgers = {"before": before, "after": after}
    verdicts = {name: ledger.set_index("id").verdict for name, ledger in ledgers.items()}
    both = pd.concat(verdicts, axis=1).fillna("no row")
    both = both[both.before != both.after]
    return [f"{id}: {row.before} -> {row.after}" for id, row in both.iterrows()]


def test_a_flip_is_seen(ledger):
    flipped = ledger.assign(verdict=ledger.verdict.where(ledger.index != 3, "another"))
    assert len(changes(ledger, flipped)) == 1
    assert len(changes(ledger, ledger.drop(index=3))) == 1


def test_every_row_leads_to_its_place():
    """The links of the ledger are raw HTML, which Sphinx does not check."""
    links = set(re.findall(r"(\w+)\.html#([\w-]+)", links_of(BOOK / "claims.py")))
    assert links
    for page, anchor in sorted(links):
        script = BOOK / f"{page}.py"
        assert script.is_file(), page
        assert anchor in anchors(script), f"{page}.html#{anchor}"


def links_of(script):
    """Its source, with the names of pages and sections that stand for a part of a link put in."""
    text = script.read_text()
    for name, value in re.findall(r'^([A-Z]+) = "(\w+\.html)"$', text, re.MULTILINE):
        text = text.replace(f"{{{name}}}", value)
    return text


def anchors(script):
    titles = re.findall(r"^# #+ (.*)$", script.read_text(), re.MULTILINE)
    return {make_id(fully_normalize_name(title.replace("$", ""))) for title in titles}
