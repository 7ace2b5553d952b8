"""The walls between the rooms: who imports whom, and how long a function of the science is."""

import ast
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

import ginv

PACKAGE = Path(ginv.__file__).parent
MODULES = {
    ".".join(["ginv", *path.relative_to(PACKAGE).with_suffix("").parts]): path
    for path in sorted(PACKAGE.rglob("*.py"))
    if path.name != "__init__.py"
}
SCIENCE = [name for name in MODULES if name.count(".") == 1 and name != "ginv.check"]
ROOMS = ("ginv.runs", "ginv.pages")
MOST_LINES = 40  # of a function of the science, its docstring left out


def read(name):
    return MODULES[name].read_text()


def imported(source, module, *, at_once=False):
    """All that a module imports, with `from a import b` as both a and a.b.

    at_once: what it imports when it is itself imported, and not within a function.
    """
    found, nodes = set(), [ast.parse(source)]
    while nodes:
        node = nodes.pop()
        if not (at_once and isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda)):
            nodes += ast.iter_child_nodes(node)
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            package = module.split(".")[: -node.level] if node.level else []
            origin = ".".join([*package, *filter(None, [node.module])])
            found |= {origin, *(f"{origin}.{alias.name}" for alias in node.names)}
    return found


def through(names, rooms):
    """Those of the names that are of a room."""
    return {name for name in names if any(f"{name}.".startswith(f"{room}.") for room in rooms)}


def cycle(sources):
    """Modules that import each other in a circle as they are imported, or None."""
    graph = {
        name: imported(text, name, at_once=True) & {*sources} for name, text in sources.items()
    }
    try:
        TopologicalSorter(graph).prepare()
    except CycleError as error:
        return error.args[1]
    return None


def documented(function):
    """How many lines its docstring has."""
    first = function.body[0]
    return first.end_lineno - first.lineno + 1 if ast.get_docstring(function) else 0


def too_long(source):
    functions = (ast.FunctionDef, ast.AsyncFunctionDef)
    nodes = [node for node in ast.walk(ast.parse(source)) if isinstance(node, functions)]
    lengths = {node.name: node.end_lineno - node.lineno + 1 - documented(node) for node in nodes}
    return {name: lines for name, lines in lengths.items() if lines > MOST_LINES}


@pytest.mark.parametrize(
    ("source", "expected"),
    [
        ("from ginv.runs import store", {"ginv.runs", "ginv.runs.store"}),
        ("import ginv.runs.store", {"ginv.runs.store"}),
        ("import torch, ginv.pages as p", {"ginv.pages"}),
        ("from ginv import pages", {"ginv.pages"}),
        ("from . import runs", {"ginv.runs"}),
        ("from .pages import Settings", {"ginv.pages", "ginv.pages.Settings"}),
        ("def f():\n    if True:\n        from ginv.runs import a", {"ginv.runs", "ginv.runs.a"}),
        ("if TYPE_CHECKING:\n    from ginv.pages import a", {"ginv.pages", "ginv.pages.a"}),
        ("class A:\n    def f(self):\n        import ginv.pages.figures", {"ginv.pages.figures"}),
        ("from ginv.runsome import x\nfrom ginv.data import Split\nfrom torch import nn", set()),
    ],
)  # fmt: skip
def test_an_import_is_seen_wherever_it_stands(source, expected):
    assert through(imported(source, "ginv.data"), ROOMS) == expected


def test_a_circle_is_seen():
    line = {"a.b": "import a.c", "a.c": "from a import d", "a.d": "def f():\n    import a.b"}
    assert cycle(line) is None
    assert set(cycle(line | {"a.d": "try:\n    from .b import x\nexcept ImportError: ..."})) == {
        *line
    }


def test_a_long_function_is_seen():
    body = "\n".join(["    x = 1"] * (MOST_LINES - 1))
    assert too_long(f'def f():\n    """Long."""\n{body}') == {}
    assert too_long(f'class A:\n  def f():\n    """Long."""\n{body}\n    x = 1') == {"f": 41}


@pytest.mark.parametrize("module", SCIENCE)
def test_the_science_knows_neither_disk_nor_page(module):
    assert through(imported(read(module), module), ROOMS) == set()


@pytest.mark.parametrize("module", [name for name in MODULES if name.startswith("ginv.runs.")])
def test_runs_know_no_page(module):
    assert through(imported(read(module), module), ["ginv.pages"]) == set()


@pytest.mark.parametrize("module", MODULES)
def test_no_module_needs_the_package_that_it_is_in(module):
    """That has everything, and would be a door in every wall."""
    assert not imported(read(module), module) & {"ginv"}


def test_no_module_imports_itself_by_a_detour():
    assert cycle({name: read(name) for name in MODULES}) is None


@pytest.mark.parametrize("module", MODULES)
def test_no_import_is_for_the_type_checker_alone(module):
    assert "TYPE_CHECKING" not in read(module)


@pytest.mark.parametrize("module", SCIENCE)
def test_functions_are_short(module):
    assert too_long(read(module)) == {}
