"""Saliency maps (Section 4.1, "Saliency map function")."""

import math
import sys

import numpy as np
import torch
from torch import Tensor, nn

from ginv.classifier import (
    as_classifier,
    as_images,
    as_labels,
    as_seen_by,
    examples_that_fit,
    require_classes,
)
from ginv.machine import plain_torch, threads_of_one_core
from ginv.networks import MLP
from ginv.refuse import in_one_line, require, require_tensor

STEPS, MOST_STEPS = 50, 1000  # the nodes of more take hours, and all memory
MOST_AT_ONCE = 4096  # more examples are no faster
ROWS_AT_ONCE = 32  # whose paths, of 50 points each, stay in the cache of a core
THRESHOLD = 0.9
SIGMA = 1.0


@plain_torch()
def integrated_gradients(
    model: nn.Module,
    images: Tensor,
    targets: Tensor,
    *,
    steps: int = STEPS,
    baseline: Tensor | float = 0.0,
    batch_size: int | str = "auto",
) -> Tensor:
    """Integrated gradients of the target logits (Sundararajan et al., 2017).

    Along the straight path from the baseline: images `[n, C, H, W]`, targets `[n]`, and a baseline
    that is a number or broadcastable to the images (default 0, the mean pixel) -> `[n, C, H, W]`,
    in the images' precision, or in single precision for halves. Gauss-Legendre quadrature. For any
    classifier this is captum's `IntegratedGradients`, `batch_size` points of the paths at once; for
    an `MLP` and a baseline of one value the same sum is reached much faster. Raises ValueError for
    what is none of this.
    """
    fits = type(steps) is int and 0 < steps <= MOST_STEPS
    require(fits, "steps", steps, f"integers from 1 to {MOST_STEPS}")
    images = as_images(images)
    dtype = images.dtype
    model, images, targets = _boundary(model, images, targets)
    baseline = as_baseline(baseline, images)
    one_value = not isinstance(baseline, Tensor) or baseline.numel() == 1
    if isinstance(model, MLP) and one_value and model.starts_linear(float(baseline)):
        parts = zip(images.split(1024), targets.split(1024), strict=True)
        found = [_integrate_mlp(model, *part, steps, float(baseline)) for part in parts]
        return torch.cat(found).to(dtype)
    from captum.attr import IntegratedGradients

    method, size = IntegratedGradients(model), passes(batch_size, model, images[:1])
    start = torch.as_tensor(baseline, dtype=images.dtype, device=images.device).expand_as(images)
    rows, options = range(0, len(images), size), dict(n_steps=steps, internal_batch_size=size)
    found = [
        method.attribute(
            images[i : i + size], start[i : i + size], targets[i : i + size], **options
        )
        for i in rows
    ]
    return torch.cat(found).to(dtype)


@plain_torch()
def gradients(model: nn.Module, images: Tensor, targets: Tensor) -> Tensor:
    """The slopes of the target logits: images `[n, C, H, W]`, targets `[n]` -> `[n, C, H, W]`."""
    model, images, targets = _boundary(model, images, targets)
    x = images.requires_grad_()
    return slope_of(model(x).gather(1, targets[:, None]).sum(), x)


def slope_of(value: Tensor, x: Tensor, retain_graph: bool = False) -> Tensor:
    """The gradient of a sum of logits by the images. Raises ValueError where there is none."""
    slope = None
    if value.requires_grad:
        with in_one_line("the model has no slope (saliency=False measures the rest)"):
            (slope,) = torch.autograd.grad(value, x, retain_graph=retain_graph, allow_unused=True)
    if slope is None:
        raise ValueError("the logits have no slope in the images; saliency=False measures the rest")
    return slope


def _boundary(
    model: nn.Module, images: Tensor, targets: Tensor
) -> tuple[nn.Module, Tensor, Tensor]:
    """A classifier, images that it can see and targets among its classes, or a refusal."""
    model = as_classifier(model)
    images = as_seen_by(model, as_images(images))
    targets = as_labels(targets, len(images), "targets")
    x = images[:1].detach().requires_grad_()
    logits = model(x)
    slope_of(logits.sum(), x)
    require_classes(targets, logits.shape[1], "targets")
    return model, images, targets.to(images.device)


def as_baseline(baseline: Tensor | float, images: Tensor) -> Tensor | float:
    """A finite number, or a tensor that broadcasts to images `[n, C, H, W]`."""
    allowed = f"a finite number, or a tensor that broadcasts to {list(images.shape)}"
    if isinstance(baseline, Tensor) and not baseline.is_complex():
        try:
            fits = torch.broadcast_shapes(baseline.shape, images.shape) == images.shape
        except RuntimeError:
            fits = False
        require(fits and bool(baseline.isfinite().all()), "baseline", baseline, allowed)
        return baseline.detach()
    is_number = isinstance(baseline, int | float) and not isinstance(baseline, bool)
    require(is_number and abs(baseline) < 1e300, "baseline", baseline, allowed)  # type: ignore
    return float(baseline)


