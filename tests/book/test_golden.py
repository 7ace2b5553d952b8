"""Table 1 after one epoch is what it was, up to rounding.

After the quick profile's 20: in test_chapters.py.
"""

from golden import assert_golden, table1


def test_first_epoch():
    assert_golden(table1(1, seeds=[0]), 1)
