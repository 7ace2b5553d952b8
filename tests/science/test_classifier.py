"""What people hand to `measure`: the numbers of the plain float32 tensor, or one line."""

import array
import copy
import re
from collections import OrderedDict
from functools import cache
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from small import IMAGES, LABELS, SETTINGS, network
from torch import Generator, nn

from ginv import (
    MLP,
    Rotations,
    gradients,
    integrated_gradients,
    jacobian,
    jensen_shannon,
    largest_singular_value,
    logit_invariance,
    measure,
    orbit_logits,
    orbit_maps,
    saliency_invariance,
)
from ginv.classifier import Classifier, examples_that_fit
from ginv.measures import COMPANIONS

pytestmark = [
    pytest.mark.filterwarnings("ignore:`torch.jit:DeprecationWarning"),
    pytest.mark.usefixtures("one_thread"),
]

R4 = Rotations(4)
INTEGERS = ["int8", "int16", "int32", "int64", "uint8", "uint16", "uint32", "uint64"]


def samples(model, images=IMAGES, labels=LABELS, **changes):
    return measure(model, images, labels, R4, **{"steps": 4, "progress": False, **changes}).samples


def close(found, expected, rtol=1e-4, atol=1e-6):
    pd.testing.assert_frame_equal(found, expected, rtol=rtol, atol=atol)


def perceptron(classes=3):
    options = dict(image_shape=(6, 12), width=8, generator=Generator().manual_seed(0))
    return MLP(classes=classes, **options)


@cache
def plain():
    return samples(network())


class Around(nn.Module):
    """The network, with something done to its images before it and to its logits after it."""

    def __init__(self, after=lambda logits: logits, before=lambda images: images, outputs=3):
        super().__init__()
        self.network, self.before, self.after = network(outputs), before, after

    def forward(self, images):
        return self.after(self.network(self.before(images)))


class Output(OrderedDict):
    """As those of transformers."""

    @property
    def logits(self):
        return self["logits"]


class WithoutParameters(nn.Module):
    """Neither parameters nor buffers: the weights are somewhere else."""

    def __init__(self):
        super().__init__()
        self.function = network().requires_grad_(False).forward

    def forward(self, images):
        return self.function(images)


class OfBuffers(nn.Module):
    """In double precision."""

    def __init__(self):
        super().__init__()
        for name, value in network().double().state_dict().items():
            self.register_buffer(name.replace(".", "_"), value)

    def forward(self, x):
        x = nn.functional.conv2d(x, self._0_weight, self._0_bias, padding=1).relu()
        return nn.functional.linear(x.flatten(1), self._3_weight, self._3_bias)

    def register_buffer(self, name, value):
        super().register_buffer(f"_{name}", value)


def partly_in_training():
    model = nn.Sequential(network(), nn.Dropout(0.9), nn.BatchNorm1d(3, eps=0)).train()
    model[0].eval()
    return model


def made_in_inference_mode():
    with torch.inference_mode():
        return network()


MODELS = {
    "plain": network,
    "a dict of logits alone": lambda: Around(lambda logits: {"scores": logits}),
    "a dict with more": lambda: Around(lambda y: {"loss": y.sum(), "logits": y, "h": y[:, :1]}),
    "a tuple": lambda: Around(lambda logits: (logits, logits.sum())),
    "a list": lambda: Around(lambda logits: [logits, logits.sum()]),
    "an object": lambda: Around(lambda logits: SimpleNamespace(logits=logits, loss=None)),
    "an ordered dict": lambda: Around(lambda y: Output(loss=y.sum(), logits=y)),
    "writes into its input": lambda: Around(before=lambda x: x.mul_(2).sub_(1).add_(1).div_(2)),
    "views its input": lambda: Around(before=lambda x: x.view(len(x), -1).view(x.shape)),
    "frozen": lambda: network().requires_grad_(False),
    "float64": lambda: network().double(),
    "channels last": lambda: network().to(memory_format=torch.channels_last),
    "made in inference mode": made_in_inference_mode,
    "without parameters": WithoutParameters,
    "buffers in double precision": OfBuffers,
    "partly in training": partly_in_training,
    "scripted": lambda: torch.jit.script(network()),
    "frozen by TorchScript": lambda: torch.jit.freeze(torch.jit.script(network().eval())),
    "data parallel": lambda: nn.DataParallel(network()),
    "with a hook": lambda: hooked(network()),
}


