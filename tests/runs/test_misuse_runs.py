"""What is almost right, or wrong, for runs, data, trainings, grids and stores: it is taken for
what it means, or refused in one line before any work.
"""

import decimal
import enum
import fractions
import os
import re
import sys
from functools import partial
from itertools import repeat
from pathlib import Path

import distributed
import numpy as np
import pandas as pd
import pytest
import torch
from tiny import GRID, TINY, written

import ginv
from ginv import Dataset, Run, Split, TrainedRun, load_dataset, train
from ginv.recipe import REGULARISERS
from ginv.runs import grid as grids
from ginv.runs import nu
from ginv.runs.grid import Grid, read_grid, run_grid
from ginv.runs.measured import evaluated, measured, robustness

RUN, IR = Run(**TINY), dict(method="IR", nu=1.0)
TRAINED = TrainedRun(RUN, RUN.model(), {})
HUGE = 10**5000  # more digits than Python prints
DEEP: list = []
for _ in range(100_000):
    DEEP = [DEEP]
FILE = str(Path(__file__))


class Text(str):
    pass


class Name(enum.StrEnum):
    R4 = "R4"


class Real(float):
    pass


class Whole(int):
    pass


class Silent:
    def __repr__(self):
        raise RuntimeError("not today")


@pytest.fixture(autouse=True)
def nothing_is_computed(monkeypatch):
    """No training, measurement, reading of images or call of a scheduler begins."""

    def began(*_, **__):
        pytest.fail("it began")

    for name in ("train.train_stack", "train.load_dataset", "measured._on_device", "grid.work"):
        monkeypatch.setattr(f"ginv.runs.{name}", began)
    monkeypatch.setattr(distributed, "Client", began)


def refused(call, line):
    """With an error of one line that begins so, and with an empty store."""
    with pytest.raises((ValueError, OSError), match=f"^{re.escape(line)}[^\n]*$"):
        call()
    assert not Path(os.environ["GINV_RUNS"]).exists()


# --- Run

RUNS = [
    ({"seed": HUGE}, "seed is int that cannot be printed; allowed: integers from 0"),
    ({"seed": -HUGE}, "seed is int that cannot be printed; allowed: integers from 0"),
    ({"seed": [HUGE]}, "seed is list that cannot be printed; allowed: integers from 0"),
    ({"seed": DEEP}, "seed is list that cannot be printed; allowed: integers from 0"),
    ({"seed": Silent()}, "seed is Silent that cannot be printed; allowed: integers from 0"),
    ({"learning_rate": HUGE}, "learning_rate is int that cannot be printed; allowed: above 0"),
    ({"width": HUGE}, "width is int that cannot be printed; allowed: integers from 1 to 65536"),
    ({"seed": np.int64(1)}, f"seed is {np.int64(1)!r}; allowed: integers from 0"),
    ({"seed": np.array(1)}, "seed is array(1); allowed: integers from 0"),
    ({"seed": torch.tensor(1)}, "seed is a tensor []; allowed: integers from 0"),
    ({"seed": Whole(1)}, "seed is 1; allowed: integers from 0"),
    ({"seed": "\u0661"}, "seed is '\u0661'; allowed: integers from 0"),
    ({"seed": b"1"}, "seed is b'1'; allowed: integers from 0"),
    ({"seed": -0.0}, "seed is -0.0; allowed: integers from 0"),
    ({"seed": pd.NA}, "seed is <NA>; allowed: integers from 0"),
    ({"split_seed": 2**63}, "split_seed is 9223372036854775808; allowed: integers from 0"),
    ({**IR, "nu": np.float32(1)}, f"nu is {np.float32(1)!r}; allowed: above 0 for IR"),
    ({**IR, "nu": decimal.Decimal(1)}, "nu is Decimal('1'); allowed: above 0 for IR"),
    ({**IR, "nu": fractions.Fraction(1, 2)}, "nu is Fraction(1, 2); allowed: above 0 for IR"),
    ({**IR, "nu": np.array([1.0])}, "nu is array([1.]); allowed: above 0 for IR"),
    ({**IR, "nu": torch.ones(2)}, "nu is a tensor [2]; allowed: above 0 for IR"),
    ({**IR, "nu": -0.0}, "nu is -0.0; allowed: above 0 for IR"),
    ({**IR, "nu": Real("nan")}, "nu is nan; allowed: above 0 for IR"),
    ({**IR, "nu": np.float64("inf")}, f"nu is {np.float64('inf')!r}; allowed: above 0 for IR"),
    ({"learning_rate": -0.0}, "learning_rate is -0.0; allowed: above 0"),
    ({"weight_decay": 1250}, "weight_decay is 1250; allowed: 0 to 1 / learning_rate"),
    ({"learning_rate": 1e308, "weight_decay": 1}, "weight_decay is 1; allowed: 0 to 1 /"),
    ({"group": b"R4"}, "group is b'R4'; allowed: R1, R2, R4"),
    ({"group": np.array(["R4", "T3"])}, "group is array(['R4', 'T3']"),
    ({"group": ginv.Rotations(4)}, "group is Rotations(order=4); allowed: R1, R2, R4"),
    ({"group": "T\u00b3"}, "group is 'T\u00b3'; allowed: R1, R2, R4"),
    ({"method": "DA\n"}, "method is 'DA\\n'; allowed: WT, DA, IR"),
    ({"method": np.array(["DA", "IR"])}, "method is array(['DA', 'IR']"),
    ({**IR, "whole_orbit": np.bool_(True)}, f"whole_orbit is {np.True_!r}; allowed: False, True"),
    ({**IR, "whole_orbit": "False"}, "whole_orbit is 'False'; allowed: False, True"),
    ({"regulariser": ginv.logit_error}, "regulariser is <function logit_error at 0x"),
    ({"precision": torch.bfloat16}, "precision is torch.bfloat16; allowed: float32, bfloat16"),
    ({"width": 2**62}, "width is 4611686018427387904; allowed: integers from 1 to 65536"),
    ({"first_width": 2**17}, "first_width is 131072; allowed: integers from 1 to 65536"),
    ({"depth": 2**40}, "depth is 1099511627776; allowed: integers from 1 to 1000"),
    ({"epochs": 2**62}, "epochs is 4611686018427387904; allowed: integers from 1 to 1000000"),
    ({"width": 2**16, "depth": 2}, "number of weights is 4380491776; allowed: up to 1073741824"),
]
TAKEN_AS = [
    ({"nu": -0.0}, {}),
    ({"weight_decay": -0.0}, {}),
    ({"learning_rate": np.float64(0.1)}, {"learning_rate": 0.1}),
    ({"learning_rate": Real(0.1)}, {"learning_rate": 0.1}),
    ({**IR, "nu": Whole(1)}, IR),
    ({"group": np.str_("R4")}, {}),
    ({"group": Name.R4}, {}),
    ({"method": Text("WT"), "pooling": np.str_("mean")}, {"method": "WT", "pooling": "mean"}),
]


