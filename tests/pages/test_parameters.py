"""The parameters of a chapter: one table, one cell, and a line for a wrong name or value."""

import ast
import re
import subprocess
import sys
from pathlib import Path

import jupytext
import pytest
from execute import chapters

from ginv.pages import Settings, refuse_unknown
from ginv.pages.settings import PROFILES

ROOT = Path(__file__).parents[2]
CHAPTERS = chapters(ROOT)
CELL = 'profile = "paper"  # how much\nseeds = None'


def parameters(chapter):
    """Names and defaults of the cell that papermill finds by its tag."""
    cells = jupytext.read(ROOT / f"{chapter}.py").cells
    (cell,) = [cell.source for cell in cells if "parameters" in cell.metadata.get("tags", [])]
    return {line.targets[0].id: ast.literal_eval(line.value) for line in ast.parse(cell).body}


@pytest.mark.parametrize("chapter", CHAPTERS)
def test_parameters_are_a_form_in_colab(chapter):
    """One that offers what the table allows."""
    text = (ROOT / f"{chapter}.py").read_text()
    fields = re.findall(r"^(\w+) = .*  # @param (.+)$", text, re.M)
    assert [name for name, _ in fields] == [*parameters(chapter)]
    for name, offered in fields:
        if name in ("results", "seeds"):
            assert offered == {"results": '{type: "string"}', "seeds": '{type: "raw"}'}[name]
        else:
            assert ast.literal_eval(offered)[0] == parameters(chapter)[name]
            assert {*ast.literal_eval(offered)} == {*ast.literal_eval(allowed(name))}


def allowed(name):
    """The values of the table as a tuple."""
    return f"({', '.join(re.findall('`([^`]+)`', table()[name][1]))})"


def table():
    """Name: default and allowed, as the page states them."""
    rows = re.findall(
        r"^\| `(\w+)` \| [^|]+ \| `([^|]+)` \| ([^|]+) \|",
        (ROOT / "book/parameters.md").read_text(),
        re.M,
    )
    return {name: (ast.literal_eval(default), allowed) for name, default, allowed in rows}


def test_the_table_has_the_parameters_of_all_chapters():
    stated = {name: default for name, (default, _) in table().items()}
    assert {
        name: value for chapter in CHAPTERS for name, value in parameters(chapter).items()
    } == stated
    for chapter in CHAPTERS:
        assert parameters(chapter).items() <= stated.items()


@pytest.mark.parametrize("name", ["profile", "group", "device"])
def test_the_table_has_the_allowed_values(name):
    default, allowed = table()[name]
    assert getattr(Settings(), name) == default
    values = [ast.literal_eval(value) for value in re.findall("`([^`]+)`", allowed)]
    for value in values:
        try:
            Settings(**{name: value})
        except ValueError as error:
            assert "no GPU here" in str(error)
    with pytest.raises(ValueError, match=name) as error:
        Settings(**{name: "nothing"})
    stated = re.findall(r"\w+", str(error.value).split("allowed: ")[1])
    assert set(values) >= {*stated} - {"no", "GPU", "here"}
    assert name != "profile" or set(values) == set(PROFILES)


@pytest.mark.parametrize(
    "cells",
    [
        ["", CELL, "import sys"],
        ["", CELL, '# Parameters\nseeds = [0]\nprofile = "quick"\n'],
        ["", "x = 1", CELL, "y = 2"],
        ["", CELL, "# Parameters\nseeds = float('nan')\n"],
        [
            "",
            CELL,
            '# Parameters\nPAPERMILL_OUTPUT_PATH = "out.ipynb"\nPAPERMILL_INPUT_PATH = ""\n',
        ],
    ],
)
def test_known_names_pass(cells):
    refuse_unknown(cells)


def test_an_unknown_name_is_refused():
    with pytest.raises(ValueError, match=r"^no parameter sedes; allowed: profile, seeds$"):
        refuse_unknown(
            ["", "x = 1", CELL, "# Parameters\nsedes = [0]\nseeds = [0]\n", "import sys"]
        )


@pytest.mark.parametrize("chapter", CHAPTERS)
def test_every_chapter_refuses_unknown_names(chapter):
    text = (ROOT / f"{chapter}.py").read_text()
    assert re.search(r"\nrefuse_unknown\(\).*\nsettings = Settings\(", text)


@pytest.mark.parametrize(
    ("arguments", "line"),
    [
        (
            ["-y", "sedes: [0]"],
            "ValueError: no parameter sedes; allowed: device, group, profile, results, seeds",
        ),
        (["-p", "profile", "fast"], "ValueError: profile is 'fast'; allowed: paper, sample, quick"),
        (
            ["-y", "seeds: .nan"],
            "ValueError: seeds is nan; allowed: a list of integers from 0 up, such as [0, 1]",
        ),
        (
            ["--inject-paths", "-p", "group", "R5"],
            "ValueError: group is 'R5'; allowed: both, R4, T3",
        ),
    ],
)
def test_papermill_ends_in_one_line(arguments, line, tmp_path):
    """From another folder, and before anything is trained: the store stays empty."""
    papermill = [sys.executable, "-m", "papermill", ROOT / "book/intro.ipynb", "out.ipynb"]
    command = [*papermill, *arguments]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode != 0
    assert done.stderr.rstrip().splitlines()[-1] == line
    assert sorted(path.name for path in tmp_path.iterdir()) == ["out.ipynb"]
