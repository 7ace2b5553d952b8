"""The files around the code agree with one another, and the committed notebooks are what they claim
to be.
"""

import ast
import os
import re
import shutil
import subprocess
import tomllib
from pathlib import Path

import jupytext
import nbformat
import pandas as pd
import pytest
import yaml
from execute import PAIRED, chapters, pages
from jupytext.cli import jupytext as jupytext_cli
from lacking import needed
from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet

import ginv
from ginv.pages.paper import printed_table

ROOT = Path(__file__).parents[2]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
ENVIRONMENT = yaml.safe_load((ROOT / "environment.yml").read_text())
MEGABYTE = 1_000_000


def test_environment_leaves_versions_to_pyproject():
    *conda, pip = ENVIRONMENT["dependencies"]
    assert [entry.split("=")[0] for entry in conda] == ["python", "pip"]
    (package,) = pip["pip"]
    assert package.startswith("-e .[")
    assert re.findall(r"\w+", package.removeprefix("-e ")) == ["book", "test"]


def test_environment_python_is_allowed():
    python = next(entry for entry in ENVIRONMENT["dependencies"] if entry.startswith("python="))
    assert python.split("=")[1] in SpecifierSet(PROJECT["requires-python"])


@pytest.mark.parametrize("name", ["torch", "torchvision"])
def test_pin_lies_in_the_range(name):
    allowed = next(r for r in map(Requirement, PROJECT["dependencies"]) if r.name == name)
    pins = [r for r in map(Requirement, PROJECT["optional-dependencies"]["book"]) if r.name == name]
    assert len(pins) == 1
    (pin,) = pins[0].specifier
    assert pin.operator == "=="
    assert pin.version.replace("*", "0") in allowed.specifier


def test_the_lowest_versions_are_those_declared():
    """`make lowest` tests with them."""
    lines = (ROOT / "tools/lowest.txt").read_text().splitlines()[1:]
    tested = {r.name: r.specifier for r in map(Requirement, lines)}
    declared = {r.name: r.specifier for r in needed(ROOT)}
    assert [*tested] == sorted(declared)
    for name, specifier in declared.items():
        (lowest,) = [each.version for each in specifier if each.operator == ">="]
        assert str(tested[name]) == f"=={lowest}", name


def test_versions_agree():
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text())
    newest = re.search(r"^## ([\d.]+)", (ROOT / "CHANGELOG.md").read_text(), re.M)[1]
    assert citation["version"] == newest == PROJECT["version"]


@pytest.mark.parametrize(
    "workflow", sorted((ROOT / ".github/workflows").glob("*.yml")), ids=lambda path: path.stem
)
def test_workflows_call_make(workflow):
    jobs = yaml.safe_load(workflow.read_text())["jobs"].values()
    commands = [step["run"] for job in jobs for step in job["steps"] if "run" in step]
    targets = re.findall(r"^([a-z-]+):.*##", (ROOT / "Makefile").read_text(), re.M)
    assert commands and set(commands) <= {f"make {target}" for target in targets}


def test_the_api_page_has_every_public_name():
    modules = set(re.findall(r"automodule:: (\S+)", (ROOT / "book/api.md").read_text()))
    missing = [name for name in ginv.__all__ if getattr(ginv, name).__module__ not in modules]
    assert missing == [] and all(getattr(ginv, name).__doc__ for name in ginv.__all__)


def test_provenance_of_all_chapters_is_known():
    table = pd.read_csv(ROOT / "book/results/provenance.csv")
    assert {f"book/{name}" for name in table.chapter} == set(chapters(ROOT)), "make notebooks"
    assert set(table.profile) == {"paper"} and table.notna().all(axis=None), "make notebooks"


@pytest.mark.parametrize("page", pages(ROOT))
def test_page_is_there(page):
    sources = [suffix for suffix in (".py", ".md") if (ROOT / f"{page}{suffix}").is_file()]
    assert len(sources) == 1
    assert (ROOT / f"{page}.ipynb").is_file() == (sources == [".py"])


@pytest.mark.parametrize("page", chapters(ROOT))
class TestNotebook:
    @pytest.fixture
    def notebook(self, page):
        return nbformat.read(ROOT / f"{page}.ipynb", as_version=4)

    def test_pair_is_in_sync(self, page, notebook):
        script = jupytext.read(ROOT / f"{page}.py")
        assert [*map(content, notebook.cells)] == [*map(content, script.cells)]
        assert notebook.metadata.jupytext == PAIRED
        assert PAIRED.items() <= script.metadata.jupytext.items()

    def test_syncing_without_an_edit_changes_neither_half(self, page, tmp_path):
        halves = [ROOT / f"{page}{suffix}" for suffix in (".ipynb", ".py")]
        copies = [Path(shutil.copy(half, tmp_path)) for half in halves]
        for newer, older in (copies, copies[::-1]):
            os.utime(older, (1, 1))
            jupytext_cli(["--quiet", "--sync", str(newer)])
            assert [file.read_bytes() for file in copies] == [file.read_bytes() for file in halves]

    def test_what_the_page_folds_is_folded_in_jupyter(self, notebook):
        """But not the parameters, which are there to be set."""
        for cell in notebook.cells:
            tags = {*cell.metadata.get("tags", [])}
            folded = bool(tags & {"hide-input", "remove-cell"}) and "parameters" not in tags
            assert ("jupyter" in cell.metadata) == folded

    def test_a_notebook_that_trains_asks_for_a_gpu(self, page, notebook):
        trains = Path(page).name not in ("claims", "performance")
        assert notebook.metadata.get("accelerator") == ("GPU" if trains else None)
        assert ("gpuType" in notebook.metadata.get("colab", {})) == trains

    def test_was_executed_in_order_without_errors(self, notebook):
        code = [cell for cell in notebook.cells if cell.cell_type == "code" and cell.source.strip()]
        assert [cell.execution_count for cell in code] == list(range(1, len(code) + 1))
        assert "error" not in {output.output_type for cell in code for output in cell.outputs}

    def test_keeps_progress_bars_and_paths_out(self, page, notebook):
        outputs = [output for cell in notebook.cells for output in cell.get("outputs", [])]
        assert "stderr" not in {output.get("name") for output in outputs}
        assert "papermill" not in notebook.metadata
        text = (ROOT / f"{page}.ipynb").read_text()
        assert not [path for path in (ROOT, Path.home() / ".cache") if str(path) in text]

    def test_links_and_proofs_are_markdown(self, notebook):
        """Jupyter, Colab and GitHub know no roles and no directives."""
        prose = "\n".join(c.source for c in notebook.cells if c.cell_type == "markdown")
        assert not re.findall(r"{[\w:-]+}`|^(?:```|:::){", prose, re.MULTILINE)

    def test_is_small(self, page):
        assert (ROOT / f"{page}.ipynb").stat().st_size < MEGABYTE


