"""Other people's classifiers and images, as the measures take them."""

import copy
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import suppress
from typing import Any

import numpy as np
import torch
from torch import Generator, Tensor, nn
from torch.nn.parameter import is_lazy
from torch.utils.data import DataLoader, Dataset, IterableDataset

from ginv.data import Split
from ginv.networks import MLP
from ginv.refuse import in_one_line, is_finite, require, require_tensor, require_values

# What a pass of a network may take, in bytes, where there is no GPU whose free memory tells. With
# more, a tensor is too large for malloc to keep: fresh pages for each take longer than the products
BUDGET = 2**27
# One image's path through a network, in sizes of the image, where it cannot be looked at
PER_IMAGE = 64
LOADED = 64  # images of a data set at once
HALVES = (torch.float16, torch.bfloat16)
KINDS = (*HALVES, torch.float32, torch.float64)  # of images; others are how weights are stored
CONTIGUOUS = torch.contiguous_format  # as those that most models are written for, with a view


class Classifier(nn.Module):
    """Any classifier, as images `[n, C, H, W]` -> logits `[n, classes]`, in 32 bits at least.

    model: a module, or a function of a NumPy array. It gets a copy, which it may write into, in its
    own precision. Its output may be `[n, classes]`, a tuple that begins with it, a dict of it alone
    or with "logits", or an object with `.logits`. One logit z, `[n, 1]` or `[n]`, is read as two,
    -z / 2 and z / 2, whose softmax is its sigmoid.
    """

    def __init__(
        self, model: nn.Module | Callable[[np.ndarray], Any], name: str = "the model"
    ) -> None:
        super().__init__()
        self.model, self.name = model, name
        first = next((each for each in _weights(model) if each.dtype in KINDS), None)
        self.dtype = None if first is None else first.dtype
        self.device = None if first is None else first.device

    def forward(self, images: Tensor) -> Tensor:
        if isinstance(self.model, nn.Module):
            given: Any = images.to(self.dtype or images.dtype).clone(memory_format=CONTIGUOUS)
        else:
            given = images.detach().cpu().numpy().copy()
        with in_one_line(f"{self.name} fails on images {[*images.shape]}"):
            output = self.model(given)
        if isinstance(self.model, nn.Module):
            return logits_of(output, len(images))
        if not isinstance(output, Tensor | Mapping | tuple) and not hasattr(output, "logits"):
            output = np.asarray(output)
        return logits_of(output, len(images))


def as_classifier(model: Any) -> nn.Module:
    """A `Classifier` of it; an `MLP` as it was built is one, if it has two logits or more.

    Of a copy where the model itself cannot be differentiated well: in single precision of one of
    halves, whose slopes may be too small for them; out of inference mode of one made in it.
    """
    if isinstance(model, Classifier):
        return model
    fits = isinstance(model, nn.Module) or (callable(model) and not isinstance(model, type))
    require(fits, "model", model, "a torch.nn.Module, or a function of an array")
    require_weights(model)
    is_half = any(each.dtype in HALVES for each in _weights(model))
    if is_half or any(each.is_inference() for each in _weights(model)):
        with in_one_line(
            "the model is in half precision or of inference mode, and no copy is made"
        ):
            model = copy.deepcopy(model)
        model = model.float() if is_half else model
    is_plain = isinstance(model, MLP) and model.is_as_built and model.output.out_features > 1
    name = "a copy of the model in single precision, which measures one of halves," * is_half
    return model if is_plain else Classifier(model, name or "the model")


def require_weights(model: Any) -> None:
    """Refuse a module whose weights have no values: lazy, or on the meta device."""
    if any(is_lazy(each) or each.is_meta for each in _weights(model)):
        raise ValueError("weights of the model have no values yet: load them, or run it once")


def model_of(classifier: nn.Module) -> Any:
    """What a classifier is made of: a module, perhaps a copy, or a function."""
    return classifier.model if isinstance(classifier, Classifier) else classifier


def _weights(model: Any) -> list[Tensor]:
    """Parameters and buffers of a module, none of a function."""
    return [*model.parameters(), *model.buffers()] if isinstance(model, nn.Module) else []


def as_seen_by(model: nn.Module, images: Tensor) -> Tensor:
    """Images on the device of a classifier; those for an `MLP` in its precision, too."""
    if isinstance(model, MLP):
        pixels = model.features[1].weight.shape[1]  # type: ignore[union-attr, index]
        require(images[0].numel() == pixels, "images", images, f"those of {pixels} values each")
    return images.to(model.output.weight if isinstance(model, MLP) else model.device)  # type: ignore


def logits_of(output: Any, images: int) -> Tensor:
    """The logits `[n, classes]` in what a model returned for n images."""
    found = getattr(output, "logits", output)
    if isinstance(found, Mapping):
        arrays = [value for value in found.values() if isinstance(value, Tensor | np.ndarray)]
        found = found["logits"] if "logits" in found else arrays[0] if len(arrays) == 1 else found
    elif isinstance(found, tuple | list) and found:
        found = found[0]
    if isinstance(found, np.ndarray) and found.dtype.kind == "f":
        found = torch.from_numpy(found.astype(np.float64))  # of any width, order and strides
    allowed = f"logits [{images}, classes], floating point"
    fits = isinstance(found, Tensor) and found.is_floating_point()
    if isinstance(output, Mapping) and not fits:
        raise ValueError(f"output of the model has {[*output]}; allowed: {allowed}, as 'logits'")
    require(fits, "output of the model", found, allowed)
    if found.ndim < 2:  # or none, where one logit of one image was squeezed
        found = found.reshape(-1, 1)
    fits = found.ndim == 2 and len(found) == images and found.shape[1] > 0
    require(fits, "output of the model", found, allowed)
    found = found.to(torch.promote_types(found.dtype, torch.float32))
    return torch.cat([-found / 2, found / 2], 1) if found.shape[1] == 1 else found


