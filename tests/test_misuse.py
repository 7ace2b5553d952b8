"""Bad inputs, each with its one line: what it was, its value and what is allowed.

Nothing has trained, and nothing been measured, by then.
"""

import os
import re
import shutil
import subprocess
import sys
from functools import partial
from pathlib import Path

import pytest
import torch
from torch import nn

import ginv
from ginv import MLP, Rotations, Run, TrainedRun, Translations
from ginv.machine import choose_device
from ginv.pages import Settings, refuse_unknown
from ginv.pages.settings import PROFILES, announce
from ginv.runs.measured import measured

ROOT = Path(__file__).parents[1]
LOGITS, LABELS = torch.ones(4, 3, 9), torch.zeros(3, dtype=torch.int64)
IMAGES, R4 = torch.ones(3, 1, 12, 12), Rotations(4)
MODEL = MLP(image_shape=(12, 12), width=4, depth=1)
TRAINED = TrainedRun(Run(), MODEL, {})

CALLS = {
    # groups
    "group_named 1": (lambda: ginv.group_named("Q4"), "group is 'Q4'; allowed: R1, R2, R4 (rotations), T and an order"),
    "group_named 2": (lambda: ginv.group_named(4), "group is 4; allowed: R1, R2, R4"),
    "group_named 3": (lambda: ginv.group_named("T0"), "order is 0; allowed: integers from 1"),
    "Rotations": (lambda: Rotations(3), "order of Rotations is 3; allowed: 1, 2, 4"),
    "Rotations 2": (lambda: Rotations(True), "order of Rotations is True; allowed: 1, 2, 4"),
    "Rotations 3": (lambda: Rotations(4.0), "order of Rotations is 4.0; allowed: 1, 2, 4"),
    "Translations 1": (lambda: Translations("3"), "order is '3'; allowed: integers from 1"),
    "Translations 2": (lambda: Translations(5).orbit(IMAGES), "order 5 of Translations does not divide the image width 12"),
    "orbit 1": (lambda: R4.orbit(torch.ones(12)), "x is a tensor [12]; allowed: a tensor [..., H, W], not empty"),
    "orbit 2": (lambda: R4.orbit([[1, 2]]), "x is [[1, 2]]; allowed: a tensor [..., H, W]"),
    "orbit 3": (lambda: R4.orbit(torch.ones(4, 6)), "R4 needs square images, got 4 x 6"),
    "align": (lambda: R4.align(IMAGES), "orbit is a tensor [3, 1, 12, 12]; allowed: an entry for each of the 4 elements"),
    # measures
    "accuracy 1": (lambda: ginv.accuracy(LOGITS, LABELS[:2]), "labels is a tensor [2]; allowed: a tensor [3] of integers"),
    "accuracy 2": (lambda: ginv.accuracy(LOGITS, LABELS + 9), "labels is a tensor [3]; allowed: a tensor [3] of integers from 0 to 8"),
    "accuracy 3": (lambda: ginv.accuracy(LOGITS, LABELS.float()), "labels is a tensor [3]; allowed: a tensor [3] of integers"),
    "accuracy 4": (lambda: ginv.accuracy(LOGITS, [0, 0, 0.5]), "labels is [0, 0, 0.5]; allowed: integers, one for each image"),
    **{
        name: (partial(getattr(ginv, name), LOGITS[0]), "logits is a tensor [3, 9]; allowed: a tensor [G, n, C]")
        for name in ("logit_invariance", "distribution_invariance", "relative_logit_invariance", "jensen_shannon", "flip_rate")
    },
    "logit_invariance empty": (lambda: ginv.logit_invariance(LOGITS[:0]), "logits is a tensor [0, 3, 9]; allowed: a tensor [G, n, C], not empty"),
    "logit_invariance distinct": (lambda: ginv.logit_invariance(LOGITS[:1], distinct=True), "distinct pairs need a group of 2 or more elements, got 1"),
    **{
        f"saliency_invariance {maps.ndim}": (partial(ginv.saliency_invariance, maps), f"maps is a tensor {[*maps.shape]}; allowed: a tensor [G, n, pixels, ...]")
        for maps in (LOGITS[0, 0], LOGITS[0])
    },
    "measure an array": (lambda: ginv.measure(MODEL, IMAGES.numpy(), LABELS, R4), "images is array([[[[1., 1.,"),
    "orbit_logits": (lambda: ginv.orbit_logits(MODEL, IMAGES[:0], R4), "images is a tensor [0, 1, 12, 12]; allowed: a tensor [n, C, H, W], not empty"),
    "orbit_logits batch_size": (lambda: ginv.orbit_logits(MODEL, IMAGES, R4, batch_size=0), "batch_size is 0; allowed: integers from 1, or None"),
    "orbit_logits size": (lambda: ginv.orbit_logits(MODEL, IMAGES[..., 1:, 1:], R4), "images is a tensor [3, 1, 11, 11]; allowed: those of 144 values each"),
    "orbit_logits group": (lambda: ginv.orbit_logits(MODEL, IMAGES, "R4"), "group is 'R4'; allowed: a ginv.Group"),
    "orbit_maps group": (lambda: ginv.orbit_maps(MODEL, IMAGES, LABELS, "R4"), "group is 'R4'; allowed: a ginv.Group"),
    "orbit_maps attribute": (lambda: ginv.orbit_maps(MODEL, IMAGES, LABELS, R4, attribute=None), "attribute is None; allowed: a function"),
    "orbit_maps batch_size": (lambda: ginv.orbit_maps(MODEL, IMAGES, LABELS, R4, batch_size=True), "batch_size is True; allowed: integers from 1, or None"),
    "orbit_maps labels": (lambda: ginv.orbit_maps(MODEL, IMAGES, LABELS[:2], R4), "labels is a tensor [2]; allowed: a tensor [3] of integers from 0"),
    "orbit_maps threshold": (lambda: ginv.orbit_maps(MODEL, IMAGES, LABELS, R4, threshold=2), "threshold is 2; allowed: 0 to 1"),
    "measure model": (lambda: ginv.measure("x", IMAGES, LABELS, R4), "model is 'x'; allowed: a torch.nn.Module"),
    "measure images type": (lambda: ginv.measure(MODEL, IMAGES.int(), LABELS, R4), "type of images is 'int32'; allowed: floating point; images.float() keeps the values"),
    "measure function": (lambda: ginv.measure(len, IMAGES, LABELS, R4), "model is <built-in function len>; allowed: a torch.nn.Module, or, with saliency=False, a function"),
    "measure no labels": (lambda: ginv.measure(MODEL, IMAGES, R4), "labels is None; allowed: one for each image, or target='prediction'"),
    "measure target": (lambda: ginv.measure(MODEL, IMAGES, LABELS, R4, target="x"), "target is 'x'; allowed: label, prediction"),
    "measure threshold": (lambda: ginv.measure(MODEL, IMAGES, LABELS, R4, threshold=2), "threshold is 2; allowed: 0 to 1"),
    "measure baseline": (lambda: ginv.measure(MODEL, IMAGES, LABELS, R4, baseline="black"), "baseline is 'black'; allowed: a finite number, or a tensor"),
    "measure batch_size": (lambda: ginv.measure(MODEL, IMAGES, LABELS, R4, batch_size=0), "batch_size is 0; allowed: auto, or integers from 1"),
    "measure layers": (lambda: ginv.measure(MODEL, IMAGES, LABELS, R4, layers="conv9"), "layers is 'conv9'; allowed: True, or names of"),
    "check_group 1": (lambda: ginv.check_group("R4", (1, 8, 8)), "group is 'R4'; allowed: a ginv.Group"),
    "check_group 2": (lambda: ginv.check_group(R4, (8, 8)), "shape is (8, 8); allowed: three integers from 1"),
    "Colours": (lambda: ginv.Colours(0), "channels of Colours is 0; allowed: 1 to 5"),
    "Dihedral": (lambda: ginv.Dihedral(3), "n of Dihedral is 3; allowed: 1, 2, 4"),
    "Dihedral 2": (lambda: ginv.Dihedral(4.0), "n of Dihedral is 4.0; allowed: 1, 2, 4"),
    "Product": (lambda: ginv.Product(R4, "T3"), "group is 'T3'; allowed: a ginv.Group"),
    "Averaged 1": (lambda: ginv.Averaged("x", R4), "model is 'x'; allowed: a torch.nn.Module"),
    "Averaged 2": (lambda: ginv.Averaged(MODEL, "R4"), "group is 'R4'; allowed: a ginv.Group"),
    "assert_invariant 1": (lambda: ginv.assert_invariant(MODEL, IMAGES, "R4"), "group is 'R4'; allowed: a ginv.Group"),
    "assert_invariant 2": (lambda: ginv.assert_invariant(MODEL, IMAGES, R4, atol=-1), "atol is -1; allowed: numbers from 0"),
    "measure images 1": (lambda: ginv.measure(MODEL, IMAGES[0], LABELS, R4), "images is a tensor [1, 12, 12]; allowed: a tensor [n, C, H, W]"),
    "measure images 2": (lambda: ginv.measure(MODEL, IMAGES[:0], LABELS, R4), "images is a tensor [0, 1, 12, 12]; allowed: a tensor [n, C, H, W], not empty"),
    "measure labels 1": (lambda: ginv.measure(MODEL, IMAGES, LABELS[:2], R4), "labels is a tensor [2]; allowed: a tensor [3] of integers from 0"),
    "measure labels 2": (lambda: ginv.measure(MODEL, IMAGES, LABELS + 9, R4), "labels is a tensor [3]; allowed: a tensor [3] of integers from 0 to 8"),
    "measure group": (lambda: ginv.measure(MODEL, IMAGES, LABELS, "R4"), "group is 'R4'; allowed: a ginv.Group, such as ginv.Rotations(4)"),
    "measure steps": (lambda: ginv.measure(MODEL, IMAGES, LABELS, R4, steps=0), "steps is 0; allowed: integers from 1"),
    "measure outputs": (lambda: ginv.measure(nn.Identity(), IMAGES, LABELS, R4), "output of the model is a tensor [1, 1, 12, 12]; allowed: logits [1, classes], floating point"),
    "measure NaN": (lambda: ginv.measure(MODEL, IMAGES * torch.nan, LABELS, R4), "the images are not finite"),
    # saliency and sensitivity
    "gradients steps": (lambda: ginv.integrated_gradients(MODEL, IMAGES, LABELS, steps=1.5), "steps is 1.5; allowed: integers from 1"),
    "gradients images": (lambda: ginv.integrated_gradients(MODEL, IMAGES[0, 0], LABELS), "images is a tensor [12, 12]; allowed: a tensor [n, C, H, W]"),
    "gradients targets 1": (lambda: ginv.integrated_gradients(MODEL, IMAGES, 0), "targets is 0; allowed: a tensor [3] of integers from 0"),
    "gradients targets 2": (lambda: ginv.integrated_gradients(MODEL, IMAGES, LABELS - 1), "targets is a tensor [3]; allowed: a tensor [3] of integers from 0"),
    "map attribution": (lambda: ginv.saliency_map(torch.ones(9)), "attribution is a tensor [9]; allowed: a tensor [..., C, H, W]"),
    "map threshold 1": (lambda: ginv.saliency_map(IMAGES, threshold=1.5), "threshold is 1.5; allowed: 0 to 1"),
    "map threshold 2": (lambda: ginv.saliency_map(IMAGES, threshold="0.9"), "threshold is '0.9'; allowed: 0 to 1"),
    "map sigma 1": (lambda: ginv.saliency_map(IMAGES, sigma=-1), "sigma is -1; allowed: 0 or more"),
    "map sigma 2": (lambda: ginv.saliency_map(IMAGES, sigma=float("nan")), "sigma is nan; allowed: 0 or more"),
    "jacobian": (lambda: ginv.jacobian(MODEL, IMAGES[0]), "images is a tensor [1, 12, 12]; allowed: a tensor [n, C, H, W]"),
    "singular value": (lambda: ginv.largest_singular_value(MODEL, None), "images is None; allowed: a tensor [n, C, H, W]"),
    # networks
    "MLP group": (lambda: MLP("R4"), "group is 'R4'; allowed: a ginv.Group"),
    "MLP width": (lambda: MLP(width=0), "width is 0; allowed: integers from 1"),
    "MLP depth": (lambda: MLP(depth=2.0), "depth is 2.0; allowed: integers from 1"),
    "MLP classes": (lambda: MLP(classes=-1), "classes is -1; allowed: integers from 1"),
    "MLP initialisation": (lambda: MLP(initialisation="xavier"), "initialisation is 'xavier'; allowed: pytorch, glorot, he"),
    "decay_asymmetry model": (lambda: ginv.decay_asymmetry("x", R4, 0.1), "model is 'x'; allowed: a torch.nn.Module"),
    "decay_asymmetry group": (lambda: ginv.decay_asymmetry(MODEL, "R4", 0.1), "group is 'R4'; allowed: a ginv.Group, such as"),
    "decay_asymmetry share": (lambda: ginv.decay_asymmetry(MODEL, R4, 1.5), "share is 1.5; allowed: numbers from 0 to 1"),
    "decay_asymmetry inputs": (lambda: ginv.decay_asymmetry(MODEL, R4, 0.1), "input_shape is (1, 36, 36); allowed: C, H, W of 144 pixels"),
    "symmetrise model": (lambda: ginv.symmetrise("x", R4), "model is 'x'; allowed: a torch.nn.Module"),
    "symmetrise group": (lambda: ginv.symmetrise(MODEL, "R4"), "group is 'R4'; allowed: a ginv.Group, such as"),
    "symmetrise inputs": (lambda: ginv.symmetrise(MODEL, R4), "input_shape is (1, 36, 36); allowed: C, H, W of 144 pixels"),
    "MLP pooling": (lambda: MLP(R4, pooling="sum"), "pooling is 'sum'; allowed: max, mean, mean after ReLU"),
    "WeightTiedLinear": (lambda: ginv.WeightTiedLinear(None, 12, 12, 3), "group is None; allowed: a ginv.Group"),
    "Ensemble": (lambda: ginv.Ensemble([])(IMAGES), "stack expects a non-empty TensorList"),
    # data and training
    "load_dataset name": (lambda: ginv.load_dataset("KMNIST"), "dataset is 'KMNIST'; allowed: MNIST, FashionMNIST"),
    "load_dataset seed 1": (lambda: ginv.load_dataset(split_seed="a"), "split_seed is 'a'; allowed: integers from 0 to 2**63 - 1"),
    "load_dataset seed 2": (lambda: ginv.load_dataset(split_seed=-1), "split_seed is -1; allowed: integers from 0"),
    "partners": (lambda: ginv.partners(LABELS + 7, LABELS), "label is 7; allowed: those of the other data set"),
    "blend": (lambda: ginv.blend(IMAGES, IMAGES[..., :5], 0.5), "others is a tensor [3, 1, 12, 5]; allowed: a tensor of the shape"),
    **{
        name: (partial(getattr(ginv, name), LOGITS, LOGITS[..., :5]), "b is a tensor [4, 3, 5]; allowed: logits that go with those of a, [4, 3, 9]")
        for name in ("logit_error", "kl_divergence", "normalised_logit_error")
    },
    "train runs 1": (lambda: ginv.train(Run()), "runs is Run(group='R4', method='DA'"),
    "train runs 2": (lambda: ginv.train(["DA"]), "run is 'DA'; allowed: a ginv.Run"),
    "train runs 3": (lambda: ginv.train([[Run()]]), "run is [Run("),
    "train device": (lambda: ginv.train([Run()], device="gpu"), "device is 'gpu'; allowed: auto, cpu"),
    "device": (lambda: choose_device(["cpu"]), "device is ['cpu']; allowed: auto, cpu"),
    "chosen_nu": (lambda: ginv.chosen_nu("R9"), "no sweep of nu for R9 logit; swept: R4 kl, R4 logit"),
    "chosen_nu whole_orbit": (lambda: ginv.chosen_nu("R4", whole_orbit="a"), "whole_orbit is 'a'; allowed: False, True"),
    "refuse_unknown": (lambda: refuse_unknown(["seeds = None", "# Parameters\nsedes = 1\n"]), "no parameter sedes; allowed: seeds"),
    # what a chapter asks for
    "measured images 1": (lambda: Settings("quick").measure(TRAINED, 0), "images is 0; allowed: 1 to 50000, or None"),
    "measured images 2": (lambda: measured(TRAINED, "validation", 2_001), "images is 2001; allowed: 1 to 2000, or None"),
    "measured split": (lambda: measured(TRAINED, "tests"), "split is 'tests'; allowed: train, validation, test"),
    "announce": (lambda: announce("fast"), "profile is 'fast'; allowed: paper, sample, quick"),
}  # fmt: skip