def hooked(model):
    model[1].register_forward_hook(lambda module, inputs, output: output * 1)
    return model


def made_in(context, make):
    with context():
        return make()


class Subclass(torch.Tensor):
    pass


OF_IMAGES = {
    "plain": lambda x: x,
    "requires grad": lambda x: x.clone().requires_grad_(),
    "of a graph": lambda x: x.clone().requires_grad_() * 1,
    "a parameter": nn.Parameter,
    "made in inference mode": lambda x: made_in(torch.inference_mode, x.clone),
    "channels last": lambda x: x.contiguous(memory_format=torch.channels_last),
    "transposed": lambda x: x.mT.contiguous().mT,
    "every second": lambda x: x.repeat_interleave(2, 0)[::2],
    "of larger ones": lambda x: nn.functional.pad(x, (1, 2, 3, 4))[..., 3:-4, 1:-2],
    "float64": torch.Tensor.double,
    "a subclass": lambda x: x.clone().as_subclass(Subclass),
}

OF_LABELS = {
    "list": list,
    "tuple": tuple,
    "bytes": bytes,
    "bytearray": bytearray,
    "memoryview": lambda labels: memoryview(bytes(labels)),
    "array": lambda labels: array.array("h", labels),
    "series": pd.Series,
    "tensors": lambda labels: [torch.tensor(label) for label in labels],
    "numbers of numpy": lambda labels: [*np.array(labels)],
    "made in inference mode": lambda y: made_in(torch.inference_mode, lambda: torch.tensor(y)),
    "every second": lambda labels: torch.tensor(labels).repeat_interleave(2)[::2],
    **{f"numpy {kind}": lambda y, kind=kind: np.array(y, kind) for kind in INTEGERS},
    **{f"torch {k}": lambda y, k=k: torch.tensor(y, dtype=getattr(torch, k)) for k in INTEGERS},
    "big-endian": lambda labels: np.array(labels, ">i4"),
}


def state_of_torch():
    """All that torch keeps for a thread or for the process."""
    return [
        torch.get_default_dtype(),
        torch.empty(0).device,
        torch.get_num_threads(),
        torch.is_grad_enabled(),
        torch.is_inference_mode_enabled(),
        torch.is_autocast_enabled("cpu"),
        torch.are_deterministic_algorithms_enabled(),
        torch.get_rng_state().tolist(),
    ]


def state_of(model):
    """Modes, gradients, hooks and numbers."""
    return [
        [getattr(module, "training", None) for module in model.modules()],
        [(each.requires_grad, each.grad is None) for each in model.parameters()],
        [len(module._forward_hooks) for module in model.modules()],
        {name: (each.dtype, each.tolist()) for name, each in model.state_dict().items()},
    ]


@given(*(st.sampled_from(sorted(kind)) for kind in (MODELS, OF_IMAGES, OF_LABELS, SETTINGS)))
def test_whatever_comes_gives_the_numbers_of_the_plain_tensor(model, images, labels, setting):
    model, images, labels = MODELS[model](), OF_IMAGES[images](IMAGES), OF_LABELS[labels](LABELS)
    with SETTINGS[setting]():
        found = samples(model, images, labels)
    close(found, plain())


KINDS = [
    *(("model", name) for name in MODELS),
    *(("images", name) for name in OF_IMAGES),
    *(("labels", name) for name in OF_LABELS),
    *(("setting", name) for name in SETTINGS),
]


@pytest.mark.parametrize(("what", "name"), KINDS, ids=map(": ".join, KINDS))
def test_each_alone_does_and_is_left_as_it_was(what, name):
    chosen = {"model": "plain", "images": "plain", "labels": "list", "setting": "none", what: name}
    model, images = MODELS[chosen["model"]](), OF_IMAGES[chosen["images"]](IMAGES)
    labels, kept = OF_LABELS[chosen["labels"]](LABELS), images.detach().clone()
    before = state_of(model), images.requires_grad, images.is_inference()
    with SETTINGS[chosen["setting"]]():
        settings = state_of_torch()
        found = samples(model, images, labels)
        assert state_of_torch() == settings
    close(found, plain())
    assert (state_of(model), images.requires_grad, images.is_inference()) == before
    assert torch.equal(images.detach(), kept)
    assert not images.is_leaf or images.grad is None


