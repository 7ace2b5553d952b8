"""Training (Sections 3.3 and 4.1): weight-tying (WT), data augmentation (DA), invariance regularisation (IR).

Runs that share an architecture train as one stacked model with a leading axis of runs: seeds, values of nu and weight
decays cost one pass. Every run draws from its own generator, so its result does not depend, up to rounding, on its
company.

A trained run is stored at once, and the state of a long training once a minute: interrupted in whatever way, it goes on
where it was. Two processes that want the same run train it once.
"""

import copy
import math
import sys
import time
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import dataclass, fields, replace
from threading import Event

import torch
import torch.nn.functional as F
from torch import Generator, Tensor
from torch.func import functional_call, stack_module_state, vmap
from tqdm import tqdm

from ginv import checkpoints, costs, store
from ginv.checkpoints import Checkpoint
from ginv.data import DATASETS, IMAGE_SHAPE, SPLITS, load_dataset
from ginv.groups import group_named
from ginv.models import INITIALISATIONS, MLP, POOLINGS, symmetrise
from ginv.parameters import require
from ginv.window import Window

METHODS = ("WT", "DA", "IR")
# On a CPU more runs in a stack are no faster: their parameters and Adam's moments leave its cache
LARGEST_STACK = {"cpu": 4, "cuda": 64}


def logit_error(a: Tensor, b: Tensor) -> Tensor:
    """`|a - b|^2 / 2` (Equation 2) of logits `[..., C]` -> `[...]`."""
    return (a - b).square().sum(-1) / 2


def kl_divergence(a: Tensor, b: Tensor) -> Tensor:
    """`KL(softmax(a) | softmax(b))` (Equation 1) in nats, of logits `[..., C]` -> `[...]`."""
    log_a, log_b = a.log_softmax(-1), b.log_softmax(-1)
    return (log_a.exp() * (log_a - log_b)).sum(-1)


def normalised_logit_error(a: Tensor, b: Tensor) -> Tensor:
    """`|a - b|^2 / |a|^2` (Section 4.4, form iii) of logits `[..., C]` -> `[...]`."""
    return (a - b).square().sum(-1) / a.square().sum(-1)


REGULARISERS: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    "logit": logit_error,
    "kl": kl_divergence,
    "normalised": normalised_logit_error,
}