def passes(batch_size: int | str, model: nn.Module, image: Tensor) -> int:
    """How many examples go through a classifier at once; image `[1, C, H, W]`."""
    fits = batch_size == "auto" or (type(batch_size) is int and batch_size > 0)
    require(fits, "batch_size", batch_size, "auto, or integers from 1")
    if not isinstance(batch_size, str):
        return batch_size
    return (
        MOST_AT_ONCE
        if isinstance(model, MLP)
        else min(MOST_AT_ONCE, examples_that_fit(model, image))
    )


def _integrate_mlp(
    model: MLP, images: Tensor, targets: Tensor, steps: int, baseline: float
) -> Tensor:
    """From b to x the first layer is z(b) + a (z(x) - z(b)), 0 <= a <= 1, weight-tied or not.

    Every gw sees the same in an image of one value, and a positive factor passes through the
    maximum. So the wide product and its gradient are needed once an image, and only the 128-wide
    rest once a step.
    """
    nodes, weights = (part.to(images) for part in gauss_legendre(steps))
    x, on_cpu = images.detach().requires_grad_(), images.device.type == "cpu"
    with torch.enable_grad():
        z = model.features(x)
    with torch.no_grad():
        origin = model.features(torch.full_like(images[:1], baseline))

        def mean_slope(end: Tensor, target: Tensor) -> Tensor:
            with torch.no_grad():
                path = torch.lerp(origin, end, nodes[:, None, None])  # [steps, rows, width]
                slopes = _slope(model, path, model.output.weight[target])
                return torch.tensordot(weights, slopes, 1)

        rows = ROWS_AT_ONCE if on_cpu else len(images)
        parts = z.detach().split(rows), targets.split(rows)
        each = threads_of_one_core(torch.get_num_threads()).map if on_cpu else map
        slopes = torch.cat([*each(mean_slope, *parts)])
    (gradient,) = torch.autograd.grad(z, x, slopes)
    return gradient * (images - baseline)


def _slope(model: MLP, z: Tensor, slope: Tensor) -> Tensor:
    """Gradient of `slope` times the penultimate units with respect to z, the first layer.

    z `[..., width]` is lost.

    What autograd would do, in place: fresh memory for each layer and step costs as much time as the
    products.
    """
    layers = [layer for layer in model.hidden if isinstance(layer, nn.Linear)]
    units = [z.relu_()]
    for layer in layers:
        units.append(layer(units[-1]).relu_())
    slope = slope * units.pop().sign_()
    for layer, unit in zip(reversed(layers), reversed(units), strict=True):
        slope = (slope @ layer.weight).mul_(unit.sign_())
    return slope


def gauss_legendre(steps: int) -> tuple[Tensor, Tensor]:
    """Nodes and weights on [0, 1], `[steps]` each, float64."""
    nodes, weights = np.polynomial.legendre.leggauss(steps)
    return torch.as_tensor((nodes + 1) / 2), torch.as_tensor(weights / 2)


def saliency_map(
    attribution: Tensor, *, threshold: float = THRESHOLD, sigma: float = SIGMA
) -> Tensor:
    """m_f: absolute attributions `[..., C, H, W]`, small ones set to zero, smoothed; same shape.

    Small is below `threshold` times the maximum over channels and pixels. The 3 x 3 Gaussian wraps
    around the border, so that it commutes with the cyclic shifts of T3 as it does with R4; `sigma`
    0 leaves it out. Raises ValueError for a threshold outside [0, 1] or a negative sigma.
    """
    require_tensor("attribution", attribution, "..., C, H, W")
    require(
        isinstance(threshold, int | float) and 0 <= threshold <= 1, "threshold", threshold, "0 to 1"
    )
    fits = isinstance(sigma, int | float) and 0 <= sigma <= sys.float_info.max
    require(fits, "sigma", sigma, "0 or more")
    is_whole = not (attribution.is_floating_point() or attribution.is_complex())
    size = (attribution.float() if is_whole else attribution).abs()
    saliency = size.masked_fill_(size < threshold * size.amax((-3, -2, -1), keepdim=True), 0)
    return _blur(saliency, sigma) if sigma else saliency


def _blur(x: Tensor, sigma: float) -> Tensor:
    side = math.exp(-0.5 / sigma / sigma)  # a tiny sigma squared would be 0
    for dim in (-2, -1):
        x = (x.roll(1, dim).add_(x.roll(-1, dim)) * side).add_(x).div_(1 + 2 * side)
    return x