def test_a_model_is_left_as_it_was_where_it_is_refused():
    model = partly_in_training()
    before = state_of(model)
    for refused in (dict(labels=[0, 1, 2, 3, 1]), dict(attribute=lambda *_: None)):
        with pytest.raises(ValueError):
            samples(model, layers=True, **refused)
        assert state_of(model) == before


@pytest.mark.parametrize("images", OF_IMAGES)
@pytest.mark.parametrize("model", ["writes into its input", "views its input"])
def test_a_network_that_works_on_memory_gets_plain_memory(model, images):
    close(samples(MODELS[model](), OF_IMAGES[images](IMAGES)), plain())


BELOW = {
    "integrated gradients": lambda model, x: integrated_gradients(model, x, LABELS, steps=3),
    "gradients": lambda model, x: gradients(model, x, LABELS),
    "logits": lambda model, x: orbit_logits(model, x, R4),
    "maps": lambda model, x: orbit_maps(model, x, LABELS, R4),
    "jacobian": jacobian,
    "singular value": largest_singular_value,
}


@pytest.mark.parametrize("name", BELOW)
@pytest.mark.parametrize("make", [network, perceptron], ids=["convolution", "perceptron"])
def test_nothing_changes_a_function_below_measure(make, name):
    """Whatever the images are, and what their owner has set; and it hangs on no graph."""
    model, of = make(), BELOW[name]
    expected = of(model, IMAGES)
    for images, setting in [
        *((kind, "none") for kind in OF_IMAGES),
        *(("plain", s) for s in SETTINGS),
    ]:
        given_images = OF_IMAGES[images](IMAGES)
        with SETTINGS[setting]():
            found = of(model, given_images)
        assert not (found.is_inference() or found.requires_grad), (images, setting)
        torch.testing.assert_close(found, expected.to(found), msg=f"{images}, {setting}")
        assert found.dtype == torch.float32 or images == "float64"


SINGLE = torch.float16, torch.bfloat16
OF_HALVES = {"images": (1, 0), "model": (0, 1), "both": (1, 1)}


@pytest.mark.parametrize("kind", SINGLE, ids=str)
@pytest.mark.parametrize("which", OF_HALVES)
@pytest.mark.parametrize("make", [network, perceptron], ids=["convolution", "perceptron"])
def test_halves_are_measured_in_single_precision(make, which, kind):
    """As the same numbers in single precision are; the model stays in halves."""
    half_images, half_model = OF_HALVES[which]
    model = make()
    rounded = copy.deepcopy(model).to(kind).float() if half_model else model
    images = IMAGES.to(kind) if half_images else IMAGES
    given_model = copy.deepcopy(rounded).to(kind) if half_model else model
    close(samples(given_model, images), samples(rounded, images.float()), rtol=1e-6)
    assert {each.dtype for each in given_model.parameters()} == {
        kind if half_model else torch.float32
    }
    both = [integrated_gradients(each, images, LABELS, steps=3) for each in (given_model, rounded)]
    torch.testing.assert_close(*both)


def test_slopes_that_are_too_small_for_halves_are_not_lost():
    """They were empty maps of SI 0."""
    single = Around(lambda logits: logits * 1e-9)
    close(samples(copy.deepcopy(single).half()), samples(single), rtol=0.05, atol=0.05)


def test_many_large_logits_of_halves_are_finite():
    """The sum of their squares is not, in halves: 1,000 times 300 squared."""
    images = 300 * torch.randn(3, 10, 10, 10, generator=Generator().manual_seed(0))
    found = measure(nn.Flatten(), images.half(), LABELS[:3], R4, steps=1, progress=False)
    assert np.isfinite(found.summary).all()
    assert found.summary.logit_norm == pytest.approx(300 * 1000**0.5, rel=0.1)


@pytest.mark.parametrize("kind", [*INTEGERS, "bool", "complex64"])
@pytest.mark.parametrize(
    "handed",
    [
        lambda x: (x, LABELS),
        lambda x: (torch.utils.data.TensorDataset(x, torch.tensor(LABELS)), R4),
        lambda x: ([(x, LABELS)], R4),
        lambda x: ([x], R4),
    ],
    ids=["tensor", "data set", "batches", "batches alone"],
)
def test_images_that_are_no_real_numbers_are_refused(handed, kind):
    images, *others = handed(IMAGES.to(getattr(torch, kind)))
    what = "images" if isinstance(images, torch.Tensor) else "images of a batch"
    line = f"type of {what} is '{kind}'; allowed: floating point; images.float() keeps the values"
    options = dict(target="prediction", progress=False)
    with pytest.raises(ValueError, match=f"^{re.escape(line)}$"):
        measure(network(), images, *others, **(options if R4 in others else dict(group=R4)))