@pytest.mark.parametrize(("changes", "line"), RUNS)
def test_bad_runs(changes, line):
    refused(lambda: Run(**changes), line)


@pytest.mark.parametrize(("changes", "others"), TAKEN_AS)
def test_a_run_is_that_of_plain_values(changes, others):
    assert repr(Run(**changes)) == repr(Run(**others))
    assert repr(Run(**changes).specification) == repr(Run(**others).specification)


# --- Data


@pytest.fixture
def data():
    images = torch.linspace(-1, 1, 6 * 16).view(6, 1, 4, 4)
    return Split(images, torch.arange(6) % 3)


DATA = [
    (lambda _: load_dataset(np.array(["MNIST"])), "dataset is array(['MNIST']"),
    (lambda _: load_dataset(np.array(["MNIST", "x"])), "dataset is array(['MNIST', 'x']"),
    (lambda _: load_dataset(pd.NA), "dataset is <NA>; allowed: MNIST, FashionMNIST"),
    (lambda _: load_dataset("MNIST\n"), "dataset is 'MNIST\\n'; allowed: MNIST, FashionMNIST"),
    (lambda _: load_dataset(split_seed=HUGE), "split_seed is int that cannot be printed; allowed"),
    (lambda _: load_dataset(split_seed=True), "split_seed is True; allowed: integers from 0"),
    (
        lambda _: load_dataset(split_seed=np.int64(1)),
        f"split_seed is {np.int64(1)!r}; allowed: integ",
    ),
    (lambda _: load_dataset(split_seed=1.0), "split_seed is 1.0; allowed: integers from 0"),
    (lambda d: d.head(-1), "n is -1; allowed: 1 to 6, or None for all"),
    (lambda d: d.head(0), "n is 0; allowed: 1 to 6, or None for all"),
    (lambda d: d.head(7), "n is 7; allowed: 1 to 6, or None for all"),
    (lambda d: d.head(1.5), "n is 1.5; allowed: 1 to 6"),
    (lambda d: d.head("3"), "n is '3'; allowed: 1 to 6"),
    (lambda d: d.head(True), "n is True; allowed: 1 to 6"),
    (lambda d: d.head([3]), "n is [3]; allowed: 1 to 6"),
    (lambda d: d.to("gpu"), "device is 'gpu'; allowed: auto, cpu"),
    (lambda d: d.to("meta"), "device is 'meta'; allowed: auto, cpu"),
    (lambda d: d.to(torch.device("meta")), "device is 'meta'; allowed: auto, cpu"),
    (lambda d: d.to(None), "device is None; allowed: auto, cpu"),
    (lambda d: d.to(0), "device is 0; allowed: auto, cpu"),
    (lambda d: d.to(["cpu"]), "device is ['cpu']; allowed: auto, cpu"),
    (lambda d: Split(d.images, d.labels[:2]), "labels is a tensor [2]; allowed: a tensor [6]"),
    (lambda d: Split(d.labels, d.images), "images is a tensor [6]; allowed: a tensor [n, C, H, W]"),
    (lambda d: Split([1], [1]), "images is [1]; allowed: a tensor [n, C, H, W]"),
    (lambda d: Split(d.images, [0] * 6), "labels is [0, 0, 0, 0, 0, 0]; allowed: a tensor [6]"),
]
BLEND = [
    (lambda x: ([1.0], [2.0], 0.5), "images is [1.0]; allowed: a tensor [..., H, W]"),
    (lambda x: (x, x[0], 0.5), "others is a tensor [1, 4, 4]; allowed: a tensor of the shape"),
    (lambda x: (x, x.double(), 0.5), "others is a tensor [6, 1, 4, 4]; allowed: a tensor of the"),
    (lambda x: (x, x.to("meta"), 0.5), "others is a tensor [6, 1, 4, 4]; allowed: a tensor of"),
    (lambda x: (x, None, 0.5), "others is None; allowed: a tensor of the shape"),
    (lambda x: (x.long(), x.long(), 0.5), "images is a tensor [6, 1, 4, 4]; allowed: a tensor of"),
    (lambda x: (x.cfloat(), x.cfloat(), 0.5), "images is a tensor [6, 1, 4, 4]; allowed: a te"),
    (lambda x: (x, x, 2), "beta is 2; allowed: 0 to 1"),
    (lambda x: (x, x, -0.1), "beta is -0.1; allowed: 0 to 1"),
    (lambda x: (x, x, float("nan")), "beta is nan; allowed: 0 to 1"),
    (lambda x: (x, x, "0.3"), "beta is '0.3'; allowed: 0 to 1"),
    (lambda x: (x, x, True), "beta is True; allowed: 0 to 1"),
    (lambda x: (x, x, 1j), "beta is 1j; allowed: 0 to 1"),
    (lambda x: (x, x, HUGE), "beta is int that cannot be printed; allowed: 0 to 1"),
    (lambda x: (x, x, torch.tensor([0.3])), "beta is a tensor [1]; allowed: 0 to 1"),
]
PARTNERS = [
    (lambda y: ([1], [1]), "labels is [1]; allowed: a tensor [n] of integers"),
    (lambda y: (y, [1]), "others is [1]; allowed: a tensor [n] of integers"),
    (lambda y: (y.numpy(), y), "labels is array([0, 1, 2, 0, 1, 2]); allowed: a tensor [n] of in"),
    (lambda y: (y[None], y), "labels is a tensor [1, 6]; allowed: a tensor [n] of integers"),
    (lambda y: (y, y[None]), "others is a tensor [1, 6]; allowed: a tensor [n] of integers"),
    (lambda y: (y[0], y), "labels is a tensor []; allowed: a tensor [n] of integers"),
    (lambda y: (y.float(), y), "labels is a tensor [6]; allowed: a tensor [n] of integers"),
    (lambda y: (y, y.float()), "others is a tensor [6]; allowed: a tensor [n] of integers"),
    (lambda y: (y > 0, y), "labels is a tensor [6]; allowed: a tensor [n] of integers"),
    (lambda y: (y, y.to("meta")), "others is a tensor [6]; allowed: a tensor on cpu, as the lab"),
    (lambda y: (y, y[:0]), "label is 0; allowed: those of the other data set"),
    (lambda y: (y, y, 0), "generator is 0; allowed: a torch.Generator, or None"),
    (lambda y: (y, y, np.random.default_rng(0)), "generator is Generator(PCG64)"),
]


