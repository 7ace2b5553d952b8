"""Training without the border of the images: in the padded part all are alike."""

from dataclasses import dataclass, replace

import torch
from torch import Tensor

from ginv.groups import Group

FIRST_WEIGHT, FIRST_BIAS, BORDER = "features.1.weight", "features.1.bias", "border"


@dataclass(frozen=True)
class Border:
    """Outside these rows and columns all images, `full` pixels large, have one `value`.

    The first layer's product with the border is one number a unit: a part of the bias. To leave it
    out saves a quarter of the work on R4 and leaves the network and the slopes of its weights as
    they are. (A penalty on slopes by the pixels, `gradient_nu`, sees those inside.)
    """

    rows: slice  # inside
    columns: slice
    full: tuple[int, int]
    value: float

    @classmethod
    def of(cls, images: Tensor, group: Group) -> "Border":
        """The widest border of the orbits of images `[n, 1, H, W]` whose inside is acted on alike.

        The group has to map the inside to itself in the way in which it maps a small image. Where
        no border does, the inside is the whole image.
        """
        *_, height, width = images.shape
        full, corner = (height, width), images[0, 0, 0, 0]
        differs = group.orbit((images != corner).any(0)).any(0)[0]
        rows, columns = (differs.any(dim).nonzero().flatten().tolist() or [0] for dim in (1, 0))
        inside = slice(rows[0], rows[-1] + 1), slice(columns[0], columns[-1] + 1)
        border = cls(*inside, full, corner.item())
        pixels = torch.arange(height * width).view(full)
        try:
            kept = torch.equal(group.orbit(border.crop(pixels)), border.crop(group.orbit(pixels)))
        except ValueError:  # the group cannot act on this shape
            kept = False
        return border if kept else replace(border, rows=slice(0, height), columns=slice(0, width))

    @property
    def inside_shape(self) -> tuple[int, int]:
        return self.rows.stop - self.rows.start, self.columns.stop - self.columns.start

    def crop(self, images: Tensor) -> Tensor:
        """Their inside, as a copy: to gather rows from a view takes twice as long."""
        return images[..., self.rows, self.columns].contiguous()

    def split(self, parameters: dict[str, Tensor], device: torch.device) -> dict[str, Tensor]:
        """What the optimiser holds of stacked parameters: the first weight in two parts.

        Weights are `[runs, inputs, outputs]`, the layout in which the backward product leaves a
        gradient; nn.Linear's would cost a strided copy at every step.
        """
        inside, first = self._inside(), parameters[FIRST_WEIGHT]
        parts = {**parameters, FIRST_WEIGHT: first[..., inside], BORDER: first[..., ~inside]}
        leaves = {}
        for name, part in parts.items():
            part = part.detach().mT if part.ndim == 3 else part.detach()
            copy = part.to(device).clone(memory_format=torch.contiguous_format)
            leaves[name] = copy.requires_grad_()
        return leaves

    def join(self, leaves: dict[str, Tensor]) -> dict[str, Tensor]:
        """The parameters of a network that sees the inside alone."""
        parameters = _as_in_modules(leaves)
        parameters[FIRST_BIAS] = leaves[FIRST_BIAS] + self.value * leaves[BORDER].sum(1)
        del parameters[BORDER]
        return parameters

    def merge(self, leaves: dict[str, Tensor]) -> dict[str, Tensor]:
        """The parameters of the network that sees the whole image: the inverse of `split`."""
        parameters = _as_in_modules(leaves)
        border, part = parameters.pop(BORDER), parameters[FIRST_WEIGHT]
        inside = self._inside().to(border.device)
        first = part.new_empty(*part.shape[:2], len(inside))
        first[..., inside], first[..., ~inside] = part, border
        return {**parameters, FIRST_WEIGHT: first}

    def _inside(self) -> Tensor:
        """Mask of the pixels that are no border, `[H * W]`."""
        inside = torch.zeros(self.full, dtype=torch.bool)
        inside[self.rows, self.columns] = True
        return inside.flatten()


def _as_in_modules(leaves: dict[str, Tensor]) -> dict[str, Tensor]:
    """Weights as nn.Linear lays them out, `[runs, outputs, inputs]`."""
    return {name: leaf.mT if leaf.ndim == 3 else leaf for name, leaf in leaves.items()}
