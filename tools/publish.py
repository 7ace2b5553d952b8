"""Put the public address of the repository everywhere: `python tools/publish.py [URL]`.

It stands in `pyproject.toml`; without URL the address from there is put everywhere again, with the
version. In each file it is written below a line that says so, up to the next empty line.
"""

import re
import sys
import tomllib
from pathlib import Path

import nbformat

from ginv.runs.files import write_whole

WRITTEN = re.compile(r"(written by `make publish-url`.*\n)(?:.+\n)*")


def project(root: Path) -> dict:
    return tomllib.loads((root / "pyproject.toml").read_text(encoding="utf-8"))["project"]


def address(root: Path) -> str:
    """The one that stands in `pyproject.toml`, empty where there is none yet."""
    try:
        return str(project(root)["urls"]["Repository"])
    except (ValueError, LookupError, TypeError) as error:
        reason = " ".join(f"{error!r}".split())
        line = f"{root}/pyproject.toml has no project.urls.Repository: {reason}"
        raise ValueError(line) from None


def lines(url: str, version: str) -> dict[str, str]:
    """What stands in each file, "chapter" for all notebooks; URL is empty without an address."""
    name = url.removeprefix("https://github.com/")
    colab = f"https://colab.research.google.com/github/{name}/blob/main/book/intro.ipynb"
    binder = f"https://mybinder.org/v2/gh/{name}/main?urlpath=tree/book/intro.ipynb"
    buttons = f"""\
      repository_url: {url}
      repository_branch: main
      use_repository_button: true
      use_issues_button: true
      launch_buttons:
        colab_url: https://colab.research.google.com
        binderhub_url: https://mybinder.org
"""
    if url:
        text = f"""\
Without a clone: the book in [Colab]({colab}) or [Binder]({binder}), the package by
`pip install git+{url}@v{version}`.
"""
    else:
        text = """\
There is no public address yet. `make publish-url URL=https://github.com/OWNER/NAME` puts one here
and everywhere else; from then on each chapter opens in Colab and Binder.
"""
    return {
        "pyproject.toml": f'Repository = "{url}"\n',
        "_config.yml": buttons if url else "",
        "CITATION.cff": f"repository-code: {url}\n" if url else "",
        "README.md": text,
        "book/parameters.md": text,
        "chapter": f'address, tag = "{url}", "v{version}"\n',
    }


def publish(root: Path, url: str) -> None:
    """Write the address into all files that name it; into none where one has no place for it."""
    new = lines(url, project(root)["version"])
    chapter, written = new.pop("chapter"), {}
    for file, text in new.items():
        path = root / file
        written[path] = _replace(path.read_text(encoding="utf-8"), text)
    for path in root.glob("book/*.ipynb"):
        script = path.with_suffix(".py")
        written[script] = _replace(script.read_text(encoding="utf-8"), chapter)
        notebook = nbformat.read(path, as_version=4)
        cell = next(c for c in notebook.cells if c.cell_type == "code")
        cell.source = _replace(cell.source, chapter)
        written[path] = f"{nbformat.writes(notebook)}\n"
    for path, text in written.items():
        write_whole(path, text)


def _replace(text: str, new: str) -> str:
    text, count = WRITTEN.subn(lambda match: match[1] + new, text)
    if count != 1:
        raise ValueError(f"{count} places for the address in {text[:60]!r}")
    return text


def main() -> None:
    root, given = Path(__file__).parents[1], sys.argv[1:]
    try:
        url = given[0].rstrip("/") if given else address(root)
        owner, name = r"[A-Za-z0-9][A-Za-z0-9-]*", r"(?!\.{1,2}$)(?!.*\.git$)[A-Za-z0-9._-]+"
        fits = re.fullmatch(f"https://github\\.com/{owner}/{name}", url) or not (given or url)
        if len(given) > 1 or not fits:
            sys.exit(f"URL is {' '.join(given) or url!r}; allowed: https://github.com/OWNER/NAME")
        publish(root, url)
    except (ValueError, OSError) as error:
        sys.exit(str(error))
    print(f"{url or 'No address'} in every place; look at `git diff`")


if __name__ == "__main__":
    main()
