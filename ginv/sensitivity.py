"""Sensitivity to the input: the Jacobian of the logits and its largest singular value (Section 4.4)."""

import torch
from torch import Tensor, nn

from ginv.parameters import require_tensor


def jacobian(model: nn.Module, images: Tensor) -> Tensor:
    """J = df/dx of any classifier that treats the images of a batch apart: `[n, C, H, W]` -> `[n, classes, C * H * W]`.

    One backward pass per class, in the images' precision.
    """
    require_tensor("images", images, "n, C, H, W")
    x = images.detach().requires_grad_()
    with torch.enable_grad():
        per_class = model(x).sum(0)
        rows = [torch.autograd.grad(logit, x, retain_graph=True)[0] for logit in per_class]
    return torch.stack(rows, 1).flatten(2)


def largest_singular_value(model: nn.Module, images: Tensor) -> Tensor:
    """sigma_max(J) at each image: `[n, C, H, W]` -> `[n]`.

    Exact: the square root of the largest eigenvalue of the small matrix J J', `[classes, classes]`.
    """
    require_tensor("images", images, "n, C, H, W")
    parts = (jacobian(model, part) for part in images.split(512))
    return torch.cat([torch.linalg.eigvalsh(j @ j.mT)[:, -1].clamp(min=0).sqrt() for j in parts])