RUNS = [
    ({"group": ["R4"]}, "group is ['R4']; allowed: R1, R2, R4"),
    ({"method": ["DA"]}, "method is ['DA']; allowed: WT, DA, IR"),
    ({"seed": -1}, "seed is -1; allowed: integers from 0"),
    ({"seed": 2**64}, "seed is 18446744073709551616; allowed: integers from 0"),
    ({"seed": True}, "seed is True; allowed: integers from 0"),
    ({"nu": "1"}, "nu is '1'; allowed: above 0 for IR, 0 for WT and DA"),
    ({"method": "IR", "nu": float("nan")}, "nu is nan; allowed: above 0 for IR"),
    ({"learning_rate": None}, "learning_rate is None; allowed: above 0"),
    ({"weight_decay": -1}, "weight_decay is -1; allowed: 0 to 1 / learning_rate"),
    ({"symmetry_decay": 1e308}, "symmetry_decay is 1e+308; allowed: 0 to 1e30"),
    ({"batch_size": 0}, "batch_size is 0; allowed: integers from 1"),
    ({"width": 1.0}, "width is 1.0; allowed: integers from 1"),
    ({"whole_orbit": 1}, "whole_orbit is 1; allowed: False, True"),
    ({"all_views": True}, "all_views is True; allowed: False for DA"),
    ({"method": "WT", "all_views": True}, "all_views is True; allowed: False for WT"),
    ({"train_images": 20_000}, "train_images is 20000; allowed: integers from 1 to 10000"),
    ({"group": "R04"}, "group is 'R04'; allowed: R1, R2, R4"),
    ({"method": "IR", "nu": 10**400}, "nu is [...]; allowed: above 0 for IR"),
    ({"first_width": 0}, "first_width is 0; allowed: integers from 1"),
    ({"schedule": "linear"}, "schedule is 'linear'; allowed: constant, cosine"),
    ({"precision": "float16"}, "precision is 'float16'; allowed: float32, bfloat16"),
    ({"dataset": {}}, "dataset is {}; allowed: MNIST, FashionMNIST"),
]  # fmt: skip
PARAMETERS = [
    ({"profile": ["quick"]}, "profile is ['quick']; allowed: paper, sample, quick"),
    ({"profile": None}, "profile is None; allowed: paper, sample, quick"),
    ({"group": ["R4"]}, "group is ['R4']; allowed: both, R4, T3"),
    ({"seeds": 3}, "seeds is 3; allowed: a list of integers from 0 up, such as [0, 1]"),
    ({"seeds": [0.5]}, "seeds is [0.5]; allowed: a list"),
    ({"seeds": [2**63]}, "seeds is [9223372036854775808]; allowed: a list"),
    ({"device": 7}, "device is 7; allowed: auto, cpu"),
    ({"device": "mps"}, "device is 'mps'; allowed: auto, cpu"),
    ({"results": 3}, "results is 3; allowed: a folder that can be written"),
    ({"results": None}, "results is None; allowed: a folder"),
    ({"results": str(Path(__file__) / "results")}, f"results is '{Path(__file__) / 'results'}'; allowed: a folder"),
]  # fmt: skip