@pytest.mark.parametrize(("call", "line"), DATA)
def test_bad_data(call, line, data):
    refused(lambda: call(data), line)


@pytest.mark.parametrize(("arguments", "line"), BLEND)
def test_bad_blends(arguments, line, data):
    refused(lambda: ginv.blend(*arguments(data.images)), line)


@pytest.mark.parametrize(("arguments", "line"), PARTNERS)
def test_bad_partners(arguments, line, data):
    refused(lambda: ginv.partners(*arguments(data.labels)), line)


@pytest.mark.parametrize("kind", [torch.uint8, torch.int8, torch.int16, torch.int32])
def test_partners_are_indices_whatever_the_type_of_the_labels(kind):
    labels = torch.arange(600) % 3
    found = ginv.partners(labels.to(kind), labels.to(kind))
    assert found.dtype is torch.int64 and torch.equal(found, torch.arange(600))


def test_data_that_is_almost_right_is_taken(data):
    assert len(data.head(np.int64(3))) == 3 and len(data.head(None)) == 6
    assert data.to("auto").images.device.type in ("cpu", "cuda")
    half = ginv.blend(data.images, -data.images, np.float32(0.5))
    assert torch.equal(half, torch.zeros(6, 1, 4, 4))
    assert isinstance(Dataset(data, data, data, 0.0, 1.0).test.head(1), Split)


# --- The errors that a run penalises

ERRORS = [
    (lambda a: ([1.0], a), "a is [1.0]; allowed: a tensor [..., C], not empty"),
    (lambda a: (a, 1.0), "b is 1.0; allowed: a tensor [..., C], not empty"),
    (lambda a: (a.numpy(), a), "a is array("),
    (lambda a: (a[0, 0], a), "a is a tensor []; allowed: a tensor [..., C], not empty"),
    (lambda a: (a[:, :0], a), "a is a tensor [4, 0]; allowed: a tensor [..., C], not empty"),
    (lambda a: (a.byte(), a), "a is a tensor [4, 9]; allowed: logits of a floating-point type"),
    (lambda a: (a, a > 0), "b is a tensor [4, 9]; allowed: logits of a floating-point type"),
    (lambda a: (a.cfloat(), a), "a is a tensor [4, 9]; allowed: logits of a floating-point type"),
    (lambda a: (a, a[:, :1]), "b is a tensor [4, 1]; allowed: logits that go with those of a, [4"),
    (lambda a: (a, a[:2]), "b is a tensor [2, 9]; allowed: logits that go with those of a, [4, 9"),
    (lambda a: (a, a.to("meta")), "b is a tensor [4, 9]; allowed: logits that go with those of a"),
]


