"""The public address: one place, put everywhere."""

import re
import shutil
import subprocess
import sys
from pathlib import Path

import nbformat
import pytest
import yaml
from execute import METADATA, chapters
from publish import project, publish

ROOT = Path(__file__).parents[2]
URL = "https://github.com/someone/somewhere"
VERSION = project(ROOT)["version"]


@pytest.fixture
def copy(tmp_path):
    """The project without its data, tests and environment."""
    ignored = (".venv", "_build", "data", "tests", ".*_cache", ".hypothesis", "__pycache__", ".git")
    ignore = shutil.ignore_patterns(*ignored)
    return shutil.copytree(ROOT, tmp_path / "project", ignore=ignore)


def contents(root):
    files = [path for path in root.rglob("*") if path.is_file() and path.suffix != ".png"]
    return {path.relative_to(root): path.read_text() for path in files}


def install_cell(root, chapter):
    cells = nbformat.read(root / f"{chapter}.ipynb", 4).cells
    return next(cell.source for cell in cells if cell.cell_type == "code")


def test_every_place_has_the_address_and_version_of_pyproject(copy):
    before = contents(copy)
    publish(copy, project(copy)["urls"]["Repository"])
    assert contents(copy) == before


def test_a_new_address_is_everywhere(copy):
    before = contents(copy)
    publish(copy, URL)
    after = contents(copy)
    places = {str(path) for path in after if URL in after[path]}
    notebooks = {f"{chapter}.{suffix}" for chapter in chapters(ROOT) for suffix in ("py", "ipynb")}
    others = {"pyproject.toml", "_config.yml", "CITATION.cff", "README.md", "book/parameters.md"}
    assert places == others | notebooks
    assert yaml.safe_load(after[Path("CITATION.cff")])["repository-code"] == URL
    publish(copy, "")
    publish(copy, project(ROOT)["urls"]["Repository"])
    assert contents(copy) == before


@pytest.mark.parametrize("url", ["", URL])
def test_buttons(url, copy):
    """Those of a chapter, once there is an address, and none before."""
    publish(copy, url)
    (copy / "_toc.yml").write_text("format: jb-book\nroot: book/page\n")
    cells = [nbformat.v4.new_markdown_cell("# A page")]
    notebook = nbformat.v4.new_notebook(cells=cells, metadata=METADATA)
    nbformat.write(notebook, copy / "book/page.ipynb")
    build = [Path(sys.executable).with_name("jupyter-book"), "build", "-q", copy]
    subprocess.run(build, check=True, capture_output=True)
    page = (copy / "_build/html/book/page.html").read_text()
    name = url.removeprefix("https://github.com/")
    links = {
        f"{url}",
        f"https://colab.research.google.com/github/{name}/blob/main/book/page.ipynb",
        f"https://mybinder.org/v2/gh/{name}/main?urlpath=tree/book/page.ipynb",
    }
    all_links = re.findall(r'href="([^"]+)"', page)
    found = {link for link in all_links if re.search("github|colab|binder", link)}
    assert links <= found if url else found == set()


@pytest.mark.parametrize(
    "url", ["http://example.org", "https://github.com/someone", "https://github.com/a/b c"]
)
def test_another_kind_of_address_is_refused(url):
    command = [sys.executable, ROOT / "tools/publish.py", url]
    done = subprocess.run(command, capture_output=True, text=True)
    line = f"URL is {url!r}; allowed: https://github.com/OWNER/NAME"
    assert done.returncode == 1 and done.stderr.splitlines() == [line]


def test_all_chapters_begin_alike(copy):
    publish(copy, URL)
    (cell,) = {install_cell(copy, chapter) for chapter in chapters(ROOT)}
    assert f'address, tag = "{URL}", "v{VERSION}"\n' in cell
