"""What CONTRIBUTING says about adding a thing is true: its examples, run."""

import re
import shutil
from itertools import product
from pathlib import Path

import pandas as pd
import pytest
import torch
import yaml
from execute import execute

from ginv import (
    MLP,
    Run,
    group_named,
    load_dataset,
    measure,
    measures,
    recipe,
    relative_logit_invariance,
    train,
)
from ginv import groups as groups_module
from ginv.recipe import METHODS
from ginv.runs.measured import named

ROOT = Path(__file__).parents[2]
TEXT = (ROOT / "CONTRIBUTING.md").read_text()


def example(of: str, language: str = "python") -> str:
    """The code of a section."""
    return re.search(rf"^### {of}\n.*?^```{language}\n(.*?)^```$", TEXT, re.M | re.S)[1]


def run_in(module, of):
    """An example as if it stood at the end of a module, which does not keep its names."""
    exec(example(of), dict(vars(module)))


def test_the_tree_names_every_module():
    tree = re.search(r"```text\n(.*?)```", TEXT, re.S)[1]
    for room in ("ginv", "ginv/runs", "ginv/pages", "tools"):
        modules = {path.stem for path in (ROOT / room).glob("*.py")} - {"__init__", "check"}
        modules = {name for name in modules if not name.startswith("naive")}
        assert modules <= set(re.findall(r"\w+", tree)), room


def test_a_group(monkeypatch):
    monkeypatch.setitem(groups_module.KINDS, "O", None)
    run_in(groups_module, "A group")
    diagonal, images = group_named("O3"), load_dataset().test.images[:20]
    for g, h in product(diagonal.elements, repeat=2):
        assert torch.equal(
            diagonal.act(g, diagonal.act(h, images)), diagonal.act(diagonal.product(g, h), images)
        )
    assert torch.equal(diagonal.align(diagonal.orbit(images)), images.expand(3, *images.shape))
    tied = MLP(diagonal, generator=torch.Generator().manual_seed(0)).double()
    logits = torch.stack([tied(x) for x in diagonal.orbit(images.double())])
    assert relative_logit_invariance(logits).max() < 1e-20
    short = dict(epochs=1, train_images=200)
    runs = [Run("O3", method, nu=float(method == "IR"), **short) for method in METHODS]
    assert [*train(runs, device="cpu", progress=False)] == runs


def test_a_metric(monkeypatch):
    trained = train([run := Run(epochs=1, train_images=200)], device="cpu", progress=False)[run]
    before = named("measurement", trained, "test", 10)
    monkeypatch.setitem(measures.COMPANIONS, "largest_change", None)
    run_in(measures, "A metric")
    test = load_dataset().test.head(10)
    measured = measure(trained.model, test.images, test.labels, group_named("R4"), progress=False)
    assert (measured.samples.largest_change > 0).all() and measured.summary.largest_change > 0
    assert (
        named("measurement", trained, "test", 10) != before
    )  # so stored ones are not taken for it


def test_a_regulariser(monkeypatch):
    monkeypatch.setitem(recipe.REGULARISERS, "absolute", None)
    run_in(recipe, "A regulariser")
    text = re.search(r"`(Run\(method=\"IR\".*?\))`", TEXT)[1]
    run = eval(text.replace(")", ", epochs=1, train_images=600, batch_size=64)"))
    plain = Run(epochs=1, train_images=600, batch_size=64)
    trained = train([run, plain], device="cpu", progress=False)
    weights = [each.model.output.weight for each in trained.values()]
    assert not torch.allclose(*weights, atol=1e-4)


def book(folder):
    shutil.copytree(ROOT / "book", folder / "book")
    return folder / "book"


def cells(script):
    return re.split(r"^(?=# %%)", script.read_text(), flags=re.M)


def test_a_chapter(tmp_path):
    here = book(tmp_path)
    table1 = cells(here / "table1.py")
    first = table1[: 1 + next(i for i, cell in enumerate(table1) if "settings = Settings" in cell)]
    (here / "mirrored.py").write_text("".join([*first, example("A chapter")]))
    execute(here / "mirrored.py", "quick")
    assert (here / "mirrored.ipynb").is_file()
    toc = yaml.safe_load((ROOT / "_toc.yml").read_text())
    assert all({"file"} == set(chapter) for part in toc["parts"] for chapter in part["chapters"])


def test_a_claim(tmp_path):
    here = book(tmp_path)
    with (here / "ledger.yaml").open("a") as file:
        file.write(example("A claim", "yaml"))
    if not (here / "results/table1.csv").is_file():
        pytest.skip("no table1.csv yet: `make notebooks` writes it")
    execute(here / "claims.py", "paper")
    row = pd.read_csv(here / "results/claims.csv").set_index("id").loc["da-above-90-R4"]
    assert row.verdict == "reproduced" and row.threshold == "> 90"