@pytest.fixture(autouse=True)
def nothing_is_computed(monkeypatch):
    """Neither a training nor a measurement of a run begins."""
    for name in ("train.train_stack", "measured.measure"):
        monkeypatch.setattr(f"ginv.runs.{name}", lambda *_, **__: pytest.fail("it began"))


def refused(call, line):
    """With an error of one line that begins so, and with an empty store."""
    with pytest.raises((ValueError, RuntimeError), match=f"^{re.escape(line)}[^\n]*$"):
        call()
    assert not Path(os.environ["GINV_RUNS"]).exists()


@pytest.mark.parametrize("name", CALLS)
def test_bad_calls(name):
    refused(*CALLS[name])


@pytest.mark.parametrize(("changes", "line"), RUNS)
def test_bad_runs(changes, line):
    refused(lambda: Run(**changes), line)


@pytest.mark.parametrize(("changes", "line"), PARAMETERS)
def test_bad_parameters(changes, line):
    refused(lambda: Settings(**{"profile": "quick", **changes}), line)


def test_nothing_public_is_left_out():
    """Every public function and class that takes something is misused above; the rest only hold
    what they are given.
    """
    tried = " ".join([*CALLS, "Run", "Settings"])
    holders = {"Dataset", "Group", "Measurement", "Split", "TrainedRun"}
    aliases = {
        "integrated_gradients": "gradients",
        "saliency_map": "map",
        "largest_singular_value": "singular value",
    }
    names = [name for name in ginv.__all__ if name not in holders]
    assert [name for name in names if aliases.get(name, name) not in tried] == []
    assert len(CALLS) + len(RUNS) + len(PARAMETERS) + len(COMMANDS) + len(TARGETS) > 90


