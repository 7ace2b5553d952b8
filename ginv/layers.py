"""Which layer loses the invariance: the relative variance over the orbit after each module."""

import threading
from collections.abc import Iterable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field
from typing import Any

import pandas as pd
import torch
from torch import Tensor, nn

from ginv.groups import Group, move_map, moved_units
from ginv.refuse import in_one_line, require

COLUMNS = ("as_it_is", "turned_back", "units_moved_back")


@dataclass(frozen=True)
class Layers:
    """The relative variance over the orbit of what each module returns, summed over images.

    That is the variance over the mean squared norm, 0 to 1. `as_it_is`: 0 where the module is
    invariant. `turned_back`: the maps of its channels turned back, 0 where they move with the
    image. `units_moved_back`: its units permuted back as well, unit `f * order + g` being filter f
    moved by g, as in a network made by `symmetrise`. NaN where this cannot be.
    """

    sums: dict[str, Tensor] = field(default_factory=dict)  # [3], of each module
    images: dict[str, int] = field(default_factory=dict)  # that it has seen
    kinds: dict[str, str] = field(default_factory=dict)

    def __add__(self, other: "Layers") -> "Layers":
        kinds = self.kinds | other.kinds
        sums = {n: self.sums.get(n, 0) + other.sums.get(n, 0) for n in kinds}
        images = {n: self.images.get(n, 0) + other.images.get(n, 0) for n in kinds}
        return Layers(sums, images, kinds)  # type: ignore[arg-type]

    @property
    def table(self) -> pd.DataFrame:
        """A row for each module, in the order in which they run: means over the images."""
        means = {name: (sums / self.images[name]).tolist() for name, sums in self.sums.items()}
        table = pd.DataFrame.from_dict(means, orient="index", columns=[*COLUMNS])
        table.insert(0, "kind", [self.kinds[name] for name in means])
        return table.rename_axis("module")


def chosen_modules(model: Any, layers: bool | Iterable[str]) -> dict[str, nn.Module]:
    """The modules whose names are given, all but the model itself where it is True."""
    if layers is False:
        return {}
    require(isinstance(model, nn.Module), "layers", layers, "False, of a function")
    require(isinstance(layers, Iterable) or layers is True, "layers", layers, "True, False, names")
    # It runs without its modules, or with them where it was not compiled yet
    is_compiled = any(map(_is_compiled, model.modules()))
    require(not is_compiled, "layers", layers, "False, of a compiled model: measure the plain one")
    modules = {name: module for name, module in model.named_modules() if name}
    names = modules if layers is True else [layers] if isinstance(layers, str) else [*layers]  # type: ignore
    for name in names:
        fits = isinstance(name, str) and name in modules
        require(fits, "layers", name, f"True, or names of {', '.join(modules)}")
    return {name: modules[name] for name in names}


def _is_compiled(module: nn.Module) -> bool:
    return hasattr(module, "_orig_mod") or bool(getattr(module, "_compiled_call_impl", None))


@contextmanager
def watching(
    modules: dict[str, nn.Module], group: Group, images: Tensor
) -> Iterator[dict[str, Layers]]:
    """What each module makes of the whole orbit of images `[n, C, H, W]`, as long as this lasts."""
    seen: dict[str, Layers] = {}
    thread = threading.get_ident()

    def watch(name: str, module: nn.Module, output: Any) -> None:
        output = output[0] if isinstance(output, tuple | list) and output else output
        fits = isinstance(output, Tensor) and output.is_floating_point() and output.ndim >= 2
        if threading.get_ident() != thread or not fits or len(output) != group.order * len(images):
            return
        while name in seen:  # the same module once more
            name += "'"
        values = output.detach().unflatten(0, (group.order, len(images)))
        sums = torch.stack(relative_variances(values, group, images.shape[1])).sum(1).cpu()
        seen[name] = Layers({name: sums}, {name: len(images)}, {name: type(module).__name__})

    with ExitStack() as stack:
        for name, module in modules.items():

            def hook(module: nn.Module, _: Any, output: Any, name: str = name) -> None:
                watch(name, module, output)

            with in_one_line(f"module {name} cannot be looked at"):  # one of TorchScript
                handle = module.register_forward_hook(hook)
            stack.callback(handle.remove)
        yield seen


def relative_variances(values: Tensor, group: Group, channels: int) -> list[Tensor]:
    """The three of `Layers`, `[n]` each, for outputs `[G, n, units, ...]`."""
    inverse = [group.inverse(g) for g in group.elements]
    nothing = values.new_full(values.shape[1:2], torch.nan)
    turned, both = nothing, nothing
    if values.ndim in (3, 5):
        with suppress(ValueError):  # the group cannot act on maps of this size
            back = [*values]
            if values.ndim == 5:
                back = [move_map(group, g, x, channels) for g, x in zip(inverse, back, strict=True)]
                turned = relative_variance(torch.stack(back))
            units = [moved_units(group, g, values.shape[2]) for g in inverse]
            back = [x[:, places] for x, places in zip(back, units, strict=True)]
            both = relative_variance(torch.stack(back))
    return [relative_variance(values), turned, both]


def relative_variance(values: Tensor) -> Tensor:
    """The variance over the orbit over the mean squared norm: `[G, n, ...]` -> `[n]`."""
    values = values.flatten(2).double()
    norm = values.square().sum(-1).mean(0)
    return values.var(0, correction=0).sum(-1) / norm.masked_fill(norm == 0, 1)
