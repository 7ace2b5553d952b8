"""The two networks of Section 4.1, a perceptron and the same perceptron with a weight-tied first layer.

And a start that makes a network of linear layers and convolutions invariant without tying it.
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
def symmetrise(model: nn.Module, group: Group, input_shape: tuple[int, ...] = (1, *IMAGE_SHAPE)) -> None:
    """Make a network with random weights invariant, in place. Nothing is tied: each weight is free to leave.

    Its hidden layers become equivariant: unit, or channel, `f * order + g` is filter f moved by g, so that moving the
    image permutes the units of an orbit, and the output layer weighs them alike. Units beyond the last whole orbit
    become invariant. Each weight is replaced by its mean over the group, which acts on both ends of a layer, times the
    square root of the order, since the mean of so many random weights is that much smaller. (Those that no element
    moves, between units that are invariant, grow by that much.)

    For linear layers, and convolutions before them under rotations, applied in the order of `model.modules()` to
    images `input_shape`, `C, H, W`. Raises ValueError for other layers that have parameters, and for a linear layer
    whose inputs are not the pixels of the image or of square channels. Not checked: that strides look at the image from
    all sides alike, as a kernel of 4, and not of 3, does at a stride of 2 on an even image;
    `relative_logit_invariance` of the logits says whether it worked.
    """
    require(isinstance(model, nn.Module), "model", model, "a torch.nn.Module")
    require(isinstance(group, Group), "group", group, "a ginv.Group, such as ginv.Rotations(4)")
    layers: list = [layer for layer in model.modules() if [*layer.parameters(recurse=False)]]
    (channels, *shape), scale, changes = input_shape, math.sqrt(group.order), []
    for layer in layers:
        fits = isinstance(layer, nn.Linear) or (isinstance(layer, nn.Conv2d) and isinstance(group, Rotations))
        require(fits, "layer", layer, "linear, and convolutions under rotations")
        first, last, weight = layer is layers[0], layer is layers[-1], layer.weight
        if isinstance(layer, nn.Linear):
            if not first:  # convolutions make the image smaller
                shape = [math.isqrt(layer.in_features // channels)] * 2
            size = " x ".join(map(str, (channels, *shape))) if first else f"{channels} times a square number"
            fits = channels * math.prod(shape) == layer.in_features
            require(fits, "inputs of the linear layer", layer.in_features, size)
            weight = weight.unflatten(1, (channels, *shape))
        orbit, biases = [], []
        for g in group.elements:
            moved = group.act(g, weight) if weight[0, 0].numel() > 1 else weight
            moved = moved if first else moved[:, _moved_units(moved.shape[1], group, g)]
            orbit.append(moved if last else moved[_moved_units(len(moved), group, g)])
            if layer.bias is not None and not last:
                biases.append(layer.bias[_moved_units(len(layer.bias), group, g)])
        changes.append((layer.weight, scale * torch.stack(orbit).mean(0).view_as(layer.weight)))
        if biases:
            changes.append((layer.bias, scale * torch.stack(biases).mean(0)))
        channels = len(weight)
    for parameter, value in changes:  # once all layers are known to fit
        parameter.copy_(value)


def _moved_units(units: int, group: Group, g: int) -> list[int]:
    """Which unit g brings to each place: f * order + h goes to f * order + gh. Those beyond the last orbit stay."""
    order, back = group.order, group.inverse(g)
    whole = units // order * order
    return [u - u % order + group.product(back, u % order) if u < whole else u for u in range(units)]