WITHOUT_VALUES = {
    "sparse_coo": lambda x: x.to_sparse(),
    "meta": lambda x: x.to("meta"),
    "masked": lambda x: torch.masked.masked_tensor(x, x > 0),
}


@pytest.mark.filterwarnings("ignore:The PyTorch API of MaskedTensors")
@pytest.mark.parametrize("what", ["images", "labels"])
@pytest.mark.parametrize("kind", WITHOUT_VALUES)
def test_tensors_whose_values_are_not_all_in_memory_are_refused(kind, what):
    handed = {"images": IMAGES, "labels": torch.tensor(LABELS)}
    handed[what] = WITHOUT_VALUES[kind](handed[what])
    line = f"kind of {what} is '{kind}'; allowed: strided, each of its values in memory"
    with pytest.raises(ValueError, match=f"^{line}$"):
        samples(network(), **handed)


@pytest.mark.filterwarnings("ignore:Lazy modules are a new feature")
@pytest.mark.parametrize(
    "lazy", [nn.LazyLinear(3), nn.LazyBatchNorm1d(), nn.Linear(72, 3).to("meta")]
)
def test_networks_whose_weights_have_no_values_yet_are_refused(lazy):
    line = "weights of the model have no values yet: load them, or run it once"
    with pytest.raises(ValueError, match=f"^{line}$"):
        samples(nn.Sequential(nn.Flatten(), lazy))


class Counting(nn.Module):
    """Its forward changes its buffers, in place and by new ones."""

    def __init__(self):
        super().__init__()
        self.model = network()
        self.register_buffer("calls", torch.zeros(()))
        self.register_buffer("seen", torch.zeros(2))

    def forward(self, x):
        self.calls += 1
        self.seen = self.seen + x.mean()
        return self.model(x)


@pytest.mark.parametrize("is_refused", [False, True])
def test_buffers_that_a_forward_changes_are_as_they_were(is_refused):
    model = Counting()
    before, own = {n: b.clone() for n, b in model.state_dict().items()}, model.seen
    try:
        samples(model, **({"labels": [0, 1, 2, 3, 1]} if is_refused else {}))
    except ValueError:
        assert is_refused
    assert model.seen is own
    for name, value in model.state_dict().items():
        assert torch.equal(value, before[name]), name


class Reusing(nn.Module):
    """Its output is the same memory each time, as that of a captured graph."""

    def __init__(self):
        super().__init__()
        self.model, self.output = network(), torch.zeros(4096, 3)

    def forward(self, x):
        with torch.no_grad():
            return self.output[: len(x)].copy_(self.model(x))


@pytest.mark.parametrize("batch_size", [1, 5, 7, None])
def test_outputs_that_are_written_over_are_kept_before(batch_size):
    found = orbit_logits(Reusing(), IMAGES, R4, batch_size=batch_size)
    torch.testing.assert_close(found, orbit_logits(network(), IMAGES, R4))
    tracked = orbit_logits(Around(lambda y: y, before=lambda x: x.requires_grad_()), IMAGES, R4)
    assert not tracked.requires_grad


class Merging(nn.Linear):
    """Its mode is more than a flag: in evaluation a part of the weights is merged into the rest."""

    def __init__(self):
        super().__init__(72, 3)
        self.part, self.is_merged = nn.Parameter(torch.ones(3, 72)), False

    def train(self, mode=True):
        if self.is_merged == mode:
            self.weight.data += -self.part.data if mode else self.part.data
            self.is_merged = not mode
        return super().train(mode)

    def forward(self, x):
        return super().forward(x) + (0 if self.is_merged else x @ self.part.T)


@pytest.mark.parametrize("training", [True, False])
def test_modes_that_are_more_than_a_flag_are_put_back(training):
    model = nn.Sequential(nn.Flatten(), Merging().train(training)).train(training)
    samples(model)
    assert model[1].is_merged == (not training) and model.training == training


