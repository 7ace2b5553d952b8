"""Training (Sections 3.3 and 4.1): runs that share an architecture, as one stacked model.

Tensors have a leading axis of runs: seeds, values of nu and weight decays cost one pass. Every run
draws from its own generator, so its result does not depend, up to rounding, on its company.
"""

import copy
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from threading import Event

import torch
import torch.nn.functional as F
from torch import Generator, Tensor
from torch.func import functional_call, grad, stack_module_state, vmap
from tqdm import tqdm

from ginv.border import Border
from ginv.data import Split, load_dataset
from ginv.groups import group_named
from ginv.networks import MLP
from ginv.recipe import REGULARISERS, Run, gradient_variance
from ginv.symmetry import weight_orbits


@dataclass(frozen=True)
class TrainedRun:
    """A run, its network with the weights that were kept, and the record of its training."""

    run: Run
    model: MLP
    record: dict


@dataclass(frozen=True)
class State:
    """All that changes from epoch to epoch, after one: tensors `[runs, ...]`, or scalars."""

    epoch: int
    seconds: float  # of training so far
    tensors: dict[str, Tensor]


class Diverged(FloatingPointError):
    """Runs whose loss or logits were not finite: `failed`, each with its epoch.

    `trained` are those that were trained beside them.
    """

    def __init__(self, failed: dict[Run, int], trained: list[TrainedRun]) -> None:
        self.failed, self.trained = failed, trained
        each = [f"after epoch {epoch} of {run}" for run, epoch in failed.items()]
        super().__init__(f"the loss or the logits are not finite {'; '.join(each)}")


def shared_by_stack(run: Run) -> Run:
    """What the runs of a stack have in common.

    They differ in seed and weights alone: of the penalties and the decays.
    """
    used = [float(each > 0) for each in (run.nu, run.gradient_nu, run.symmetry_decay)]
    common = replace(run, seed=0, weight_decay=0.0)
    return replace(common, nu=used[0], gradient_nu=used[1], symmetry_decay=used[2])


def train_stack(
    runs: list[Run],
    *,
    device: torch.device,
    progress: bool = True,
    stop: Event | None = None,
    start: State | None = None,
    keep: Callable[[State], None] | None = None,
) -> list[TrainedRun]:
    """Train runs that `shared_by_stack` maps to one, stacked; nothing in a step waits for the host.

    `start` is the state to go on from; `keep` is given that after each epoch. Raises Diverged, once
    the others are trained, where the loss or the logits of a run are not finite, and
    InterruptedError soon after `stop` is set.
    """
    began, stack, run = time.perf_counter(), Stack(runs, device), runs[0]
    if start and not stack.fits(start):
        tqdm.write(f"a checkpoint does not fit {run}: it begins anew", file=sys.stderr)
        start = None
    first = stack.restore(start) if start else 0
    began -= start.seconds if start else 0.0
    bar = tqdm(
        range(first, run.epochs),
        desc=f"{run.method} {run.group}, {len(runs)} runs",
        unit="epoch",
        disable=not progress,
        initial=first,
        total=run.epochs,
    )
    for epoch in bar:
        total = stack.train_epoch(epoch, stop)
        if not stack.validate(epoch, total):
            break
        if keep:
            keep(stack.state(epoch + 1, time.perf_counter() - began))
    trained = stack.results((time.perf_counter() - began) / len(runs))
    if failed := stack.failed():
        raise Diverged(failed, trained)
    return trained


