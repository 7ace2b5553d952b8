"""A chapter that is executed twice: the same bytes, and its figures, whatever the shell says."""

import nbformat
import pytest
from execute import Rendering, execute

CHAPTER = """\
# %% [markdown]
# # What differs from run to run

# %%
import sys
import matplotlib.pyplot as plt
import pandas as pd
from tqdm import tqdm
from ginv.pages.figures import show_table, use_style

use_style()
figure, axis = plt.subplots(figsize=(2, 2))

# %%
show_table(pd.DataFrame({"a": [1.0, 2.0]}), "a table")

# %%
show_table(pd.DataFrame({"a": [1.0, 3.0]}), "a table")

# %%
print("said before", file=sys.stderr)
for _ in tqdm(range(3), desc="bar of a cell"):
    for _ in tqdm(range(3), desc="bar of a cell below", mininterval=0, position=1):
        pass
print("said after", file=sys.stderr)
object()
"""


def executed(folder):
    folder.mkdir()
    (folder / "results").mkdir()
    (folder / "twice.py").write_text(CHAPTER)
    execute(folder / "twice.py", "paper")
    return (folder / "twice.ipynb").read_text()


@pytest.mark.parametrize("backend", ["Agg", "pdf", ""])
def test_the_same_chapter_is_the_same_bytes(backend, tmp_path, monkeypatch):
    first = executed(tmp_path / "first")
    monkeypatch.setenv("MPLBACKEND", backend)
    assert executed(tmp_path / "second") == first
    outputs = [out for cell in nbformat.reads(first, 4).cells for out in cell.get("outputs", [])]
    kinds = [[*out.get("data", {})] for out in outputs]
    assert sum("image/png" in kind for kind in kinds) == 1
    tables = [out.data["text/html"] for out in outputs if "text/html" in out.get("data", {})]
    assert len({*tables}) == 2  # and two tables of a page do not share their names


def test_a_kernel_speaks_and_its_bars_do_not_show(tmp_path, capsys):
    executed(tmp_path / "first")
    said = capsys.readouterr().err
    assert "said before" in said and "said after" in said and "bar of a cell" not in said
    assert "\x1b" not in said  # nor what moves the cursor from bar to bar


def test_pages_are_rendered_one_at_a_time_and_end_with_the_job(tmp_path):
    rendering = Rendering(tmp_path)
    assert rendering.command[-1] == str(tmp_path)
    rendering.command = ["sleep", "600"]
    rendering.end()  # before any
    rendering.begin()
    first = rendering.process
    rendering.begin()
    assert rendering.process is first and first.poll() is None
    rendering.end()
    assert first.poll() is not None
    rendering.begin()  # the next
    assert rendering.process is not first
    rendering.end()
