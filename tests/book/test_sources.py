"""Outputs cannot go stale: what they hang on has a hash, and the committed pages have today's."""

import shutil
from pathlib import Path

import nbformat
import pandas as pd
import pytest
from execute import chapters, execute, is_up_to_date, renew_text
from sources import bare, recorded, sources_hash

ROOT = Path(__file__).parents[2]
CHAPTER = '''\
# %% [markdown]
# # A chapter

# %%
import pandas as pd
from ginv import Rotations

table = pd.read_csv("results/other.csv")  # of another chapter


# %%
def doubled(x):
    """Twice as much."""
    return 2 * x


# %%
doubled(table.value.sum()), Rotations(4).order
'''


@pytest.fixture
def chapter(tmp_path):
    (tmp_path / "results").mkdir()
    (tmp_path / "results/other.csv").write_text("value\n1\n")
    script = tmp_path / "page.py"
    script.write_text(CHAPTER)
    return script


@pytest.mark.parametrize("page", chapters(ROOT))
def test_no_committed_page_is_older_than_its_sources(page):
    script = ROOT / f"{page}.py"
    assert sources_hash(script) == recorded(script)["sources"], "make notebooks"


@pytest.mark.parametrize(
    "old, new",
    [
        ("2 * x", "3 * x"),
        ("Rotations(4)", "Rotations(2)"),
        ("from ginv import Rotations", "import ginv\nfrom ginv import Rotations"),
    ],
)
def test_other_code_is_another_hash(old, new, chapter):
    before = sources_hash(chapter)
    assert old in CHAPTER
    chapter.write_text(CHAPTER.replace(old, new))
    assert sources_hash(chapter) != before


@pytest.mark.parametrize(
    "old, new",
    [
        ("# A chapter", "# Another title"),
        ("  # of another chapter", ""),
        ('    """Twice as much."""\n', ""),
        ("\n\n\n# %%", "\n\n# %%"),
    ],
)
def test_words_are_none_of_it(old, new, chapter):
    before = sources_hash(chapter)
    assert old in CHAPTER
    chapter.write_text(CHAPTER.replace(old, new))
    assert sources_hash(chapter) == before


def test_tables_that_it_reads_are_part_of_it(chapter):
    before = sources_hash(chapter)
    (chapter.parent / "results/unrelated.csv").write_text("value\n2\n")
    assert sources_hash(chapter) == before
    (chapter.parent / "results/other.csv").write_text("value\n2\n")
    assert sources_hash(chapter) != before


def test_the_code_of_ginv_behind_it_is_part_of_it(chapter, tmp_path, monkeypatch):
    package = tmp_path / "copy" / "ginv"
    shutil.copytree(ROOT / "ginv", package, ignore=shutil.ignore_patterns("__pycache__"))
    monkeypatch.setattr("sources.PACKAGE", package)
    before = sources_hash(chapter)
    for file, matters in (("groups.py", True), ("runs/cluster.py", False)):
        text = (package / file).read_text()
        (package / file).write_text(f"{text}\n# a comment\n")
        assert sources_hash(chapter) == before
        (package / file).write_text(f"{text}\nMORE = 1\n")
        assert (sources_hash(chapter) != before) == matters
        (package / file).write_text(text)


def test_a_hash_sign_in_a_text_is_no_comment():
    code = 'x = "# no comment"  # one\n\ny = f"{x} # {x!r}"\n'
    assert bare(code) == 'x = "# no comment"\ny = f"{x} # {x!r}"'


def test_what_is_up_to_date_is_known_and_its_text_renewed(chapter, capsys):
    """Prose is renewed without running; outputs stay as they are, to the byte."""
    assert not is_up_to_date(chapter)
    execute(chapter, "paper")
    assert is_up_to_date(chapter)
    before = (notebook := chapter.with_suffix(".ipynb")).read_text()
    renew_text(chapter)
    assert notebook.read_text() == before and capsys.readouterr().out == ""
    chapter.write_text(CHAPTER.replace("# A chapter", "# Another title"))
    assert is_up_to_date(chapter)
    renew_text(chapter)
    assert capsys.readouterr().out == "page: the text is renewed\n"
    assert notebook.read_text() == before.replace("# A chapter", "# Another title").replace(
        *(nbformat.reads(text, 4).cells[0].id for text in (before, notebook.read_text()))
    )
    chapter.write_text(CHAPTER.replace("2 * x", "3 * x"))
    assert not is_up_to_date(chapter)


def test_other_packages_or_another_profile_are_not_up_to_date(chapter):
    execute(chapter, "quick")
    assert not is_up_to_date(chapter)
    execute(chapter, "paper")
    file = chapter.parent / "results/provenance.csv"
    pd.read_csv(file, dtype=str).assign(torch="2.0.0").to_csv(file, index=False)
    assert not is_up_to_date(chapter)


@pytest.mark.parametrize("page", chapters(ROOT))
def test_a_committed_notebook_that_is_renewed_is_the_same_bytes(page, tmp_path):
    for suffix in (".py", ".ipynb"):
        shutil.copy(ROOT / f"{page}{suffix}", tmp_path)
    renew_text(tmp_path / Path(page).with_suffix(".py").name)
    again = tmp_path / Path(page).with_suffix(".ipynb").name
    assert again.read_bytes() == (ROOT / f"{page}.ipynb").read_bytes()