def content(cell):
    """Of a cell, but for what folds it in JupyterLab: the notebook's alone."""
    return cell.cell_type, cell.source, {**cell.metadata, "jupyter": None}


def test_files_are_small():
    """Everything that git has or would add, except the images."""
    if not (ROOT / ".git").exists():
        pytest.skip("not a git checkout")
    listed = subprocess.run(
        ["git", "ls-files", "--cached", "--others", "--exclude-standard", "-z"],
        cwd=ROOT, capture_output=True, text=True, check=True,
    ).stdout.split("\0")  # fmt: skip
    files = [ROOT / name for name in listed if name and not name.startswith("data/")]
    assert [file.name for file in files if file.is_file() and file.stat().st_size > MEGABYTE] == []


SOURCES = [
    path for room in ("ginv", "book", "tools") for path in sorted((ROOT / room).rglob("*.py"))
]
RUNS_OR_UNPICKLES = {
    "eval", "exec", "pickle", "marshal", "torch.load", "torch.save", "pd.read_pickle", "yaml.load",
}  # fmt: skip


@pytest.mark.parametrize("file", SOURCES, ids=lambda path: str(path.relative_to(ROOT)))
def test_nothing_unpickles_or_evaluates(file):
    """Weights are safetensors; text from a file or a parameter is never run."""
    nodes = list(ast.walk(ast.parse(file.read_text())))
    imports = [node for node in nodes if isinstance(node, ast.Import | ast.ImportFrom)]
    names = {node.id for node in nodes if isinstance(node, ast.Name)}
    names |= {ast.unparse(node) for node in nodes if isinstance(node, ast.Attribute)}
    names |= {alias.name for node in imports for alias in node.names}
    assert not names & RUNS_OR_UNPICKLES
    ends = ("allow_pickle", "read_pickle", "literal_eval")
    assert not [name for name in names if name.endswith(ends)]


def test_readme_states_the_results():
    """Its table is what book/results/table1.csv holds."""
    table = pd.read_csv(ROOT / "book/results/table1.csv")
    value = table.groupby(["group", "method", "metric"]).value.mean()
    names = {"weight-tying": "WT", "data augmentation": "DA", "invariance regularisation": "IR"}
    row = r"\| (R4|T3), ([\w -]+) \| ([\d.]+) \(.*\) \| ([\d.]+) \("
    rows = re.findall(row, (ROOT / "README.md").read_text())
    assert len(rows) == 6
    for group, name, accuracy, similarity in rows:
        run = value[group, names[name]]
        assert (f"{run.accuracy:.1f}", f"{run.SI:.2f}") == (accuracy, similarity), f"{group} {name}"


def test_readme_states_the_findings():
    """Its five numbers are those of the tables."""

    def means(name, *index):
        table = pd.read_csv(ROOT / f"book/results/{name}.csv")
        return table.pivot_table("value", [*index], "metric")

    ours, maps = means("table1", "group", "method"), means("trust", "group", "method")
    ways = means("controls", "group", "recipe").accuracy
    paper = printed_table()["mean"]
    cost = {
        group: (
            ours.accuracy[group, "DA"] - ours.accuracy[group, "IR"],
            paper[group, "DA", "accuracy"] - paper[group, "IR", "accuracy"],
        )
        for group in ("R4", "T3")
    }
    da = ours.loc["R4", "DA"]
    floor = maps["SI floor (as in this book)"]["R4", "DA"]
    spared = ways["R4", "DA, same budget"] - ways["R4", "symmetry decay"]
    text = " ".join((ROOT / "README.md").read_text().split())
    for said in (
        f"{da.accuracy:.1f} % of all orientations ({paper['R4', 'DA', 'accuracy']:.1f})",
        f"agree to {da.SI:.2f} ({paper['R4', 'DA', 'SI']:.2f})",
        f"unrelated digits agree to {floor:.2f}",
        "costs {:.1f} points ({:.1f}) on rotations".format(*cost["R4"]),
        "{:.1f} ({:.1f}) on translations".format(*cost["T3"]),
        f"for {spared:.1f} points",
    ):
        assert said in text, said