class Stack:
    """A training in progress: for each epoch `train_epoch` and `validate`, then `results`."""

    def __init__(self, runs: list[Run], device: torch.device) -> None:
        self.runs, self.run, self.device = runs, runs[0], device
        self.group = group_named(self.run.group)
        data = load_dataset(self.run.dataset, self.run.split_seed)
        train = data.train.head(self.run.train_images)
        self._load_images(train, data.validation)
        self.generators = [Generator().manual_seed(run.seed) for run in runs]
        seeded = zip(runs, self.generators, strict=True)
        dtype = train.images.dtype
        self.models = [run.model(generator).to(dtype) for run, generator in seeded]
        self.network = copy.deepcopy(self.models[0]).to("meta")  # its weights come from the leaves
        self.network.features[1].image_shape = self.border.inside_shape  # type: ignore[assignment]
        self.leaves = self.border.split(stack_module_state(self.models)[0], device)
        is_gpu = device.type == "cuda"
        # A recorded step reads the rate where it was when it was recorded
        rate = torch.tensor(self.run.learning_rate, device=device) if is_gpu else 0.0
        self.optimiser = torch.optim.Adam(
            self.leaves.values(), lr=rate, fused=True, capturable=is_gpu
        )
        self.nu, self.most_gradient_nu, self.weight_decay, self.symmetry_decay = (
            torch.tensor([getattr(run, name) for run in runs], device=device, dtype=dtype)
            for name in ("nu", "gradient_nu", "weight_decay", "symmetry_decay")
        )
        self.gradient_nu, self.symmetry_share = torch.zeros_like(self.nu), torch.zeros_like(self.nu)
        self.moves = self._moves() if self.run.symmetry_decay else {}
        self.step = Recorded(self._step) if is_gpu else self._step
        self._begin()

    def _load_images(self, train: Split, validation: Split) -> None:
        """The inside of all orbits, `[G * n, 1, h, w]`, and of one view to validate on."""
        group, self.labels = self.group, train.labels
        self.border = Border.of(torch.cat([train.images, validation.images]), group)
        orbits = self.border.crop(group.orbit(train.images))
        self.images = orbits.flatten(0, 1).to(self.device)
        # Each validation image has one orientation, the same for all runs
        n, generator = len(validation), Generator().manual_seed(0)
        elements = torch.randint(group.order, (n,), generator=generator)
        turned = group.orbit(validation.images)[elements, torch.arange(n)]
        self.validation = Split(self.border.crop(turned), validation.labels).to(self.device)

    def _begin(self) -> None:
        """The tensors of the state, before the first epoch; Adam's moments as at its first step."""
        count, leaves = len(self.runs), self.leaves
        like = self.nu  # of the device and the type of all
        self.best = {name: leaf.detach().clone() for name, leaf in leaves.items()}
        self.best_accuracy = like.new_full((count,), -1.0)
        self.history = like.new_zeros(count, self.run.epochs)
        self.tensors = {"best_accuracy": self.best_accuracy, "history": self.history}
        for name, leaf in leaves.items():
            adam = {part: torch.zeros_like(leaf) for part in ("exp_avg", "exp_avg_sq")}
            self.optimiser.state[leaf] = adam = {
                "step": torch.zeros((), device=self.device, dtype=torch.float32),
                **adam,
            }
            parts = {"weights": leaf, "best": self.best[name], **adam}
            self.tensors |= {f"{part}.{name}": tensor for part, tensor in parts.items()}

    def train_epoch(self, epoch: int, stop: Event | None = None) -> Tensor:
        """All batches of a shuffled epoch -> the sum of their losses `[runs]`."""
        total = torch.zeros_like(self.nu)
        rows, labels = (part.to(self.device) for part in self._shuffled())
        batches = rows.split(self.run.batch_size, 2), labels.split(self.run.batch_size, 1)
        for step, (batch, y) in enumerate(zip(*batches, strict=True)):
            if stop and stop.is_set():
                raise InterruptedError(f"stopped in epoch {epoch + 1} of {self.run}")
            self._set_rates((epoch + step / len(batches[0])) / self.run.epochs)
            total += self.step(batch, y)
        return total

    def _set_rates(self, passed: float) -> None:
        """Those of the step after a share of the training has passed."""
        group, rate = self.optimiser.param_groups[0], self.run.learning_rate_at(passed)
        if isinstance(group["lr"], Tensor):
            group["lr"].fill_(rate)
        else:
            group["lr"] = rate
        self.gradient_nu.copy_(self.most_gradient_nu * passed)
        share = self.symmetry_decay * self.run.symmetry_rate_at(passed)
        self.symmetry_share.copy_(share.clamp(max=1))

    def _shuffled(self) -> tuple[Tensor, Tensor]:
        """An epoch of every run: rows of the orbits `[runs, views, n]` and labels `[runs, n]`.

        A pair of views is drawn whether used or not, so that WT, DA and IR of one seed see the same
        images; the whole orbit begins with the first of the pair, but where gradients are turned
        back: there it has the order of the elements.
        """
        n, order = len(self.labels), self.group.order
        shuffled = torch.stack([torch.randperm(n, generator=each) for each in self.generators])
        pairs = [torch.randint(order, (2, n), generator=each) for each in self.generators]
        elements = torch.stack(pairs)
        if self.run.whole_orbit:
            first = 0 if self.run.gradient_nu else elements[:, :1]
            elements = (first + torch.arange(order)[:, None]).expand(len(elements), -1, n) % order
        rows = elements * n + shuffled[:, None]
        return rows[:, : self.run.views], self.labels[shuffled]

    def _step(self, rows: Tensor, y: Tensor) -> Tensor:
        """On rows of orbits `[runs, views, batch]`, labels `[runs, batch]` -> losses `[runs]`."""
        x = self.images.index_select(0, rows.flatten()).unflatten(0, rows.shape)
        self.optimiser.zero_grad()
        # Products alone: weights, their gradients and Adam's moments stay in float32
        reduced = self.run.precision == "bfloat16"
        with torch.autocast(self.device.type, torch.bfloat16, enabled=reduced):
            weights = self.border.join(self.leaves)
            losses = vmap(self._loss)(weights, x, y, self.nu, self.gradient_nu)
        losses.sum().backward()
        if any(run.weight_decay for run in self.runs):
            with torch.no_grad():
                kept = 1 - self.optimiser.param_groups[0]["lr"] * self.weight_decay
                for leaf in self.leaves.values():
                    leaf.mul_(_per_run(kept, leaf))
        self.optimiser.step()
        self._decay_asymmetry()
        return losses.detach()

    @torch.no_grad()
    def _decay_asymmetry(self) -> None:
        """`ginv.decay_asymmetry` of each run."""
        for name, moves in self.moves.items():
            weights = self.leaves[name].flatten(1)  # shared
            mean = torch.stack([weights.index_select(1, places) for places in moves]).mean(0)
            weights.lerp_(mean, self.symmetry_share[:, None])

    def _moves(self) -> dict[str, Tensor]:
        """Of each leaf, which of its weights an element of the group brings to each place.

        `[G, weights of a run]`: each weight of a network is its own number, and its orbit says.
        """
        numbered = copy.deepcopy(self.models[0]).double()
        for parameter in numbered.parameters():
            numbers = torch.arange(parameter.numel(), dtype=parameter.dtype)
            parameter.detach().copy_(numbers.view_as(parameter))
        orbits = {id(tensor): orbit for tensor, orbit in weight_orbits(numbered, self.group)}
        named = {n: orbits[id(p)] for n, p in numbered.named_parameters() if id(p) in orbits}
        moves = {}
        for name, leaf in self.border.split(named, torch.device("cpu")).items():
            numbers = leaf.detach().flatten(1).long()
            if not numbers.numel():  # under shifts in both directions there is no border
                continue
            place = torch.empty(int(numbers.max()) + 1, dtype=torch.long)
            place[numbers[0]] = torch.arange(numbers.shape[1])  # 0 is the identity
            moves[name] = place[numbers].to(self.device)
        return moves

    def _loss(
        self, weights: dict[str, Tensor], x: Tensor, y: Tensor, nu: Tensor, gradient_nu: Tensor
    ) -> Tensor:
        """Equation 4 of one run: images `[views, batch, 1, h, w]`, labels `[batch]`."""
        if self.run.gradient_nu:
            gradients, logits = grad(self._label_logits, argnums=1, has_aux=True)(weights, x, y)
        else:
            logits = self._logits(weights, x)
        seen = logits if self.run.all_views or self.run.method == "DA" else logits[:1]
        loss = F.cross_entropy(seen.flatten(0, 1), y.repeat(len(seen)))
        if self.run.method == "IR":
            pair = (logits[:, None], logits[None]) if self.run.whole_orbit else logits
            loss = loss + nu * REGULARISERS[self.run.regulariser](*pair).mean()
        if self.run.gradient_nu:
            loss = loss + gradient_nu * gradient_variance(gradients, self.group).mean()
        return loss

    def _logits(self, weights: dict[str, Tensor], x: Tensor) -> Tensor:
        """`[views, batch, 1, h, w]` -> `[views, batch, C]`."""
        return functional_call(self.network, weights, x.flatten(0, 1)).unflatten(0, x.shape[:2])

    def _label_logits(
        self, weights: dict[str, Tensor], x: Tensor, y: Tensor
    ) -> tuple[Tensor, Tensor]:
        """The sum of the logits of the labels, and all logits."""
        logits = self._logits(weights, x)
        return logits.gather(-1, y.expand(len(x), -1)[..., None]).sum(), logits

    @torch.no_grad()
    def validate(self, epoch: int, total: Tensor) -> bool:
        """Note the accuracy of each run, and keep its weights where they are the best so far.

        A run whose loss or logits are not finite has NaN for an accuracy. Returns whether any is
        left that has none: the one wait for the device, once an epoch.
        """
        accuracy = vmap(self._accuracy)(self.border.join(self.leaves))
        accuracy = accuracy.where(total.isfinite(), torch.nan)
        self.history[:, epoch] = accuracy
        better = (accuracy > self.best_accuracy) | (self.run.selection == "last")
        self.best_accuracy.copy_(torch.where(better, accuracy, self.best_accuracy))
        for name, leaf in self.leaves.items():
            best = self.best[name]
            best.copy_(torch.where(_per_run(better, leaf), leaf, best))
        return bool(self.history.isfinite().all(1).any())

    def _accuracy(self, weights: dict[str, Tensor]) -> Tensor:
        """Of one run, 0 to 1; NaN where a logit is not finite."""
        logits = functional_call(self.network, weights, self.validation.images)
        accuracy = (logits.argmax(-1) == self.validation.labels).to(self.nu.dtype).mean()
        return torch.where(logits.isfinite().all(), accuracy, torch.nan)

    def failed(self) -> dict[Run, int]:
        """The runs that diverged, each with its epoch."""
        lost = self.history.isnan()
        epochs = (lost.int().argmax(1) + 1).tolist()
        found = zip(self.runs, epochs, lost.any(1).tolist(), strict=True)
        return {run: epoch for run, epoch, diverged in found if diverged}

    def state(self, epoch: int, seconds: float) -> State:
        """After so many epochs; its tensors are not copied."""
        generators = torch.stack([generator.get_state() for generator in self.generators])
        return State(epoch, seconds, {**self.tensors, "generators": generators})

    def fits(self, state: State) -> bool:
        """Whether a state is one of this stack, and not of another network or length."""
        own, other = self.state(state.epoch, 0.0).tensors, state.tensors
        kinds = [{n: (t.shape, t.dtype) for n, t in each.items()} for each in (own, other)]
        if kinds[0] != kinds[1] or not 0 <= state.epoch <= self.run.epochs:
            return False
        going = ~other["history"].isnan().any(1)  # a run that diverged goes on as it may
        numbers = [t[going] for t in other.values() if t.ndim and t.is_floating_point()]
        try:
            for values in other["generators"]:
                Generator().set_state(values.clone())
        except RuntimeError:
            return False
        return all(bool(each.isfinite().all()) for each in numbers)

    def restore(self, state: State) -> int:
        """Go on from a state; returns the number of its epochs."""
        with torch.no_grad():
            for name, tensor in self.tensors.items():
                tensor.copy_(state.tensors[name])
        for generator, values in zip(self.generators, state.tensors["generators"], strict=True):
            generator.set_state(values.clone())  # of a row of a tensor, torch takes other bytes
        return state.epoch

    def results(self, seconds: float) -> list[TrainedRun]:
        """Each run that did not diverge, with the weights that were kept; seconds of one run."""
        weights, results, failed = self.border.merge(self.best), [], self.failed()
        for i, (run, model) in enumerate(zip(self.runs, self.models, strict=True)):
            if run in failed:
                continue
            model.load_state_dict({name: value[i] for name, value in weights.items()})
            record = {
                "best_epoch": int(self.history[i].argmax()) + 1,
                "validation_accuracy": self.history[i].tolist(),
                "seconds": seconds,
                "device": self.device.type,
                "torch": torch.__version__,
            }
            results.append(TrainedRun(run, model.requires_grad_(False), record))
        return results


