"""The names of a chapter's parameters: papermill only warns of one that the chapter does not have."""

import ast
from itertools import pairwise


def refuse_unknown(cells: list[str]) -> None:
    """Raise ValueError, in one line, for a name that papermill passed and the chapter's parameters cell lacks.

    cells: the code run so far, IPython's `In`. papermill puts its own cell right after the parameters cell.
    """
    for parameters, passed in pairwise(cells):
        if passed.startswith("# Parameters\n") and (unknown := _assigned(passed) - (known := _assigned(parameters))):
            raise ValueError(f"no parameter {', '.join(sorted(unknown))}; allowed: {', '.join(sorted(known))}")


def _assigned(cell: str) -> set[str]:
    return {node.id for node in ast.walk(ast.parse(cell)) if isinstance(node, ast.Name)}
