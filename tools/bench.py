"""What it costs: `python tools/bench.py` writes bench.csv and timings.csv in book/results.

An item is one piece of work that is done in two ways, ours and a reference, in turn, several times
over. Its ratio is the reference over ours: how many times less ours takes. `--full` measures the
slow items, too: the book from scratch, and what reduced precision does to trained networks. Without
it they are kept as they were last measured.
"""

import argparse
import math
import os
import resource
import subprocess
import sys
import time
from collections.abc import Callable, Iterable
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, replace
from functools import cache, partial
from itertools import product
from multiprocessing import get_context
from pathlib import Path
from tempfile import TemporaryDirectory
from unittest.mock import patch

import naive_measure
import naive_training
import pandas as pd
import torch
from captum.attr import IntegratedGradients
from torch import Tensor, nn
from tqdm import tqdm

import ginv
from ginv import MLP, Run
from ginv.border import BORDER
from ginv.classifier import as_classifier
from ginv.data import IMAGE_SHAPE, PADDING, Split
from ginv.machine import threads_of_one_core
from ginv.measurement import MOST_IMAGES
from ginv.networks import small_convnet
from ginv.pages import Settings
from ginv.recipe import GROUPS, METHODS
from ginv.refuse import require, require_folder
from ginv.runs import costs
from ginv.runs.files import write_whole
from ginv.runs.measured import measured
from ginv.saliency import ROWS_AT_ONCE, STEPS, passes
from ginv.stack import Stack, train_stack

ROOT = Path(__file__).resolve().parents[1]
CPU = torch.device("cpu")
# Table 1, Figures 1 to 5 and the proposition
CHAPTERS = "metrics table1 drift spectral_decay trust claims intro"


@dataclass(frozen=True)
class Size:
    """How much each item does; a test takes less."""

    repeats: int = 3
    product: int = 4096  # of the square matrices that say how fast this machine is
    epochs: tuple[int, int] = (1, 5)
    few_epochs: tuple[int, int] = (1, 3)
    train_images: int = 10_000
    seeds: int = 4  # of a stack
    images: int = 1000  # maps, and the metrics written plainly
    memory: int = 50_000  # images
    growing_seeds: tuple[int, ...] = (1, 2, 4, 8)
    growing_images: tuple[int, ...] = (256, 512, 1024, 2048, 4096)
    growing_groups: tuple[str, ...] = ("R1", "R2", "R4", "T1", "T2", "T3", "T4", "T6", "T9", "T12")
    precision: tuple[int, int] = (300, 5_000)  # epochs and test images


@dataclass(frozen=True)
class Item:
    """Two callables that return what the same work takes; or one, and its n, of a curve."""

    name: str
    ours: Callable[[], float] | None
    reference: Callable[[], float] | None = None
    target: float | None = None  # of reference / ours, at least
    n: int | None = None
    repeats: int | None = None  # None: those of the size
    reason: str = ""  # why it is not measured


# --- What is timed


def seconds(work: Callable[[], object]) -> float:
    start = time.perf_counter()
    work()
    return time.perf_counter() - start


def train(runs: list[Run], device: str = "cpu") -> None:
    """`ginv.train` with an empty store."""
    with TemporaryDirectory() as folder, patch.dict(os.environ, GINV_RUNS=folder):
        ginv.train(runs, device=device, progress=False)


def train_one_stack(precision: str, runs: list[Run]) -> list[ginv.TrainedRun]:
    return train_stack(
        [replace(run, precision=precision) for run in runs], device=CPU, progress=False
    )


def epoch_seconds(
    training: Callable[[list[Run]], object],
    run: Run,
    seeds: int,
    epochs: tuple[int, int],
    each: bool = True,
) -> float:
    """Seconds per epoch and run, or of all seeds, validation and the handling of data included.

    The difference of two lengths of training, so that what is done once a training is out.
    """
    stacks = [
        [replace(run, seed=seed, epochs=length) for seed in range(seeds)] for length in epochs
    ]
    short, long = (seconds(partial(training, stack)) for stack in stacks)
    return (long - short) / (epochs[1] - epochs[0]) / (seeds if each else 1)


def bound_seconds(run: Run, size: Size, device: str = "cpu") -> float:
    """Seconds that the operations of one epoch would take at the speed of a large product."""
    return costs.training_operations(replace(run, epochs=1)) / costs.operations_per_second(
        torch.device(device), size.product
    )