class Quantised(nn.Module):
    """Its weights are stored in eight bits, and computed with in 32."""

    def __init__(self):
        super().__init__()
        weight = torch.randn(3, 72, generator=Generator().manual_seed(0))
        self.weight = nn.Parameter(weight.to(torch.float8_e4m3fn), requires_grad=False)

    def forward(self, x):
        return nn.functional.linear(x.float().flatten(1), self.weight.float())


def test_images_are_not_cast_to_what_weights_are_stored_in():
    model = Quantised()
    plain = nn.Sequential(nn.Flatten(), nn.Linear(72, 3, bias=False))
    plain[1].weight.data = model.weight.float()
    close(samples(model), samples(plain))


@pytest.mark.parametrize("factor", [1e200, 1e-200])
def test_logits_whose_squares_are_no_numbers_are_refused(factor):
    logits = orbit_logits(network(), IMAGES, R4).double() * factor
    for measure_of in (logit_invariance, *COMPANIONS.values()):
        with pytest.raises(ValueError, match=r"^largest of the logits is [^\n]*; allowed: 1e-100"):
            measure_of(logits)


class Two(nn.Module):
    def forward(self, z):
        return torch.cat([-z / 2, z / 2], 1)


OF_ONE = {
    "[n, 1]": lambda z: z,
    "[n]": lambda z: z[:, 0],
    "squeezed": lambda z: z.squeeze(),
    "in a dict": lambda z: {"logits": z},
}
SIDES = [0, 1, 1, 0, 1]


@pytest.mark.parametrize("output", OF_ONE)
@pytest.mark.parametrize("n", [1, 5])
def test_one_logit_is_read_as_two(output, n):
    """z of a binary classifier as -z / 2 and z / 2: its sigmoid is their softmax."""
    images, labels = IMAGES[:n], SIDES[:n]
    two = samples(nn.Sequential(network(1), Two()), images, labels)
    close(samples(Around(OF_ONE[output], outputs=1), images, labels), two)
    assert (two.SI > 0.1).all()


def test_one_logit_of_a_perceptron_too():
    model = perceptron(1)
    close(samples(model, labels=SIDES), samples(nn.Sequential(model, Two()), labels=SIDES))


def test_divergence_flips_and_accuracy_of_one_logit_by_hand():
    def centred(z):
        return z + 0.15

    z = centred(network(1)(R4.orbit(IMAGES).flatten(0, 1))).detach().view(4, 5).double()
    p, found = z.sigmoid(), samples(Around(centred, outputs=1), labels=SIDES)
    divergence = torch.zeros(5, dtype=torch.float64)
    for a in p:
        for b in p:
            divergence += (a * (a / b).log() + (1 - a) * ((1 - a) / (1 - b)).log()) / 16
    share = (z > 0).double().mean(0)
    correct = torch.where(torch.tensor(SIDES) == 1, share, 1 - share)
    expected = dict(DI=divergence, flip_rate=2 * share * (1 - share), accuracy=100 * correct)
    for name, values in expected.items():
        np.testing.assert_allclose(found[name], values, rtol=1e-4, atol=1e-9)
    assert found.flip_rate.max() > 0.3 and found.DI.min() > 0


@pytest.mark.parametrize("size", [1, 2])
def test_the_smallest_images_and_one_alone(size):
    images = torch.arange(1.0, 1 + size * size).view(1, 1, size, size)
    model = nn.Sequential(nn.Flatten(), nn.Linear(size * size, 2, bias=False))
    model[1].weight = nn.Parameter(torch.eye(2, size * size))
    (row,) = samples(model, images, [0], baseline=0).itertuples()
    if size == 1:  # which is in all orientations the same
        assert [row.LI, row.DI, row.flip_rate, row.accuracy, row.SI] == [0, 0, 0, 100, 1]
    else:  # (1, 2), (2, 4), (4, 3), (3, 1): two variances of 1.25, and the second larger twice
        assert [row.LI, row.flip_rate, row.accuracy] == pytest.approx([2.5, 0.5, 50])


@pytest.mark.parametrize("images", [0 * IMAGES, IMAGES], ids=["empty images", "a flat network"])
def test_maps_of_nothing_have_no_similarity(images):
    model = Around(lambda logits: 0 * logits) if images.any() else network()
    found = samples(model, images)
    assert (found[["SI", "SI_distinct"]] == 0).all(axis=None)
    assert found.notna().all(axis=None)


