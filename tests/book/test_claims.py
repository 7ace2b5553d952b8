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

import nbformat
import pandas as pd
import pytest
from docutils.nodes import fully_normalize_name, make_id
from execute import execute

from ginv.pages.ledger import read_ledger

BOOK = Path(__file__).parents[2] / "book"
TABLES = [
    BOOK / "results" / f"{name}.csv"
    for name in ("table1", "metrics", "trust", "drift", "spectral", "proposition")
]
COLUMNS = [
    "id", "kind", "section", "claim", "statistic", "value", "low", "high", "threshold", "verdict",
    "turns",
]  # fmt: skip
RELATIONS = {"<": operator.lt, "<=": operator.le, ">": operator.gt, ">=": operator.ge}
EXACT = ("check", "cost_ratio", "proposition", "kept_on_orbit_sums")  # kinds or statistics
CLAIMS = {row.id: row for h in read_ledger(BOOK / "ledger.yaml", ["R4", "T3"]) for row in h.rows}


def read(file):
    if not file.is_file():
        pytest.skip(f"no {file.name} yet: `make notebooks` writes it")
    return pd.read_csv(file)


@pytest.fixture(scope="module")
def ledger():
    return read(BOOK / "results" / "claims.csv")


def verdict(id, value, low, high, threshold):
    """The rule of the page, written a second time."""
    if math.isnan(low) and not (CLAIMS[id].kind == "check" or CLAIMS[id].value.startswith(EXACT)):
        return "undecided"
    if " to " in threshold:
        least, most = map(float, threshold.split(" to "))
        return "reproduced" if least <= value <= most else "not reproduced"
    relation, limit = threshold.split()
    ends = [value] if math.isnan(low) else [low, high]
    on_side = [RELATIONS[relation](end, float(limit)) for end in ends]
    return "reproduced" if all(on_side) else "undecided" if any(on_side) else "not reproduced"


def test_verdicts_follow_from_the_numbers(ledger):
    assert list(ledger.columns) == COLUMNS
    assert ledger.id.is_unique
    assert not ledger[["id", "kind", "section", "claim"]].isna().any(axis=None)
    assert [*ledger.id] == [*CLAIMS]
    tested = ledger[ledger.verdict != "not testable"]
    assert tested.value.notna().all() and tested.threshold.notna().all()
    inside = tested.low.isna() | tested.value.between(tested.low, tested.high)
    assert inside.all(), tested[~inside].id.tolist()
    exact = [id for id in tested.id[tested.low.isna()] if CLAIMS[id].kind != "check"]
    assert {CLAIMS[id].value.split()[0] for id in exact} <= {*EXACT}
    expected = [
        verdict(*row)
        for row in tested[["id", "value", "low", "high", "threshold"]].itertuples(index=False)
    ]
    lost = {id for id, of in zip(tested.id, expected, strict=True) if of == "not reproduced"}
    presupposed = [f"{CLAIMS[id].given}-{CLAIMS[id].group}" for id in tested.id]
    expected = [
        "undecided" if given in lost else of
        for given, of in zip(presupposed, expected, strict=True)
    ]
    assert {*presupposed} & lost  # so that this is seen
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
    for file in ("claims.py", "ledger.yaml", "paper.csv"):
        shutil.copy(BOOK / file, tmp_path)
    execute(tmp_path / "claims.py", "paper")
    again = read(tmp_path / "results" / "claims.csv")
    flips = changes(ledger, again)
    assert not flips, "refresh with `make notebooks` and explain in the commit: " + ", ".join(flips)
    # Numbers may differ by rounding between machines
    tested = ledger.verdict != "not testable"
    pd.testing.assert_frame_equal(again[COLUMNS[:5]], ledger[COLUMNS[:5]])
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


def test_headlines_follow_from_their_rows(ledger):
    """And the intro shows them."""
    headlines = read(BOOK / "results" / "headlines.csv").set_index("id")
    assert 10 <= len(headlines) <= 12
    found = ledger.set_index("id").verdict
    for headline in read_ledger(BOOK / "ledger.yaml", ["R4", "T3"])[:-1]:
        for column, groups in (("R4", ["R4"]), ("T3", ["T3"]), ("verdict", ["R4", "T3"])):
            ids = [f"{id}-{group}" for id in headline.decided_by for group in groups]
            verdicts = {found[id] for id in ids if id in found}
            worst = next(v for v in ("not reproduced", "undecided", "reproduced") if v in verdicts)
            assert headlines[column][headline.id] == worst


def test_every_row_leads_to_its_place():
    """The links of the ledger are raw HTML, which Sphinx does not check."""
    links = {tuple(row.page.split(".html#")) for row in CLAIMS.values() if row.page}
    assert links
    for page, anchor in sorted(links):
        script = BOOK / f"{page}.py"
        assert script.is_file(), page
        assert anchor in anchors(script), f"{page}.html#{anchor}"


def test_every_row_is_shown():
    """Once, with its id to link to; and what the intro's lines lead to."""
    notebook = nbformat.read(BOOK / "claims.ipynb", 4)
    shown = "".join(
        out.data.get("text/html", "")
        for cell in notebook.cells
        for out in cell.get("outputs", [])
        if "data" in out
    )
    ids = re.findall(r'<(?:div|details) id="([^"]+)"', shown)
    assert len(ids) == len({*ids})
    assert {*CLAIMS} <= {*ids} and {*re.findall(r'href="#([^"]+)"', shown)} <= {*ids}


def anchors(script):
    titles = re.findall(r"^# #+ (.*)$", script.read_text(), re.MULTILINE)
    return {make_id(fully_normalize_name(title.replace("$", ""))) for title in titles}