@pytest.mark.parametrize("error", REGULARISERS.values(), ids=REGULARISERS)
@pytest.mark.parametrize(("arguments", "line"), ERRORS)
def test_bad_logits(arguments, line, error, generator):
    refused(lambda: error(*arguments(torch.randn(4, 9, generator=generator))), line)


@pytest.mark.parametrize("error", REGULARISERS.values(), ids=REGULARISERS)
def test_errors_of_half_precision_do_not_overflow(error, generator):
    a, b = (500 * torch.randn(2, 4, 9, generator=generator)).half()
    assert torch.equal(error(a, b), error(a.float(), b.float())) and error(a, b).isfinite().all()


# --- Training and measuring


def drawn():
    yield RUN
    yield "DA"
    pytest.fail("it read on")


TRAIN = [
    ((drawn(),), {}, "run is 'DA'; allowed: a ginv.Run"),
    (([Run],), {}, "run is <class 'ginv.recipe.Run'>; allowed: a ginv.Run"),
    (([RUN, None],), {}, "run is None; allowed: a ginv.Run"),
    (([RUN.specification],), {}, "run is {'train_images': 200"),
    (([TRAINED],), {}, "run is TrainedRun(run=Run("),
    ((b"DA",), {}, "run is 68; allowed: a ginv.Run"),
    ((torch.tensor(1),), {}, "runs is a tensor []; allowed: ginv.Run objects in a list"),
    ((np.array(1),), {}, "runs is array(1); allowed: ginv.Run objects in a list"),
    ((repeat(Run()),), {}, "runs is repeat(Run(group='R4', method='DA', seed=0"),
    ((Run,), {}, "runs is <class 'ginv.recipe.Run'>; allowed: ginv.Run objects in a list"),
    (([RUN],), {"device": None}, "device is None; allowed: auto, cpu"),
    (([RUN],), {"device": 0}, "device is 0; allowed: auto, cpu"),
    (([RUN],), {"device": "CPU"}, "device is 'CPU'; allowed: auto, cpu"),
    (([RUN],), {"device": torch.device("cpu")}, "device is device(type='cpu'); allowed: auto, cpu"),
    (([RUN],), {"device": np.array(["auto"])}, "device is array(['auto']"),
    (([RUN],), {"device": np.array(["cpu", "cuda"])}, "device is array(['cpu', 'cuda']"),
    (([RUN],), {"device": pd.NA}, "device is <NA>; allowed: auto, cpu"),
    (([],), {"device": "gpu"}, "device is 'gpu'; allowed: auto, cpu"),
    (([RUN],), {"progress": "no"}, "progress is 'no'; allowed: False, True"),
    (([RUN],), {"progress": None}, "progress is None; allowed: False, True"),
    (([RUN],), {"progress": 1}, "progress is 1; allowed: False, True"),
]
MEASURED = [
    (("x", "test", 5), {}, "trained is 'x'; allowed: a ginv.TrainedRun"),
    ((None, "test", 5), {}, "trained is None; allowed: a ginv.TrainedRun"),
    ((RUN, "test", 5), {}, "trained is Run("),
    ((TRAINED.model, "test", 5), {}, "trained is MLP("),
    ((TrainedRun("x", "y", {}), "test", 5), {}, "trained is TrainedRun(run='x', model='y'"),
    ((TrainedRun(RUN, None, {}), "test", 5), {}, "trained is TrainedRun(run=Run("),
    ((TRAINED, None, 5), {}, "split is None; allowed: train, validation, test"),
    ((TRAINED, np.array(["test", "x"]), 5), {}, "split is array(['test', 'x']"),
    (
        (TRAINED, "test", np.int64(5)),
        {},
        f"images is {np.int64(5)!r}; allowed: 1 to 50000, or None",
    ),
    ((TRAINED, "test", HUGE), {}, "images is int that cannot be printed; allowed: 1 to 50000"),
    ((TRAINED, "test", 5), {"device": "gpu"}, "device is 'gpu'; allowed: auto, cpu"),
    ((TRAINED, "test", 5), {"device": ["cpu"]}, "device is ['cpu']; allowed: auto, cpu"),
]


@pytest.mark.parametrize(("arguments", "options", "line"), TRAIN)
def test_bad_trainings(arguments, options, line):
    refused(lambda: train(*arguments, **options), line)


@pytest.mark.parametrize("function", [measured, robustness, evaluated])
@pytest.mark.parametrize(("arguments", "options", "line"), MEASURED)
def test_bad_measurements(arguments, options, line, function):
    refused(lambda: function(*arguments, **options), line)


def test_measured_with_bad_progress():
    refused(lambda: measured(TRAINED, "test", 5, progress="no"), "progress is 'no'; allowed: False")


# --- nu