FREE_OF_SCALE = ["accuracy", "SI", "SI_distinct", "relative_LI", "flip_rate"]


@pytest.mark.parametrize("factor", [1e20, 1e-20])
def test_logits_of_any_size_are_measured(factor):
    found = samples(Around(lambda logits: factor * logits))
    close(found[FREE_OF_SCALE], plain()[FREE_OF_SCALE])
    assert np.isfinite(found).all(axis=None)
    np.testing.assert_allclose(found.LI, plain().LI * factor**2, rtol=1e-4)
    np.testing.assert_allclose(found.logit_norm, plain().logit_norm * factor, rtol=1e-4)


@pytest.mark.parametrize("factor", [1e20, 1e-20])
def test_so_are_those_that_are_handed_to_one_measure(factor):
    """In single precision, where their squares are 0 or infinite."""
    logits = orbit_logits(network(), IMAGES, R4)
    for measure_of, power in {**dict.fromkeys(COMPANIONS.values(), 0), logit_invariance: 2}.items():
        if measure_of is not jensen_shannon:  # which is not free of scale
            found, expected = measure_of(factor * logits), measure_of(logits) * factor**power
            torch.testing.assert_close(found, expected, rtol=1e-4, atol=0)


@given(st.integers(-44, 37), st.integers(0, 99))
def test_maps_of_any_size_are_like_themselves(exponent, seed):
    random = torch.rand(1, 3, 1, 4, 4, generator=Generator().manual_seed(seed), dtype=torch.float64)
    maps = (random * 10.0**exponent).float().expand(4, -1, -1, -1, -1)
    torch.testing.assert_close(saliency_invariance(maps), torch.ones(3))


BAD = {"nan": torch.nan, "inf": torch.inf, "-inf": -torch.inf}


@pytest.mark.parametrize("bad", BAD)
@pytest.mark.parametrize(
    ("where", "line"),
    [
        ("images", "the images are not finite"),
        ("images of a batch", "the images of a batch are not finite"),
        ("logits", "the logits are not finite; check the model"),
        ("maps", "the maps are not finite; check the model"),
    ],
)
def test_what_is_not_finite_is_named(where, line, bad):
    """One value of many is enough."""
    one = torch.zeros(len(IMAGES), 1, 1, 1)
    one[3] = BAD[bad]
    model = network()
    handed, options = (IMAGES, LABELS), {}
    if where == "images":
        handed = (IMAGES + one, LABELS)
    elif where == "images of a batch":
        handed = ([(IMAGES, LABELS), (IMAGES + one, LABELS)], None)
    elif where == "logits":
        model = Around(lambda logits: logits.index_fill(1, torch.tensor([2]), BAD[bad]))
    else:
        options = dict(attribute=lambda model, x, targets: x.index_fill(1, targets[:1], BAD[bad]))
    with pytest.raises(ValueError, match=f"^{line}$"):
        measure(model, *handed, R4, progress=False, **options)


def untouched(*_):
    pytest.fail("a map was computed")


@pytest.mark.parametrize("batch_size", [1, "auto"])
@pytest.mark.parametrize("labels", [[0, 1, 2, 0, 3], [0, 1, 2, 0, -1], [9] * 5])
def test_a_label_without_a_logit_is_refused_before_any_map(labels, batch_size):
    """Even if it is the last, and its turn would come late."""
    with pytest.raises(
        ValueError, match=r"^labels is .*; allowed: a tensor \[5\] of integers from 0"
    ):
        samples(network(), labels=labels, attribute=untouched, batch_size=batch_size)


BAD_LABELS = [
    3,
    None,
    "01201",
    [0, 1, 2],
    [[0], [1], [2], [0], [1]],
    [0.0, 1.0, 2.0, 0.0, 1.0],
    ["0", "1", "2", "0", "1"],
    {0: 1},
    {0, 1},
    np.ma.array([0, 1, 2, 0, 1], mask=[0, 0, 1, 0, 0]),
    torch.zeros(5),
    torch.zeros(5, dtype=torch.complex64),
    torch.zeros(5, 3, dtype=torch.long),
    torch.zeros(0, dtype=torch.long),
    np.zeros(5, "datetime64[s]"),
    np.array([2**64 - 1, 0, 0, 0, 0], "uint64"),
]


