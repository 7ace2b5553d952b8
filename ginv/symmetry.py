"""Networks made invariant, by a symmetric start or by averaging; and a test that they are."""

import math
import warnings
from collections.abc import Callable
from weakref import WeakKeyDictionary

import torch
from torch import Generator, Tensor, nn

from ginv.classifier import (
    as_classifier,
    as_images,
    as_seen_by,
    logits_of,
    model_of,
    require_weights,
)
from ginv.data import IMAGE_SHAPE
from ginv.groups import Group, check_group_once, move_map, moved_units, require_commuting
from ginv.layers import watching
from ginv.machine import evaluating, is_expanded, plain_torch
from ginv.measures import orbit_logits, relative_logit_invariance
from ginv.refuse import require
from ginv.saliency import passes

# What has a number, or a few, for each channel
PER_CHANNEL = (
    nn.BatchNorm1d,
    nn.BatchNorm2d,
    nn.GroupNorm,
    nn.InstanceNorm2d,
    nn.PReLU,
)
TAKEN = "linear and two-dimensional convolutional layers, batch, group and instance norms, PReLU"


class Averaged(nn.Module):
    """A classifier whose logits are averaged over the orbit: invariant, at G forward passes."""

    def __init__(self, model: nn.Module, group: Group) -> None:
        super().__init__()
        require(isinstance(model, nn.Module), "model", model, "a torch.nn.Module")
        require(isinstance(group, Group), "group", group, "a ginv.Group, such as ginv.Rotations(4)")
        self.model, self.group, self.known = model, group, set[tuple[int, ...]]()

    def forward(self, x: Tensor) -> Tensor:
        """`[n, C, H, W]` -> `[n, classes]`. Raises ValueError where the group does not act on x."""
        if (shape := tuple(x.shape[1:])) not in self.known:
            check_group_once(self.group, shape, exact=False)
            require_commuting(self.group, shape)
            self.known.add(shape)
        rows = self.group.orbit(x).flatten(0, 1)
        return logits_of(self.model(rows), len(rows)).unflatten(0, (-1, len(x))).mean(0)


@plain_torch()
def assert_invariant(
    model: nn.Module | Callable,
    images: Tensor,
    group: Group,
    *,
    atol: float = 1e-5,
    rtol: float = 1e-4,
) -> None:
    """Raise AssertionError where a classifier is not invariant: for tests of your own.

    Its logits for gx, images x `[n, C, H, W]`, must be those for x, but for `atol` plus `rtol`
    times the largest logit of x. The error names the element, the image, the error and the
    tolerance. The model is looked at in evaluation mode.
    """
    require(isinstance(group, Group), "group", group, "a ginv.Group, such as ginv.Rotations(4)")
    for name, value in {"atol": atol, "rtol": rtol}.items():
        fits = isinstance(value, int | float) and not isinstance(value, bool)
        fits = fits and (0 <= value < 1e300 or value == math.inf)
        require(fits, name, value, "numbers from 0")
    images = as_images(images)
    check_group_once(group, tuple(images.shape[1:]), exact=True)
    with evaluating(model):
        classifier = as_classifier(model)
        size = passes("auto", classifier, as_seen_by(classifier, images[:1]))
        logits = orbit_logits(classifier, images, group, batch_size=size).double()
    errors = (logits - logits[0]).abs().amax(-1)  # [G, n]
    tolerances = atol + rtol * logits[0].abs().amax(-1)
    if not (errors <= tolerances).all():  # nor where one is no number
        worst = int((errors - tolerances).nan_to_num(nan=math.inf).argmax())
        g, image = divmod(worst, len(images))
        raise AssertionError(
            f"not invariant: element {g} of {group.name} moves the logits of image {image} by "
            f"{errors[g, image].item():.3g}, more than {tolerances[image].item():.3g} "
            f"(atol {atol:g} + rtol {rtol:g} of the largest)"
        )


@plain_torch()
def symmetrise(
    model: nn.Module, group: Group, input_shape: tuple[int, ...] = (1, *IMAGE_SHAPE)
) -> nn.Module:
    """Make a network with random weights invariant, in place; nothing is tied. Returns it.

    Its hidden layers become equivariant: unit, or channel, `f * order + g` is filter f moved by g,
    so that moving the image permutes the units of an orbit, and the output layer weighs them alike.
    Units beyond the last whole orbit become invariant. Each weight is replaced by its mean over the
    group, which acts on both ends of a layer, times the square root of the order, since the mean of
    so many random weights is that much smaller. (Those that no element moves, between units that
    are invariant, grow by that much.) What a norm has for each channel becomes its mean over the
    orbit.

    For linear layers, convolutions before them, and norms, applied in the order of
    `model.modules()` to images `input_shape`, `C, H, W`. A grouped convolution has to keep orbits
    together: depthwise, or as many channels in a group as make whole orbits. Raises ValueError for
    other layers that have parameters, for a linear layer whose inputs are not the pixels of the
    image or of square channels, and where the network is not invariant afterwards, with the first
    layer that is not equivariant: a kernel of 3 at a stride of 2 does not see an image of even size
    from all sides alike. The model is then as it was. Warns of dropout, which takes out the units
    of an orbit one by one in training.
    """
    orbits = weight_orbits(model, group, input_shape)
    norms = {
        id(t) for layer in model.modules() if isinstance(layer, PER_CHANNEL) for t in _of(layer)
    }
    scales = [1.0 if id(tensor) in norms else math.sqrt(group.order) for tensor, _ in orbits]
    changes = [
        (tensor, scale * orbit.mean(0))
        for (tensor, orbit), scale in zip(orbits, scales, strict=True)
    ]
    before = [(tensor, tensor.detach().clone()) for tensor, _ in changes]
    try:
        _copy(changes)
        _check(model, group, input_shape)
    except BaseException:
        _copy(before)
        raise
    if any(
        isinstance(layer, nn.modules.dropout._DropoutNd) and layer.p for layer in model.modules()
    ):
        warnings.warn(
            "dropout takes out the units of an orbit one by one: in training the symmetry is lost",
            stacklevel=3,  # above plain_torch
        )
    return model


