"""A run says what it is, and each field refuses what it cannot be."""

import json
import re
from dataclasses import asdict, fields

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from ginv import Run, Translations, group_named
from ginv.groups import KINDS
from ginv.recipe import REGULARISERS, gradient_variance
from ginv.runs import store


@pytest.mark.parametrize("name", REGULARISERS)
def test_the_gradient_of_a_regulariser_is_its_finite_difference(name, generator):
    a, b = torch.randn(2, 5, 9, dtype=torch.float64, generator=generator)
    a.requires_grad_()
    assert torch.autograd.gradcheck(lambda a: REGULARISERS[name](a, b), a)
    (gradient,) = torch.autograd.grad(REGULARISERS[name](a, b).sum(), a)
    assert gradient.norm() > 1e-2


def test_specification_leaves_defaults_out_and_tells_runs_apart():
    assert Run().specification == {}
    assert Run(method="IR", nu=10) == Run(method="IR", nu=10.0)
    assert repr(Run(method="IR", nu=10).specification["nu"]) == "10.0"
    # Stored runs are named without the defaults: one that changes here must count up
    # store.VERSIONS["record"]
    assert asdict(Run()) == {
        "group": "R4", "method": "DA", "seed": 0,
        "nu": 0.0, "regulariser": "logit", "whole_orbit": False, "all_views": False,
        "gradient_nu": 0.0,
        "dataset": "MNIST", "train_images": 10_000, "split_seed": 0,
        "width": 128, "depth": 5, "first_width": None, "pooling": "max",
        "initialisation": "pytorch", "symmetric_start": False,
        "epochs": 300, "learning_rate": 8e-4, "weight_decay": 0.0,
        "symmetry_decay": 0.0, "symmetry_schedule": "rising", "batch_size": 512,
        "schedule": "constant", "selection": "best", "precision": "float32",
    }  # fmt: skip
    runs = Run(), Run(seed=1), Run("T3"), Run(method="WT")
    assert len({store.record_name(run.specification) for run in runs}) == 4


IR, WT = dict(method="IR", nu=1.0), dict(method="WT")
# What goes with it, what fits, what does not
WHOLE = {}, (1, 7), (0, -1, 1.0, True, "1", None, [1], 2**63, 10**400)
SEED = {}, (0, 3, 2**63 - 1), (-1, 0.0, False, "0", None, [0], 2**63, 10**400)
NOT_ONE_OF = ("", "no such", None, True, 0, [], {})
NO_NUMBER = (True, False, "1", None, [1.0], 1j, -1, float("nan"), float("inf"), 10**400)
NO_BOOL = (0, 1, "True", None, [])
RULES = {
    "group": ({}, ("R1", "R2", "R4", "T1", "T3", "T12", "T36", "V3", "D1", "D4", "T3xV3", "R2xD1"),
              ("R04", "R\N{FULLWIDTH DIGIT FOUR}", "T03", "R", "r4", " R4", "R4\n", "R3", "R8",
               "T0", "T5", "T-3", "D3", "S3", "T3x", "R4xT5", "T" + "9" * 99, *NOT_ONE_OF)),
    "method": ({"nu": 0.0}, ("DA", "WT"), ("da", ["DA"], *NOT_ONE_OF)),
    "seed": SEED,
    "nu": (dict(method="IR"), (1, 0.5, 1e300), (0, 0.0, *NO_NUMBER)),
    "regulariser": (IR, ("logit", "kl", "normalised"), NOT_ONE_OF),
    "whole_orbit": ({}, (False, True), NO_BOOL),
    "all_views": (IR, (False, True), NO_BOOL),
    "gradient_nu": (dict(IR, whole_orbit=True, all_views=True), (0, 0.0, 1, 1e9), NO_NUMBER),
    "dataset": ({}, ("MNIST", "FashionMNIST"), ("mnist", *NOT_ONE_OF)),
    "train_images": ({}, (1, 10_000), (10_001, *WHOLE[2])),
    "split_seed": SEED,
    "width": WHOLE,
    "depth": WHOLE,
    "first_width": ({}, (None, 1, 7), tuple(v for v in WHOLE[2] if v is not None)),
    "pooling": (WT, ("max", "mean", "mean after ReLU"), NOT_ONE_OF),
    "initialisation": ({}, ("pytorch", "glorot", "he"), NOT_ONE_OF),
    "symmetric_start": ({}, (False, True), NO_BOOL),
    "epochs": WHOLE,
    "learning_rate": ({}, (1, 1e-3), (0, 0.0, *NO_NUMBER)),
    "weight_decay": ({}, (0, 0.0, 1, 1249.0), (1251.0, *NO_NUMBER)),
    "symmetry_decay": ({}, (0, 0.0, 1, 1e9), NO_NUMBER),
    "symmetry_schedule": ({}, ("rising", "constant"), NOT_ONE_OF),
    "batch_size": WHOLE,
    "schedule": ({}, ("constant", "cosine"), NOT_ONE_OF),
    "selection": ({}, ("best", "last"), NOT_ONE_OF),
    "precision": ({}, ("float32", "bfloat16"), NOT_ONE_OF),
}  # fmt: skip
IN_A_LINE = r"^[^\n]+(; allowed: | does not divide | needs images of )[^\n]+$"


