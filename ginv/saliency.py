"""Saliency maps (Section 4.1, "Saliency map function")."""

import numpy as np
import torch
from torch import Tensor, nn

from ginv.models import MLP

STEPS = 50
THRESHOLD = 0.9
SIGMA = 1.0


def integrated_gradients(
    model: nn.Module, images: Tensor, targets: Tensor, *, steps: int = STEPS, baseline: Tensor | None = None
) -> Tensor:
    """Integrated gradients of the target logits along the straight path from the baseline (Sundararajan et al., 2017).

    images `[n, 1, H, W]`, targets `[n]`, baseline broadcastable to the images (default 0, the mean pixel) ->
    `[n, 1, H, W]`. Gauss-Legendre quadrature. For any classifier this is captum's `IntegratedGradients`; for an `MLP`
    and the zero baseline the same sum is reached much faster.
    """
    if steps < 1:
        raise ValueError(f"steps is {steps}; allowed: 1 or more")
    if type(model) is MLP and baseline is None and model.starts_linear:
        parts = zip(images.split(1024), targets.split(1024), strict=True)
        return torch.cat([_integrate_mlp(model, *part, steps) for part in parts])
    from captum.attr import IntegratedGradients

    attribution = IntegratedGradients(model, multiply_by_inputs=True)
    baseline = torch.zeros_like(images[:1]) if baseline is None else baseline.expand_as(images)
    return attribution.attribute(
        images, baseline, target=targets, n_steps=steps, internal_batch_size=max(len(images), 4096)
    ).to(images.dtype)


def _integrate_mlp(model: MLP, images: Tensor, targets: Tensor, steps: int) -> Tensor:
    """Along a x, 0 <= a <= 1, the first layer is z(ax) = z(0) + a (z(x) - z(0)), weight-tied or not: a positive
    factor passes through the maximum. So its wide product and its gradient are needed once an image, and only the
    128-wide rest once a step.
    """
    nodes, weights = (torch.as_tensor(v, dtype=images.dtype, device=images.device) for v in _gauss_legendre(steps))
    rows = 64 if images.device.type == "cpu" else len(images)  # on a CPU, 64 x 50 points of the path stay in its cache
    x, slopes = images.detach().requires_grad_(), []
    with torch.enable_grad():
        z = model.features(x)
        origin = model.features(torch.zeros_like(images[:1])).detach()
        for end, target in zip(z.detach().split(rows), targets.split(rows), strict=True):
            path = torch.lerp(origin, end, nodes[:, None, None]).requires_grad_()  # [steps, rows, width]
            logits = model.output(model.hidden(path)).gather(2, target.expand(steps, -1)[..., None])
            (slope,) = torch.autograd.grad(logits.sum(), path)
            slopes.append(torch.tensordot(weights, slope, 1))
        (gradient,) = torch.autograd.grad(z, x, torch.cat(slopes))
    return gradient * images


def _gauss_legendre(steps: int) -> tuple[np.ndarray, np.ndarray]:
    """Nodes and weights on [0, 1]."""
    nodes, weights = np.polynomial.legendre.leggauss(steps)
    return (nodes + 1) / 2, weights / 2


def saliency_map(attribution: Tensor, *, threshold: float = THRESHOLD, sigma: float = SIGMA) -> Tensor:
    """m_f: absolute attributions `[..., C, H, W]`, small ones set to zero, smoothed; same shape.

    Small is below `threshold` times the maximum over channels and pixels. The 3 x 3 Gaussian wraps around the border,
    so that it commutes with the cyclic shifts of T3 as it does with R4; `sigma` 0 leaves it out. Raises ValueError for
    a threshold outside [0, 1] or a negative sigma.
    """
    if not 0 <= threshold <= 1:
        raise ValueError(f"threshold is {threshold}; allowed: 0 to 1")
    if sigma < 0:
        raise ValueError(f"sigma is {sigma}; allowed: 0 or more")
    size = attribution.abs()
    saliency = torch.where(size < threshold * size.amax((-3, -2, -1), keepdim=True), 0, size)
    return _blur(saliency, sigma) if sigma else saliency


def _blur(x: Tensor, sigma: float) -> Tensor:
    side = float(np.exp(-0.5 / sigma**2))
    for dim in (-2, -1):
        x = (x + side * (x.roll(1, dim) + x.roll(-1, dim))) / (1 + 2 * side)
    return x