CHOSEN = [
    ((["R4"],), "group is ['R4']; allowed: the name of a group, such as R4"),
    ((("R4",),), "group is ('R4',); allowed: the name of a group"),
    ((None,), "group is None; allowed: the name of a group"),
    ((np.array(["R4"]),), "group is array(['R4']"),
    ((pd.Series(["R4"]),), "group is 0 R4 dtype: "),
    ((ginv.Rotations(4),), "group is Rotations(order=4); allowed: the name of a group"),
    (("R4\nT3",), "no sweep of nu for R4 T3 logit; swept: R4 kl, R4 logit"),
    (("r4",), "no sweep of nu for r4 logit; swept: R4 kl, R4 logit"),
    (("R4", None), "regulariser is None; allowed: logit, kl, normalised"),
    (("R4", ["kl"]), "regulariser is ['kl']; allowed: logit, kl, normalised"),
    (("R4", ginv.kl_divergence), "regulariser is <function kl_divergence at 0x"),
    (("R4", "KL"), "no sweep of nu for R4 KL; swept: R4 kl, R4 logit"),
]
SEARCHED = [
    (("R4",), {}, "forms is 'R4'; allowed: a list of runs such as Run('R4', 'IR', nu=1.0)"),
    ((None,), {}, "forms is None; allowed: a list of runs"),
    ((Run(**IR),), {}, "forms is Run(group='R4', method='IR', seed=0, nu=1.0,"),
    (([],), {}, "forms is []; allowed: a list of runs"),
    (([("R4", "kl")],), {}, "form is ('R4', 'kl'); allowed: a run of IR, which differs from oth"),
    (([Run()],), {}, "form is Run(group='R4', method='DA', seed=0,"),
    (([Run(**IR, epochs=3)],), {}, "form is Run(group='R4', method='IR'"),
    (
        ([Run(**IR), Run(**IR, width=8)],),
        {},
        "form is Run(group='R4', method='IR', seed=0, nu=1.0,",
    ),
    (([Run(**IR)],), {"device": "gpu"}, "device is 'gpu'; allowed: auto, cpu"),
]


@pytest.mark.parametrize(("arguments", "line"), CHOSEN)
def test_bad_choices_of_nu(arguments, line):
    refused(lambda: ginv.chosen_nu(*arguments), line)


@pytest.mark.parametrize(("arguments", "options", "line"), SEARCHED)
def test_bad_searches_of_nu(arguments, options, line):
    refused(lambda: nu.search(*arguments, **options), line)


# --- Grids

