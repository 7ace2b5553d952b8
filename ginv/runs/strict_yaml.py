"""YAML read in one way: the numbers and words of YAML 1.2, keys as they are written, nothing twice.

PyYAML alone reads `NO` as false, `010` as 8 and `1:30` as 90, and keeps the last of two equal keys.
"""

import re
from collections.abc import Callable, Hashable
from pathlib import Path
from typing import ClassVar

import yaml

MOST_NODES = 1_000_000  # with each alias written out


def read_yaml(file: Path) -> object:
    """The content of a file.

    Raises ValueError, in one line, for what is no YAML, or not strictly so.
    """
    try:
        loader = _Loader(file.read_text(encoding="utf-8"))
        node = loader.get_single_node()
        if node is None:
            return None
        _size(node, {})
        return loader.construct_document(node)
    except (yaml.YAMLError, ValueError) as error:
        raise ValueError(f"{file} is no YAML: {' '.join(str(error).split())}") from None
    except RecursionError:
        raise ValueError(f"{file} is no YAML: it is nested too deep") from None


class _Loader(yaml.SafeLoader):
    # PyYAML's way; those of YAML 1.2 follow, and no others: dates, sets and bytes are none of ours
    yaml_implicit_resolvers: dict = {}  # noqa: RUF012
    yaml_constructors: ClassVar[dict] = {
        "tag:yaml.org,2002:str": yaml.SafeLoader.construct_yaml_str,
        "tag:yaml.org,2002:seq": yaml.SafeLoader.construct_yaml_seq,
        None: yaml.SafeLoader.construct_undefined,
    }

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict:
        if not isinstance(node, yaml.MappingNode):
            raise yaml.YAMLError(f"what is tagged a map is none{node.start_mark}")
        written = [key for key, _ in node.value]
        seen: set[Hashable] = set()
        for key in written:
            if not isinstance(key, yaml.ScalarNode):
                raise yaml.YAMLError(f"a key is no word{key.start_mark}")
            if key.value in seen:
                raise yaml.YAMLError(f"{key.value} stands twice in the table{node.start_mark}")
            seen.add(key.value)
        self.flatten_mapping(node)  # the tables that `<<` names, first: what is written here wins
        return {key.value: self.construct_object(value, deep=True) for key, value in node.value}


def _mapping(loader: _Loader, node: yaml.MappingNode) -> dict:
    return loader.construct_mapping(node)


_SCALARS: dict[str, tuple[str, Callable[[str], object]]] = {
    "bool": (r"true|True|TRUE|false|False|FALSE", lambda text: text[0] in "tT"),
    "null": (r"null|Null|NULL|~|", lambda text: None),
    "int": (r"[-+]?[0-9]{1,4000}", int),  # Python reads no more; longer ones are infinite floats
    "float": (r"[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?", float),
    "merge": (r"<<", str),
}


def _add(name: str, pattern: str, read: Callable[[str], object]) -> None:
    tag, written = f"tag:yaml.org,2002:{name}", re.compile(f"^({pattern})$")

    def construct(_: _Loader, node: yaml.Node) -> object:
        if not isinstance(node, yaml.ScalarNode) or not written.fullmatch(node.value):
            raise yaml.YAMLError(f"what is tagged {name} is none{node.start_mark}")
        return read(node.value)

    _Loader.add_implicit_resolver(tag, written, None)
    _Loader.add_constructor(tag, construct)


for _name, (_pattern, _read) in _SCALARS.items():
    _add(_name, _pattern, _read)
_Loader.add_constructor("tag:yaml.org,2002:map", _mapping)


def _size(node: yaml.Node, known: dict[int, int]) -> int:
    """How many nodes there are with each alias written out; refuses too many, and a circle."""
    if id(node) not in known:
        known[id(node)] = MOST_NODES + 1  # as long as it is being counted: a circle is too large
        parts = node.value if isinstance(node.value, list) else []
        flat = [each for part in parts for each in (part if isinstance(part, tuple) else (part,))]
        known[id(node)] = 1 + sum(_size(part, known) for part in flat)
    if known[id(node)] > MOST_NODES:
        raise yaml.YAMLError(f"its aliases make it larger than {MOST_NODES:,} values")
    return known[id(node)]