@dataclass(frozen=True)
class Run:
    """The specification of one training run. The defaults are the paper's (Section 4.1)."""

    group: str = "R4"
    method: str = "DA"
    seed: int = 0
    nu: float = 0.0  # weight of the regulariser in Equation 4, IR alone
    regulariser: str = "logit"
    dataset: str = "MNIST"
    epochs: int = 300
    learning_rate: float = 8e-4
    weight_decay: float = 0.0  # decoupled: each step takes learning_rate * weight_decay of the weights away
    batch_size: int = 512
    train_images: int = 10_000
    width: int = 128
    depth: int = 5  # hidden layers
    pooling: str = "max"  # over the group, WT alone
    selection: str = "best"  # the weights that are kept: of the best validation accuracy, or the last
    split_seed: int = 0
    whole_orbit: bool = False  # the regulariser takes all pairs of the orbit and not a random one, IR alone
    all_views: bool = False  # the task loss takes all views that the regulariser takes, not the first alone, IR alone
    schedule: str = "constant"  # of the learning rate; or a cosine down to 0
    first_width: int | None = None  # of the first hidden layer; None: as the others
    teacher: bool = False  # the regulariser compares with the logits of the WT network of the same seed, IR alone
    precision: str = "float32"  # of the matrix products; or bfloat16, which is faster
    initialisation: str = "pytorch"  # the size of the initial weights; or he, which is 2.4 times as large
    symmetric_start: bool = False  # the initial weights are those of an invariant network, IR alone

    def __post_init__(self) -> None:
        group_named(self.group).orbit(torch.empty(IMAGE_SHAPE))  # refuses an order that does not fit
        choices = {
            "method": METHODS,
            "regulariser": [*REGULARISERS],
            "dataset": DATASETS,
            "pooling": [*POOLINGS],
            "initialisation": [*INITIALISATIONS],
            "selection": ("best", "last"),
            "schedule": ("constant", "cosine"),
            "precision": ("float32", "bfloat16"),
            **dict.fromkeys(("whole_orbit", "all_views", "teacher", "symmetric_start"), (False, True)),
        }
        for name, allowed in choices.items():
            value = getattr(self, name)
            fits = isinstance(value, type(allowed[0])) and value in allowed  # 1 is not True
            require(fits, name, value, ", ".join(map(str, allowed)))
        sizes = ("seed", "split_seed", "epochs", "batch_size", "train_images", "width", "depth")
        for name in (*sizes, *(["first_width"] if self.first_width is not None else [])):
            least, value = int("seed" not in name), getattr(self, name)
            require(type(value) is int and least <= value < 2**63, name, value, f"integers from {least}")
        require(self.train_images <= SPLITS["train"], "train_images", self.train_images, f"1 to {SPLITS['train']}")
        limits = {
            "learning_rate": (lambda value: value > 0, "above 0"),
            "weight_decay": (lambda value: value * self.learning_rate < 1, "0 to 1 / learning_rate"),
            "nu": (lambda value: (value > 0) == (self.method == "IR"), "above 0 for IR, 0 for WT and DA"),
        }
        for name, (inside, instead) in limits.items():
            value = getattr(self, name)
            fits = isinstance(value, int | float) and 0 <= value < math.inf and inside(value)
            require(fits, name, value, instead)
            object.__setattr__(self, name, float(value))  # 10 and 10.0 are one run
        ir = dict.fromkeys(("whole_orbit", "all_views", "teacher", "symmetric_start"), "IR")
        for name, method in {"pooling": "WT", **ir}.items():
            default, value = getattr(type(self), name), getattr(self, name)
            require(self.method == method or value == default, name, value, f"{default!r} for {self.method}")

    @property
    def specification(self) -> dict:
        """What names the run in the store. A field at its default is left out: a new one orphans no stored run."""
        return {field.name: value for field in fields(self) if (value := getattr(self, field.name)) != field.default}

    def model(self, generator: Generator | None = None) -> MLP:
        group = group_named(self.group)
        model = MLP(
            group if self.method == "WT" else None,
            width=self.width,
            depth=self.depth,
            first_width=self.first_width,
            pooling=self.pooling,
            initialisation=self.initialisation,
            generator=generator,
        )
        if self.symmetric_start:
            symmetrise(model, group)
        return model

    @property
    def views(self) -> int:
        """How many orientations of an image a step takes."""
        return 1 if self.method != "IR" else group_named(self.group).order if self.whole_orbit else 2

    @property
    def teacher_run(self) -> "Run":
        """The weight-tied network whose logits a run with `teacher` learns: of the same seed and data, and the paper's
        but where a shorter training is asked for.
        """
        same = ("group", "seed", "dataset", "train_images", "split_seed")
        return Run(method="WT", epochs=min(self.epochs, Run.epochs), **{name: getattr(self, name) for name in same})


@dataclass(frozen=True)
class TrainedRun:
    """A run, its network of the best validation accuracy, and the record of its training."""

    run: Run
    model: MLP
    record: dict


def choose_device(device: str = "auto") -> torch.device:
    """The GPU where there is one for "auto"; raises ValueError for a device that is not there."""
    if device == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    if device not in ("cpu", "cuda") or (device == "cuda" and not torch.cuda.is_available()):
        here = "auto, cpu, cuda" if torch.cuda.is_available() else "auto, cpu (no GPU here)"
        raise ValueError(f"device is {device!r}; allowed: {here}")
    return torch.device(device)