A = "recipes: {a: {seed: 1}}\n"
NO_YAML = [
    ("recipes: {a: {whole_orbit: !!bool ''}}", "what is tagged bool is none"),
    ("recipes: {a: {whole_orbit: !!bool yes}}", "what is tagged bool is none"),
    ("recipes: {a: {whole_orbit: !!bool {}}}", "what is tagged bool is none"),
    ("recipes: {a: {seed: !!int [1]}}", "what is tagged int is none"),
    ("recipes: {a: {seed: !!int x}}", "what is tagged int is none"),
    ("recipes: {a: {seed: !!int 1_0}}", "what is tagged int is none"),
    ("recipes: {a: {seed: !!int \u0663}}", "what is tagged int is none"),
    ("recipes: {a: {learning_rate: !!float nan}}", "what is tagged float is none"),
    ("recipes: {a: {first_width: !!null 5}}", "what is tagged null is none"),
    ("recipes: {a: !!map [1]}", "what is tagged a map is none"),
    ("recipes: !!map 5", "what is tagged a map is none"),
    ("recipes: {a: !!seq {seed: 1}}", "expected a sequence node"),
    ("recipes: {a: {seed: !!timestamp x}}", "could not determine a constructor for the tag"),
    ("recipes: !!set {a}", "could not determine a constructor for the tag"),
    ("recipes: {a: {seed: !!binary MQ==}}", "could not determine a constructor for the tag"),
    ("recipes: {a: *b}", "found undefined alias 'b'"),
    ("recipes: {a: {<<: [3]}}", "while constructing a mapping"),
    ("recipes: {a: {<<: null}}", "while constructing a mapping"),
    ("recipes: {a: {seed: 1}, 'a': {seed: 2}}", "a stands twice in the table"),
    (A + A, "recipes stands twice in the table"),
    (A + "---\n" + A, "expected a single document in the stream"),
    ("recipes:\n\ta: {}", "while scanning for the next token"),
    ("%YAML 2.0\n---\n" + A, "found incompatible YAML document"),
]
GRIDS = [
    ("recipes: {a: {seed: " + "9" * 5000 + "}}", "seed is inf; allowed: integers from 0"),
    (A + "images: " + "9" * 5000, "images is inf; allowed: 1 to 2000"),
    (A + "images: true", "images is True; allowed: 1 to 2000"),
    (A + "images: '5'", "images is '5'; allowed: 1 to 2000"),
    (A + "images: 2e3", "images is 2000.0; allowed: 1 to 2000"),
    (A + "images:", "images is None; allowed: 1 to 2000"),
    (A + "images: [5]", "images is [5]; allowed: 1 to 2000"),
    (A + "split: test\nimages: 50001", "images is 50001; allowed: 1 to 50000"),
    (A + "split:", "split is None; allowed: train, validation, test"),
    (A + "split: {test: 1}", "split is {'test': 1}; allowed: train, validation, test"),
    (A + '"a\\nb": 1', "key is 'a\\nb'; allowed: recipes, split, images"),
    ('recipes: {"a\\nb": 3}', "recipe is 'a\\nb'; allowed: a name that can be printed"),
    ('recipes: {"a\\nb": {sede: 3}}', "recipe is 'a\\nb'; allowed: a name that can be printed"),
    ('recipes: {"a\\nb": {seed: []}}', "recipe is 'a\\nb'; allowed: a name that can be printed"),
    ('recipes: {"\\0": {seed: 1}}', "recipe is '\\x00'; allowed: a name that can be printed"),
    ('recipes: {"\\ud800": {seed: 1}}', "recipe is '\\ud800'; allowed: a name that can be pr"),
    ('recipes: {"": {seed: 1}}', "recipe is ''; allowed: a name that can be printed"),
    ("recipes: {a: [{seed: 1}, 3]}", "recipe a is [{'seed': 1}, 3]; allowed: a table of fields"),
    ("recipes: {a: [[{seed: 1}]]}", "recipe a is [[{'seed': 1}]]; allowed: a table of fields"),
    ("recipes: {a: DA}", "recipe a is 'DA'; allowed: a table of fields"),
    ("recipes: [a]", "recipes is ['a']; allowed: a table of at least one"),
    ("Recipes: {a: {}}", "FILE is {'Recipes': {'a': {}}}; allowed: a table with recipes"),
    ("recipes: {a: {Seed: 1}}", "field of recipe a is 'Seed'; allowed: group, method, seed"),
    ("recipes: {a: {seed: 1.0}}", "seed is 1.0; allowed: integers from 0"),
    ("recipes: {a: {seed: '1'}}", "seed is '1'; allowed: integers from 0"),
    ("recipes: {a: {seed: 0x1}}", "seed is '0x1'; allowed: integers from 0"),
    ("recipes: {a: {seed: {a: 1}}}", "seed is {'a': 1}; allowed: integers from 0"),
    ("recipes: {a: {whole_orbit: no}}", "whole_orbit is 'no'; allowed: False, True"),
    ("recipes: {a: {method: IR, nu: .nan}}", "nu is '.nan'; allowed: above 0 for IR"),
    ("recipes: {a: {method: IR, nu: 1e999}}", "nu is inf; allowed: above 0 for IR"),
    ("recipes: {a: {group: [[R4]]}}", "group is ['R4']; allowed: R1, R2, R4"),
    ("recipes: {a: {nu: [0, -0.0]}}", "recipe a has a run twice: Run(group='R4'"),
    ("recipes: {a: {seed: [1, +1]}}", "recipe a has a run twice: Run(group='R4'"),
    ("recipes: {a: {width: [8, 4611686018427387904]}}", "width is 4611686018427387904; allowed"),
]
NOT_FILES = [
    (None, "grid is None; allowed: the name of a YAML file"),
    (7, "grid is 7; allowed: the name of a YAML file"),
    (b"grid.yaml", "grid is b'grid.yaml'; allowed: the name of a YAML file"),
    ({"recipes": {}}, "grid is {'recipes': {}}; allowed: the name of a YAML file"),
    ("a\0b", "grid is 'a\\x00b'; allowed: the name of a YAML file"),
    (A, "grid is 'recipes: {a: {seed: 1}}\\n'; allowed: the name of a YAML file"),
]
NO_GRIDS = [
    (lambda: None, "grid is None; allowed: a ginv.runs.grid.Grid"),
    (lambda: "grid.yaml", "grid is 'grid.yaml'; allowed: a ginv.runs.grid.Grid"),
    (lambda: {"a": [RUN]}, "grid is {'a': [Run("),
    (lambda: [RUN], "grid is [Run("),
    (lambda: Grid(None), "recipes is None; allowed: a table of at least one"),
    (lambda: Grid([RUN]), "recipes is [Run("),
    (lambda: Grid({"a": RUN}), "recipe a is Run("),
    (lambda: Grid({"a": ("DA",)}), "recipe a is ('DA',); allowed: ginv.Run objects in a list"),
    (lambda: Grid({"a": ()}), "recipe a is (); allowed: ginv.Run objects in a list"),
    (lambda: Grid({"a": (RUN, RUN)}), "recipe a has a run twice: Run("),
    (lambda: Grid({3: (RUN,)}), "recipe is 3; allowed: a name that can be printed"),
    (lambda: Grid({"a": (RUN,)}, "tests"), "split is 'tests'; allowed: train, validation, test"),
    (lambda: Grid({"a": (RUN,)}, ["test"]), "split is ['test']; allowed: train, validation"),
    (lambda: Grid({"a": (RUN,)}, images=0), "images is 0; allowed: 1 to 2000"),
    (lambda: Grid({"a": (RUN,)}, images=2001), "images is 2001; allowed: 1 to 2000"),
    (lambda: Grid({"a": (RUN,)}, images=None), "images is None; allowed: 1 to 2000"),
    (lambda: Grid({"a": (RUN,)}, images=5.0), "images is 5.0; allowed: 1 to 2000"),
]


@pytest.mark.parametrize(("text", "reason"), NO_YAML)
def test_bad_yaml(text, reason, tmp_path):
    file = written(tmp_path, text)
    refused(lambda: read_grid(file), f"{file} is no YAML: {reason}")


@pytest.mark.parametrize(("text", "line"), GRIDS)
def test_bad_grids(text, line, tmp_path):
    file = written(tmp_path, text)
    refused(lambda: read_grid(file), line.replace("FILE", str(file)))


@pytest.mark.parametrize(("file", "line"), NOT_FILES)
def test_bad_files_of_grids(file, line):
    refused(lambda: read_grid(file), line)


