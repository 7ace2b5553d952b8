"""Execute the chapters of a book: `python tools/execute.py FOLDER PROFILE [CHAPTER ...]`.

Where no chapter is named, all, or with --stale those that are not up to date. FOLDER holds
`_toc.yml` and `book/`. Each chapter, a jupytext script `book/NAME.py`, is executed by papermill in
the folder it lies in and saved beside it as `NAME.ipynb`, with a line on it in
`results/provenance.csv`. One that fails is not saved and ends the command. With --anew FOLDER is
first made a copy of the book here, which no other does meanwhile. With --render the book is
rendered into `_build/html` again and again, so that a page can be read once it is executed.
"""

import argparse
import base64
import csv
import hashlib
import io
import os
import platform
import re
import shutil
import signal
import subprocess
import sys
import threading
import time
from contextlib import suppress
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path

import jupytext
import nbformat
import papermill
import psutil
import torch
import yaml
from filelock import FileLock, Timeout
from job_bar import JobBar
from PIL import Image
from sources import recorded, sources_hash
from tqdm import tqdm

from ginv.machine import chosen_folder
from ginv.pages.settings import announce
from ginv.runs.files import one_writer, write_whole
from ginv.runs.stopping import end_when_told

PACKAGES = ("ginv", "torch", "captum", "numpy")  # those a number can hang on
ADDRESS = re.compile(" at 0x[0-9a-f]+")  # of an object in memory
BAR = re.compile(r"\r[^\r\n]*|\x1b\[[0-9;]*[A-Za-z]")  # as tqdm writes it, and moves to others
TRAINS = re.compile(r"^[^#\n]*\b(train|train_stack|run_grid|fit)\(", re.MULTILINE)
PAIRED = {  # saving and syncing without an edit, by whatever version, changes neither half
    "cell_metadata_filter": "all,-jupyter",
    "cell_metadata_json": True,
    "formats": "ipynb,py:percent",
    "notebook_metadata_filter": ",".join(
        f"-jupytext.text_representation.{name}" for name in ("format_version", "jupytext_version")
    ),
}
METADATA = {
    "jupytext": PAIRED,
    "kernelspec": {"display_name": "Python 3", "language": "python", "name": "python3"},
    "language_info": {"name": "python"},
}
FOLDED = {"hide-input", "remove-cell"}
ON_COLAB = {"accelerator": "GPU", "colab": {"gpuType": "T4"}}  # of a notebook that trains


def pages(folder: Path) -> list[str]:
    """The pages of the book without suffix, the root last: it sums up what the others computed."""
    file = folder / "_toc.yml"
    try:
        toc = yaml.safe_load(file.read_text(encoding="utf-8"))
        files = [chapter["file"] for part in toc["parts"] for chapter in part["chapters"]]
        return [str(page) for page in (*files, toc["root"])]
    except (yaml.YAMLError, LookupError, TypeError, ValueError) as error:
        reason = " ".join(str(error).split())
        raise ValueError(f"{file} has no root, and parts with chapters: {reason}") from None


def chapters(folder: Path) -> list[str]:
    """The pages that are executed."""
    return [page for page in pages(folder) if (folder / f"{page}.py").is_file()]


class _WithoutBars:
    """What a kernel says on standard error, but for its progress bars: there is one for all."""

    def write(self, text: str) -> None:
        if said := BAR.sub("", text).strip():
            tqdm.write(said, file=sys.stderr)

    def flush(self) -> None:
        sys.stderr.flush()


def execute(script: Path, profile: str) -> None:
    """Execute a chapter, save its notebook and note when and with what."""
    start = time.perf_counter()
    notebook = jupytext.read(script)
    takes_profile = any("parameters" in cell.metadata.get("tags", []) for cell in notebook.cells)
    notebook = papermill.execute_notebook(
        notebook,
        None,
        # The defaults are the paper's: its notebooks need no injected cell
        {"profile": profile} if takes_profile and profile != "paper" else {},
        kernel_name="python3",
        language="python",
        cwd=script.parent,
        progress_bar=False,
        start_timeout=600,  # seconds; on a busy machine a kernel takes long to start
        shutdown_kernel="immediate",  # all is written; Python takes a second to leave torch
        stderr_file=_WithoutBars(),
        coalesce_streams=True,
        extra_arguments=["--log-level=CRITICAL"],  # of the kernel, which warns of its transport
    )
    _clean(notebook)
    write_whole(script.with_suffix(".ipynb"), f"{nbformat.writes(notebook)}\n")
    _note(script, profile, time.perf_counter() - start)