@pytest.mark.parametrize("labels", BAD_LABELS, ids=str)
def test_labels_of_another_kind_are_refused_in_one_line(labels):
    with pytest.raises(ValueError, match=r"^labels is [^\n]*; allowed: [^\n]*$"):
        samples(network(), labels=labels)


OUTPUTS = {
    "None": lambda y: None,
    "text": lambda y: "cat",
    "nothing": lambda y: (),
    "integers": lambda y: y.argmax(1),
    "images": lambda y: y[..., None, None],
    "no classes": lambda y: y[:, :0],
    "another number": lambda y: y[:-1],
    "a dict of two": lambda y: {"a": y, "b": y},
    "a dict of none": lambda y: {"loss": 0.5},
    "complex": lambda y: y * 1j,
}


@pytest.mark.parametrize("output", OUTPUTS)
def test_outputs_that_are_no_logits_are_refused_in_one_line(output):
    with pytest.raises(ValueError, match=r"^output of the model [^\n]*; allowed: logits [^\n]*$"):
        samples(Around(OUTPUTS[output]), batch_size=8)


@pytest.mark.parametrize(
    "model", ["net", 3, None, nn.Linear, [network()], lambda images: images], ids=str
)
def test_what_is_no_network_is_refused(model):
    with pytest.raises(ValueError, match=r"^model is [^\n]*; allowed: a torch.nn.Module"):
        samples(model)


@pytest.mark.parametrize("cut", ["no gradients", "detached", "constant"])
def test_a_network_without_slopes_is_refused_and_measured_without_maps(cut):
    """Not one whose maps are empty."""
    model = {
        "no gradients": Around(torch.Tensor.detach),
        "detached": Around(before=torch.Tensor.detach),
        "constant": Around(lambda logits: torch.ones(len(logits), 3)),
    }[cut]
    with pytest.raises(
        ValueError, match=r"^the logits have no slope in the images; saliency=False"
    ):
        samples(model)
    found = samples(model, saliency=False)
    if cut != "constant":
        close(found, plain()[[*found]])


class OnGPU(torch.Tensor):
    """As if it were there."""

    is_cuda = True


@pytest.mark.parametrize("free", [2**20, 2**24, 2**30])
def test_on_a_gpu_the_budget_is_half_of_what_is_free(free, monkeypatch):
    """And what torch holds there and does not use."""
    monkeypatch.setattr("torch.cuda.mem_get_info", lambda device: (free // 4, 2**40))
    monkeypatch.setattr("torch.cuda.memory_reserved", lambda device: free)
    monkeypatch.setattr("torch.cuda.memory_allocated", lambda device: free // 4)
    model, image = Classifier(network()), IMAGES[:1].as_subclass(OnGPU)
    monkeypatch.setattr("ginv.classifier.BUDGET", free // 2)
    assert examples_that_fit(model, image) == examples_that_fit(model, IMAGES[:1])


def test_what_fits_is_counted_from_what_a_backward_pass_keeps(monkeypatch):
    """Of 72 pixels: 16 copies; and twice the input, what ReLU returned and what is flat."""
    monkeypatch.setattr("ginv.classifier.BUDGET", 2**20)
    each = 4 * (16 * 72 + 2 * (72 + 4 * 36))  # bytes; flat is a view of what ReLU returned
    assert examples_that_fit(Classifier(network()), IMAGES[:1]) == 2**20 // each
    assert examples_that_fit(Classifier(lambda x: x), IMAGES[:1]) == 2**20 // (64 * 72 * 4)
    monkeypatch.setattr("ginv.classifier.BUDGET", 1)
    assert examples_that_fit(Classifier(network()), IMAGES[:1]) == 1


class Differentiating(nn.Module):
    """Its forward takes slopes, which does not go with the hooks that count memory."""

    def __init__(self):
        super().__init__()
        self.linear = nn.Linear(36, 3)

    def forward(self, x):
        slope = torch.func.grad(lambda z: z.tanh().sum())
        return self.linear(torch.func.vmap(slope)(x).flatten(1))


def test_a_network_with_slopes_in_it_is_measured(generator):
    images, model = torch.randn(4, 1, 6, 6, generator=generator), Differentiating()
    found, few = (
        measure(model, images, [0, 1, 2, 0], R4, progress=False, batch_size=size)
        for size in ("auto", 3)
    )
    pd.testing.assert_frame_equal(found.samples, few.samples, rtol=1e-4)