COMMANDS = [
    (["tools/tune.py", "--device", "gpu"], "device is 'gpu'; allowed: auto, cpu"),
    (["tools/tune.py", "sweep.csv"], "tune.py: error: unrecognized arguments: sweep.csv"),
    (["-m", "ginv.runs.grid", "book/price.yaml", "ginv"], "table is 'ginv'; allowed: a file, not a folder"),
    (["-m", "ginv.runs.grid", "book/price.yaml", "book/price.yaml"], "table is 'book/price.yaml'; allowed: another file than that which is read"),
    (["-m", "ginv.runs.grid", "book/price.yaml", "--device", "gpu"], "device is 'gpu'; allowed: auto, cpu, cuda"),
    (["-m", "ginv.runs.grid", "book/results/table1.csv"], "book/results/table1.csv is 'group,method,seed"),
    (
        ["-m", "ginv.runs.grid", "nowhere.yaml", "--scheduler", "tcp://127.0.0.1:8786"],
        "[Errno 2] No such file or directory: 'nowhere.yaml'",
    ),
    (["-m", "ginv.runs.grid"], "python -m ginv.runs.grid: error: the following arguments are required: grid"),
    (["-m", "ginv.check", "store"], "check.py: error: unrecognized arguments: store"),
    (["tools/execute.py", ".", "fast"], "profile is 'fast'; allowed: paper, sample, quick"),
    (["tools/execute.py", "tests", "quick"], "folder is 'tests'; allowed: one with _toc.yml and book/"),
    (["tools/execute.py", ".", "quick", "table1", "table2"], "chapter is 'table2'; allowed: metrics, table1, "),
    (["tools/execute.py", "."], "execute.py: error: the following arguments are required: profile"),
    (["tools/publish.py", "http://example.org"], "URL is 'http://example.org'; allowed: https://github.com/OWNER/NAME"),
    (["tools/publish.py", "https://github.com/a/b", "c"], "URL is 'https://github.com/a/b c'; allowed: https://github"),
]  # fmt: skip