def train(runs: Iterable[Run], *, device: str = "auto", progress: bool = True) -> dict[Run, TrainedRun]:
    """Load the runs that are in the store and train the others, those of one architecture stacked."""
    require(isinstance(runs, Iterable), "runs", runs, "ginv.Run objects in a list")
    for run in (wanted := list(runs)):
        require(isinstance(run, Run), "run", run, "a ginv.Run")
    wanted, where = list(dict.fromkeys(wanted)), choose_device(device)
    trained = {run: loaded for run in wanted if (loaded := load_run(run))}
    if teachers := [run.teacher_run for run in wanted if run.teacher and run not in trained]:
        train(teachers, device=device, progress=progress)
    if trained and progress:
        tqdm.write(f"{len(trained)} of {len(wanted)} runs are in the store: loaded, not trained", file=sys.stderr)
    # Stacks side by side, each on cores of its own, are faster than one on all: the cores need not wait for each other
    # after every product. On how many must not hang on what is missing, or an interrupted training might not end in the
    # same bits.
    largest, cores = LARGEST_STACK[where.type], torch.get_num_threads() if where.type == "cpu" else 1
    workers = max(1, min(cores, len([*stacks(wanted, largest)])))
    stop = Event()

    def train_part(part: tuple[list[Run], Checkpoint | None]) -> list[TrainedRun]:
        """What no other process trains of a stack."""
        if where.type == "cpu":
            torch.set_num_threads(cores // workers)  # of this thread alone
        with store.claim([run.specification for run in part[0]]) as ours:
            claimed = [run for run, mine in zip(part[0], ours, strict=True) if mine]
            found = {run: loaded for run in claimed if (loaded := load_run(run))}  # another process was faster
            missing = [run for run in claimed if run not in found]
            results = _train_stored(missing, part[1], where, progress, stop) if missing else []
        return [*found.values(), *results]

    told = 0
    with ThreadPoolExecutor(workers) as executor:
        try:
            while missing := [run for run in wanted if run not in trained]:
                for run in missing:
                    load_dataset(run.dataset, run.split_seed)  # cached from here on: the threads need not read it again
                parts = [*stacks(missing, largest, checkpoints.stored(where.type))]
                # The longest first: the short ones fill the gaps
                parts.sort(key=lambda part: -len(part[0]) * costs.training_operations(part[0][0]))
                for done in as_completed([executor.submit(train_part, part) for part in parts]):
                    trained.update((result.run, result) for result in done.result())
                if (others := len(wanted) - len(trained)) and others != told and progress:
                    tqdm.write(f"{others} runs are trained by another process: waiting for them", file=sys.stderr)
                told = others
                time.sleep(min(others, 1))
        except BaseException:  # Ctrl-C too
            stop.set()
            raise
    checkpoints.stored(where.type)  # removes what a killed process left
    return {run: trained[run] for run in wanted}


def stacks(
    runs: list[Run], largest: int, kept: Sequence[Checkpoint] = ()
) -> Iterator[tuple[list[Run], Checkpoint | None]]:
    """Runs that train together, and where they go on. Those of a checkpoint first: what was a stack stays one."""
    for checkpoint in kept:
        if stack := [run for run in runs if run.specification in checkpoint.runs]:
            yield stack, checkpoint
            runs = [run for run in runs if run not in stack]
    stacks = defaultdict(list)
    for run in runs:
        stacks[replace(run, seed=0, nu=float(run.method == "IR"), weight_decay=0.0)].append(run)
    for stack in stacks.values():
        yield from ((stack[i : i + largest], None) for i in range(0, len(stack), largest))


def _train_stored(
    runs: list[Run], checkpoint: Checkpoint | None, device: torch.device, progress: bool, stop: Event
) -> list[TrainedRun]:
    """`train_stack`, from a checkpoint that has these runs, with its checkpoints and its results in the store."""
    specifications = [run.specification for run in runs]
    last = checkpoint if checkpoint and checkpoint.runs == specifications else None  # of other runs too: they need it

    def keep(new: Checkpoint) -> None:
        nonlocal last
        store.save(new.specification, new.tensors, {"seconds": new.seconds})
        if last:
            store.remove(last.specification)
        last = new

    start = checkpoint and checkpoint.of(specifications)
    results = train_stack(runs, device=device, progress=progress, stop=stop, start=start, keep=keep)
    for result in results:
        store.save(result.run.specification, result.model.state_dict(), result.record)
    if last:
        store.remove(last.specification)
    return results


def load_run(run: Run) -> TrainedRun | None:
    """A run from the store, or None."""
    model = run.model()
    if (stored := store.load(run.specification, model.state_dict())) is None:
        return None
    model.load_state_dict(stored[0])
    return TrainedRun(run, model.requires_grad_(False), stored[1])


def train_stack(
    runs: list[Run],
    *,
    device: torch.device,
    progress: bool = True,
    stop: Event | None = None,
    start: Checkpoint | None = None,
    keep: Callable[[Checkpoint], None] | None = None,
) -> list[TrainedRun]:
    """Train runs that differ in seed, nu and weight decay alone, stacked; nothing in a step waits for the host.

    `start` is the checkpoint to go on from. `keep` takes those on the way: one before more than `MOST_LOST` has passed
    since the last, and that of the last epoch.
    Raises FloatingPointError where the loss or the logits are not finite, and InterruptedError after `stop` is set.
    """
    run, count, began = runs[0], len(runs), time.perf_counter()
    group, data = group_named(run.group), load_dataset(run.dataset, run.split_seed)
    train, validation = data.train.head(run.train_images), data.validation
    window = Window.around(torch.cat([train.images, validation.images]), group)
    images = window.crop(group.orbit(train.images)).flatten(0, 1).to(device)  # [G * n, 1, h, w], element by element
    # Each validation image has one orientation, the same for all runs
    elements = torch.randint(group.order, (len(validation),), generator=Generator().manual_seed(0))
    turned = group.orbit(validation.images)[elements, torch.arange(len(validation))]
    turned, turned_labels = window.crop(turned).to(device), validation.labels.to(device)

    generators = [Generator().manual_seed(run.seed) for run in runs]
    models = [run.model(generator) for run, generator in zip(runs, generators, strict=True)]
    leaves = window.split(stack_module_state(models)[0], device)
    optimiser = torch.optim.Adam(leaves.values(), lr=run.learning_rate, fused=True)
    weight_decay = torch.tensor([run.weight_decay for run in runs], device=device)
    skeleton = copy.deepcopy(models[0]).to("meta")
    skeleton.features[1].image_shape = window.shape  # type: ignore[assignment]
    nu = torch.tensor([run.nu for run in runs], device=device)
    decays = any(run.weight_decay for run in runs)
    penalty = REGULARISERS[run.regulariser] if run.method == "IR" else None
    teacher = _teacher(runs, window, device) if run.teacher else None

    def loss(parameters: dict[str, Tensor], x: Tensor, y: Tensor, nu: Tensor, taught: Tensor | None) -> Tensor:
        """Equation 4 of one run: x `[views, batch, 1, h, w]`, labels y `[batch]`."""
        logits = functional_call(skeleton, parameters, x.flatten(0, 1)).unflatten(0, x.shape[:2])
        seen = logits if run.all_views else logits[:1]
        task = F.cross_entropy(seen.flatten(0, 1), y.repeat(len(seen)))
        if penalty is None:
            return task
        if taught is not None:
            return task + nu * penalty(taught, logits).mean()
        pair = (logits[:, None], logits[None]) if run.whole_orbit else logits
        return task + nu * penalty(*pair).mean()

    def validate(parameters: dict[str, Tensor]) -> Tensor:
        logits = functional_call(skeleton, parameters, turned)
        accuracy = (logits.argmax(-1) == turned_labels).float().mean()
        return torch.where(logits.isfinite().all(), accuracy, torch.nan)

    best = {name: leaf.detach().clone() for name, leaf in leaves.items()}
    best_accuracy = torch.full((count,), -1.0, device=device)
    history = torch.zeros(count, run.epochs, device=device)
    state = {"best_accuracy": best_accuracy, "history": history}  # and the generators: all that an epoch changes
    for name, leaf in leaves.items():
        moments = {"exp_avg": torch.zeros_like(leaf), "exp_avg_sq": torch.zeros_like(leaf)}
        optimiser.state[leaf] = {"step": torch.zeros((), device=device), **moments}  # as Adam would at its first step
        parts = {"weights": leaf, "best": best[name], **optimiser.state[leaf]}
        state |= {f"{part}.{name}": tensor for part, tensor in parts.items()}
    first, before = 0, 0.0
    if start:
        start.restore(state, generators)
        first, before = start.epoch, start.seconds
    began, kept_at, ended = began - before, began, began
    bar = tqdm(
        range(first, run.epochs),
        desc=f"{run.method} {run.group}, {count} runs",
        unit="epoch",
        disable=not progress,
        initial=first,
        total=run.epochs,
    )
    for epoch in bar:
        if stop and stop.is_set():
            raise InterruptedError(f"stopped before epoch {epoch + 1} of {run}")
        total = torch.zeros(count, device=device)
        rows, targets = _epoch(train.labels, group.order, generators, run.whole_orbit)
        rows = rows[:, : run.views].to(device).split(run.batch_size, 2)
        for step, (batch, y) in enumerate(zip(rows, targets.to(device).split(run.batch_size, 1), strict=True)):
            x = images.index_select(0, batch.flatten()).unflatten(0, batch.shape)
            if run.schedule == "cosine":
                passed = (epoch + step / len(rows)) / run.epochs
                optimiser.param_groups[0]["lr"] = run.learning_rate * (1 + math.cos(math.pi * passed)) / 2
            optimiser.zero_grad()
            # Products alone: weights, their gradients and Adam's moments stay in float32
            with torch.autocast(device.type, torch.bfloat16, enabled=run.precision == "bfloat16"):
                taught = teacher(x) if teacher else None
                weights, axes = window.join(leaves), (0, 0, 0, 0, 0 if teacher else None)
                losses = vmap(loss, in_dims=axes)(weights, x, y, nu, taught)
            losses.sum().backward()
            total += losses.detach()
            if decays:
                with torch.no_grad():
                    kept = 1 - optimiser.param_groups[0]["lr"] * weight_decay
                    for leaf in leaves.values():
                        leaf.mul_(kept.view(-1, *[1] * (leaf.ndim - 1)))
            optimiser.step()
        with torch.no_grad():
            history[:, epoch] = accuracy = vmap(validate)(window.join(leaves))
            better = (accuracy > best_accuracy) | (run.selection == "last")
            best_accuracy.copy_(torch.where(better, accuracy, best_accuracy))
            for name, leaf in leaves.items():
                best[name].copy_(torch.where(better.view(-1, *[1] * (leaf.ndim - 1)), leaf, best[name]))
        if not (total + accuracy).isfinite().all():  # the one wait for the device, once an epoch
            lost = int((total + accuracy).isfinite().logical_not().nonzero()[0])
            what = "logits are" if total[lost].isfinite() else "loss is"
            raise FloatingPointError(f"the {what} not finite after epoch {epoch + 1} of {runs[lost]}")
        now = time.perf_counter()
        if keep and (epoch + 1 == run.epochs or 2 * now - ended - kept_at > checkpoints.MOST_LOST):
            tensors = {**state, "generators": torch.stack([generator.get_state() for generator in generators])}
            keep(Checkpoint([run.specification for run in runs], epoch + 1, device.type, now - began, tensors))
            kept_at = now
        ended = now
    seconds = (time.perf_counter() - began) / count
    results = []
    for i, (run, model) in enumerate(zip(runs, models, strict=True)):
        model.load_state_dict({name: value[i] for name, value in window.merge(best).items()})
        record = {
            "best_epoch": int(history[i].argmax()) + 1,
            "validation_accuracy": history[i].tolist(),
            "seconds": seconds,
            "device": device.type,
            "torch": torch.__version__,
        }
        results.append(TrainedRun(run, model.requires_grad_(False), record))
    return results


def _teacher(runs: list[Run], window: Window, device: torch.device) -> Callable[[Tensor], Tensor]:
    """The logits of each run's teacher: images `[runs, views, batch, 1, h, w]` -> `[runs, batch, classes]`.

    Raises LookupError where one is not in the store; `train` trains it first.
    """
    models = []
    for run in runs:
        if (trained := load_run(run.teacher_run)) is None:
            raise LookupError(f"the teacher {run.teacher_run} is not in the store; ginv.train trains it first")
        models.append(trained.model)
    parameters = {name: leaf.detach() for name, leaf in window.split(stack_module_state(models)[0], device).items()}
    skeleton = copy.deepcopy(models[0]).to("meta")
    skeleton.features[1].image_shape = window.shape  # type: ignore[assignment]
    # A teacher is invariant: one view tells what it says of all
    return lambda x: vmap(lambda p, x: functional_call(skeleton, p, x))(window.join(parameters), x[:, 0])


def _epoch(labels: Tensor, order: int, generators: list[Generator], whole_orbit: bool) -> tuple[Tensor, Tensor]:
    """A shuffled epoch of every run: rows of the orbits `[runs, views, n]` and labels `[runs, n]`.

    A pair of views is drawn whether used or not, so that WT, DA and IR of one seed see the same images; the whole orbit
    begins with the first of the pair.
    """
    n = len(labels)
    shuffled = torch.stack([torch.randperm(n, generator=generator) for generator in generators])
    elements = torch.stack([torch.randint(order, (2, n), generator=generator) for generator in generators])
    if whole_orbit:
        elements = (elements[:, :1] + torch.arange(order)[:, None]) % order
    return elements * n + shuffled[:, None], labels[shuffled]
