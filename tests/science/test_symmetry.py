import copy
import re
from functools import partial
from itertools import product

import pytest
import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from small import SETTINGS
from torch import nn

from ginv import (
    MLP,
    Averaged,
    Product,
    Rotations,
    Translations,
    assert_invariant,
    check_group,
    decay_asymmetry,
    group_named,
    measure,
    orbit_logits,
    relative_logit_invariance,
    symmetrise,
)
from ginv.symmetry import PER_CHANNEL

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.mark.parametrize(
    "group",
    [*map(group_named, ("R2", "R4", "T3", "T12", "V3", "D1", "D4", "T3xV3", "T2xR1"))],
    ids=lambda group: group.name,
)
def test_a_symmetric_network_is_invariant_and_its_features_are_not(group, generator):
    """Whether or not the order divides the 128 units; with weights of the size that they had."""
    x = torch.randn(32, 1, 36, 36, generator=generator, dtype=torch.float64)
    model, random = (
        MLP(initialisation="he", generator=torch.Generator().manual_seed(0)).double()
        for _ in range(2)
    )
    symmetrise(model, group)
    logits, features = model(x), model.features(x)
    assert logits.std(0).min() > 0.01
    for g in group.elements[1:]:
        assert (model(group.act(g, x)) - logits).abs().max() < 1e-12, f"{group.name}: {g}"
        moved = model.features(group.act(g, x))
        assert (moved - features).abs().mean() > 0.1
        torch.testing.assert_close(moved.sort(1).values, features.sort(1).values)  # a permutation
    for (name, value), before in zip(
        model.state_dict().items(), random.state_dict().values(), strict=True
    ):
        if value.numel() > 10_000:
            assert value.std().item() == pytest.approx(before.std().item(), rel=0.1), name