class Recorded:
    """A step that a GPU repeats as one launch: one by one its kernels launch slower than they run.

    The first step of a shape runs as it is and warms up what may not be set up in a recording.
    """

    def __init__(self, step: Callable[..., Tensor]) -> None:
        self.step = step
        self.graphs: dict[
            tuple, tuple[torch.cuda.CUDAGraph, tuple[Tensor, ...], Tensor] | None
        ] = {}

    def __call__(self, *inputs: Tensor) -> Tensor:
        """The result is overwritten by the next step of the shape."""
        shapes = tuple(each.shape for each in inputs)
        if shapes not in self.graphs:
            self.graphs[shapes] = None
            return self._aside(inputs)
        if (recorded := self.graphs[shapes]) is None:
            recorded = self.graphs[shapes] = self._record(inputs)
        graph, places, result = recorded
        for place, each in zip(places, inputs, strict=True):
            place.copy_(each)
        graph.replay()
        return result

    def _aside(self, inputs: tuple[Tensor, ...]) -> Tensor:
        """Where a recording will be made, too: on a stream of its own."""
        aside, here = torch.cuda.Stream(), torch.cuda.current_stream()
        aside.wait_stream(here)
        with torch.cuda.stream(aside):
            result = self.step(*inputs)
        here.wait_stream(aside)
        return result

    def _record(
        self, inputs: tuple[Tensor, ...]
    ) -> tuple[torch.cuda.CUDAGraph, tuple[Tensor, ...], Tensor]:
        places, graph = tuple(each.clone() for each in inputs), torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph, capture_error_mode="thread_local"):
            result = self.step(*places)
        return graph, places, result


def _per_run(values: Tensor, like: Tensor) -> Tensor:
    """`[runs]` -> `[runs, 1, ...]`, to go with a leaf."""
    return values.view(-1, *[1] * (like.ndim - 1))
