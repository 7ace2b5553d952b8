"""The printed table, and the one rule by which a number of ours agrees with it."""

import math

import pandas as pd
import pytest

from ginv.pages import paper
from ginv.pages.paper import METRICS, book_file, printed_table, room

PRINTED = pd.Series(dict(mean=0.57, sd=0.08, mean_digit=0.005, sd_digit=0.005))
OTHER = pd.Series(dict(mean=96.2, sd=0.2, mean_digit=0.05, sd_digit=0.05))


def test_the_printed_table_has_all_numbers_and_their_last_digits():
    table = printed_table()
    groups, methods = ("R4", "T3"), ("WT", "DA", "IR")
    keys = [(g, method, metric) for g in groups for method in methods for metric in METRICS]
    assert [*table.index] == keys and table.notna().all(axis=None)
    row = table.loc["R4", "WT", "LI"]
    assert (row["mean"], row["sd"], row.mean_text, row.sd_text) == (0, 0, "0.00", "0.0")
    assert (row.mean_digit, row.sd_digit) == pytest.approx((0.005, 0.05))
    for name in ("mean", "sd"):
        assert (table[f"{name}_text"].astype(float) == table[name]).all()


@pytest.mark.parametrize(
    ("sd", "seeds", "rows", "expected"),
    [
        (0.0, 4, [PRINTED], 2 * 0.085 / 2 + 0.005),
        (0.085, 4, [PRINTED], 2 * 0.085 * math.sqrt(1 / 4 + 1 / 4) + 0.005),
        (0.085, 1, [PRINTED], 2 * 0.085 * math.sqrt(1 + 1 / 4) + 0.005),
        (math.nan, 1, [PRINTED], 2 * 0.085 * math.sqrt(1 + 1 / 4) + 0.005),
        (0.3, 9, [OTHER, OTHER], 2 * math.sqrt(0.09 / 9 + 2 * 0.25**2 / 4) + 0.1),
    ],
)
def test_the_rule_of_agreement(sd, seeds, rows, expected):
    """Two standard errors of the difference, and half a unit of each printed last digit."""
    assert room(sd, seeds, *rows) == pytest.approx(expected)


def test_a_zero_is_printed_with_room_for_what_it_hides():
    row = printed_table().loc["T3", "IR", "DI"]  # 0.0 +- 0.0
    assert room(0.0, 4, row) == pytest.approx(2 * 0.05 / 2 + 0.05)


def test_a_file_of_the_book_is_found_from_where_a_chapter_runs(tmp_path, monkeypatch):
    """Beside it, one folder up, or else in the clone."""
    monkeypatch.chdir(tmp_path)
    assert book_file("paper.csv").samefile(
        paper.__file__.replace("ginv/pages/paper.py", "book/paper.csv")
    )
    (tmp_path / "book").mkdir()
    (tmp_path / "book" / "paper.csv").write_text("from above")
    assert book_file("paper.csv").read_text() == "from above"
    (tmp_path / "paper.csv").write_text("beside")
    assert book_file("paper.csv").read_text() == "beside"
    with pytest.raises(FileNotFoundError, match=r"^no nothing\.csv here; [^\n]*$"):
        book_file("nothing.csv")
