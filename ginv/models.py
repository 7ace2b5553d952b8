"""The two networks of Section 4.1, a perceptron and the same perceptron with a weight-tied first layer.

And a start for any network that makes it invariant without tying it.
"""

import math
from collections.abc import Callable
from itertools import pairwise

import torch
import torch.nn.functional as F
from torch import Generator, Tensor, nn

from ginv.data import CLASSES, IMAGE_SHAPE
from ginv.groups import Group, Rotations
from ginv.parameters import require

# Responses [n, G, features] and bias -> [n, features]. The paper does not say which; a maximum commutes with a ReLU
POOLINGS: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    "max": lambda responses, bias: responses.amax(1) + bias,
    "mean": lambda responses, bias: responses.mean(1) + bias,
    "mean after ReLU": lambda responses, bias: (responses + bias).relu().mean(1),
}

# Of the initial weights, uniform in +-gain / sqrt(inputs). The paper names Glorot and He and does not say which it took
INITIALISATIONS = {"pytorch": 1.0, "he": math.sqrt(6)}


class WeightTiedLinear(nn.Module):
    """A linear layer shared over a group and pooled over it: x -> max_g <gw, x> + b (Section 4.1, "Models").

    Tying means that the filters come as whole orbits. The action only permutes pixels, so <gw, hx> = <h^-1 gw, x>:
    moving the image permutes the responses of an orbit of filters, and their maximum stays. It has the parameters of
    `nn.Linear(height * width, features)`.
    """

    def __init__(self, group: Group, height: int, width: int, features: int, pooling: str = "max") -> None:
        super().__init__()
        require(isinstance(group, Group), "group", group, "a ginv.Group, such as ginv.Rotations(4)")
        require(pooling in [*POOLINGS], "pooling", pooling, ", ".join(POOLINGS))
        self.group, self.image_shape, self.pooling = group, (height, width), pooling
        self.weight = nn.Parameter(torch.empty(features, height * width))
        self.bias = nn.Parameter(torch.empty(features))

    def forward(self, x: Tensor) -> Tensor:
        """`[n, H * W]` -> `[n, features]`."""
        filters = self.group.orbit(self.weight.unflatten(1, self.image_shape)).flatten(2)  # [G, features, H * W]
        responses = F.linear(x, filters.flatten(0, 1)).unflatten(1, filters.shape[:2])  # [n, G, features]
        return POOLINGS[self.pooling](responses, self.bias)