def once_took(script: Path) -> float:
    """Seconds of its recorded execution; those of a short one where there is none."""
    with suppress(LookupError, TypeError, ValueError):
        return float(recorded(script)["seconds"])
    return 30.0


def _versions() -> dict[str, str]:
    return {name: version(name) for name in PACKAGES}


def is_up_to_date(script: Path) -> bool:
    """Whether its notebook was executed at the paper's profile, from these sources and packages."""
    wanted = {"profile": "paper", "sources": sources_hash(script), **_versions()}
    return script.with_suffix(".ipynb").is_file() and wanted.items() <= recorded(script).items()


def renew_text(script: Path) -> None:
    """Put the prose and the comments of a script into its notebook, whose outputs stay."""
    file = script.with_suffix(".ipynb")
    notebook, before = jupytext.read(script), file.read_text(encoding="utf-8")
    executed = [cell for cell in nbformat.reads(before, 4).cells if cell.cell_type == "code"]
    code = [cell for cell in notebook.cells if cell.cell_type == "code"]
    for cell, old in zip(code, executed, strict=True):
        cell.outputs, cell.execution_count = old.outputs, old.execution_count
    _name(notebook)
    if (text := f"{nbformat.writes(notebook)}\n") != before:
        write_whole(file, text)
        print(f"{script.stem}: the text is renewed", flush=True)


def _note(script: Path, profile: str, seconds: float) -> None:
    """A chapter's line in provenance.csv; its notebook is free of what differs from run to run."""
    table = script.parent / "results" / "provenance.csv"
    gpu = torch.cuda.is_available()
    line = {
        "chapter": script.stem,
        "profile": profile,
        "date": f"{datetime.now(UTC):%Y-%m-%d}",
        "seconds": f"{seconds:.0f}",
        "device": torch.cuda.get_device_name() if gpu else f"CPU, {os.cpu_count()} cores",
        "python": platform.python_version(),
        **_versions(),
        "sources": sources_hash(script),
    }
    with one_writer(table):
        lines = {}
        if table.is_file():
            with table.open(newline="", encoding="utf-8") as file:
                lines = {old["chapter"]: old for old in csv.DictReader(file)}
        lines[script.stem] = line
        text = io.StringIO()
        writer = csv.DictWriter(text, line, restval="", lineterminator="\n")
        writer.writeheader()
        writer.writerows(lines.values())
        write_whole(table, text.getvalue())


def _clean(notebook: nbformat.NotebookNode) -> None:
    """Leave out what differs from run to run: progress bars, times, paths, addresses, ids."""
    for cell in notebook.cells:
        if cell.cell_type == "code":
            cell.outputs = [output for output in cell.outputs if output.get("name") != "stderr"]
            for output in cell.outputs:
                if "text/plain" in output.get("data", {}):
                    output.data["text/plain"] = ADDRESS.sub("", output.data["text/plain"])
                if "image/png" in output.get("data", {}):
                    output.data["image/png"] = _shrink(output.data["image/png"])
    _name(notebook)


def _name(notebook: nbformat.NotebookNode) -> None:
    """The metadata and the ids that are the same for the same cells."""
    notebook.metadata = nbformat.from_dict(METADATA)
    if any(TRAINS.search(cell.source) for cell in notebook.cells if cell.cell_type == "code"):
        notebook.metadata |= nbformat.from_dict(ON_COLAB)
    seen = set()
    for cell in notebook.cells:
        for key in ("papermill", "execution"):
            cell.metadata.pop(key, None)
        if not cell.metadata.get("tags"):
            cell.metadata.pop("tags", None)
        tags = {*cell.metadata.get("tags", [])}
        if tags & FOLDED and "parameters" not in tags:  # in JupyterLab, as on the page
            cell.metadata["jupyter"] = {"source_hidden": True}
        # A cell keeps its id for as long as it keeps its source
        text = cell.source
        while (name := hashlib.sha1(text.encode()).hexdigest()[:8]) in seen:
            text += " "
        seen.add(name)
        cell.id = name


def _shrink(png: str) -> str:
    """A figure with a palette of 256 colours: a third of the bytes, and to the eye the same."""
    image = Image.open(io.BytesIO(base64.b64decode(png))).convert("RGB")
    file = io.BytesIO()
    image.quantize(256, dither=Image.Dither.NONE).save(file, "PNG", optimize=True)
    return base64.b64encode(file.getvalue()).decode()


