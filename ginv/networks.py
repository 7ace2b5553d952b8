"""The networks of Section 4.1: a perceptron, and the same with a weight-tied first layer.

And a start that makes a network of linear layers and convolutions invariant without tying it.
"""

import math
from collections.abc import Callable
from itertools import pairwise

import torch
import torch.nn.functional as F
from torch import Generator, Tensor, nn
from torch.nn.utils import skip_init

from ginv.data import CLASSES, IMAGE_SHAPE
from ginv.groups import Group, Rotations
from ginv.refuse import require

# Responses [n, G, features] and bias -> [n, features]. The paper does not say which; a maximum
# commutes with a ReLU
POOLINGS: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    "max": lambda responses, bias: responses.amax(1) + bias,
    "mean": lambda responses, bias: responses.mean(1) + bias,
    "mean after ReLU": lambda responses, bias: (responses + bias).relu().mean(1),
}

# Of the initial weights, uniform in +-gain / sqrt(inputs). The paper names Glorot and He and does
# not say which it took
INITIALISATIONS = {"pytorch": 1.0, "he": math.sqrt(6)}


class WeightTiedLinear(nn.Module):
    """A linear layer shared over a group and pooled over it: x -> max_g <gw, x> + b.

    Tying means that the filters come as whole orbits. The action only permutes pixels, so <gw, hx>
    = <h^-1 gw, x>: moving the image permutes the responses of an orbit of filters, and their
    maximum stays. It has the parameters of `nn.Linear(height * width, features)`.
    """

    def __init__(
        self,
        group: Group,
        height: int,
        width: int,
        features: int,
        pooling: str = "max",
        dtype: torch.dtype | None = None,
    ) -> None:
        super().__init__()
        require(isinstance(group, Group), "group", group, "a ginv.Group, such as ginv.Rotations(4)")
        require(pooling in [*POOLINGS], "pooling", pooling, ", ".join(POOLINGS))
        self.group, self.image_shape, self.pooling = group, (height, width), pooling
        self.weight = nn.Parameter(torch.empty(features, height * width, dtype=dtype))
        self.bias = nn.Parameter(torch.empty(features, dtype=dtype))

    def forward(self, x: Tensor) -> Tensor:
        """`[n, H * W]` -> `[n, features]`."""
        weight = self.weight.unflatten(1, self.image_shape)
        filters = self.group.orbit(weight).flatten(2)  # [G, features, H * W]
        responses = F.linear(x, filters.flatten(0, 1))
        responses = responses.unflatten(1, filters.shape[:2])  # [n, G, features]
        return POOLINGS[self.pooling](responses, self.bias)


class MLP(nn.Module):
    """A perceptron with ReLU: images -> logits.

    It has `depth` hidden layers of `width` units, the first of `first_width` where it is given, and
    a linear output. The paper's has five of 128 units, on 36 x 36 images with 9 classes: 233,225
    parameters. With a `group`, the first layer is weight-tied (WT): the network is invariant, with
    as many parameters.

    It is `output(hidden(features(x)))`: `features` gives the first layer before its ReLU, `hidden`
    the penultimate representation.
    """

    def __init__(
        self,
        group: Group | None = None,
        *,
        image_shape: tuple[int, int] = IMAGE_SHAPE,
        classes: int = CLASSES,
        width: int = 128,
        depth: int = 5,
        first_width: int | None = None,
        pooling: str = "max",
        initialisation: str = "pytorch",
        dtype: torch.dtype | None = None,
        generator: Generator | None = None,
    ) -> None:
        super().__init__()
        known = [*INITIALISATIONS]
        require(initialisation in known, "initialisation", initialisation, ", ".join(known))
        first_width = width if first_width is None else first_width
        sizes = dict(width=width, depth=depth, first_width=first_width, classes=classes)
        for name, size in sizes.items():
            require(type(size) is int and size > 0, name, size, "integers from 1")
        pixels, widths = math.prod(image_shape), [first_width, *[width] * (depth - 1)]
        if group is None:
            first: nn.Module = _linear(pixels, first_width, dtype)
        else:
            first = WeightTiedLinear(group, *image_shape, first_width, pooling, dtype)
        hidden = [
            layer for ends in pairwise(widths) for layer in (nn.ReLU(), _linear(*ends, dtype))
        ]
        self.features = nn.Sequential(nn.Flatten(), first)
        self.hidden = nn.Sequential(*hidden, nn.ReLU())
        self.output = _linear(widths[-1], classes, dtype)
        initialise(self, generator, INITIALISATIONS[initialisation])

    @property
    def starts_linear(self) -> bool:
        """Whether features(ax) - features(0) is a (features(x) - features(0)) for every a >= 0."""
        return getattr(self.features[1], "pooling", None) != "mean after ReLU"

    def forward(self, x: Tensor) -> Tensor:
        """Images `[n, 1, H, W]` -> logits `[n, classes]`."""
        return self.output(self.hidden(self.features(x)))


def _linear(inputs: int, outputs: int, dtype: torch.dtype | None = None) -> nn.Linear:
    """Without weights: PyTorch would draw some from its own generator."""
    return skip_init(nn.Linear, inputs, outputs, dtype=dtype)


@torch.no_grad()
def initialise(model: nn.Module, generator: Generator | None, gain: float = 1.0) -> None:
    """PyTorch's default for linear layers, uniform in +-1 / sqrt(inputs), the weights times a gain.

    Without a generator, from PyTorch's own.
    """
    for layer in model.modules():
        if isinstance(layer, nn.Linear | WeightTiedLinear):
            bound = 1 / math.sqrt(layer.weight.shape[1])
            layer.weight.uniform_(-gain * bound, gain * bound, generator=generator)
            layer.bias.uniform_(-bound, bound, generator=generator)