def products_seconds(run: Run, seeds: int) -> float:
    """Seconds per epoch and run that the products of training take alone.

    Of the same shapes and as often; of two stacks side by side, a core for each.
    """
    stack = Stack([replace(run, seed=seed) for seed in range(seeds)], CPU)
    leaves = [leaf for name, leaf in stack.leaves.items() if leaf.ndim == 3 and name != BORDER]
    copies = stack.group.order if run.method == "WT" else 1
    rows, steps = run.batch_size * run.views, math.ceil(run.train_images / run.batch_size)
    sizes = [(inputs, outputs) for _, inputs, outputs in (leaf.shape for leaf in leaves)]
    sizes[0] = sizes[0][0], copies * sizes[0][1]

    def multiply(_: int) -> None:
        tensors = [
            (torch.ones(seeds, rows, i), torch.ones(seeds, i, o), torch.ones(seeds, rows, o))
            for i, o in sizes
        ]
        for _ in range(steps):
            for layer, (x, weight, y) in enumerate(tensors):
                torch.bmm(x, weight)
                torch.bmm(x.mT, y)  # the slope of the weights
                if layer:
                    torch.bmm(y, weight.mT)  # and of the units
        for x, weight, _ in tensors:  # validation, forward alone
            images = x.new_ones(seeds, len(stack.validation), x.shape[-1])
            torch.bmm(images, weight)

    threads = threads_of_one_core(2)
    [*threads.map(multiply, range(2))]  # memory is fetched
    return seconds(lambda: [*threads.map(multiply, range(2))]) / (2 * seeds)


def measuring_products_seconds(images: int) -> float:
    """Seconds that the products of measuring a perceptron on R4 take alone.

    Forward for the logits and, for the maps, through the first layer and back, and a point of the
    path at a time through the others and back; as many rows at once, and on as many cores.
    """
    wide, *hidden, _ = [weight.detach() for weight in MLP().parameters() if weight.ndim == 2]
    points = torch.ones(STEPS * ROWS_AT_ONCE, hidden[0].shape[1])

    def along_the_path(_: int) -> None:
        for weight in hidden:
            points @ weight.mT
            points @ weight

    def multiply() -> None:
        for some in torch.ones(images, wide.shape[1]).split(MOST_IMAGES):
            x = some.repeat(4, 1)
            for _ in range(2):  # for the logits, and for the maps
                units = x @ wide.mT
            for weight in hidden:
                units @ weight.mT
            units @ wide
            parts = range(math.ceil(len(x) / ROWS_AT_ONCE))
            [*threads_of_one_core(torch.get_num_threads()).map(along_the_path, parts)]

    multiply()  # memory is fetched
    return seconds(multiply)


def product_seconds(size: Size, dtype: torch.dtype, device: str = "cpu") -> float:
    return (
        2 * size.product**3 / costs.operations_per_second(torch.device(device), size.product, dtype)
    )


def tf32_product_seconds(size: Size) -> float:
    torch.set_float32_matmul_precision("high")
    try:
        return product_seconds(size, torch.float32, "cuda")
    finally:
        torch.set_float32_matmul_precision("highest")


@cache
def plain_digits() -> list[naive_training.Digits]:
    """Training and validation images as a user has them: 28 x 28, from 0 to 1."""
    data = ginv.load_dataset()
    transform = naive_training.augmentation(data.mean, data.std)
    inside = slice(PADDING, -PADDING)
    return [
        naive_training.Digits(
            split.images[..., inside, inside] * data.std + data.mean, split.labels, transform
        )
        for split in (data.train, data.validation)
    ]


def plain_epoch_seconds(size: Size) -> float:
    training, validation = plain_digits()
    training = naive_training.Digits(
        training.images[: size.train_images], training.labels, training.transform
    )
    return seconds(lambda: naive_training.train(MLP(), training, validation, epochs=1))


@cache
def some_model(method: str) -> MLP:
    """A network that has learned a little."""
    return train_one_stack("float32", [Run(method=method, epochs=3)])[0].model


def captum_maps(model: MLP, test: Split) -> Tensor:
    parts = zip(test.images.split(256), test.labels.split(256), strict=True)
    return torch.cat(
        [IntegratedGradients(model).attribute(x, target=y, n_steps=STEPS) for x, y in parts]
    )


def our_maps(model: MLP, test: Split) -> Tensor:
    return ginv.integrated_gradients(model, test.images, test.labels)


def measure(model: MLP, images: int, group: str = "R4") -> ginv.Measurement:
    test = ginv.load_dataset().test.head(images)
    return ginv.measure(model, test.images, test.labels, ginv.group_named(group), progress=False)


def plain_measure(model: MLP, images: int) -> pd.DataFrame:
    test = ginv.load_dataset().test.head(images)
    return naive_measure.measure(model, test.images, test.labels)