class Rendering:
    """The book, rendered beside the next chapter; what had no change in it is left as it is."""

    def __init__(self, folder: Path) -> None:
        tool = Path(sys.executable).with_name("jupyter-book")
        self.command = [str(tool), "build", "-q", "--path-output", ".", str(folder)]
        self.process: subprocess.Popen | None = None

    def begin(self) -> None:
        """Unless one is under way: the next has its pages, too."""
        if self.process is None or self.process.poll() is not None:
            quiet = subprocess.DEVNULL
            self.process = subprocess.Popen(self.command, stdout=quiet, stderr=quiet)

    def end(self) -> None:
        if self.process is not None:
            self.process.terminate()
            self.process.wait()


def _end_with_parent() -> None:
    """End, and with us the kernel, where what started us was killed or ends, and cannot say so."""
    parent = os.getppid()

    def watch() -> None:
        while os.getppid() == parent and not _is_ending_make(parent):
            time.sleep(1)
        os.kill(os.getpid(), signal.SIGTERM)

    threading.Thread(target=watch, daemon=True).start()


def _is_ending_make(process: int) -> bool:
    """Whether it is a make that got SIGINT or SIGHUP, and so neither catches nor ignores it now.

    It waits for us and passes nothing on: a terminal would have told us, too. Known on Linux alone.
    """
    try:
        text = Path(f"/proc/{process}/status").read_text()
    except OSError:
        return False
    status = dict(re.findall(r"^(Name|SigIgn|SigCgt):\s*(\S+)", text, re.MULTILINE))
    kept = int(status["SigIgn"], 16) | int(status["SigCgt"], 16)
    return status["Name"] in ("make", "gmake") and not all(
        kept >> number - 1 & 1 for number in (signal.SIGINT, signal.SIGHUP)
    )


def _copy_book(folder: Path) -> FileLock:
    """Raises OSError where another process executes a book in this folder."""
    folder.parent.mkdir(parents=True, exist_ok=True)
    lock = FileLock(folder.with_name(f".{folder.name}.lock"), timeout=0)
    try:
        lock.acquire()
    except Timeout:
        raise OSError(f"a book is executed in {folder} by another process") from None
    shutil.rmtree(folder, ignore_errors=True)
    shutil.copytree("book", folder / "book")
    for name in ("_config.yml", "_toc.yml"):
        shutil.copy(name, folder)
    return lock


def _end_what_we_started() -> None:
    """The kernel, its workers, and the rendering."""
    for process in psutil.Process().children(recursive=True):
        with suppress(psutil.Error):  # gone by now
            process.kill()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("profile")
    parser.add_argument("chapters", nargs="*", help="such as table1")
    parser.add_argument("--stale", action="store_true", help="skip what is up to date")
    parser.add_argument("--anew", action="store_true", help="in a new copy of the book here")
    parser.add_argument("--render", action="store_true", help="the pages, as they are executed")
    arguments = parser.parse_args()

    # captum's progress bar would like a package that only its looks need
    os.environ.setdefault("PYTHONWARNINGS", "ignore:IProgress not found")
    rendering = Rendering(arguments.folder)
    try:
        _end_with_parent()
        if arguments.anew:
            lock = _copy_book(arguments.folder)  # noqa: F841  # ours as long as we are
        for name in ("GINV_RUNS", "GINV_DATA"):  # a kernel runs in the folder of its chapter
            if folder := chosen_folder(name):
                os.environ[name] = str(folder)
        if not (arguments.folder / "_toc.yml").is_file():
            sys.exit(f"folder is {str(arguments.folder)!r}; allowed: one with _toc.yml and book/")
        known = {Path(page).name: page for page in chapters(arguments.folder)}
        wanted = arguments.chapters or known
        if unknown := [name for name in wanted if name not in known]:
            sys.exit(f"chapter is {unknown[0]!r}; allowed: {', '.join(known)}")
        print(announce(arguments.profile), flush=True)
        scripts = {
            chapter: arguments.folder / f"{chapter}.py"
            for name, chapter in known.items()
            if name in wanted
        }
        if arguments.stale and not arguments.chapters:
            for chapter in [each for each, script in scripts.items() if is_up_to_date(script)]:
                print(f"{chapter} is up to date", flush=True)
                renew_text(scripts.pop(chapter))
        bar = JobBar({each: once_took(script) for each, script in scripts.items()})
        for chapter, script in scripts.items():
            start = time.perf_counter()
            with bar.part(chapter):
                execute(script, arguments.profile)
            tqdm.write(f"{chapter}: {time.perf_counter() - start:.0f} s", file=sys.stdout)
            if arguments.render:
                rendering.begin()
        bar.close()
    except papermill.PapermillExecutionError as error:
        sys.exit(f"{chapter} failed.{error}")
    except (ValueError, OSError) as error:
        sys.exit(str(error))
    finally:
        rendering.end()


if __name__ == "__main__":
    end_when_told(_end_what_we_started)
    main()
