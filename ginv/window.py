"""Training on the pixels in which images differ; the rest of the padded image is a constant."""

from dataclasses import dataclass, replace

import torch
from torch import Tensor

from ginv.groups import Group

FIRST_WEIGHT, FIRST_BIAS, BORDER = "features.1.weight", "features.1.bias", "border"


@dataclass(frozen=True)
class Window:
    """The rows and columns in which images differ. Outside it every image of every orbit has the `border` value, so
    the first layer's product with those pixels is one number a unit: a part of the bias. It saves a quarter
    of the work on R4 and leaves the network and its gradients as they are.
    """

    rows: slice
    columns: slice
    full: tuple[int, int]
    border: float

    @classmethod
    def around(cls, images: Tensor, group: Group) -> "Window":
        """The smallest window around the orbits of images `[n, 1, H, W]` that the group maps to itself in the way it
        maps a small image; the whole image where there is none.
        """
        *_, height, width = images.shape
        differs = group.orbit((images != images[0, 0, 0, 0]).any(0)).any(0)[0]
        rows, columns = (differs.any(dim).nonzero().flatten().tolist() or [0] for dim in (1, 0))
        full = (height, width)
        window = cls(slice(rows[0], rows[-1] + 1), slice(columns[0], columns[-1] + 1), full, images[0, 0, 0, 0].item())
        pixels = torch.arange(height * width).view(full)
        try:
            kept = torch.equal(group.orbit(window.crop(pixels)), window.crop(group.orbit(pixels)))
        except ValueError:  # the group cannot act on this shape
            kept = False
        return window if kept else replace(window, rows=slice(0, height), columns=slice(0, width))

    @property
    def shape(self) -> tuple[int, int]:
        return self.rows.stop - self.rows.start, self.columns.stop - self.columns.start

    def crop(self, images: Tensor) -> Tensor:
        return images[..., self.rows, self.columns].contiguous()  # to gather rows from a view takes twice as long

    def split(self, parameters: dict[str, Tensor], device: torch.device) -> dict[str, Tensor]:
        """What the optimiser holds: the first weight in two parts, and the weights as [runs, inputs, outputs], the
        layout in which the backward product leaves a gradient; nn.Linear's would cost a strided copy at every step.
        """
        inside = self._inside()
        first = parameters[FIRST_WEIGHT]
        parts = {**parameters, FIRST_WEIGHT: first[..., inside], BORDER: first[..., ~inside]}
        parts = {name: part.detach().mT if part.ndim == 3 else part.detach() for name, part in parts.items()}
        return {
            name: part.to(device).clone(memory_format=torch.contiguous_format).requires_grad_()
            for name, part in parts.items()
        }

    def join(self, leaves: dict[str, Tensor]) -> dict[str, Tensor]:
        """The parameters of a network that sees the window alone."""
        parameters = {name: leaf.mT if leaf.ndim == 3 else leaf for name, leaf in leaves.items() if name != BORDER}
        parameters[FIRST_BIAS] = leaves[FIRST_BIAS] + self.border * leaves[BORDER].sum(1)
        return parameters

    def merge(self, leaves: dict[str, Tensor]) -> dict[str, Tensor]:
        """The parameters of the network that sees the whole image: the inverse of `split`."""
        inside = self._inside().to(leaves[BORDER].device)
        parameters = {name: leaf.mT if leaf.ndim == 3 else leaf for name, leaf in leaves.items()}
        border, part = parameters.pop(BORDER), parameters[FIRST_WEIGHT]
        first = part.new_empty(*part.shape[:2], len(inside))
        first[..., inside], first[..., ~inside] = part, border
        return {**parameters, FIRST_WEIGHT: first}

    def _inside(self) -> Tensor:
        """Mask of the pixels in the window, `[H * W]`."""
        inside = torch.zeros(self.full, dtype=torch.bool)
        inside[self.rows, self.columns] = True
        return inside.flatten()