def load_head(images: int) -> Split:
    return ginv.load_dataset().test.head(images)


@cache
def some_network() -> nn.Module:
    return small_convnet(torch.Generator().manual_seed(0)).eval()


def measure_network(some: Split, **options: bool) -> ginv.Measurement:
    group = ginv.Rotations(4)
    options |= dict(progress=False)
    return ginv.measure(some_network(), some.images, some.labels, group, **options)


def maps_of_network(some: Split) -> None:
    """Attributions of all orientations, with as many examples at once as `measure` takes."""
    model, method, group = some_network(), IntegratedGradients(some_network()), ginv.Rotations(4)
    size = passes("auto", as_classifier(model), some.images[:1])
    for g in group.elements:
        for x, y in zip(some.images.split(256), some.labels.split(256), strict=True):
            options = dict(n_steps=STEPS, internal_batch_size=max(size, len(x)))
            method.attribute(group.act(g, x), target=y, **options)


@torch.no_grad()
def forward_passes(some: Split) -> None:
    group = ginv.Rotations(4)
    for x in some.images.split(256):
        for g in group.elements:
            some_network()(group.act(g, x))


def peak_memory(images: int) -> float:
    """MiB that `ginv.measure` adds to a process of its own at its peak."""
    with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as executor:
        return executor.submit(_peak_memory, images).result()


def _peak_memory(images: int) -> float:
    model, some = MLP(), load_head(images)  # memory does not hang on the weights
    some.images.sum()  # each page of them is here

    def measure_first(count: int) -> None:
        ginv.measure(model, some.head(count), ginv.Rotations(4), progress=False)

    measure_first(256)  # what is allocated once
    Path("/proc/self/clear_refs").write_text("5")  # the peak so far is forgotten
    before = _status("VmRSS")
    measure_first(images)
    return (_status("VmHWM") - before) / 1024


def maps_memory(images: int) -> float:
    """MiB of a saliency map for each image in each orientation of R4."""
    return images * 4 * math.prod(IMAGE_SHAPE) * torch.float32.itemsize / 2**20


def _status(name: str) -> int:
    """A line of /proc/self/status, in KiB."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(f"{name}:"))


@cache
def trained_both_ways(method: str, group: str, size: Size) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Accuracy and SI of each seed, trained in float32 and with bfloat16; stored."""
    epochs, images = size.precision
    run = replace(Settings().run(group, method, 0), epochs=epochs, train_images=size.train_images)
    runs = [replace(run, seed=seed) for seed in range(size.seeds)]
    tables = []
    for way in ("float32", "bfloat16"):
        trained = ginv.train([replace(run, precision=way) for run in runs], device="cpu")
        found = [measured(each, "test", images, device="cpu") for each in trained.values()]
        tables.append(pd.DataFrame(each.summary for each in found))
    return tables[0], tables[1]


def shift(method: str, group: str, metric: str, size: Size) -> float:
    """How far bfloat16 moves the mean over the seeds."""
    float32, reduced = trained_both_ways(method, group, size)
    return abs(reduced[metric].mean() - float32[metric].mean())


def spread(method: str, group: str, metric: str, size: Size) -> float:
    """The standard deviation over the seeds in float32."""
    return trained_both_ways(method, group, size)[0][metric].std()


@cache
def empty_store() -> TemporaryDirectory:
    return TemporaryDirectory()


@cache
def book(times_before: int) -> tuple[float, float]:
    """Minutes that `make book` takes for the paper's chapters, and the GiB of its largest process.

    From an empty store where it was not made before.
    """
    environment = {**os.environ, "GINV_RUNS": empty_store().name}
    command = ["make", "book", f"CHAPTERS={CHAPTERS}", "PROFILE=paper"]
    total = seconds(lambda: subprocess.run(command, cwd=ROOT, env=environment, check=True))
    return total / 60, resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / 2**20


# --- The items


