"""Execute the chapters of a book: `python book/execute.py FOLDER PROFILE`.

FOLDER holds `_toc.yml` and `book/`. Each chapter, a jupytext script `book/NAME.py`, is executed by papermill in the
folder it lies in and saved beside it as `NAME.ipynb`. One that fails is not saved and ends the command.
"""

import argparse
import hashlib
import os
import sys
import time
from pathlib import Path

import jupytext
import nbformat
import papermill
import yaml

METADATA = {
    "jupytext": {"formats": "ipynb,py:percent"},
    "kernelspec": {
        "display_name": "Python 3",
        "language": "python",
        "name": "python3",
    },
    "language_info": {"name": "python"},
}


def pages(folder: Path) -> list[str]:
    """The pages of the book without suffix, the root last: it sums up what the others computed."""
    toc = yaml.safe_load((folder / "_toc.yml").read_text())
    return [*(chapter["file"] for chapter in toc["chapters"]), toc["root"]]


def chapters(folder: Path) -> list[str]:
    """The pages that are executed."""
    return [page for page in pages(folder) if (folder / f"{page}.py").is_file()]


def execute(script: Path, profile: str) -> None:
    """Execute a chapter and save its notebook."""
    notebook = jupytext.read(script)
    takes_profile = any(
        "parameters" in cell.metadata.get("tags", []) for cell in notebook.cells
    )
    notebook = papermill.execute_notebook(
        notebook,
        None,
        # The defaults are the paper's: its notebooks need no injected cell
        {"profile": profile} if takes_profile and profile != "paper" else {},
        kernel_name="python3",
        language="python",
        cwd=script.parent,
        progress_bar=False,
        stderr_file=sys.stderr,
        coalesce_streams=True,
        extra_arguments=[
            "--log-level=CRITICAL"
        ],  # of the kernel, which warns of its transport
    )
    _clean(notebook)
    nbformat.write(notebook, script.with_suffix(".ipynb"))


def _clean(notebook: nbformat.NotebookNode) -> None:
    """Leave out what differs from run to run: progress bars, times, paths, random ids."""
    notebook.metadata = nbformat.from_dict(METADATA)
    seen = set()
    for cell in notebook.cells:
        for key in ("papermill", "execution"):
            cell.metadata.pop(key, None)
        if not cell.metadata.get("tags"):
            cell.metadata.pop("tags", None)
        if cell.cell_type == "code":
            cell.outputs = [
                output
                for output in cell.outputs
                if output.get("name") != "stderr"
            ]
        # A cell keeps its id for as long as it keeps its source
        text = cell.source
        while (name := hashlib.sha1(text.encode()).hexdigest()[:8]) in seen:
            text += " "
        seen.add(name)
        cell.id = name


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("profile")
    arguments = parser.parse_args()

    for name in (
        "GINV_RUNS",
        "GINV_DATA",
    ):  # a kernel runs in the folder of its chapter
        if name in os.environ:
            os.environ[name] = str(Path(os.environ[name]).absolute())

    from ginv.settings import announce  # here, since tests import this file too

    try:
        print(announce(arguments.profile), flush=True)
    except ValueError as error:
        sys.exit(str(error))
    for chapter in chapters(arguments.folder):
        start = time.perf_counter()
        print(chapter, flush=True)
        try:
            execute(arguments.folder / f"{chapter}.py", arguments.profile)
        except papermill.PapermillExecutionError as error:
            sys.exit(f"{chapter} failed.{error}")
        print(f"{chapter}: {time.perf_counter() - start:.0f} s", flush=True)


if __name__ == "__main__":
    main()