@pytest.mark.parametrize("group", [Rotations(4), Translations(3)], ids=lambda group: group.name)
def test_filters_come_as_orbits(group):
    """Unit f * order + g is filter f moved by g; filter 0, worked out by hand."""
    model, random = (MLP(generator=torch.Generator().manual_seed(0)) for _ in range(2))
    symmetrise(model, group)
    filters, before = (
        network.features[1].weight.unflatten(1, (36, 36)) for network in (model, random)
    )
    filters = filters[: 128 // group.order * group.order]
    for g in group.elements:
        torch.testing.assert_close(filters[g :: group.order], group.act(g, filters[:: group.order]))
    by_hand = sum(group.act(g, before[group.inverse(g)]) for g in group.elements) / group.order**0.5
    torch.testing.assert_close(filters[0], by_hand)


def strided(kernels, bias=True):
    sizes, layers = [(1, 16), (16, 32), (32, 32)], []
    with torch.random.fork_rng():
        torch.manual_seed(0)
        for channels, kernel in zip(sizes, kernels, strict=True):
            layers += [nn.Conv2d(*channels, kernel, stride=2, padding=1, bias=bias), nn.ReLU()]
        return nn.Sequential(*layers, nn.Flatten(), nn.Linear(32 * 5 * 5, 9, bias=bias)).double()


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("name", ["R2", "R4", "D1", "D2", "D4"])
def test_symmetric_convolutions_are_invariant(name, bias, generator):
    """A kernel of 4 at a stride of 2 looks at an even image from all sides alike."""
    model, group = strided((4, 4, 3), bias), group_named(name)
    assert symmetrise(model, group) is model
    x = torch.randn(8, 1, 36, 36, dtype=torch.float64, generator=generator)
    assert_invariant(model, x, group, atol=1e-12, rtol=0)
    assert model(x).std(0).min() > 1e-3


@pytest.mark.parametrize(
    ("layers", "group", "message"),
    [
        (
            [nn.BatchNorm2d(1)],
            Rotations(4),
            r"output of the model is a tensor \[8, 1, 36, 36\]; allowed: logits",
        ),
        (
            [nn.Conv2d(1, 6, 3, padding=1), nn.ReLU(), nn.Flatten(), nn.Linear(6 * 36 * 36, 9)],
            Translations(3),
            r"layer 0 \(Conv2d\) does not see images 1 x 36 x 36 alike in all orientations of T3",
        ),
        ([nn.MultiheadAttention(8, 2)], Rotations(4), r"layer 0 is .*; allowed: linear"),
        (
            [nn.Linear(784, 9)],
            Rotations(4),
            r"input_shape is \(1, 36, 36\); allowed: C, H, W of 784 pixels",
        ),
        (
            [nn.Conv2d(1, 4, 3), nn.Linear(12, 9)],
            Rotations(4),
            "is 12; allowed: 4 times a square number",
        ),
    ],
)
def test_layers_that_cannot_be_symmetric_are_refused_and_left_as_they_are(layers, group, message):
    model = nn.Sequential(*layers)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    with pytest.raises(ValueError, match=message):
        symmetrise(model, group)
    assert all(value.equal(before[name]) for name, value in model.state_dict().items())


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU here")
def test_a_network_on_the_gpu_becomes_the_same(generator):
    here = MLP(generator=generator)
    there = MLP()
    there.load_state_dict(here.state_dict())
    for model in (here, there.cuda()):
        symmetrise(model, Rotations(4))
    for name, value in there.state_dict().items():
        torch.testing.assert_close(value.cpu(), here.state_dict()[name])


def sizes(model):
    """Modes and numbers, to the last bit."""
    numbers = {name: value.clone() for name, value in model.state_dict().items()}
    return [module.training for module in model.modules()], numbers


def is_as_before(model, before):
    modes, numbers = sizes(model)
    same = all(torch.equal(value, before[1][name]) for name, value in numbers.items())
    return modes == before[0] and same


def made(build):
    """With PyTorch's weights, and norms that have learned something; some parts in training."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = build().train()
        for module in model.modules():
            if isinstance(module, nn.BatchNorm1d | nn.BatchNorm2d):
                module.running_mean.normal_()
                module.running_var.uniform_(0.5, 2)
            if isinstance(module, PER_CHANNEL) and module.weight is not None:
                module.weight.data.uniform_(0.5, 2)
    first, *_ = model.children()
    first.eval()
    return model


def lost(model, group, shape, kind=torch.float32):
    """Relative LI, of images that `symmetrise` has not seen."""
    images = torch.randn(4, *shape, generator=torch.Generator().manual_seed(7), dtype=kind)
    model = copy.deepcopy(model).eval().to(kind)
    logits = orbit_logits(model, images, group)
    assert logits.std(1).min() > 1e-6 * logits.abs().max()  # and is not just flat
    return relative_logit_invariance(logits).max().item()


class Residual(nn.Module):
    def __init__(self, channels, out, stride=1):
        super().__init__()
        self.first = nn.Conv2d(channels, out, 3, stride, 1, bias=False)
        self.norm = nn.BatchNorm2d(out)
        self.second = nn.Conv2d(out, out, 3, 1, 1)
        self.short = nn.Conv2d(channels, out, 1, stride)

    def forward(self, x):
        return (self.short(x) + self.second(self.norm(self.first(x)).relu())).relu()


class Squeeze(nn.Module):
    """Channels weighed by what is in all of them."""

    def __init__(self):
        super().__init__()
        self.inner, self.outer = nn.Linear(8, 4), nn.Linear(4, 8)

    def forward(self, x):
        return x * self.outer(self.inner(x.mean((2, 3))).relu()).sigmoid()[..., None, None]


class Joined(nn.Module):
    """The image beside the features."""

    def __init__(self):
        super().__init__()
        self.first, self.second = nn.Conv2d(1, 7, 3, padding=1), nn.Conv2d(8, 8, 3)
        self.head = nn.Linear(8, 3)

    def forward(self, x):
        x = torch.cat([x, self.first(x)], 1).relu()
        return self.head(self.second(x).relu().mean((2, 3)))


class Uneven(nn.Module):
    """Weighs places by themselves, in no layer of its own."""

    def __init__(self):
        super().__init__()
        self.first, self.drop, self.head = nn.Conv2d(1, 8, 3), nn.Dropout(0.0), nn.Linear(800, 3)

    def forward(self, x):
        x = self.first(x).relu().flatten(1)
        return self.head(self.drop(x * torch.linspace(1, 2, 800, dtype=x.dtype)))


def conv(*between, channels=1, kernel=3, **options):
    """A network with layers between its first convolution and its head."""
    first = nn.Conv2d(channels, 8, kernel, **options)
    return lambda: nn.Sequential(
        first, *[make() for make in between], nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(),
        nn.Linear(8, 3),
    )  # fmt: skip


def perceptron(*between):
    layers = lambda: [nn.Flatten(), nn.Linear(144, 8), *[make() for make in between]]  # noqa: E731
    return lambda: nn.Sequential(*layers(), nn.ReLU(), nn.Linear(8, 3))


def sharing():
    """Two layers with one weight."""
    middle = [nn.Linear(8, 8), nn.Linear(8, 8)]
    middle[1].weight = middle[0].weight
    return perceptron(*[lambda each=each: nn.Sequential(nn.Tanh(), each) for each in middle])()


SYMMETRIC = {
    "layers that share a weight": (sharing, "R4", (1, 12, 12)),
    "perceptron with BatchNorm": (perceptron(lambda: nn.BatchNorm1d(8)), "R4", (1, 12, 12)),
    "perceptron of two directions": (perceptron(), "T3xV3", (1, 12, 12)),
    "perceptron of colours": (perceptron(), "S3", (3, 4, 12)),
    "perceptron of turned colours": (perceptron(), "R4xS4", (4, 6, 6)),
    "BatchNorm": (conv(lambda: nn.BatchNorm2d(8)), "R4", (1, 12, 12)),
    "BatchNorm without weights": (conv(lambda: nn.BatchNorm2d(8, affine=False)), "D4", (1, 12, 12)),
    "GroupNorm": (conv(lambda: nn.GroupNorm(2, 8)), "R4", (1, 12, 12)),
    "GroupNorm of all": (conv(lambda: nn.GroupNorm(1, 8)), "D4", (1, 12, 12)),
    "InstanceNorm": (conv(lambda: nn.InstanceNorm2d(8, affine=True)), "R4", (1, 12, 12)),
    "PReLU": (conv(lambda: nn.PReLU(8)), "R4", (1, 12, 12)),
    "depthwise": (conv(lambda: nn.Conv2d(8, 8, 3, groups=8)), "D4", (1, 12, 12)),
    "depthwise beyond an orbit": (
        conv(lambda: nn.Conv2d(8, 8, 3, groups=8), channels=3),
        "D1xS3",
        (3, 8, 8),
    ),
    "grouped": (conv(lambda: nn.Conv2d(8, 8, 3, groups=2)), "R4", (1, 12, 12)),
    "colours": (conv(channels=3), "S3", (3, 12, 12)),
    "colours and turns": (conv(lambda: nn.Conv2d(8, 8, 3), channels=3), "R4xS3", (3, 12, 12)),
    "flips": (conv(lambda: nn.Conv2d(8, 8, (2, 5))), "D1", (1, 12, 10)),
    "half turns of rectangles": (conv(lambda: nn.Conv2d(8, 8, (2, 5))), "R2", (1, 12, 10)),
    "both flips": (conv(lambda: nn.Conv2d(8, 8, (5, 2))), "D2", (1, 12, 10)),
    "all of a square": (conv(lambda: nn.Conv2d(8, 8, 3, padding="same")), "D4", (1, 12, 12)),
    "holes": (conv(lambda: nn.Conv2d(8, 8, 3, dilation=2)), "R4", (1, 12, 12)),
    "MaxPool on an odd size": (conv(lambda: nn.MaxPool2d(3, 2, 1), padding=1), "R4", (1, 13, 13)),
    "MaxPool of 2": (conv(lambda: nn.MaxPool2d(2)), "D4", (1, 12, 12)),
    "residual on odd sizes": (
        lambda: nn.Sequential(conv(lambda: Residual(8, 8, 2), lambda: Residual(8, 8))()),
        "R4",
        (1, 15, 15),
    ),
    "squeezed": (conv(Squeeze), "R4", (1, 12, 12)),
    "classes as maps": (
        lambda: nn.Sequential(
            nn.Conv2d(1, 8, 3), nn.ReLU(), nn.Conv2d(8, 3, 3), nn.AdaptiveAvgPool2d(1), nn.Flatten()
        ),
        "R4",
        (1, 12, 12),
    ),
    "one logit": (
        lambda: nn.Sequential(nn.Flatten(), nn.Linear(144, 8), nn.Tanh(), nn.Linear(8, 1)),
        "R4",
        (1, 12, 12),
    ),
}


@pytest.mark.parametrize("name", SYMMETRIC)
def test_networks_that_become_invariant(name):
    build, group, shape = SYMMETRIC[name]
    model, group = made(build), group_named(group)
    modes = sizes(model)[0]
    assert lost(model, group, shape) > 1e-6
    assert symmetrise(model, group, shape) is model
    assert lost(model, group, shape) < 1e-9 and sizes(model)[0] == modes
    for kind in (torch.float64, torch.float16):  # of which the weights are their own
        again = symmetrise(made(build).to(kind), group, shape)
        assert {each.dtype for each in again.parameters()} == {kind}
        assert kind == torch.float16 or lost(again, group, shape, kind) < 1e-20


@pytest.mark.parametrize("name", SYMMETRIC)
def test_the_decay_is_a_step_towards_the_nearest_symmetric_network(name):
    """All of it is the projection, at right angles to what is left; a share is that of the way."""
    build, group, shape = SYMMETRIC[name]
    model, group = made(build).double(), group_named(group)
    before, parts = copy.deepcopy(model), []
    decay_asymmetry(model, group, 1.0, shape)
    images = torch.randn(4, *shape, generator=torch.Generator().manual_seed(7)).double()
    assert_invariant(model, images, group, atol=1e-12, rtol=1e-10)
    for old, new in zip(before.state_dict().values(), model.state_dict().values(), strict=True):
        if old.is_floating_point():
            parts.append(((old - new) * new).sum())
    size = sum(new.square().sum() for new in model.state_dict().values() if new.is_floating_point())
    assert abs(sum(parts)) < 1e-9 * size
    projected, part = copy.deepcopy(model), copy.deepcopy(before)
    decay_asymmetry(model, group, 1.0, shape)  # twice is once
    decay_asymmetry(part, group, 0.25, shape)
    both = zip(before.parameters(), projected.parameters(), strict=True)
    for (old, new), again, step in zip(both, model.parameters(), part.parameters(), strict=True):
        torch.testing.assert_close(again, new)
        torch.testing.assert_close(step, torch.lerp(old, new, 0.25))


def test_the_decay_stands_beside_any_optimiser(generator):
    """Whatever the task pulls at, what is left of the asymmetry is as little as one step makes."""
    group, model = group_named("R4"), made(conv(lambda: nn.BatchNorm2d(8)))
    optimiser = torch.optim.SGD(model.parameters(), 0.1, momentum=0.9)
    x = torch.randn(16, 1, 12, 12, generator=generator)
    error = []
    for share in [0.0] * 5 + [0.5] * 20 + [1.0]:
        optimiser.zero_grad()
        nn.functional.cross_entropy(model(x), torch.arange(16) % 2).backward()
        optimiser.step()
        decay_asymmetry(model, group, share, (1, 12, 12))
        error.append(lost(model, group, (1, 12, 12)))
    assert error[4] > 10 * error[24] > error[25] and error[25] < 1e-9, error


UNEQUAL = r" does not see images \d+ x \d+ x \d+ alike in all orientations of \w+"
REFUSED = {
    "MaxPool on an even size": (
        conv(lambda: nn.MaxPool2d(3, 2, 1), padding=1), "R4", rf"layer 1 \(MaxPool2d\){UNEQUAL}"
    ),
    "strides on an even size": (
        conv(lambda: nn.Conv2d(8, 8, 3, 2, 1), padding=1), "D4", rf"layer 1 \(Conv2d\){UNEQUAL}"
    ),
    "the same size of an even kernel": (
        conv(lambda: nn.Conv2d(8, 8, 4, padding="same")), "R4", rf"layer 1 \(Conv2d\){UNEQUAL}"
    ),
    "residual on even sizes": (
        conv(lambda: Residual(8, 8, 2), padding=1), "R4", rf"layer 1.short \(Conv2d\){UNEQUAL}"
    ),
    "groups that part orbits": (
        conv(lambda: nn.Conv2d(8, 8, 3, groups=4)), "R4",
        r"layer 1 \(Conv2d\): groups of Conv2d\(.*\) is 4; allowed: 1, depthwise, or with a mult",
    ),
    "depthwise with more outputs": (
        conv(lambda: nn.Conv2d(8, 16, 3, groups=8), lambda: nn.Conv2d(16, 8, 1)), "R4",
        r"layer 1 \(Conv2d\): groups of Conv2d\(.*\) is 8",
    ),
    "norms that part orbits": (
        conv(lambda: nn.GroupNorm(4, 8)), "R4", rf"layer 1 \(GroupNorm\){UNEQUAL}"
    ),
    "neighbours": (
        conv(lambda: nn.LocalResponseNorm(3, 1.0)), "R4", rf"layer 1 \(LocalResponseNorm\){UNEQUAL}"
    ),
    "shuffled channels": (
        conv(lambda: nn.Conv2d(8, 8, 1), lambda: nn.ChannelShuffle(2)), "R4",
        rf"layer 2 \(ChannelShuffle\){UNEQUAL}",
    ),
    "an image beside features": (Joined, "R4", rf"layer second \(Conv2d\){UNEQUAL}"),
    "uneven in its forward": (Uneven, "R4", rf"layer head \(Linear\){UNEQUAL}"),
    "shifts at the border": (
        conv(padding=1), "T3", rf"layer 0 \(Conv2d\){UNEQUAL}"
    ),
    "a kernel that cannot be turned": (
        conv(lambda: nn.Conv2d(8, 8, (3, 1))), "R4", r"layer 1 \(Conv2d\): R4 needs square images"
    ),
    "a single place that cannot be shifted": (
        conv(kernel=1), "T3xV3", r"layer 0 \(Conv2d\): order 3 of Translations does not divide"
    ),
    "a kernel that cannot be shifted": (
        conv(lambda: nn.Conv2d(8, 8, 4)), "T3", r"layer 1 \(Conv2d\): order 3 of Translations does"
    ),
    "weight norm": (
        conv(lambda: nn.utils.parametrizations.weight_norm(nn.Conv2d(8, 8, 3))), "R4",
        r"layer 1 is ParametrizedConv2d\(.*; allowed: linear and",
    ),
    "weight norm by hooks": (
        conv(lambda: nn.utils.weight_norm(nn.Conv2d(8, 8, 3))), "R4", r"layer 1 is Conv2d\("
    ),
    "spectral norm": (
        perceptron(lambda: nn.utils.parametrizations.spectral_norm(nn.Linear(8, 8))), "R4",
        r"layer 2 is ParametrizedLinear\(",
    ),
    "spectral norm by hooks": (
        perceptron(lambda: nn.utils.spectral_norm(nn.Linear(8, 8))), "R4", r"layer 2 is Linear\("
    ),
    "spectral norm without a bias": (
        perceptron(lambda: nn.utils.parametrizations.spectral_norm(nn.Linear(8, 8, bias=False))),
        "R4", r"layer 2.parametrizations.weight is ParametrizationList\(",
    ),
    "layer norm": (perceptron(lambda: nn.LayerNorm(8)), "R4", r"layer 2 is LayerNorm\("),
    "a transposed convolution": (
        conv(lambda: nn.ConvTranspose2d(8, 8, 3)), "R4", r"layer 1 is ConvTranspose2d\("
    ),
    "no logits": (
        lambda: nn.Sequential(nn.Conv2d(1, 8, 3), nn.ReLU()), "R4",
        "output of the model is a tensor",
    ),
    "no parameters": (lambda: nn.Sequential(nn.Flatten()), "R4", f"the output{UNEQUAL}"),
}  # fmt: skip


@pytest.mark.filterwarnings("ignore:.*weight_norm.*deprecated", "ignore:Using padding=.same.")
@pytest.mark.parametrize("name", REFUSED)
def test_networks_that_cannot_be_are_refused_with_the_layer_and_left_as_they_were(name):
    build, group, line = REFUSED[name]
    model = made(build)
    before = sizes(model)
    for make in (symmetrise, partial(decay_asymmetry, share=0.1)):
        with pytest.raises(ValueError, match=f"^{line}[^\n]*$"):
            make(model, group_named(group), input_shape=(1, 12, 12))
        assert is_as_before(model, before)


def test_the_decay_looks_once_at_each_network_group_and_size(monkeypatch):
    seen, model, other = [], made(perceptron()), made(perceptron())
    monkeypatch.setattr("ginv.symmetry._check", lambda *asked: seen.append(asked))
    for each, name in product((model, other), ("R4", "D4", "R4")):
        decay_asymmetry(each, group_named(name), 0.1, (1, 12, 12))
    assert [group.name for _, group, _ in seen] == ["R4", "D4"] * 2
    model.append(nn.Tanh())  # another network now
    decay_asymmetry(model, group_named("R4"), 0.1, (1, 12, 12))
    assert len(seen) == 5


def test_the_decay_looks_again_where_a_layer_is_another_of_its_kind():
    """A kernel of 3 at a stride of 2 does not see an even image from all sides alike."""
    pooled = nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 3)
    model = made(lambda: nn.Sequential(nn.Conv2d(1, 4, 4, 2, 1), nn.ReLU(), *pooled))
    decay_asymmetry(model, Rotations(4), 1.0, (1, 12, 12))
    model[0] = made(lambda: nn.Sequential(nn.Conv2d(1, 4, 3, 2, 1)))[0]
    with pytest.raises(ValueError, match="^[^\n]+$"):
        decay_asymmetry(model, Rotations(4), 1.0, (1, 12, 12))


class Fails(nn.Module):
    def __init__(self, error):
        super().__init__()
        self.layer, self.error = nn.Linear(144, 8), error

    def forward(self, x):
        raise self.error


@pytest.mark.parametrize("change", [symmetrise, partial(decay_asymmetry, share=0.1)])
def test_weights_of_inference_mode_are_refused_in_one_line(change):
    with torch.inference_mode():
        model = made(perceptron())
    with pytest.raises(ValueError, match="^the weights were made in inference mode, [^\n]*$"):
        change(model, Rotations(4), input_shape=(1, 12, 12))


@pytest.mark.parametrize("change", [symmetrise, partial(decay_asymmetry, share=0.1)])
def test_weights_that_share_one_place_of_memory_are_refused_in_one_line(change):
    model = made(perceptron())
    layer = next(layer for layer in model if isinstance(layer, nn.Linear))
    layer.bias = nn.Parameter(torch.ones(1).expand(len(layer.bias)))
    line = "^weights of .*bias is 'expanded'; allowed: each in its own place of memory$"
    with pytest.raises(ValueError, match=line):
        change(model, Rotations(4), input_shape=(1, 12, 12))


RAISED = [(RuntimeError("shapes"), ValueError), (KeyboardInterrupt(), KeyboardInterrupt)]


@pytest.mark.parametrize(("error", "raised"), RAISED, ids=repr)
def test_a_network_that_does_not_run_is_left_as_it_was(error, raised):
    model = made(lambda: nn.Sequential(Fails(error)))
    before = sizes(model)
    with pytest.raises(raised):
        symmetrise(model, Rotations(4), (1, 12, 12))
    assert is_as_before(model, before)


@st.composite
def convolutional(draw):
    """A network of a few layers of any kind, and the image's size."""
    side, channels, layers = draw(st.integers(5, 10)), 1, []
    for _ in range(draw(st.integers(1, 3))):
        out, kernel = draw(st.sampled_from([4, 6, 8])), draw(st.integers(1, 4))
        stride, padding = draw(st.integers(1, 2)), draw(st.integers(0, 2))
        layers.append(nn.Conv2d(channels, out, kernel, stride, padding, bias=draw(st.booleans())))
        kinds = {
            "norm": nn.BatchNorm2d(out),
            "groups": nn.GroupNorm(2, out),
            "relu": nn.ReLU(),
            "tanh": nn.Tanh(),
            "pool": nn.MaxPool2d(3, 2, 1),
            "mean": nn.AvgPool2d(2, 1),
            "shuffle": nn.ChannelShuffle(2),
        }
        layers += [kinds[kind] for kind in draw(st.lists(st.sampled_from([*kinds]), max_size=2))]
        channels = out
    if draw(st.booleans()):
        layers.append(nn.AdaptiveAvgPool2d(1))
    layers.append(nn.Flatten())
    try:
        features = nn.Sequential(*layers).eval()(torch.zeros(1, 1, side, side)).shape[1]
    except RuntimeError:  # nothing is left
        assume(False)
    return nn.Sequential(*layers, nn.Linear(features, 3)), side


@settings(max_examples=150)
@given(convolutional(), st.sampled_from(["R2", "R4", "D1", "D2", "D4"]))
def test_any_network_becomes_invariant_or_is_refused_as_it_was(network, name):
    """No third way."""
    model, side = network
    before, group = sizes(model), group_named(name)
    try:
        symmetrise(model, group, (1, side, side))
    except ValueError as error:
        assert re.fullmatch(r"layer \d+ \(\w+\)[^\n]*", str(error))
        assert is_as_before(model, before)
    else:
        images = torch.randn(4, 1, side, side, generator=torch.Generator().manual_seed(7))
        assert relative_logit_invariance(orbit_logits(model.eval(), images, group)).max() < 1e-9


@pytest.mark.parametrize("p", [0.0, 0.5])
@pytest.mark.parametrize("kind", [nn.Dropout, nn.Dropout2d, nn.AlphaDropout])
def test_dropout_is_warned_of_where_it_is_asked_for(kind, p, recwarn):
    build = conv if kind is nn.Dropout2d else perceptron
    symmetrise(made(build(lambda: kind(p))), Rotations(4), (1, 12, 12))
    assert [str(each.message).split(" ")[0] for each in recwarn] == ["dropout"] * (p > 0)
    assert all(each.filename == __file__ for each in recwarn)


@pytest.mark.parametrize(
    "build",
    [lambda: nn.Sequential(nn.Flatten(), nn.Linear(3072, 8)), conv(channels=3)],
    ids=["perceptron", "convolutions"],
)
def test_another_size_than_the_paper_s_is_told_to_name_input_shape(build):
    with pytest.raises(ValueError, match=r"^input_shape is \(1, 36, 36\); allowed: [^\n]*$"):
        symmetrise(build(), Rotations(4))
    assert lost(symmetrise(build(), Rotations(4), [3, 32, 32]), Rotations(4), (3, 32, 32)) < 1e-9


@pytest.mark.parametrize("shape", [36, (36, 36), (1, 36.0, 36), "36", (0, 36, 36), None])
def test_what_is_no_shape_is_refused_in_one_line(shape):
    with pytest.raises(
        ValueError, match=r"^shape is [^\n]*; allowed: three integers from 1[^\n]*$"
    ):
        symmetrise(MLP(), Rotations(4), shape)


@pytest.mark.parametrize("setting", SETTINGS)
def test_a_network_becomes_the_same_whatever_its_owner_has_set(setting):
    group, shape, expected = Rotations(4), (1, 12, 12), made(conv(lambda: nn.BatchNorm2d(8)))
    model, images = copy.deepcopy(expected), torch.randn(2, *shape)
    symmetrise(expected, group, shape)
    with SETTINGS[setting]():
        symmetrise(model, group, shape)
        assert_invariant(model, images, group)
        assert check_group(group, shape) == 0
    assert is_as_before(model, sizes(expected))


ALL = ["R1", "R2", "R4", "T3", "V2", "D1", "D2", "D4", "S3", "T3xV3", "R4xS3"]


@pytest.mark.parametrize("name", ALL)
def test_averaging_over_an_orbit_makes_any_network_invariant(name, generator):
    """To the group and, as its attributions move with it, with SI 1; by hand a mean."""
    group, plain = group_named(name), made(conv(channels=3, padding=1)).double().eval()
    images = torch.randn(4, 3, 6, 6, generator=generator, dtype=torch.float64)
    averaged = Averaged(plain, group)
    assert_invariant(averaged, images, group, atol=1e-12, rtol=0)
    by_hand = sum(plain(group.act(g, images)) for g in group.elements) / group.order
    torch.testing.assert_close(averaged(images), by_hand)
    found = measure(averaged, images, [0, 1, 2, 0], group, steps=4, progress=False).samples
    assert found.SI.min() > 1 - 1e-9 and found[["LI", "DI", "JS"]].max(axis=None) < 1e-12
    if group.order > 1:
        before = measure(plain, images, [0, 1, 2, 0], group, steps=4, progress=False).samples
        assert before.SI.min() < 0.99 and before.LI.min() > 1e-9


def test_an_averaged_network_learns_and_takes_what_measure_takes(generator):
    images = torch.randn(3, 1, 6, 6, generator=generator)
    inner = nn.Sequential(nn.Flatten(), nn.Linear(36, 3))

    class Named(nn.Module):
        def __init__(self):
            super().__init__()
            self.inner = inner

        def forward(self, x):
            return {"logits": self.inner(x)}

    averaged = Averaged(Named(), Rotations(4))
    torch.testing.assert_close(averaged(images), Averaged(inner, Rotations(4))(images))
    averaged(images).square().sum().backward()
    weight = inner[1].weight.grad.view(3, 6, 6)
    torch.testing.assert_close(weight, weight.rot90(1, (1, 2)))  # as that of an average is
    assert weight.norm() > 0.1
    assert len([*averaged.parameters()]) == 2


class Corner(nn.Module):
    """Sees one pixel, which changes a logit of 10; or makes it no number."""

    def __init__(self, bad=None):
        super().__init__()
        self.bad = bad

    def forward(self, x):
        pixel = x[:, 0, 0, 0]
        added = pixel if self.bad is None else torch.where(pixel > 0, self.bad, 0.0)
        return torch.stack([10 + added, 0 * pixel], 1)


class TestAssertInvariant:
    """Of three images, a quarter turn brings a pixel of the last to the corner."""

    def with_pixel(self, value):
        images = torch.zeros(3, 1, 2, 2, dtype=torch.float64)
        images[2, 0, 0, 1] = value
        return images

    @pytest.mark.parametrize(
        ("atol", "rtol", "passes"),
        [(0.5, 0, True), (0.49, 0, False), (0, 0.05, True), (0, 0.049, False), (0.25, 0.025, True)],
    )
    def test_it_fails_beyond_the_tolerance(self, atol, rtol, passes):
        """Half a unit of logits of 10."""
        check = partial(assert_invariant, atol=atol, rtol=rtol)
        images = self.with_pixel(0.5)
        if passes:
            return check(Corner(), images, Rotations(4))
        line = "not invariant: element 1 of R4 moves the logits of image 2 by 0.5, more than 0.49 "
        line += f"(atol {atol:g} + rtol {rtol:g} of the largest)"
        with pytest.raises(AssertionError, match=f"^{re.escape(line)}$"):
            check(Corner(), images, Rotations(4))

    def test_by_default_rounding_passes_and_a_thousandth_does_not(self):
        assert_invariant(Corner(), self.with_pixel(5e-4), Rotations(4))
        with pytest.raises(AssertionError, match=r"by 0.002, more than 0.00101"):
            assert_invariant(Corner(), self.with_pixel(2e-3), Rotations(4))

    @pytest.mark.parametrize("bad", [torch.nan, torch.inf])
    def test_what_is_no_number_is_not_invariant(self, bad):
        with pytest.raises(
            AssertionError, match=r"element 1 of R4 moves the logits of image 2 by (nan|inf), more"
        ):
            assert_invariant(Corner(bad), self.with_pixel(1.0), Rotations(4), atol=1e9)

    @pytest.mark.parametrize("value", [-1, float("nan"), "1e-5", None, True])
    def test_what_is_no_tolerance_is_refused(self, value):
        for name in ("atol", "rtol"):
            with pytest.raises(ValueError, match=f"^{name} is .*; allowed: numbers from 0$"):
                assert_invariant(Corner(), self.with_pixel(0), Rotations(4), **{name: value})

    def test_it_looks_in_evaluation_mode_and_leaves_the_model_in_its_own(self):
        model = made(perceptron(lambda: nn.BatchNorm1d(8)))
        model = symmetrise(model, Rotations(4), (1, 12, 12)).append(nn.Dropout(0.5))
        before = sizes(model)
        assert any(before[0]) and not all(before[0])
        assert_invariant(model, torch.randn(4, 1, 12, 12), Rotations(4))
        assert is_as_before(model, before)

    def test_it_takes_what_measure_takes(self):
        """A function, halves, one image; in inference mode."""
        group = Rotations(4)
        with torch.inference_mode():
            assert_invariant(lambda x: x.sum((1, 2, 3)), torch.ones(1, 1, 4, 4).half(), group)
            with pytest.raises(AssertionError):
                assert_invariant(Corner(), self.with_pixel(1.0), group)
        with pytest.raises(ValueError, match="type of images is 'uint8'"):
            assert_invariant(Corner(), self.with_pixel(0).byte(), group)

    @pytest.mark.parametrize("setting", SETTINGS)
    def test_it_takes_many_images_a_few_at_a_time(self, setting, monkeypatch):
        """A square keeps what it squares: 18 images' memory for each, of 256 bytes."""
        seen = []

        class Counted(nn.Module):
            def forward(self, x):
                seen.append(len(x))
                return x.square().sum((1, 2, 3))[:, None]

        monkeypatch.setattr("ginv.classifier.BUDGET", 18 * 256 * 10)
        images = torch.ones(7, 1, 8, 8)
        with SETTINGS[setting]():
            assert_invariant(Counted(), images, Rotations(4))
        assert seen == [1, 10, 10, 8]


def test_an_average_over_what_is_no_group_is_refused(generator):
    whole = Averaged(made(perceptron()), Product(Rotations(4), Translations(2)))
    with pytest.raises(ValueError, match="^R4xT2 is no "):
        whole(torch.randn(2, 1, 12, 12, generator=generator))


def test_a_network_that_keeps_what_it_computed_decays():
    """A tensor of a graph cannot be copied with it."""

    class Keeping(nn.Sequential):
        def forward(self, x):
            self.kept = super().forward(x)
            return self.kept

    model = Keeping(*made(perceptron()))
    model(torch.randn(4, 1, 12, 12)).sum().backward()
    before = [parameter.detach().clone() for parameter in model.parameters()]
    decay_asymmetry(model, Rotations(4), 0.0, (1, 12, 12))
    assert all(map(torch.equal, before, model.parameters()))


@pytest.mark.parametrize("change", [symmetrise, partial(decay_asymmetry, share=0.1)])
def test_weights_without_values_are_refused_in_one_line(change):
    for model in (nn.Sequential(nn.Flatten(), nn.LazyLinear(3)), MLP().to("meta")):
        with pytest.raises(ValueError, match="^weights of the model have no values yet: [^\n]*$"):
            change(model, Rotations(4))
