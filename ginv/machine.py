"""What this machine offers: folders, a device, threads; and torch as `ginv` needs it."""

import mmap
import os
import tempfile
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from stat import S_ISDIR
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.parameter import is_lazy

from ginv.refuse import in_one_line, require

_LOADED_BY = os.getpid()


def chosen_folder(variable: str) -> Path | None:
    """The folder that an environment variable names, None where it is empty or not set.

    Whether it is there, or can be written, is found out by using it. Raises ValueError where it can
    be none: a URL, a file, or what a shell left over.
    """
    value = os.environ.get(variable)
    if not value:
        return None
    try:
        folder = Path(value).expanduser().absolute()
    except RuntimeError:
        raise OSError(f"{variable} is {value!r}, and there is no such home folder") from None
    fits = value.isprintable() and value == value.strip() and "://" not in value
    try:
        fits = fits and S_ISDIR(folder.stat().st_mode)
    except FileNotFoundError:
        pass
    except OSError:  # in a file, with too long a name, in a circle of links
        fits = False
    require(fits, variable, value, "a folder")
    return folder


def cache_folder() -> Path:
    """`ginv` in the user's cache folder (XDG). Raises OSError where the user has no home."""
    if folder := chosen_folder("XDG_CACHE_HOME"):
        return folder / "ginv"
    try:
        return Path.home() / ".cache" / "ginv"
    except RuntimeError:
        raise OSError("no home folder; set GINV_RUNS and GINV_DATA to folders") from None


def choose_device(device: str = "auto") -> torch.device:
    """The GPU where there is one for "auto". Raises ValueError for a device that is not there."""
    here = ("auto", "cpu", "cuda") if torch.cuda.is_available() else ("auto", "cpu")
    allowed = ", ".join(here) + " (no GPU here)" * ("cuda" not in here)
    require(isinstance(device, str) and device in here, "device", device, allowed)
    return torch.device(here[-1] if device == "auto" else device)


@contextmanager
def plain_torch() -> Iterator[None]:
    """Torch in this thread as if its caller had set nothing.

    New tensors are on the CPU, gradients can be asked for, nothing is cast or in inference mode.
    The default type is the whole process's: what must not hang on it names its own.
    """
    if os.getpid() != _LOADED_BY:  # forked, which OpenMP's threads do not survive
        torch.set_num_threads(1)  # more than one would hang
    with ExitStack() as stack:
        if torch.empty(0).device.type != "cpu":
            stack.enter_context(torch.device("cpu"))
        for kind in ("cpu", "cuda"):
            if torch.is_autocast_enabled(kind):
                stack.enter_context(torch.autocast(kind, enabled=False))
        stack.enter_context(torch.inference_mode(False))
        stack.enter_context(torch.enable_grad())
        yield


_SWITCHING = threading.Lock()


@dataclass(eq=False)
class _Evaluation:
    """Modules that some threads look at, one or several, and what they were before the first."""

    modules: set[nn.Module] = field(default_factory=set)
    threads: int = 0
    restorers: list[Callable[[], None]] = field(default_factory=list)


_EVALUATING: list[_Evaluation] = []  # no two share a module


@contextmanager
def evaluating(model: Any) -> Iterator[None]:
    """Each module in evaluation mode and then, when the last thread is done, again in its own.

    So are its buffers, which a network may change in its forward.
    """
    if not isinstance(model, nn.Module):
        yield
        return
    with _SWITCHING:
        _begin(model)
    try:
        if any(getattr(module, "training", False) for module in model.modules()):
            instead = "with saliency=False, a function that calls it can be measured"
            failed = f"the model cannot be put in evaluation mode; {instead}"
            with _SWITCHING, in_one_line(failed):
                model.eval()
        yield
    finally:
        with _SWITCHING:
            _end(model)


