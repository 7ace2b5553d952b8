"""A notebook opened alone, as on Colab: an empty folder, and packages that are in use but no ginv.

It fetches the book at its tag from a git remote on this machine, in place of the public one.
"""

import os
import shutil
import subprocess
import venv
from pathlib import Path

import nbformat
import numpy
import pandas
import pytest
import torch
from execute import chapters
from publish import project, publish

ROOT = Path(__file__).parents[2]
URL = "https://github.com/someone/somewhere"
TAG = f"v{project(ROOT)['version']}"
CHAPTERS = [Path(chapter).name for chapter in chapters(ROOT)]


@pytest.fixture(scope="module")
def published(tmp_path_factory):
    """The project as it would be published, tagged."""
    copy = tmp_path_factory.mktemp("published") / "project"
    kept_out = (".venv", "_build", "tests", ".*_cache", ".hypothesis", "__pycache__", ".git")
    shutil.copytree(ROOT, copy, ignore=shutil.ignore_patterns(*kept_out))
    publish(copy, URL)
    git = ["git", "-c", "user.name=t", "-c", "user.email=t@example.org", "-C", str(copy)]
    for command in ("init -q", "add -A", "commit -qm all", f"tag {TAG}"):
        subprocess.run([*git, *command.split()], check=True)
    return copy


@pytest.fixture(scope="module")
def bare(tmp_path_factory):
    """An environment that lacks ginv alone."""
    folder = tmp_path_factory.mktemp("bare")
    venv.create(folder, with_pip=True)
    (packages,) = folder.glob("lib/python*/site-packages")
    for entry in Path(pandas.__file__).parents[1].iterdir():
        link = packages / entry.name
        if "ginv" not in entry.name and entry.suffix != ".pth" and not link.exists():
            link.symlink_to(entry)
    return folder


@pytest.fixture(scope="module")
def environment(published, tmp_path_factory):
    """That of somebody who has a network, a home and nothing else."""
    kept = {name: value for name, value in os.environ.items() if name not in ("PYTHONPATH",)}
    return kept | {
        "GIT_CONFIG_COUNT": "1",
        "GIT_CONFIG_KEY_0": f"url.{published.as_uri()}.insteadOf",
        "GIT_CONFIG_VALUE_0": URL,
        "GINV_RUNS": str(tmp_path_factory.mktemp("runs")),
        "MPLBACKEND": "Agg",  # as clusters do
    }


def frozen(bare):
    command = [bare / "bin/python", "-m", "pip", "freeze", "--disable-pip-version-check"]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout


def has_figure(cells):
    return any("image/png" in str(cell.get("outputs")) for cell in cells)


@pytest.fixture
def run_alone(published, bare, environment, tmp_path):
    """Runs a chapter in an empty folder; -> its cells, and those of the committed one."""
    empty = tmp_path / "empty"
    empty.mkdir()
    papermill = [bare / "bin/python", "-m", "papermill", "--no-progress-bar", "-k", "python3"]
    papermill += ["--start-timeout", "600"]  # seconds, for a busy machine

    def run(chapter, **parameters):
        shutil.copy(published / f"book/{chapter}.ipynb", tmp_path)
        committed = nbformat.read(tmp_path / f"{chapter}.ipynb", 4).cells
        first = next(
            cell.source for cell in committed if "parameters" in cell.metadata.get("tags", ())
        )
        given = {"profile": "quick", **parameters}
        asked = [(name, each) for name, each in given.items() if f"\n{name} =" in first]
        options = [word for pair in asked for word in ("-p", *pair)]
        command = [*papermill, tmp_path / f"{chapter}.ipynb", "out.ipynb", *options]
        done = subprocess.run(command, cwd=empty, env=environment, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr[-3000:]
        return nbformat.read(empty / "out.ipynb", 4).cells, committed

    return run


@pytest.mark.parametrize("chapter", CHAPTERS)
def test_a_notebook_runs_alone(chapter, run_alone, bare):
    before = frozen(bare)
    for group in ("R4", "T3"):
        cells, committed = run_alone(chapter, group=group)
        first = next(cell for cell in cells if cell.cell_type == "code")
        said = "".join(out.get("text", "") for out in first.outputs)
        fetched = f"Fetching the book with its data, {URL} {TAG}\n"
        assert said == (fetched if group == "R4" else "")  # the second time it is there
        assert has_figure(cells) == has_figure(committed)
    assert frozen(bare) == before  # and no package is another


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU here")
@pytest.mark.parametrize("chapter", CHAPTERS)
def test_a_notebook_runs_alone_on_a_gpu(chapter, run_alone):
    cells, committed = run_alone(chapter, device="cuda")
    assert has_figure(cells) == has_figure(committed)


def test_without_an_address_one_line_names_the_way(bare, environment, tmp_path):
    cells = nbformat.read(ROOT / "book/table1.ipynb", 4).cells
    program = next(cell.source for cell in cells if cell.cell_type == "code")
    run = [bare / "bin/python", "-c", program]
    done = subprocess.run(run, cwd=tmp_path, env=environment, capture_output=True, text=True)
    line = "ImportError: ginv is in no public place yet: pip install -e '.[book]' in a clone"
    assert done.returncode == 1 and done.stderr.splitlines()[-1] == line


def lacking(folder, wanted, tmp_path):
    """What tools/lacking.py does in an environment, for a project that wants something."""
    (tmp_path / "tools").mkdir(exist_ok=True)
    shutil.copy(ROOT / "tools/lacking.py", tmp_path / "tools")
    text = f'[project]\nname = "ginv"\ndependencies = ["{wanted}"]\n'
    text += '[project.optional-dependencies]\nchapters = ["ginv[sweep]"]\nsweep = ["torch"]\n'
    (tmp_path / "pyproject.toml").write_text(text)
    run = [folder / "bin/python", tmp_path / "tools/lacking.py"]
    return subprocess.run(run, capture_output=True, text=True)


def test_a_package_that_is_too_old_is_named_and_left_as_it_is(bare, tmp_path):
    before = frozen(bare)
    done = lacking(bare, "numpy>=99", tmp_path)
    assert done.returncode == 1
    assert done.stderr == f"numpy is {numpy.__version__}; allowed: >=99\n"
    assert frozen(bare) == before


def test_a_package_that_is_missing_is_installed_and_no_other_changed(bare, tmp_path):
    """One that would like another numpy than is here is not."""
    before = frozen(bare)
    nothing = lacking(bare, "torch", tmp_path)
    assert (nothing.returncode, nothing.stdout, nothing.stderr) == (0, "", "")
    done = lacking(bare, "no-such-package-of-ginv", tmp_path)
    assert done.returncode == 1 and "pip could not install them beside what is here" in done.stderr
    assert frozen(bare) == before