@pytest.mark.parametrize(("grid", "line"), NO_GRIDS)
def test_bad_objects_for_grids(grid, line):
    refused(lambda: run_grid(grid()), line)


def test_a_grid_that_is_almost_right_is_taken(tmp_path):
    """With a byte order mark, signs, names that YAML 1.1 takes for others, and one table twice."""
    text = "\ufeffrecipes: {~: &a {seed: [-0, +1]}, no: *a}\nsplit: train\nimages: 010"
    assert read_grid(written(tmp_path, text)) == Grid(
        {name: (Run(), Run(seed=1)) for name in ("~", "no")}, "train", 10
    )


# --- Places

ADDRESS = "allowed: an address such as tcp://127.0.0.1:8786"
SCHEDULERS = [
    "tcp://127.0.0.1:0", "tcp://127.0.0.1:65536", "tcp://127.0.0.1:99999", "tcp://127.0.0.1:1\n",
    "tcp://127.0.0.1:\u0668\u0667", " tcp://127.0.0.1:1", "TCP://127.0.0.1:1", "tcp://[1.2]:1",
    "tcp://[:::]:1", "tcp://..:1", f"tcp://{'a' * 64}:1", "tcp://\u00e9:1", "tcp://u:p@h:1",
    "tcp://127.0.0.1:1/", "inproc://x:1", b"tcp://127.0.0.1:1", ("127.0.0.1", 1), True,
]  # fmt: skip
PLACES = [
    ({"device": "gpu"}, "device is 'gpu'; allowed: auto, cpu"),
    ({"device": None}, "device is None; allowed: auto, cpu"),
    ({"device": "gpu", "scheduler": "tcp://h:1"}, "device is 'gpu'; allowed: auto, cpu, cuda"),
    ({"device": None, "scheduler": "tcp://h:1"}, "device is None; allowed: auto, cpu, cuda"),
    ({"device": ["cpu"], "scheduler": "tcp://h:1"}, "device is ['cpu']; allowed: auto, cpu, cuda"),
    ({"scheduler": "", "remote": "memory://a"}, "scheduler is ''; allowed: an address"),
]
URL = "allowed: a URL that fsspec knows, such as s3://bucket/runs"
STORES = [
    "://", "://runs", "s3://", "s3:bucket", "S3://bucket/runs", "a://b://c", "memory://", "file://",
    "file://shared/runs", "memory://a\nb", "memory://a ", " memory://a", "memory://\ud800",
    "/tmp/runs", b"memory://a", Path("/tmp"), ["memory://a"], True,
]  # fmt: skip
UNWRITABLE = [
    ("s3://bucket/runs", "the store s3://bucket/runs cannot be written: Install s3fs"),
    ("s3://[x/runs", "the store s3://[x/runs cannot be written: "),
    ("http://[bad/runs", "the store http://[bad/runs cannot be written: "),
    ("data://x", "the store data://x cannot be written: "),
    ("file:///dev/null/x", "the store file:///dev/null/x cannot be written: "),
    ("dir://x", "the store dir://x cannot be written: "),
    ("ftp://me:secret@127.0.0.1:1/x", "the store ftp://***@127.0.0.1:1/x cannot be written: "),
]


@pytest.mark.parametrize("address", SCHEDULERS, ids=repr)
def test_bad_schedulers(address):
    refused(lambda: run_grid(GRID, scheduler=address), f"scheduler is {address!r}; {ADDRESS}")


@pytest.mark.parametrize("protocol", ["tls", "ucx"])
def test_a_protocol_that_is_not_set_up_is_named(protocol, monkeypatch):
    def fails(*_, **__):
        raise TypeError("TLS expects\na context")

    monkeypatch.setattr(distributed, "Client", fails)
    address = f"{protocol}://127.0.0.1:1"
    line = f"no scheduler at {address}: TLS expects a context"
    refused(lambda: run_grid(GRID, scheduler=address), line)


@pytest.mark.parametrize(("options", "line"), PLACES)
def test_bad_places(options, line):
    refused(lambda: run_grid(GRID, **options), line)


