"""What holds of every measure, whatever it is given: hypothesis looks for where it does not."""

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Generator

import ginv
from ginv import MLP, measure, saliency_invariance, saliency_map

DTYPES = st.sampled_from([torch.float16, torch.bfloat16, torch.float32, torch.float64])
GROUPS = st.sampled_from(
    [
        ginv.group_named(name)
        for name in [
            "R1",
            "R2",
            "R4",
            "T1",
            "T2",
            "T3",
            "T6",
            "V2",
            "V3",
            "D1",
            "D2",
            "D4",
            "T2xV3",
            "D2xD1",
        ]
    ]
)
OF_LOGITS = {
    "LI": ginv.logit_invariance,
    "DI": ginv.distribution_invariance,
    "relative_LI": ginv.relative_logit_invariance,
    "JS": ginv.jensen_shannon,
    "flip_rate": ginv.flip_rate,
}


@st.composite
def values(draw, *shape):
    """Values of a shape: random at some size, or one of the cases that break formulas."""
    generator = Generator().manual_seed(draw(st.integers(0, 2**32)))
    random = torch.randn(shape, generator=generator, dtype=torch.float64)
    kind = draw(
        st.sampled_from(["random", "zero", "constant", "same over the orbit", "one hot", "ties"])
    )
    made = {
        "random": random,
        "zero": torch.zeros(shape),
        "constant": torch.ones(shape) * random.flatten()[0],
        "same over the orbit": random[:1].expand(shape),
        "one hot": (random == random.amax(-1, keepdim=True)).double(),
        "ties": random.sign(),
    }[kind]
    return (made * draw(st.sampled_from([1e-6, 1.0, 300.0, 6e3]))).to(draw(DTYPES))


@st.composite
def logits(draw, least=1):
    """`[G, n, C]`, from one element, one sample and two classes on."""
    return draw(
        values(draw(st.integers(least, 6)), draw(st.integers(1, 4)), draw(st.integers(2, 9)))
    )


def close(a, b):
    torch.testing.assert_close(
        a, b, rtol=2e-4, atol=1e-5 * (1 + float(b.abs().max())), check_dtype=False
    )


@given(logits())
def test_measures_of_logits_lie_in_their_ranges(x):
    order, n, classes = x.shape
    most = {
        "LI": math.inf,
        "DI": math.inf,
        "relative_LI": 1,
        "JS": math.log(min(order, classes)),
        "flip_rate": 1 - 1 / min(order, classes),
    }
    for name, metric in OF_LOGITS.items():
        value = metric(x)
        assert value.shape == (n,) and value.isfinite().all(), name
        assert value.min() >= 0 and value.max() <= most[name] + 1e-5, name
    accuracy = ginv.accuracy(x, torch.zeros(n, dtype=torch.int64))
    assert accuracy.min() >= 0 and accuracy.max() <= 100
    assert (ginv.flip_rate(x)[accuracy == 100].abs() < 1e-6).all()


@given(logits(), st.randoms(use_true_random=False))
def test_no_element_and_no_sample_is_special(x, random):
    """The order of the orbit does not matter, nor what else is in the batch."""
    shuffled = x[random.sample(range(len(x)), len(x))]
    for metric in OF_LOGITS.values():
        close(metric(shuffled), metric(x))
        close(torch.cat([metric(part) for part in x.split(1, 1)]), metric(x))


@given(logits())
def test_an_orbit_of_one_point_is_invariant(x):
    x = x[:1].expand(x.shape)
    size = float(x.double().square().sum(-1).max())
    for name, metric in OF_LOGITS.items():
        assert (metric(x) <= 1e-5 * (1 + size * (name == "LI"))).all(), name


@given(logits(least=2))
def test_distinct_pairs_are_a_factor(x):
    factor = len(x) / (len(x) - 1)
    for metric in (ginv.logit_invariance, ginv.distribution_invariance):
        close(metric(x, distinct=True), factor * metric(x))


