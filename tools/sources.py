"""What the outputs of a chapter hang on, as one hash: its code, that of `ginv` behind it, and the
tables that they read. Comments, docstrings, prose and empty lines are none of it.
"""

import ast
import csv
import hashlib
import io
import tokenize
from collections.abc import Iterator
from pathlib import Path

import jupytext

import ginv

PACKAGE = Path(ginv.__file__).parent
TABLES = ("*.csv", "*.json")  # of the package
DOCUMENTED = (ast.Module, ast.ClassDef, ast.FunctionDef)


def sources_hash(script: Path) -> str:
    """Of a chapter, 16 hexadecimal digits.

    What its code names in `book/` or `book/results/` is a table that it reads, but for those that
    it saves itself.
    """
    cells = jupytext.read(script).cells
    code = "\n".join(cell.source for cell in cells if cell.cell_type == "code")
    parts = {"chapter": bare(code)}
    for module in sorted(_with_all_behind(ast.parse(code))):
        parts[str(module.relative_to(PACKAGE))] = bare(module.read_text(encoding="utf-8"))
        for table in sorted(each for kind in TABLES for each in module.parent.glob(kind)):
            parts[str(table.relative_to(PACKAGE))] = table.read_text(encoding="utf-8")
    for table in sorted(_read(code, script)):
        parts[str(table.relative_to(script.parent))] = table.read_text(encoding="utf-8")
    text = "\0".join(f"{name}\0{content}" for name, content in sorted(parts.items()))
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def recorded(script: Path) -> dict[str, str]:
    """The line of a chapter in `results/provenance.csv`; empty where there is none."""
    table = script.parent / "results" / "provenance.csv"
    if not table.is_file():
        return {}
    with table.open(newline="", encoding="utf-8") as file:
        lines = csv.DictReader(file)
        if "chapter" not in (lines.fieldnames or []):
            raise ValueError(f"{table} is no table of chapters; git checkout brings it back")
        return next((line for line in lines if line["chapter"] == script.stem), {})


def bare(code: str) -> str:
    """Code without comments, docstrings and empty lines."""
    lines = [*io.StringIO(code)]
    dropped: set[int] = set()
    for node in ast.walk(ast.parse(code)):
        if isinstance(node, DOCUMENTED) and ast.get_docstring(node, clean=False) is not None:
            dropped.update(range(node.body[0].lineno - 1, node.body[0].end_lineno or 0))
    for token in tokenize.generate_tokens(io.StringIO(code).readline):
        if token.type == tokenize.COMMENT:
            row, column = token.start
            lines[row - 1] = lines[row - 1][:column]
    kept = (line.rstrip() for row, line in enumerate(lines) if row not in dropped)
    return "\n".join(line for line in kept if line)


def _with_all_behind(tree: ast.Module) -> set[Path]:
    """The files of `ginv` that code imports, and those that they import."""
    found: set[Path] = set()
    waiting = [*_imported(tree)]
    while waiting:
        if (file := waiting.pop()) not in found:
            found.add(file)
            waiting += _imported(ast.parse(file.read_text(encoding="utf-8")))
    return found


def _imported(tree: ast.Module) -> Iterator[Path]:
    """Of `import ginv` the homes of the names that are used, `ginv.measure` for example."""
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and str(node.module).split(".")[0] == "ginv":
            names = [f"{node.module}.{alias.name}" for alias in node.names]
        elif isinstance(node, ast.Attribute) and ast.unparse(node.value) == "ginv":
            names = [f"ginv.{node.attr}"]
        else:
            continue
        yield from filter(None, map(_home, names))


def _home(name: str) -> Path | None:
    """The file in which a name of `ginv`, such as `ginv.pages.Settings`, is defined."""
    module, _, attribute = name.rpartition(".")
    for path in (name, module):
        stem = PACKAGE.parent / path.replace(".", "/")
        if stem.with_suffix(".py").is_file() and path != "ginv":
            return stem.with_suffix(".py")
    package = PACKAGE.parent / module.replace(".", "/") / "__init__.py"
    tree = ast.parse(package.read_text(encoding="utf-8"))
    for node in tree.body:
        if isinstance(node, ast.ImportFrom) and attribute in {a.name for a in node.names}:
            return _home(f"{node.module}.{attribute}")
    return package


def _read(code: str, script: Path) -> set[Path]:
    """The tables of the book that code names, less those that it saves."""
    texts = {n.value for n in ast.walk(ast.parse(code)) if isinstance(n, ast.Constant)}
    saved = {
        getattr(node.args[-1], "value", script.stem)  # the name of the chapter, or another
        for node in ast.walk(ast.parse(code))
        if isinstance(node, ast.Call) and getattr(node.func, "attr", "") == "save" and node.args
    }
    places = (script.parent, script.parent / "results")
    named = (
        place / f"{text}{suffix}"
        for text in texts
        if isinstance(text, str) and text.isprintable() and 0 < len(text) < 80
        for place in places
        for suffix in ("", ".csv")
    )
    kinds = {".csv", ".yaml", ".json"}
    return {
        file
        for file in named
        if file.suffix in kinds and file.is_file() and file.stem not in {*saved, "provenance"}
    }