@torch.no_grad()
def symmetrise(
    model: nn.Module, group: Group, input_shape: tuple[int, ...] = (1, *IMAGE_SHAPE)
) -> None:
    """Make a network with random weights invariant, in place; nothing is tied.

    Its hidden layers become equivariant: unit, or channel, `f * order + g` is filter f moved by g,
    so that moving the image permutes the units of an orbit, and the output layer weighs them alike.
    Units beyond the last whole orbit become invariant. Each weight is replaced by its mean over the
    group, which acts on both ends of a layer, times the square root of the order, since the mean of
    so many random weights is that much smaller. (Those that no element moves, between units that
    are invariant, grow by that much.)

    For linear layers, and convolutions before them under rotations, applied in the order of
    `model.modules()` to images `input_shape`, `C, H, W`. Raises ValueError for other layers that
    have parameters, and for a linear layer whose inputs are not the pixels of the image or of
    square channels. Not checked: that strides look at the image from all sides alike, as a kernel
    of 4, and not of 3, does at a stride of 2 on an even image; `relative_logit_invariance` of the
    logits says whether it worked.
    """
    require(isinstance(model, nn.Module), "model", model, "a torch.nn.Module")
    require(isinstance(group, Group), "group", group, "a ginv.Group, such as ginv.Rotations(4)")
    layers = [layer for layer in model.modules() if [*layer.parameters(recurse=False)]]
    (channels, *shape), changes = input_shape, []
    for layer in layers:
        first, last = layer is layers[0], layer is layers[-1]
        weight = _over_pixels(layer, group, channels, shape if first else None)
        changes += _symmetric(layer, weight, group, first, last)
        channels = len(weight)
    for parameter, value in changes:  # once all layers are known to fit
        parameter.copy_(value)


def _over_pixels(layer: nn.Module, group: Group, channels: int, shape: list[int] | None) -> Tensor:
    """The weight of a layer as `[units, channels, H, W]`; H and W of the first layer are known.

    Convolutions make the image smaller: behind them it is square, of whichever size fits.
    """
    is_convolution = isinstance(layer, nn.Conv2d) and isinstance(group, Rotations)
    fits = isinstance(layer, nn.Linear) or is_convolution
    require(fits, "layer", layer, "linear, and convolutions under rotations")
    if not isinstance(layer, nn.Linear):
        return layer.weight  # type: ignore[return-value]
    size = " x ".join(map(str, (channels, *(shape or ()))))
    size = size if shape else f"{channels} times a square number"
    shape = shape or [math.isqrt(layer.in_features // channels)] * 2
    fits = channels * math.prod(shape) == layer.in_features
    require(fits, "inputs of the linear layer", layer.in_features, size)
    return layer.weight.unflatten(1, (channels, *shape))


def _symmetric(
    layer: nn.Module, weight: Tensor, group: Group, first: bool, last: bool
) -> list[tuple[Tensor, Tensor]]:
    """The parameters of a layer with their means over the group, scaled to their size."""
    scale, weights, biases = math.sqrt(group.order), [], []
    for g in group.elements:
        moved = group.act(g, weight) if weight[0, 0].numel() > 1 else weight
        moved = moved if first else moved[:, _moved_units(moved.shape[1], group, g)]
        weights.append(moved if last else moved[_moved_units(len(moved), group, g)])
        if layer.bias is not None and not last:
            biases.append(layer.bias[_moved_units(len(layer.bias), group, g)])  # type: ignore
    mean = torch.stack(weights).mean(0).view_as(layer.weight)  # type: ignore[arg-type]
    changes = [(layer.weight, scale * mean)]
    if biases:
        changes.append((layer.bias, scale * torch.stack(biases).mean(0)))
    return changes  # type: ignore[return-value]


def _moved_units(units: int, group: Group, g: int) -> list[int]:
    """Which unit g brings to each place: f * order + h goes to f * order + gh.

    Those beyond the last orbit stay.
    """
    order, back = group.order, group.inverse(g)
    whole = units // order * order
    moved = [u - u % order + group.product(back, u % order) for u in range(whole)]
    return [*moved, *range(whole, units)]


class Ensemble(nn.Module):
    """The mean of the logits of its members: `[n, 1, H, W]` -> `[n, classes]`."""

    def __init__(self, members: list[nn.Module]) -> None:
        super().__init__()
        self.members = nn.ModuleList(members)

    def forward(self, x: Tensor) -> Tensor:
        return torch.stack([member(x) for member in self.members]).mean(0)


def small_convnet(generator: Generator | None = None, *, classes: int = CLASSES) -> nn.Sequential:
    """A network that is no perceptron: three convolutions with ReLU and a linear output.

    `[n, 1, 36, 36]` -> `[n, classes]`, with He's weights. Two kernels are 4 wide and not 3: at a
    stride of 2 only those of even width see an image of even width from all sides alike, as
    `symmetrise` needs.
    """
    features = nn.Sequential()
    for sizes in ((1, 16, 4), (16, 32, 4), (32, 32, 3)):
        features.extend([skip_init(nn.Conv2d, *sizes, stride=2, padding=1), nn.ReLU()])
    model = nn.Sequential(features.append(nn.Flatten()), _linear(32 * 5 * 5, classes))
    for layer in model.modules():
        if isinstance(layer, nn.Conv2d | nn.Linear):
            nn.init.kaiming_uniform_(layer.weight, nonlinearity="relu", generator=generator)
            nn.init.zeros_(layer.bias)  # type: ignore[arg-type]
    return model