def as_images(images: Any, name: str = "images") -> Tensor:
    """Images `[n, C, H, W]` to compute with: halves in single precision, apart from any graph."""
    require_tensor(name, images, "n, C, H, W")
    require_values(name, images)
    fits = images.is_floating_point()
    kind = str(images.dtype).removeprefix("torch.")
    require(fits, f"type of {name}", kind, "floating point; images.float() keeps the values")
    images = images.detach()
    images = images if images.dtype == torch.float64 else images.float()
    images = images.clone() if images.is_inference() else images
    if not is_finite(images):
        raise ValueError(f"the {name} are not finite")
    return images


def as_labels(labels: Any, images: int | None = None, name: str = "labels") -> Tensor:
    """Labels `[n]`, of whichever kind of integers, as a tensor."""
    found = labels
    if not isinstance(found, Tensor):
        found = np.asarray([*found] if isinstance(found, bytes | bytearray) else found)
        fits = found.dtype.kind in "iub" and not np.ma.is_masked(labels)
        require(fits, name, labels, "integers, one for each image")
        found = torch.from_numpy(found.astype(np.int64))
    require_values(name, found)
    is_whole = not (found.is_floating_point() or found.is_complex())
    count = "n" if images is None else images
    allowed = f"a tensor [{count}] of integers from 0, one for each of the images"
    fits = is_whole and found.ndim == 1 and len(found) > 0 and images in (None, len(found))
    require(fits, name, labels, allowed)
    found = found.detach().long()
    require(bool(found.min() >= 0), name, labels, allowed)
    return found.clone() if found.is_inference() else found


def require_classes(labels: Tensor, classes: int, name: str = "labels") -> None:
    """Refuse labels, from 0, of which there is no logit."""
    allowed = f"a tensor [{len(labels)}] of integers from 0 to {classes - 1}"
    require(bool(labels.max() < classes), name, labels, allowed)


def batches(data: Any, labels: Any) -> tuple[Iterator[tuple[Tensor, Tensor | None]], int | None]:
    """Batches of images with their labels or None; and how many images in all, where it is known.

    data: images `[n, C, H, W]` with labels, or a `ginv.Split`, which are one batch; torch's
    `Dataset` or `DataLoader`, or any iterable of pairs, or of images alone.
    """
    if isinstance(data, Split) and labels is None:
        data, labels = data.images, data.labels
    if isinstance(data, Tensor):
        images = as_images(data)
        given = None if labels is None else as_labels(labels, len(images))
        return iter([(images, given)]), len(images)
    fits = isinstance(data, Iterable | Dataset) and not isinstance(data, str | bytes | np.ndarray)
    require(
        fits,
        "images",
        data,
        "a tensor [n, C, H, W], a ginv.Split, torch's Dataset or DataLoader, or batches",
    )
    require(labels is None, "labels", labels, "none where the data bring their own")
    count = None
    if isinstance(data, Dataset) and not isinstance(data, IterableDataset):
        require(hasattr(data, "__len__"), "images", data, "a Dataset with a length, or batches")
        count = len(data)  # type: ignore[arg-type]
    if isinstance(data, Dataset):
        # Of its own generator: a loader without one draws from PyTorch's
        data = DataLoader(data, LOADED, generator=Generator().manual_seed(0))
    elif isinstance(data, DataLoader) and data.sampler is not None and not data.drop_last:
        count = len(data.sampler) if hasattr(data.sampler, "__len__") else None  # type: ignore
    return _from_batches(data), count


def _from_batches(data: Iterable) -> Iterator[tuple[Tensor, Tensor | None]]:
    found = False
    with in_one_line("images cannot be put into batches"):
        for batch in data:
            parts = (batch,) if isinstance(batch, Tensor) else batch
            fits = isinstance(parts, tuple | list) and len(parts) in (1, 2)
            fits = fits and isinstance(parts[0], Tensor)
            require(fits, "a batch", batch, "images [n, C, H, W], or a pair of images and labels")
            images, labels = (*parts, None)[:2]
            images = as_images(images, "images of a batch")
            yield images, None if labels is None else as_labels(labels, len(images))
            found = True
    require(found, "images", data, "one batch at least")


def examples_that_fit(model: nn.Module, image: Tensor) -> int:
    """How many images a forward and a backward pass of a classifier can take at once.

    image `[1, C, H, W]`. What a backward pass keeps of one image is counted, in bytes; a function
    is not called for it.
    """
    own, kept = image.numel() * image.element_size(), 0
    storages: set[int] = {p.untyped_storage().data_ptr() for p in model.parameters()}

    def count(tensor: Tensor) -> Tensor:
        nonlocal kept
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in storages:
            storages.add(storage.data_ptr())
            kept += storage.nbytes()
        return tensor

    if isinstance(model_of(model), nn.Module):
        # One with torch.func in it does not go with hooks; one that fails will say so
        hooks = torch.autograd.graph.saved_tensors_hooks(count, lambda saved: saved)
        with suppress(ValueError), hooks:
            model(image.detach().requires_grad_())
    # As much again for what an operation needs while it runs; maps need some copies of the image
    each = 2 * kept + 16 * own if kept else PER_IMAGE * own
    budget = BUDGET
    if image.is_cuda:
        free, cuda = torch.cuda.mem_get_info(image.device)[0], torch.cuda
        unused = cuda.memory_reserved(image.device) - cuda.memory_allocated(image.device)
        budget = (free + unused) // 2
    return max(1, budget // each)