def _begin(model: nn.Module) -> None:
    """What shares a module with it, such as an average of it, is put back with it."""
    found, own = _Evaluation(threads=1), [*model.modules()]
    for other in [each for each in _EVALUATING if not each.modules.isdisjoint(own)]:
        _EVALUATING.remove(other)
        found.modules |= other.modules
        found.threads += other.threads
        found.restorers += other.restorers
    found.restorers.append(_restorer([each for each in own if each not in found.modules]))
    found.modules.update(own)
    _EVALUATING.append(found)


def _end(model: nn.Module) -> None:
    found = next(each for each in _EVALUATING if model in each.modules)
    found.threads -= 1
    if not found.threads:
        _EVALUATING.remove(found)
        for restore in reversed(found.restorers):  # what came later may hold what was there
            restore()


def _restorer(modules: list[nn.Module]) -> Callable[[], None]:
    """Puts their modes, and the values of their buffers, back to what they are now."""
    # One that TorchScript has frozen has no mode
    modes = {m: m.training for m in modules if hasattr(m, "training")}
    owners = [(m._buffers, dict(m._buffers)) for m in modules if isinstance(m._buffers, dict)]
    buffers = [
        (own, name, buffer, buffer.clone())
        for own, before in owners
        for name, buffer in before.items()
        if buffer is not None and not is_lazy(buffer) and not buffer.is_meta
        if buffer.layout is torch.strided and not buffer.is_nested
    ]

    @torch.no_grad()
    def restore() -> None:
        for module, training in modes.items():  # a module before its children
            if module.training != training:
                module.train(training)  # which may do more than set it
        for own, before in owners:  # some may be new, or were None
            own.clear()
            own.update(before)
        for own, name, buffer, value in buffers:
            if buffer.shape != value.shape:  # it was made larger, say
                own[name] = value
                continue
            own[name] = buffer
            if not torch.equal(buffer, value) and not is_expanded(buffer):  # which no one can write
                buffer.copy_(value)

    return restore


def is_expanded(tensor: Tensor) -> bool:
    """Whether some of its values lie in one place of memory: torch does not write into it."""
    ends = zip(tensor.shape, tensor.stride(), strict=True)
    return any(size > 1 and stride == 0 for size, stride in ends)


class OneCopy:
    """A large tensor that many hold, and that none can change for the others.

    Each `view` is a tensor of its own whose pages are shared until they are written to.
    """

    def __init__(self, tensor: Tensor) -> None:
        self.shape, self.dtype = tensor.shape, tensor.dtype
        if hasattr(os, "memfd_create"):  # Linux: in memory
            self.handle = os.memfd_create("ginv")
        else:
            with tempfile.TemporaryFile() as file:
                self.handle = os.dup(file.fileno())
        with open(self.handle, "wb", closefd=False) as file:
            file.write(tensor.contiguous().numpy().data)

    def __del__(self) -> None:
        with suppress(AttributeError, OSError):  # never opened, or Python is going
            os.close(self.handle)

    def view(self) -> Tensor:
        pages = mmap.mmap(self.handle, 0, access=mmap.ACCESS_COPY)
        return torch.frombuffer(pages, dtype=self.dtype).view(self.shape)


@contextmanager
def threads_kept() -> Iterator[int]:
    """How many threads this one computes on.

    torch gives a new thread as many as were last asked for in any: that is put back.
    """
    count = torch.get_num_threads()
    try:
        yield count
    finally:
        torch.set_num_threads(count)


@cache
def threads_of_one_core(count: int) -> ThreadPoolExecutor:
    """Threads of one core each, kept: the first product of a new one costs time and memory."""
    started = threading.Barrier(count + 1)

    def start() -> None:
        torch.set_num_threads(1)
        started.wait()

    with threads_kept():
        executor = ThreadPoolExecutor(count, initializer=start)
        for _ in range(count):  # none is idle yet, so each starts one
            executor.submit(int)
        started.wait()
    return executor


def _begin_after_fork() -> None:
    """A forked child has no threads but its own: none that hold locks, or measure."""
    global _SWITCHING
    threads_of_one_core.cache_clear()
    _SWITCHING = threading.Lock()
    _EVALUATING.clear()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_begin_after_fork)