class MLP(nn.Module):
    """Perceptron with ReLU: `depth` hidden layers of `width` units, the first of `first_width` where it is given, and a
    linear output; images -> logits.

    The paper's network is five hidden layers of 128 units on 36 x 36 images with 9 classes: 233,225 parameters. With a
    `group`, the first layer is weight-tied (WT): the network is invariant, with as many parameters.

    The network is `output(hidden(features(x)))`: `features` gives the first layer before its ReLU, `hidden` the
    penultimate representation.
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
        generator: Generator | None = None,
    ) -> None:
        super().__init__()
        require(initialisation in [*INITIALISATIONS], "initialisation", initialisation, ", ".join(INITIALISATIONS))
        first_width = width if first_width is None else first_width
        for name, size in {"width": width, "depth": depth, "first_width": first_width, "classes": classes}.items():
            require(type(size) is int and size > 0, name, size, "integers from 1")
        pixels, widths = math.prod(image_shape), [first_width, *[width] * (depth - 1)]
        if group is None:
            first: nn.Module = nn.Linear(pixels, first_width)
        else:
            first = WeightTiedLinear(group, *image_shape, first_width, pooling)
        hidden = [layer for sizes in pairwise(widths) for layer in (nn.ReLU(), nn.Linear(*sizes))]
        self.features = nn.Sequential(nn.Flatten(), first)
        self.hidden = nn.Sequential(*hidden, nn.ReLU())
        self.output = nn.Linear(widths[-1], classes)
        initialise(self, generator, INITIALISATIONS[initialisation])

    @property
    def starts_linear(self) -> bool:
        """Whether features(ax) - features(0) is a (features(x) - features(0)) for every a >= 0."""
        return getattr(self.features[1], "pooling", None) != "mean after ReLU"

    def forward(self, x: Tensor) -> Tensor:
        """Images `[n, 1, H, W]` -> logits `[n, classes]`."""
        return self.output(self.hidden(self.features(x)))


@torch.no_grad()
def initialise(model: nn.Module, generator: Generator | None, gain: float = 1.0) -> None:
    """PyTorch's default for linear layers, uniform in +-1 / sqrt(inputs), the weights times a gain; no generator:
    PyTorch's own.
    """
    for layer in model.modules():
        if isinstance(layer, nn.Linear | WeightTiedLinear):
            bound = 1 / math.sqrt(layer.weight.shape[1])
            layer.weight.uniform_(-gain * bound, gain * bound, generator=generator)
            layer.bias.uniform_(-bound, bound, generator=generator)


@torch.no_grad()
def symmetrise(model: nn.Module, group: Group, image_shape: tuple[int, ...] = (1, *IMAGE_SHAPE)) -> None:
    """Make a network with random weights invariant, in place. Nothing is tied: each weight is free to leave.

    Its hidden units, or channels, become orbits: unit `f * order + g` is filter f moved by g, so that moving the image
    permutes units, and the output adds up whole orbits. Units beyond the last whole orbit become invariant. Each weight
    is replaced by its mean over the group, which acts on both ends of a layer, times the square root of the order,
    since the mean of so many random weights is that much smaller.

    For linear layers, and convolutions before them under rotations, in the order of `model.modules()`, with anything
    between them that treats units, and all pixels, alike. image_shape: `C, H, W`, as the network sees it.
    Raises ValueError for other layers that have weights.
    """
    layers: list = [layer for layer in model.modules() if not [*layer.children()] and [*layer.parameters()]]
    channels, pixels, scale = image_shape[0], image_shape[1:], math.sqrt(group.order)
    for layer in layers:
        fits = isinstance(layer, nn.Linear) or (isinstance(layer, nn.Conv2d) and isinstance(group, Rotations))
        require(fits, "layer", layer, "linear, and convolutions under rotations")
        first, last = layer is layers[0], layer is layers[-1]
        if not first:  # convolutions make the image smaller
            pixels = (math.isqrt(layer.weight[0].numel() // channels),) * 2
        if isinstance(layer, nn.Linear):
            fits = channels * math.prod(pixels) == layer.in_features
            require(fits, "inputs of the linear layer", layer.in_features, f"pixels of {channels} square channels")
        weight = layer.weight if isinstance(layer, nn.Conv2d) else layer.weight.view(-1, channels, *pixels)
        orbit = group.orbit(weight) if weight[0, 0].numel() > 1 else weight.expand(group.order, *weight.shape)
        if not first:
            orbit = _permute_units(orbit, group, 2)
        if not last:
            orbit = _permute_units(orbit, group, 1)
            if layer.bias is not None:
                biases = _permute_units(layer.bias.expand(group.order, -1), group, 1)
                layer.bias.copy_(scale * biases.mean(0))
        layer.weight.copy_(scale * orbit.mean(0).view_as(layer.weight))
        channels = len(layer.weight)


def _permute_units(x: Tensor, group: Group, dim: int) -> Tensor:
    """g acts on the entry of g: it moves unit f * order + h to f * order + gh. Those beyond the last orbit stay."""
    units = torch.arange(x.shape[dim])
    whole = units[: len(units) // group.order * group.order].view(-1, group.order)
    rest = units[whole.numel() :]
    moved = []
    for g, entry in zip(group.elements, x, strict=True):
        from_ = [group.product(group.inverse(g), h) for h in group.elements]
        moved.append(entry.index_select(dim - 1, torch.cat([whole[:, from_].flatten(), rest])))
    return torch.stack(moved)