@pytest.mark.parametrize(("arguments", "line"), COMMANDS, ids=str)
def test_bad_commands(arguments, line, tmp_path):
    """Without images: one that is not refused ends, too, and trains nothing."""
    command, environment = [sys.executable, *arguments], {**os.environ, "GINV_DATA": str(tmp_path)}
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, env=environment)
    assert done.returncode != 0 and done.stdout == ""
    lines = done.stderr.splitlines()
    *usage, last = [text for text in lines if "RuntimeWarning" not in text]  # of python -m
    assert last.startswith(line) and (not usage or usage[0].startswith("usage: "))
    assert not Path(os.environ["GINV_RUNS"]).exists()


TARGETS = [
    (["book", "PROFILE=nonsense"], "PROFILE is nonsense; allowed: paper, sample, quick"),
    (["book", "PROFILE="], "PROFILE is ; allowed: paper, sample, quick"),
    (["book", "PROFILE=paper quick"], "PROFILE is paper quick; allowed: paper, sample, quick"),
    (["book", "PROFIL=quick"], "no variable PROFIL; allowed: CHAPTERS, FRESH, FULL, PROFILE, PYTHON, URL"),
    (["html", "profile=quick"], "no variable profile; allowed: CHAPTERS, FRESH, FULL, PROFILE, PYTHON, URL"),
    (["boook"], "No rule to make target 'boook'"),
]  # fmt: skip