@pytest.mark.parametrize("name", [field.name for field in fields(Run)])
class TestFields:
    def test_takes_what_fits(self, name):
        others, fitting, _ = RULES[name]
        for value in fitting:
            assert getattr(Run(**{**others, name: value}), name) == value

    def test_refuses_what_does_not(self, name):
        others, _, wrong = RULES[name]
        for value in wrong:
            with pytest.raises(ValueError, match=IN_A_LINE) as error:
                Run(**{**others, name: value})
            assert name in str(error.value) or name == "group", value


@pytest.mark.parametrize(
    ("name", "methods"),
    [
        ("whole_orbit", ["WT"]),
        ("all_views", ["WT", "DA"]),
        ("symmetric_start", ["WT"]),
        ("symmetry_decay", ["WT"]),
        ("symmetry_schedule", ["WT"]),
        ("pooling", ["DA"]),
    ],
)
def test_a_field_is_for_its_methods_alone(name, methods):
    """Where a method makes no use of a field, only its default fits."""
    default, values = getattr(Run(), name), [v for v in RULES[name][1] if v != getattr(Run(), name)]
    for method in methods:
        assert Run(**{"method": method, name: default}) == Run(method=method)
        for value in values:
            line = f"{name} is {value!r}; allowed: {default!r} for {method}"
            with pytest.raises(ValueError, match=f"^{re.escape(line)}$"):
                Run(**{"method": method, name: value})


WILD = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(),
    st.floats(),
    st.lists(st.sampled_from("RT340 \n"), max_size=4).map("".join),  # st.text leaves a file
    st.binary(max_size=3),
    st.lists(st.integers(0, 2), max_size=2),
    st.sampled_from([10**400, 1e308, "R2", "IR", "he", "kl"]),
)


@given(st.dictionaries(st.sampled_from([field.name for field in fields(Run)]), WILD, max_size=3))
def test_a_run_is_refused_in_a_line_or_comes_back_from_the_store(changes):
    try:
        run = Run(**changes)
    except ValueError as error:
        assert re.search(IN_A_LINE, str(error)), error
    else:
        assert Run(**json.loads(json.dumps(run.specification))) == run


