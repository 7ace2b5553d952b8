"""YAML is read in one way."""

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from ginv.runs.grid import read_grid
from ginv.runs.strict_yaml import MOST_NODES, read_yaml


@pytest.fixture
def read(tmp_path):
    def of(text):
        (tmp_path / "a.yaml").write_text(text, encoding="utf-8")
        return read_yaml(tmp_path / "a.yaml")

    return of


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("true", True), ("False", False), ("on", "on"), ("NO", "NO"), ("yes", "yes"), ("y", "y"),
        ("10", 10), ("010", 10), ("0o10", "0o10"), ("0x10", "0x10"), ("1_000", "1_000"),
        ("1:30", "1:30"), ("1e3", 1000.0), ("1.5", 1.5), (".5", 0.5), ("-3", -3), (".inf", ".inf"),
        ("1.5e", "1.5e"),
        ("null", None), ("~", None), ("", None), ("None", "None"), ("'null'", "null"), ("'1'", "1"),
        ("2020-01-01", "2020-01-01"), ("=", "="),
    ],
)  # fmt: skip
def test_a_value_has_one_reading(text, value, read):
    found = read(f"key: {text}")["key"]
    assert found == value and type(found) is type(value)


def test_keys_are_the_words_that_are_written(read):
    keys = ["on", "yes", "1", "0x1", "null", "None", "true", "True", "1.0", "~"]
    assert list(read("".join(f"{key}: 0\n" for key in keys))) == keys


@given(
    st.dictionaries(
        st.from_regex(r"[a-z]{1,8}", fullmatch=True),
        st.integers() | st.booleans() | st.floats(allow_nan=False, allow_infinity=False),
    )
)
def test_what_is_written_is_read(tmp_path_factory, content):
    file = tmp_path_factory.mktemp("yaml") / "a.yaml"
    file.write_text(yaml.safe_dump(content))
    assert (read_yaml(file) or {}) == pytest.approx(content)


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ("a: 1\na: 2", "a stands twice in the table"),
        ("a: {b: 1, b: 2}", "b stands twice in the table"),
        ("<<: {a: 1}\n<<: {a: 2}", "<< stands twice in the table"),
        ("? [1]\n: 2", "a key is no word"),
        ("a: &a [*a]", f"larger than {MOST_NODES:,} values"),
        ("a: &a {<<: *a}", "no YAML"),
        ("a: !!python/object:os.system x", "could not determine a constructor"),
        ("[" * 5000, "it is nested too deep"),
        ("[", "while parsing"),
        ("a: \x07", "special characters are not allowed"),
    ],
)
def test_what_has_no_reading_is_refused_in_one_line(text, line, read):
    with pytest.raises(ValueError, match=line) as error:
        read(text)
    assert "\n" not in str(error.value)


def test_aliases_do_not_explode(read):
    """Ten of ten of ten ..., which PyYAML reads and whoever walks through it never ends."""
    lines = ["a0: &a0 [1]"]
    lines += [f"a{i}: &a{i} [{', '.join([f'*a{i - 1}'] * 10)}]" for i in range(1, 12)]
    with pytest.raises(ValueError, match="its aliases make it larger"):
        read("\n".join(lines))
    merged = ["m0: &m0 {a: 1}"]
    merged += [f"m{i}: &m{i} {{<<: [{', '.join([f'*m{i - 1}'] * 10)}]}}" for i in range(1, 12)]
    with pytest.raises(ValueError, match="its aliases make it larger"):
        read("\n".join(merged))


def test_merged_tables_are_as_before(read):
    text = "base: &b {a: 1, b: [1, 2]}\nnew: {<<: *b, a: 3}\ntwo: {a: 4, <<: *b}"
    assert read(text) == {
        "base": {"a": 1, "b": [1, 2]}, "new": {"a": 3, "b": [1, 2]}, "two": {"a": 4, "b": [1, 2]},
    }  # fmt: skip


def test_recipes_are_named_as_they_are_written(tmp_path):
    names = ["on", "yes", "1", "0x1", "null", "None"]
    recipes = "".join(f"  {name}: {{seed: {i}}}\n" for i, name in enumerate(names))
    (tmp_path / "grid.yaml").write_text(f"recipes:\n{recipes}")
    assert list(read_grid(tmp_path / "grid.yaml").recipes) == names