@torch.no_grad()
def _copy(changes: list[tuple[Tensor, Tensor]]) -> None:
    for tensor, value in changes:
        tensor.copy_(value)


@plain_torch()
@torch.no_grad()
def decay_asymmetry(
    model: nn.Module,
    group: Group,
    share: float,
    input_shape: tuple[int, ...] = (1, *IMAGE_SHAPE),
) -> None:
    """Take a share of what is not symmetric in the weights away, in place: W - share (W - PW).

    PW is the mean over the group of the weights moved by it, the symmetric network that is nearest.
    For after each step of any optimiser: from random weights, the hidden layers become equivariant,
    and the network invariant, while they learn. A share of 1 is the projection itself, and at each
    step it ties the weights. share: 0 to 1, such as the learning rate times a factor that rises to
    100. For the layers that `symmetrise` takes; raises ValueError for others, and, the first time
    that it sees these layers, where no decay would make it invariant.
    """
    fits = isinstance(share, int | float) and not isinstance(share, bool) and 0 <= share <= 1
    require(fits, "share", share, "numbers from 0 to 1")
    orbits = weight_orbits(model, group, input_shape)
    _check_projection(model, group, input_shape, orbits)
    for tensor, orbit in orbits:
        tensor.lerp_(orbit.mean(0), share)


_PROJECTED: WeakKeyDictionary[nn.Module, set] = WeakKeyDictionary()  # for which of them


def _check_projection(
    model: nn.Module,
    group: Group,
    input_shape: tuple[int, ...],
    orbits: list[tuple[Tensor, Tensor]],
) -> None:
    """Refuse, once, a network whose projection is not invariant: the decay would lead nowhere."""
    known = _PROJECTED.setdefault(model, set())
    layers = tuple(map(type, model.modules())), repr(model)  # which has kernels and strides
    if (kind := (type(group), group.name, tuple(input_shape), layers)) not in known:
        before = [(tensor, tensor.detach().clone()) for tensor, _ in orbits]
        try:
            _copy([(tensor, orbit.mean(0)) for tensor, orbit in orbits])
            _check(model, group, input_shape)
        finally:
            _copy(before)
        known.add(kind)


@torch.no_grad()
def weight_orbits(
    model: nn.Module, group: Group, input_shape: tuple[int, ...] = (1, *IMAGE_SHAPE)
) -> list[tuple[Tensor, Tensor]]:
    """Each parameter that the group moves, once, and its orbit `[G, *its shape]`.

    The group acts on both ends of a layer: on the pixels of the image, and on hidden units or
    channels, which come as orbits (`ginv.groups.moved_units`).
    """
    require(isinstance(model, nn.Module), "model", model, "a torch.nn.Module")
    require(isinstance(group, Group), "group", group, "a ginv.Group, such as ginv.Rotations(4)")
    require_weights(model)
    if any(parameter.is_inference() for parameter in model.parameters()):
        raise ValueError("the weights were made in inference mode, and cannot be changed")
    for name, parameter in model.named_parameters():
        fits = not is_expanded(parameter)
        require(fits, f"weights of {name}", "expanded", "each in its own place of memory")
    check_group_once(group, input_shape, exact=True)
    weighed = [layer for layer in model.modules() if isinstance(layer, nn.Linear | nn.Conv2d)]
    orbits: list[tuple[Tensor, Tensor]] = []
    channels = input_shape[0]
    for name, layer in model.named_modules():
        own = {parameter for parameter, _ in layer.named_parameters(recurse=False)}
        if isinstance(layer, PER_CHANNEL):
            orbits += [(tensor, _moved(tensor, group)) for tensor in _of(layer)]
        elif own:
            fits = layer in weighed and own <= {"weight", "bias"} and "weight" in own
            require(fits, f"layer {name}", layer, f"{TAKEN}, their weights as they are")
            first, last = layer is weighed[0], layer is weighed[-1]
            weight = _over_pixels(layer, channels, input_shape if first else None)
            try:
                orbits += _of_weighed(layer, weight, group, input_shape[0], first, last)
            except ValueError as error:  # the group cannot act on its kernel
                raise ValueError(f"layer {name} ({type(layer).__name__}): {error}") from None
            channels = len(weight)
    return [*{id(tensor): (tensor, orbit) for tensor, orbit in orbits}.values()]