@pytest.mark.parametrize(("arguments", "line"), TARGETS, ids=str)
def test_bad_targets(arguments, line, tmp_path):
    """Refused before anything is installed."""
    shutil.copy(ROOT / "Makefile", tmp_path)
    ours = ("MAKEFLAGS", "MAKELEVEL", "MFLAGS")
    alone = {name: value for name, value in os.environ.items() if name not in ours}
    command = ["make", *arguments]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, env=alone)
    assert done.returncode == 2 and done.stdout == ""
    assert line in done.stderr and len(done.stderr.splitlines()) == 1
    assert [path.name for path in tmp_path.iterdir()] == ["Makefile"]
    if "PROFILE is" in line:
        assert line.endswith(", ".join(PROFILES))


@pytest.mark.parametrize(
    ("target", "value", "line"),
    [
        ("publish-url", "URL=https://github.com/a/b c", "allowed: https://github.com/OWNER/NAME"),
        ("publish-url", "URL=https://github.com/a/b;touch x", "allowed: https://github.com/OWNER/"),
        ("publish-url", "URL=`touch x`", "allowed: https://github.com/OWNER/NAME"),
        ("notebooks", "CHAPTERS=table1;touch x", "chapter is 'table1;touch'; allowed: metrics, "),
    ],
)
def test_a_bad_value_reaches_no_shell(target, value, line, installed):
    ignored = shutil.ignore_patterns("*.ipynb", "results")
    shutil.copytree(ROOT / "book", installed / "book", ignore=ignored)
    shutil.copy(ROOT / "_toc.yml", installed)
    before = {path.name for path in installed.iterdir()}
    done = subprocess.run(["make", target, value], cwd=installed, capture_output=True, text=True)
    assert done.returncode == 2
    assert " is " in done.stderr.splitlines()[0] and line in done.stderr
    assert {path.name for path in installed.iterdir()} == before
