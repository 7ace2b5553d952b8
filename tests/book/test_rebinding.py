"""In a chapter a function means the same wherever it is called: no global that it reads changes
after it was defined.
"""

import ast
import symtable
from pathlib import Path

import pytest
from execute import chapters

ROOT = Path(__file__).parents[2]
COMPREHENSIONS = {"listcomp", "setcomp", "dictcomp", "genexpr"}


def rebound(source):
    """A line for each global that a function or lambda of a module reads, and that is bound again
    in a later statement of the module.
    """
    bindings = {}
    for name, line in sorted(bound(ast.parse(source)), key=lambda pair: pair[1]):
        bindings.setdefault(name, []).append(line)
    found = []
    for function, ends in functions(source):
        for name in sorted(globals_of(function)):
            _, *again = bindings.get(name, [None])
            if later := [line for line in again if line > ends]:
                where = f"{function.get_name()} (line {function.get_lineno()})"
                found.append(f"{name}, which {where} reads, is bound again in line {later[0]}")
    return found


def bound(node):
    """Names that a module binds, outside of its functions and classes, and in which lines."""
    inside = (ast.FunctionDef, ast.AsyncFunctionDef, ast.Lambda, ast.ClassDef)
    comprehensions = (ast.ListComp, ast.SetComp, ast.DictComp, ast.GeneratorExp)
    for child in ast.iter_child_nodes(node):
        if isinstance(child, ast.Import | ast.ImportFrom):
            for alias in child.names:
                yield (alias.asname or alias.name).partition(".")[0], child.lineno
        elif isinstance(child, inside):
            if not isinstance(child, ast.Lambda):
                yield child.name, child.lineno
        elif isinstance(child, comprehensions):  # its variables are its own, but for those of :=
            for each in ast.walk(child):
                if isinstance(each, ast.NamedExpr):
                    yield each.target.id, each.lineno
        else:
            if isinstance(child, ast.Name) and isinstance(child.ctx, ast.Store):
                yield child.id, child.lineno
            if isinstance(child, ast.ExceptHandler | ast.MatchAs | ast.MatchStar) and child.name:
                yield child.name, child.lineno
            if isinstance(child, ast.For):  # its targets once more: it binds them again and again
                yield from bound(ast.Module([child.target], []))
            yield from bound(child)


def functions(source):
    """The functions and lambdas of a module, those in its comprehensions and classes too, and the
    lines in which they end.
    """
    kinds = (ast.FunctionDef, ast.AsyncFunctionDef, ast.Lambda)
    nodes = [node for node in ast.walk(ast.parse(source)) if isinstance(node, kinds)]
    ends = {}
    for node in nodes:
        key = getattr(node, "name", "lambda"), node.lineno
        ends[key] = max(node.end_lineno, ends.get(key, 0))

    def below(table):
        for child in table.get_children():
            if child.get_type() == "function" and child.get_name() not in COMPREHENSIONS:
                yield child, ends[child.get_name(), child.get_lineno()]
            else:
                yield from below(child)

    yield from below(symtable.symtable(source, "chapter", "exec"))


def globals_of(table):
    """The globals that a function reads, or a function inside it."""
    here = {s.get_name() for s in table.get_symbols() if s.is_global() and s.is_referenced()}
    return here.union(*map(globals_of, table.get_children()))


AFTER = [
    "x = 1\ndef f():\n    return x\nx = 2",
    "x = 1\nf = lambda: x\nx += 1",
    "x = 1\ndef f():\n    return x\nfor x in range(3):\n    f()",
    "def f():\n    return x\nfor i, x in enumerate('ab'):\n    f()",
    "x = 1\ndef f():\n    return x\nwith open('a') as x:\n    pass",
    "x = 1\ndef f():\n    return x\nimport a.b as x",
    "import x\ndef f():\n    return x.y\nimport x.y",
    "x = 1\ndef f():\n    return x\nif f():\n    y, (x, z) = 1, (2, 3)",
    "x = 1\ndef f():\n    return x\ndef x():\n    pass",
    "x = 1\ndef f():\n    return x\nif (x := 2):\n    pass",
    "x = 1\ndef f():\n    return x\n[x := y for y in 'ab']",
    "def f():\n    return x\nx = 1\nx = 2",
    "def f():\n    return f()\ndef f():\n    pass",
    "x = 1\ndef f():\n    def g():\n        return x\n    return g\nx = 2",
    "x = 1\ndef f():\n    return [x * y for y in 'ab']\nx = 2",
    "x = 1\nclass F:\n    def f(self):\n        return x\nx = 2",
    "x = 1\nfs = [lambda: x * y for y in 'ab']\nx = 2",
]
FINE = [
    "x = 1\nx = 2\ndef f():\n    return x",
    "for x in range(3):\n    pass\ndef f():\n    return x",
    "def f():\n    return x\nx = 1",
    "def f():\n    return g()\ndef g():\n    return f()",
    "def f(n):\n    return f(n - 1)",
    "x = 1\ndef f(x):\n    return x\nx = 2",
    "x = 1\ndef f():\n    x = 3\n    return x\nx = 2",
    "x = 1\ndef f():\n    return [x for x in 'ab']\nx = 2",
    "x = 1\ndef f(y=x):\n    return y\nx = 2",
    "x = 1\ndef f():\n    return x\n[x for x in 'ab']",
    "x = 1\ndef f():\n    return x\ndef g():\n    x = 2\n    for x in 'ab':\n        pass",
    "x = 1\ndef f():\n    return x\na.x = 2",
    "x = 1\ndef f():\n    def g(x):\n        return x\n    return g\nx = 2",
    "x = 1\nfs = [lambda: x for x in 'ab']\nx = 2",
]


@pytest.mark.parametrize("source", AFTER)
def test_what_is_bound_again_is_found(source):
    (line,) = rebound(source)
    name = "f" if "x" not in source else "x"
    assert line.startswith(f"{name}, which ")


@pytest.mark.parametrize("source", FINE)
def test_what_stays_is_not(source):
    assert rebound(source) == []


@pytest.mark.parametrize("chapter", chapters(ROOT))
def test_chapter(chapter):
    assert rebound((ROOT / f"{chapter}.py").read_text()) == []