def _of(norm: nn.Module) -> list[Tensor]:
    """What a norm has for each channel."""
    tensors = [*norm.parameters(recurse=False), *norm.buffers(recurse=False)]
    return [tensor for tensor in tensors if tensor.ndim == 1 and tensor.is_floating_point()]


def _moved(tensor: Tensor, group: Group) -> Tensor:
    """The orbit of what has a number for each unit or channel."""
    return torch.stack([tensor[moved_units(group, g, len(tensor))] for g in group.elements])


def _over_pixels(layer: nn.Module, channels: int, input_shape: tuple[int, ...] | None) -> Tensor:
    """The weight of a layer as `[units, channels, H, W]`; the first layer sees the image.

    Convolutions make the image smaller: behind them it is square, of whichever size fits.
    """
    if isinstance(layer, nn.Conv2d):
        inputs = layer.in_channels
        allowed = f"({inputs}, H, W), as the first layer takes"
        require(input_shape is None or inputs == channels, "input_shape", input_shape, allowed)
        return layer.weight
    assert isinstance(layer, nn.Linear)
    if input_shape is not None:
        allowed = f"C, H, W of {layer.in_features} pixels, as the first layer takes"
        fits = math.prod(input_shape) == layer.in_features
        require(fits, "input_shape", input_shape, allowed)
        return layer.weight.unflatten(1, tuple(input_shape))
    side = math.isqrt(layer.in_features // channels)
    fits = channels * side * side == layer.in_features
    allowed = f"{channels} times a square number"
    require(fits, "inputs of the linear layer", layer.in_features, allowed)
    return layer.weight.unflatten(1, (channels, side, side))


def _of_weighed(
    layer: nn.Module, weight: Tensor, group: Group, channels: int, first: bool, last: bool
) -> list[tuple[Tensor, Tensor]]:
    """The orbits of the parameters of a linear or convolutional layer."""
    inputs, outputs = _moved_ends(layer, group, weight)
    weights = []
    for g in group.elements:
        moved = weight
        if first:
            moved = group.act(g, weight)
        elif weight[0, 0].numel() > 1:
            moved = move_map(group, g, weight, channels)
        moved = moved if first else moved[:, moved_units(group, g, inputs)]
        weights.append(moved if last else moved[moved_units(group, g, outputs)])
    own: Tensor = layer.weight  # type: ignore[assignment]
    orbits = [(own, torch.stack(weights).view(group.order, *own.shape))]
    if layer.bias is not None and not last:
        orbits.append((layer.bias, _moved(layer.bias, group)))  # type: ignore[arg-type]
    return orbits


def _moved_ends(layer: nn.Module, group: Group, weight: Tensor) -> tuple[int, int]:
    """How many inputs, of a group of a convolution, and outputs are to be moved."""
    outputs, inputs = weight.shape[:2]
    groups = getattr(layer, "groups", 1)
    is_depthwise = inputs == 1 and groups == outputs
    is_whole = inputs % group.order == 0 and (outputs // groups) % group.order == 0
    allowed = f"1, depthwise, or with a multiple of {group.order} channels in each"
    require(groups == 1 or is_depthwise or is_whole, f"groups of {layer}", groups, allowed)
    return inputs, outputs


@torch.no_grad()
def _check(model: nn.Module, group: Group, input_shape: tuple[int, ...]) -> None:
    """Look at two random images in all orientations."""
    images = torch.randn(2, *input_shape, generator=Generator().manual_seed(0), dtype=torch.float32)
    kinds = [each.dtype for each in model.parameters() if each.is_floating_point()]
    room = max([1e-9, *((8 * torch.finfo(kind).eps) ** 2 for kind in kinds)])  # of rounding
    with evaluating(model):
        classifier = as_classifier(model)
        modules = {
            n: each for n, each in model_of(classifier).named_modules() if not [*each.children()]
        }
        with watching(modules, group, images) as seen:
            logits = orbit_logits(classifier, images, group)
    if relative_logit_invariance(logits).max() <= room:
        return
    name = "the output"
    for layer, found in seen.items():
        as_it_is, turned, both = found.sums[layer].tolist()
        # A vector of pixels, as after Flatten, need not move as units do
        module = modules[layer.rstrip("'")]
        is_vector = math.isnan(turned) and not [*module.parameters()]
        if not (is_vector or as_it_is <= room or turned <= room or both <= room):
            name = f"layer {layer} ({found.kinds[layer]})"
            break
    size = " x ".join(map(str, input_shape))
    raise ValueError(
        f"{name} does not see images {size} alike in all orientations of {group.name}; "
        "with strides of 2, others do: kernels of 3 fit odd sizes, those of 4 even ones"
    )