def shifting(step):
    """A user's group of the name O3, which shifts images by a step of its own."""

    class Shifts(Translations):
        name = "O3"

        def act(self, g, x):
            return x.roll(x.shape[-2] // 3 * step * g, -2)

    return Shifts


def test_runs_of_own_groups_of_one_name_are_two(monkeypatch):
    """Else what was trained with one would be loaded for the other."""
    found = []
    for step in (1, 2, 1):
        monkeypatch.setitem(KINDS, "O", shifting(step))
        found.append(Run(group="O3").specification | Run(group="T2xO3").specification)
    assert found[0] == found[2] != found[1]
    assert all("action" not in Run(group=each).specification for each in ("T3", "D4", "T3xV3"))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"method": "GAN"}, "method is 'GAN'; allowed: WT, DA, IR"),
        ({"regulariser": "l1"}, "regulariser is 'l1'; allowed: logit, kl, normalised"),
        ({"nu": 1.0}, "nu is 1.0; allowed: above 0 for IR, 0 for WT and DA"),
        ({"method": "IR"}, "nu is 0.0; allowed: above 0 for IR"),
        ({"epochs": 0}, "epochs is 0; allowed: integers from 1"),
        ({"epochs": 1.5}, "epochs is 1.5; allowed: integers"),
        ({"seed": "a"}, "seed is 'a'; allowed: integers"),
        ({"method": "IR", "nu": float("inf")}, "nu is inf"),
        ({"method": "IR", "nu": 10**400}, "nu is .*; allowed: above 0 for IR"),
        ({"learning_rate": -1.0}, "learning_rate is -1.0; allowed: above 0"),
        ({"weight_decay": 2000.0}, "weight_decay is 2000.0; allowed: 0 to 1 / learning_rate"),
        ({"pooling": "sum"}, "pooling is 'sum'; allowed: max, mean, mean after ReLU"),
        ({"pooling": "mean"}, "pooling is 'mean'; allowed: 'max' for DA"),
        (
            {**IR, "gradient_nu": 1},
            "gradient_nu is 1; allowed: 0, or more with whole_orbit and all",
        ),
        ({"all_views": True}, "all_views is True; allowed: False for DA"),
        ({**WT, "symmetric_start": True}, "symmetric_start is True; allowed: False for WT"),
        ({"initialisation": "xavier"}, "initialisation is 'xavier'; allowed: pytorch, glorot, he"),
        ({"selection": "first"}, "selection is 'first'; allowed: best, last"),
        ({"dataset": "x"}, "dataset is 'x'; allowed: MNIST, FashionMNIST"),
        ({"train_images": 20_000}, "train_images is 20000; allowed: integers from 1 to 10000"),
        ({"group": "Q4"}, "group is 'Q4'; allowed"),
        ({"group": "T5"}, "order 5 of Translations does not divide the image width 36"),
    ],
)
def test_a_bad_specification_is_refused(changes, message):
    with pytest.raises(ValueError, match=f"^{message}"):
        Run(**changes)


def test_the_learning_rate_is_constant_or_falls_as_a_cosine_does():
    constant, cosine = Run(learning_rate=0.5), Run(learning_rate=0.5, schedule="cosine")
    shares = (0, 1 / 3, 1 / 2, 1)
    assert [constant.learning_rate_at(share) for share in shares] == [0.5] * 4
    falling = [cosine.learning_rate_at(share) for share in shares]
    assert falling == pytest.approx([0.5, 0.375, 0.25, 0], abs=1e-12)


@pytest.mark.parametrize(("group", "order"), [("R4", 4), ("T3", 3), ("T12", 12)])
def test_a_step_takes_one_view_two_or_all(group, order):
    assert [Run(group, method).views for method in ("WT", "DA")] == [1, 1]
    assert Run(group, "IR", nu=1.0).views == 2
    for run in (Run(group, "IR", nu=1.0, whole_orbit=True), Run(group, whole_orbit=True)):
        assert run.views == order


def test_the_decay_of_the_asymmetry_rises_with_the_training_or_does_not():
    rising = Run(symmetry_decay=2.0, learning_rate=0.5)
    assert [rising.symmetry_rate_at(share) for share in (0, 0.5, 1)] == [0, 0.25, 0.5]
    constant = Run(symmetry_decay=2.0, learning_rate=0.5, symmetry_schedule="constant")
    assert [constant.symmetry_rate_at(share) for share in (0, 1)] == [0.5, 0.5]


@pytest.mark.parametrize("name", ["R4", "T3", "D4"])
def test_gradients_that_follow_the_image_do_not_vary_and_their_size_does_not_count(name, generator):
    group = group_named(name)
    one = torch.randn(5, 1, 12, 12, generator=generator)
    assert gradient_variance(group.orbit(one), group).max() < 1e-12
    stay = one.expand(group.order, -1, -1, -1, -1)
    found = gradient_variance(stay, group)
    torch.testing.assert_close(gradient_variance(1e-3 * stay, group), found)
    unrelated = torch.randn(group.order, 5, 1, 12, 12, generator=generator)
    bound = 1 - 1 / group.order  # of vectors at right angles
    assert (gradient_variance(unrelated, group) - bound).abs().max() < 0.1 * bound