@pytest.mark.parametrize("url", STORES, ids=repr)
def test_bad_stores(url, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    refused(lambda: run_grid(GRID, remote=url), f"store is {url!r}; {URL}")
    assert [*tmp_path.iterdir()] == []


@pytest.mark.parametrize(("url", "line"), UNWRITABLE)
def test_stores_that_cannot_be_written(url, line, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setitem(sys.modules, "s3fs", None)
    refused(lambda: run_grid(GRID, remote=url), line)
    assert [*tmp_path.iterdir()] == []


def test_a_bad_store_keeps_its_password():
    url = "http://127.0.0.1:1/x?token=secret"
    refused(lambda: run_grid(GRID, remote=url), "the store http://127.0.0.1:1/x?*** cannot be wr")
    refused(lambda: run_grid(GRID, remote="ftp://me:secret@h/x\n"), "store is 'ftp://***@h/x\\n'")


# --- The command and the variables

COMMANDS = [
    ([], "the following arguments are required: grid"),
    (["GRID", "t.csv", "more"], "unrecognized arguments: more"),
    (["GRID", "--images", "5"], "unrecognized arguments: --images 5"),
    (["GRID", "--device"], "argument --device: expected one argument"),
    (["GRID", "--device", "CPU"], "device is 'CPU'; allowed: auto, cpu, cuda"),
    (["GRID", "--device", ""], "device is ''; allowed: auto, cpu, cuda"),
    (["GRID", "--scheduler", ""], "scheduler is ''; allowed: an address"),
    (["GRID", "--scheduler", "localhost"], "scheduler is 'localhost'; allowed: an address"),
    (["GRID", "--store", ""], "store is ''; allowed: a URL"),
    (["GRID", "--store", "s3://[x/runs"], "the store s3://[x/runs cannot be written: "),
    (["GRID", "--store", "ftp://me:secret@h/x "], "store is 'ftp://***@h/x '; allowed: a URL"),
    (["GRID", ""], "table is '.'; allowed: a file, not a folder"),
    (["GRID", "x" * 300], "table is [...]; allowed: a file that can be written"),
    (["GRID", "GRID/t.csv"], "folder of the table is 'GRID'; allowed: a folder that can be wr"),
    (["GRID", "GRID/a/t.csv"], "folder of the table is 'GRID/a'; allowed: a folder that can be"),
    (["GRID", "/dev/null/t.csv"], "folder of the table is '/dev/null'; allowed: a folder that"),
    (["GRID", "/proc/t.csv"], "folder of the table is '/proc'; allowed: a folder that can be"),
    (["GRID", "x" * 300 + "/t.csv"], "table is [...]; allowed: a file that can be written"),
    (["."], "[Errno 21] Is a directory: '.'"),
    (["http://host/grid.yaml"], "[Errno 2] No such file or directory: 'http:/host/grid.yaml'"),
]
VARIABLES = [
    ("GINV_RUNS", "s3://bucket/runs", "GINV_RUNS is 's3://bucket/runs'; allowed: a folder"),
    ("GINV_RUNS", "file:///tmp/runs", "GINV_RUNS is 'file:///tmp/runs'; allowed: a folder"),
    ("GINV_RUNS", " ", "GINV_RUNS is ' '; allowed: a folder"),
    ("GINV_RUNS", "runs\n", "GINV_RUNS is 'runs\\n'; allowed: a folder"),
    ("GINV_RUNS", "\udcff", "GINV_RUNS is '\\udcff'; allowed: a folder"),
    ("GINV_RUNS", FILE, f"GINV_RUNS is {FILE!r}; allowed: a folder"),
    ("GINV_RUNS", f"{FILE}/runs", f"GINV_RUNS is '{FILE}/runs'; allowed: a folder"),
    ("GINV_RUNS", "x" * 300, "GINV_RUNS is [...]; allowed: a folder"),
    ("GINV_RUNS", "~nobody-here/runs", "GINV_RUNS is '~nobody-here/runs', and there is no such"),
    ("XDG_CACHE_HOME", "~nobody-here", "XDG_CACHE_HOME is '~nobody-here', and there is no such"),
    ("GINV_DATA", "~nobody-here/data", "GINV_DATA is '~nobody-here/data', and there is no such"),
    ("GINV_DATA", FILE, f"GINV_DATA is {FILE!r}; allowed: a folder"),
    ("GINV_DATA", "/dev/null", "GINV_DATA is '/dev/null'; allowed: a folder"),
    ("GINV_DATA", "s3://b", "GINV_DATA is 's3://b'; allowed: a folder"),
    ("GINV_DATA", "x" * 300, "GINV_DATA is [...]; allowed: a folder"),
    ("GINV_DATA", " data", "GINV_DATA is ' data'; allowed: a folder"),
    ("XDG_CACHE_HOME", "s3://b", "XDG_CACHE_HOME is 's3://b'; allowed: a folder"),
    ("XDG_CACHE_HOME", "x" * 300, "XDG_CACHE_HOME is [...]; allowed: a folder"),
    ("XDG_CACHE_HOME", FILE, f"XDG_CACHE_HOME is {FILE!r}; allowed: a folder"),
]


@pytest.mark.parametrize(("arguments", "line"), COMMANDS, ids=str)
def test_bad_commands(arguments, line, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    file = str(written(tmp_path, A))
    arguments = [each.replace("GRID", file) for each in arguments]
    monkeypatch.setattr(sys, "argv", ["grid", *arguments])
    with pytest.raises(SystemExit) as ended:
        grids.main()
    out, err = capsys.readouterr()
    code = ended.value.code
    said = err.splitlines()[-1].partition("error: ")[2] if code == 2 else code
    assert said.startswith(line.replace("GRID", file)) and "\n" not in said and out == ""
    assert [path.name for path in tmp_path.iterdir()] == ["grid.yaml"]


@pytest.mark.parametrize(("variable", "value", "line"), VARIABLES)
def test_bad_variables(variable, value, line, monkeypatch):
    """Where they are read: for images, or for the store."""
    if variable == "XDG_CACHE_HOME":
        monkeypatch.delenv("GINV_RUNS")
    monkeypatch.setenv(variable, value)
    monkeypatch.setattr("ginv.data._normalised", ginv.data._normalised.__wrapped__)
    asked = load_dataset if variable == "GINV_DATA" else partial(train, [RUN], progress=False)
    with pytest.raises((ValueError, OSError), match=f"^{re.escape(line)}[^\n]*$"):
        asked()