@given(logits())
def test_half_precision_costs_only_the_rounding_of_the_logits(x):
    """What is computed from halves is what is computed from the same numbers in doubles."""
    for metric in OF_LOGITS.values():
        close(metric(x), metric(x.double()))


@given(logits(), st.sampled_from([ginv.logit_error, ginv.kl_divergence]))
def test_regularisers_are_distances(x, distance):
    a, b = x.double(), x.double().roll(1, 0)
    assert distance(a, b).shape == x.shape[:2] and (distance(a, b) >= -1e-9).all()
    assert (distance(a, a) == 0).all()


@st.composite
def maps(draw):
    """`[G, n, 1, H, W]`."""
    sizes = [draw(st.integers(1, most)) for most in (4, 3, 5, 5)]
    return draw(values(sizes[0], sizes[1], 1, *sizes[2:]))


@given(maps())
def test_saliency_invariance_is_a_similarity(x):
    value = saliency_invariance(x.abs())
    empty = (x == 0).flatten(2).all(-1).all(0)
    assert value.shape == (x.shape[1],) and value.min() >= 0 and value.max() <= 1 + 1e-5
    assert (value[empty] == 0).all()
    close(saliency_invariance(7 * x.double()), saliency_invariance(x))
    same = x[:1].expand(x.shape).double() + 1
    close(saliency_invariance(same.abs() + 1), torch.ones(x.shape[1]))


@given(
    GROUPS,
    st.integers(1, 3),
    DTYPES,
    st.sampled_from([0.0, 0.9, 1.0]),
    st.sampled_from([0.0, 0.5, 1.0, 3.0]),
)
def test_maps_move_with_every_group(group, n, dtype, threshold, sigma):
    attribution = torch.randn(n, 1, 12, 12, generator=Generator().manual_seed(n)).to(dtype)
    attribution[0] = attribution[0, 0, 0, 0]  # a constant, and below zeros
    for x in (attribution, torch.zeros_like(attribution)):
        made = saliency_map(x, threshold=threshold, sigma=sigma)
        assert made.shape == x.shape and made.dtype == dtype and made.isfinite().all()
        assert made.min() >= 0
        turned = group.align(saliency_map(group.orbit(x), threshold=threshold, sigma=sigma))
        torch.testing.assert_close(turned, made.expand_as(turned))


@pytest.mark.filterwarnings("ignore:the baseline is 0")
@given(
    GROUPS,
    st.integers(1, 9),
    st.sampled_from([1, 2, 255, 257]),
    st.sampled_from(["random", "zero", "constant"]),
    st.sampled_from([torch.float32, torch.float64]),
    st.booleans(),
)
def test_measure_of_any_group_batch_and_image(group, classes, n, kind, dtype, tied):
    generator = Generator().manual_seed(classes)
    images = torch.randn(n, 1, 12, 12, generator=generator, dtype=dtype)
    images = {"random": images, "zero": 0 * images, "constant": 0 * images + 3}[kind]
    options = dict(image_shape=(12, 12), classes=classes, width=8, depth=2, generator=generator)
    model = MLP(group if tied else None, **options).to(dtype)
    measured = measure(model, images, torch.arange(n) % classes, group, steps=3, progress=False)
    assert len(measured.samples) == n
    assert measured.samples.notna().all(axis=None)
    missing = {*measured.summary.index[measured.summary.isna()]}
    # Of one image alone, or of images that are all alike
    assert missing <= (
        {"orbit_over_sample_variance", "SI_floor"} if n == 1 or kind != "random" else set()
    )
    if tied or group.order == 1 or kind != "random":
        assert measured.samples[["LI", "DI", "JS"]].max(axis=None) < 1e-6
    similarity = measured.samples.SI
    assert similarity.between(0, 1 + 1e-5).all() and (kind != "zero" or (similarity == 0).all())


@given(GROUPS, st.integers(1, 3), DTYPES)
def test_an_orbit_turns_back(group, n, dtype):
    x = torch.randn(n, 12, 12, generator=Generator().manual_seed(n)).to(dtype)
    assert torch.equal(group.align(group.orbit(x)), x.expand(group.order, *x.shape))