def items(size: Size) -> Iterable[Item]:
    """Those of `make bench`."""
    base = Run(train_images=size.train_images)
    for group in GROUPS:
        for method in METHODS:
            run = replace(base, group=group, method=method, nu=10.0 * (method == "IR"))
            yield Item(
                f"training {method} {group}",
                partial(epoch_seconds, train, run, 2 * size.seeds, size.epochs),  # two stacks
                partial(bound_seconds, run, size),
                0.7,
            )
            yield Item(
                f"training {method} {group}, against its products alone",
                partial(epoch_seconds, train, run, 2 * size.seeds, size.epochs),
                partial(products_seconds, run, size.seeds),
                0.7,
            )
    plain = partial(plain_epoch_seconds, size)
    for seeds, words in ((2 * size.seeds, "stacked"), (1, "alone")):
        ours = partial(epoch_seconds, train, base, seeds, size.epochs)
        yield Item(f"training DA R4 {words}, against a plain loop", ours, plain, 11)

    test = ginv.load_dataset().test.head(size.images)
    for method, name, target in (("DA", "MLP", 14), ("WT", "WT R4", 8)):
        model = some_model(method)
        ours, reference = partial(our_maps, model, test), partial(captum_maps, model, test)
        yield Item(
            f"maps {name}, {size.images} images",
            partial(seconds, ours),
            partial(seconds, reference),
            target,
        )
    model = some_model("DA")
    ours, reference = (
        partial(measure, model, size.images),
        partial(plain_measure, model, size.images),
    )
    yield Item(
        f"measure R4, {size.images} images", partial(seconds, ours), partial(seconds, reference), 12
    )
    yield Item(
        f"measure R4, {size.images} images, against its products alone",
        partial(seconds, ours),
        partial(measuring_products_seconds, size.images),
        0.75,
    )
    some = load_head(size.images // 4)
    yield Item(
        "measure of a convolutional network, against its maps by captum alone",
        partial(seconds, partial(measure_network, some)),
        partial(seconds, partial(maps_of_network, some)),
        1,
    )
    yield Item(
        "LI and DI of a convolutional network, against a forward pass for each orientation",
        partial(seconds, partial(measure_network, some, saliency=False)),
        partial(seconds, partial(forward_passes, some)),
        0.8,
    )
    name = f"measure R4, MiB for {size.memory} images, against those of all their maps"
    if Path("/proc/self/clear_refs").exists():
        yield Item(
            name, partial(peak_memory, size.memory), partial(maps_memory, size.memory), 4, repeats=1
        )
    else:
        yield Item(name, None, reason="not measured: no /proc here")

    float32 = partial(product_seconds, size, torch.float32)
    yield Item("bfloat16, product", partial(product_seconds, size, torch.bfloat16), float32)
    for method in ("WT", "DA"):
        run = replace(base, method=method)
        ours, reference = (
            partial(epoch_seconds, partial(train_one_stack, way), run, size.seeds, size.few_epochs)
            for way in ("bfloat16", "float32")
        )
        yield Item(f"bfloat16, training {method} R4", ours, reference)

    for method in METHODS:
        run = replace(base, method=method, nu=10.0 * (method == "IR"))
        ours = partial(
            epoch_seconds, partial(train, device="cuda"), run, 2 * size.seeds, size.epochs
        )
        bound = partial(bound_seconds, run, size, "cuda")
        yield on_gpu(Item(f"training {method} R4 on CUDA", ours, bound))
    float32 = partial(product_seconds, size, torch.float32, "cuda")
    yield on_gpu(
        Item(
            "bfloat16, product on CUDA",
            partial(product_seconds, size, torch.bfloat16, "cuda"),
            float32,
        )
    )
    yield on_gpu(Item("TF32, product on CUDA", partial(tf32_product_seconds, size), float32))

    for seeds in size.growing_seeds:
        ours = partial(epoch_seconds, train, base, seeds, size.epochs, each=False)
        yield Item("growth of training DA R4 with seeds", ours, n=seeds)
    for images in size.growing_images:
        yield Item(
            "growth of measure R4 with images",
            partial(seconds, partial(measure, model, images)),
            n=images,
        )
    for name in size.growing_groups:
        order, kind = ginv.group_named(name).order, name[0]
        training = partial(
            epoch_seconds, train, replace(base, group=name, method="WT"), 1, size.epochs
        )
        yield Item(f"growth of training WT with elements of {kind}", training, n=order)
        measuring = partial(measure, model, size.images // 2, name)
        yield Item(
            f"growth of measure with elements of {kind}", partial(seconds, measuring), n=order
        )


def on_gpu(item: Item) -> Item:
    return (
        item
        if torch.cuda.is_available()
        else Item(item.name, None, reason="not measured: no GPU here")
    )


def slow_items(size: Size) -> Iterable[Item]:
    """Those of `make bench FULL=1` alone. The limits are for two cores; the book: `CHAPTERS`."""
    for i, (name, limit) in enumerate({"from nothing": 25.0, "from a full store": 8.0}.items()):
        yield Item(
            f"book {name}, minutes", lambda i=i: book(i)[0], lambda limit=limit: limit, 1, repeats=1
        )
    yield Item(
        "book from nothing, GiB of its largest process",
        lambda: book(0)[1],
        lambda: 4.0,
        1,
        repeats=1,
    )
    for group in GROUPS:
        for method, metric in product(METHODS, ("accuracy", "SI")):
            if (method, metric) != ("WT", "SI"):  # 1 by construction, without a spread
                ours, reference = (
                    partial(what, method, group, metric, size) for what in (shift, spread)
                )
                name = f"bfloat16, shift of {metric}, {method} {group}"
                yield Item(name, ours, reference, 1, repeats=1)


# --- The table


def time_items(items: list[Item], repeats: int) -> pd.DataFrame:
    """A row per item and repeat.

    All items take turns, so that a slow minute of the machine does not fall on one; and ours and
    the reference take turns in going first.
    """
    rounds = [
        (repeat, item)
        for repeat in range(repeats)
        for item in items
        if item.ours and repeat < (item.repeats or repeats)
    ]
    rows = []
    for repeat, item in (bar := tqdm(rounds, unit="item")):
        bar.set_postfix_str(item.name)
        sides = {"ours": item.ours, "reference": item.reference}
        order = sorted(sides, reverse=repeat % 2 == 1)
        values = {side: work() for side in order if (work := sides[side])}
        rows.append({"item": item.name, "n": item.n, "repeat": repeat, **values})
    table = pd.DataFrame(rows, columns=["item", "n", "repeat", "ours", "reference"])
    return table.assign(threads=torch.get_num_threads())


def summarise(items: list[Item], timings: pd.DataFrame) -> pd.DataFrame:
    """A row per item: medians over its repeats.

    The end of a curve is compared with twice the time of half as much, and has to keep within a
    tenth of it.
    """
    rows = []
    for name, item in {item.name: item for item in items}.items():
        times, target = timings[timings.item == name], item.target
        if item.reason:
            rows.append((name, None, None, None, target, item.reason))
            continue
        if item.n is None:
            ours, reference = times.ours.median(), times.reference.median()
            ratio = (times.reference / times.ours).median()
        else:
            curve, target = times.groupby("n").ours.median(), 0.9
            ours, reference = curve.iloc[-1], 2 * curve[curve.index[-1] / 2]
            ratio = reference / ours
        met = "" if target is None else "yes" if ratio >= target else "no"
        rows.append((name, ours, reference, ratio, target, met))
    numbers = ["ours", "reference", "ratio", "target"]
    return pd.DataFrame(rows, columns=["item", *numbers, "met"]).astype(
        dict.fromkeys(numbers, float)
    )


def kept(file: Path, items: list[Item]) -> pd.DataFrame:
    """The rows of these items in a table of an earlier bench, if any."""
    if not file.is_file():
        return pd.DataFrame()
    try:
        table = pd.read_csv(file, keep_default_na=False, na_values=[""])
    except ValueError as error:
        raise ValueError(f"{file} is no table: {' '.join(str(error).split())}") from None
    require("item" in table, f"columns of {file}", [*table], "those of an earlier bench")
    return table[table.item.isin([item.name for item in items])]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--full", action="store_true", help="the slow items, too")
    parser.add_argument("--folder", type=Path, default=ROOT / "book" / "results")
    arguments = parser.parse_args()
    try:
        require_folder("folder", str(arguments.folder))  # now, and not after the work
        measure_all(arguments.folder, arguments.full)
    except (ValueError, OSError) as error:
        sys.exit(str(error))


def measure_all(folder: Path, full: bool) -> None:
    """Write the tables of the items to a folder; without `full`, the slow ones as they were."""
    size = Size()
    quick, slow = list(items(size)), list(slow_items(size))
    files = {name: folder / f"{name}.csv" for name in ("bench", "timings")}
    earlier = {name: pd.DataFrame() if full else kept(file, slow) for name, file in files.items()}
    # The book first: the peak memory of child processes is that of all so far
    todo = [*(slow if full else []), *quick]
    timings = time_items(todo, size.repeats)
    bench = summarise(todo, timings)
    if not full:
        old = earlier["bench"]
        never = [replace(item, reason="not measured: make bench FULL=1") for item in slow]
        never = [item for item in never if old.empty or item.name not in set(old.item)]
        bench = pd.concat([bench, old, summarise(never, timings)])
        timings = pd.concat([timings, earlier["timings"]])
    names = list(dict.fromkeys(item.name for item in [*quick, *slow]))
    bench = bench.set_index("item").loc[names].reset_index()
    for name, table in (("bench", bench), ("timings", timings)):
        write_whole(files[name], table.to_csv(index=False, float_format="%.4g"))
    print(bench.to_string(index=False, na_rep="", float_format="{:.3g}".format))


if __name__ == "__main__":
    main()
