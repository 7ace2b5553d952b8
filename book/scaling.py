# ---
# jupyter:
#   jupytext:
#     cell_metadata_filter: all,-jupyter
#     cell_metadata_json: true
#     formats: ipynb,py:percent
#     notebook_metadata_filter: -jupytext.text_representation.format_version,-jupytext.text_representation.jupytext_version
#     text_representation:
#       extension: .py
#       format_name: percent
#   kernelspec:
#     display_name: Python 3
#     language: python
#     name: python3
# ---

# %% [markdown]
# # A thousand runs
#
# Four seeds and two groups are enough for a table. How invariance depends on the width, on the data and on $\nu$ is a
# question for a thousand networks. What would they cost, and how many machines are worth having for it? Nobody should
# have to train them to find out: this page trains a few for some seconds, counts the operations of the others, and
# multiplies.

# %% {"tags": ["remove-cell"]}
# A notebook that is opened alone, as on Colab, fetches the book that it belongs to
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

# written by `make publish-url`
address, tag = "", "v0.1.0"

if find_spec("ginv") is None:
    clone = Path("ginv-book").resolve()
    if not (address or clone.is_dir()):
        raise ImportError("ginv is in no public place yet: pip install -e '.[book]' in a clone")
    if not clone.is_dir():
        print(f"Fetching the book with its data, {address} {tag}")
        git = ["git", "clone", "-q", "--depth", "1", "--branch", tag, address, clone]
        subprocess.run(git, check=True)
    sys.path.insert(0, str(clone))
    subprocess.run([sys.executable, clone / "tools/lacking.py"], check=True)

# %% {"tags": ["hide-input", "parameters"]}
# "paper" is the full experiment, "sample" the same on fewer test images, "quick" a look in minutes
profile = "paper"  # @param ["paper", "sample", "quick"]
group = "both"  # @param ["both", "R4", "T3"]
# a list such as [0, 1]; None takes those of the profile
seeds = None  # @param {type: "raw"}
device = "auto"  # @param ["auto", "cpu", "cuda"]
# folder for the numbers of this page; name another before you change anything
results = "results"  # @param {type: "string"}

# %% {"tags": ["hide-input"]}
import heapq
import os
import tempfile
import time
from collections import Counter
from dataclasses import replace
from itertools import product
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import torch
from distributed import Client, LocalCluster

import ginv
from ginv import Run
from ginv.data import DATASETS
from ginv.machine import choose_device
from ginv.pages import Settings, expect, refuse_unknown
from ginv.pages.figures import METHOD_STYLES, group_panels, show_table, use_style
from ginv.recipe import METHODS
from ginv.runs import costs, store
from ginv.runs.grid import Grid, read_grid, run_grid
from ginv.runs.measured import evaluated
from ginv.runs.train import LARGEST_STACK, stacks
from ginv.stack import TrainedRun, train_stack

refuse_unknown()  # a parameter by a wrong name
settings = Settings(profile, group, seeds, device, results)
use_style()

# %% {"tags": ["hide-input"]}
# The sweep: a grid, and the stacks in which it trains
text = """\
images: 2000
recipes:
  WT: &all
    method: WT
    group: [R4, T3]
    dataset: [MNIST, FashionMNIST]
    width: [32, 64, 96, 128, 192]
    train_images: 10000
    seed: [0, 1, 2, 3, 4, 5, 6, 7, 8, 9]
  DA: {<<: *all, method: DA}
  IR: {<<: *all, method: IR, nu: [1, 10, 100]}
"""
if settings.profile == "quick":
    text = text.replace("images: 2000", "images: 200").replace("10000", "2000")
folder = Path(tempfile.mkdtemp())
os.environ["GINV_RUNS"] = str(folder / "runs")  # a store of its own, and of its workers
text = text.replace("[R4, T3]", f"[{', '.join(settings.groups)}]")
(folder / "grid.yaml").write_text(text)
grid = read_grid(folder / "grid.yaml")
where = choose_device(device)
parts = [part for part, _ in stacks(grid.runs, LARGEST_STACK[where.type])]

# %% {"tags": ["hide-input"]}
# How a stack is timed: on one core, by the seconds that it spent on us and not on others
torch.set_num_threads(1)
clock = time.process_time if where.type == "cpu" else time.perf_counter
timed_epochs = 4
train_images = grid.runs[0].train_images


def get_ready():
    """Load what is loaded once: the data, and what the first step needs."""
    for dataset in DATASETS:
        ginv.load_dataset(dataset, 0)
    tiny = Run(width=4, depth=1, epochs=1, train_images=100)
    train_stack([tiny], device=choose_device(), progress=False)


def one(name, method, **changes):
    nu = 1.0 if method == "IR" else 0.0
    return Run(name, method, nu=nu, train_images=train_images, **changes)


def once_and_epoch(run, n=4):
    """Seconds that a stack of n seeds takes once, and those of its fastest epoch."""
    stack = [replace(run, seed=seed, epochs=timed_epochs) for seed in range(n)]
    times = [clock()]
    train_stack(stack, device=where, progress=False, keep=lambda state: times.append(clock()))
    first, *others = np.diff(times)
    return max(first - min(others), 0), min(others)


def seconds_to_measure(name, method, images):
    run = one(name, method)
    untrained = TrainedRun(run, run.model().requires_grad_(False), {})
    began = clock()
    evaluated(untrained, grid.split, images, device=device)
    return clock() - began


# %% {"tags": ["hide-input"]}
# Prices: two widths for each method and group, three stacks as a check, and measuring
FEW, NARROW = 200, 16  # images; a width
first_group, last_group = settings.groups[0], settings.groups[-1]
unseen = [
    one(first_group, "WT", width=64),
    one(last_group, "DA", width=192, dataset="FashionMNIST"),
    one(last_group, "IR", width=32),
]
get_ready()
few = [seconds_to_measure(first_group, "DA", FEW) for _ in range(2)][-1]
timed, measuring = {}, {}
for key in product(settings.groups, METHODS):
    further = [run for run in unseen if (run.group, run.method) == key]
    for run in [one(*key, width=NARROW), one(*key), *further]:
        timed[run] = once_and_epoch(run)
    measuring[key] = seconds_to_measure(*key, grid.images)
once = np.mean([first for first, _ in timed.values()])
epoch = {run: seconds / 4 for run, (_, seconds) in timed.items()}  # of one run in the stack


def operations(run):
    """Of an epoch."""
    return costs.training_operations(replace(run, epochs=1))


def line(name, method):
    """Seconds against operations, through the two widths: slope and intercept."""
    two = [one(name, method, width=NARROW), one(name, method)]
    return np.polyfit([operations(run) for run in two], [epoch[run] for run in two], 1)


lines = {key: line(*key) for key in measuring}


def predicted_epoch(run):
    return np.polyval(lines[run.group, run.method], operations(run))


# %% {"tags": ["hide-input"]}
# What workers add: a small sweep of one method, with a real scheduler on this machine
options = dict(threads_per_worker=1, dashboard_address=None, host="127.0.0.1")


def small(seed):
    """Two stacks that nobody has trained."""
    runs = (
        replace(one(first_group, "DA", width=width), epochs=timed_epochs, seed=each)
        for width in (96, 144)
        for each in range(seed, seed + 4)
    )
    return Grid({"DA": tuple(runs)}, images=FEW)


def seconds_of_workers(client):
    return sum(client.run(clock).values())


def do_small(client, seed):
    """Seconds of cores that the workers used, and seconds that it took."""
    client.run(get_ready)
    before, began = seconds_of_workers(client), time.perf_counter()
    run_grid(small(seed), device=device, scheduler=client.scheduler.address)
    took = time.perf_counter() - began
    return seconds_of_workers(client) - before, took


used = {}  # by cores, and by the clock
with LocalCluster(n_workers=1, **options) as cluster, Client(cluster) as client:
    used["one worker, as Dask starts it"] = do_small(client, 4)
for kind in ("TRIM", "MMAP"):
    os.environ[f"MALLOC_{kind}_THRESHOLD_"] = str(2**30)
with LocalCluster(n_workers=1, **options) as cluster, Client(cluster) as client:
    began = time.perf_counter()
    client.run(get_ready)
    start = time.perf_counter() - began
    began = time.perf_counter()
    client.gather(client.map(abs, range(200), pure=False))
    task = (time.perf_counter() - began) / 200
    used["one that keeps its memory"] = do_small(client, 8)
    cluster.scale(2)
    client.wait_for_workers(2)
    used["two such workers"] = do_small(client, 12)

# %% {"tags": ["hide-input"]}
# The product: a price for each stack, and who is done when
hasty, alone, both = [cores for cores, _ in used.values()]


def predicted(part, measuring_one):
    """Seconds of a core: what is done once, the epochs, the measuring."""
    run, n = part[0], len(part)
    return once + n * (run.epochs * predicted_epoch(run) + measuring_one)


counted = sum(predicted(part, few) for part, _ in stacks(small(4).runs, 4))
overhead = both / counted


def price(part):
    return predicted(part, measuring[part[0].group, part[0].method]) * overhead + task


def makespan(workers):
    """Seconds until the last worker is done, where the longest stacks are handed out first."""
    free = [start] * workers
    for length in sorted(seconds, reverse=True):
        heapq.heapreplace(free, free[0] + length)
    return max(free)


def weights(run):
    return sum(leaf.numel() for leaf in run.model().parameters())


def stored_bytes(run):
    record = folder / "runs" / store.record_name(run.specification)
    return sum(file.stat().st_size for file in record.iterdir())


kept = small(4).runs
per_weight = sum(map(stored_bytes, kept)) / sum(map(weights, kept))
link = 100e6 / 8  # bytes a second into the store, assumed
count = {part[0]: weights(part[0]) for part in parts}
records = sum(len(part) * count[part[0]] for part in parts) * per_weight

seconds = pd.Series([price(part) for part in parts])
cores = os.cpu_count() if where.type == "cpu" else torch.cuda.device_count()
plan = pd.DataFrame(index=pd.Index([2**i for i in range(9)], name="machines"))
plan["cores"] = plan.index * cores
plan["straight line"] = seconds.sum() / plan.cores / 3600
plan["computed"] = plan.cores.map(lambda n: max(makespan(n), records / link) / 3600)
plan["busy (%)"] = 100 * plan["straight line"] / plan.computed

# %% {"mystnb": {"figure": {"name": "fig-machines"}, "image": {"alt": "Hours against cores, both logarithmic: a dashed straight line, and points that follow it down to a floor, where they stay"}}, "tags": ["hide-input"]}
figure, axis = plt.subplots(figsize=(7, 3.4))
axis.plot(plan.cores, plan["straight line"], "--", color="0.5", label="hours of one core, divided")
axis.plot(plan.cores, plan.computed, "o-", color="0.15", label="computed")
axis.axhline(seconds.max() / 3600, ls=":", color="0.15", label="the longest stack")
axis.set(xscale="log", yscale="log", xlabel="cores", ylabel="hours")
axis.set_xticks(plan.cores, [*map(str, plan.cores)])
axis.yaxis.set_major_formatter("{x:g}")
trained_for = f"{grid.runs[0].epochs} epochs on {train_images:,} images"
axis.set_title(f"{len(grid.runs):,} runs of {trained_for}")
axis.legend()
axis.minorticks_off()

# %% [markdown]
# *More cores help in proportion, and then not at all. Hours for the whole sweep, against cores like those of the machine
# that made this page, a worker on each. Dashed: the hours of one core, divided by the cores. Points: with the longest
# stack, the starting of workers and the network taken into account.*

# %%
# expect() is silent where the words hold in this run, and shows a banner where not
worth_having = seconds.sum() / seconds.max()
expect("less than two days of one core", seconds.sum() < 2 * 24 * 3600)
expect("about a hundred cores are worth having", 60 < worth_having < 150)

# %% [markdown]
# A thousand networks, trained for as long as the paper's and measured, cost less than two days of one core. They can be
# spread over about a hundred cores; more would have nothing to do.
#
# The seconds in figures and tables are those of one machine in one minute, so they change whenever the page is made. The
# sentences say what holds on any ordinary machine, each below its check. The timing is done in the folded cells above, and
# explained below.
#
# ## The sweep
#
# A grid is a YAML file. Each recipe is a table of the fields of `ginv.Run`, and where a field has a list, all of its
# values are meant in turn. `&all` and `<<: *all` are YAML's own: the second recipe is the first with another method.

# %%
print((folder / "grid.yaml").read_text())

# %% [markdown]
# Any of these three commands trains and measures it, and writes a tidy table. The first does so here. The second has it
# done by the workers of a Dask that is already running. In the third they do not even share a folder: each record comes
# from and goes to a bucket.
#
# ```sh
# python -m ginv.runs.grid grid.yaml table.csv
# python -m ginv.runs.grid grid.yaml table.csv --scheduler tcp://scheduler:8786
# python -m ginv.runs.grid grid.yaml table.csv --scheduler tcp://scheduler:8786 \
#   --store s3://bucket/runs
# ```
#
# Stopped and called again, each goes on where it was. All of them first sort the runs into stacks: up to four runs that
# differ only in seed and $\nu$ train as one network.

# %%
sizes = Counter(map(len, parts))
expect("220 stacks of four and 60 of two", sizes == {4: 220, 2: 60})

# %% [markdown]
# The thousand runs are 280 tasks: 220 stacks of four and 60 of two.
#
# ## What a run costs
#
# ### In a stack
#
# Larger matrices keep a core busier, until their weights no longer fit into its cache. These are the seconds for an
# epoch of one run, in stacks of one, two, four and eight:

# %%
stacked = {n: once_and_epoch(one(first_group, "DA"), n)[1] / n for n in (1, 2, 4, 8)}
stacked = pd.Series(stacked, name="seconds").rename_axis("runs in the stack")
stacked.round(3)

# %%
expect("a run in a stack of four costs less than alone", stacked[4] < stacked[1])
expect("eight save little more", stacked[8] > 0.8 * stacked[4])

# %% [markdown]
# A run in a stack of four costs less than alone, and stacks of eight save little more. Two cores, which a lone network
# cannot keep busy together, gain far more from stacking: see [How long it takes](performance.ipynb).
#
# ### By its operations
#
# The grid has 60 kinds of network and data, too many to time each. The operations of a training can be counted, but
# an epoch has other work too: gathering the images, for one, takes as long for a narrow network as for a wide one. So
# we time two widths for each method and group, and draw a straight line through them:

# %% {"mystnb": {"figure": {"name": "fig-price"}, "image": {"alt": "Seconds against operations, a panel per group, a straight line per method; open markers for stacks that were not used lie on the lines"}}, "tags": ["hide-input"]}
for name, axis in group_panels(settings, 3).items():
    for method, style in METHOD_STYLES.items():
        most = 1.05 * operations(one(name, method, width=192))
        drawn = np.polyval(lines[name, method], [0, most])
        axis.plot([0, most / 1e9], drawn, style.line, color=style.colour, lw=1)
        for run in (run for run in timed if (run.group, run.method) == (name, method)):
            fill = "white" if run in unseen else style.colour
            mark = dict(color=style.colour, mfc=fill, label=method if run.width == NARROW else None)
            axis.plot(operations(run) / 1e9, epoch[run], style.marker, **mark)
    axis.set(xlabel="billions of operations", ylim=(0, None))
    axis.legend()
    if name == first_group:
        axis.set_ylabel("seconds")

# %% [markdown]
# *The price of an epoch is a straight line in its operations. Seconds for an epoch of one run in a stack of four.
# Filled: widths 16 and 128, through which the lines are drawn. Open: stacks of other widths that had no part in them.*


# %%
def in_proportion(run):
    """To its operations alone, from the price of width 128."""
    usual = one(run.group, run.method)
    return epoch[usual] * operations(run) / operations(usual)


over = pd.DataFrame(index=[f"{run.method} {run.group}, width {run.width}" for run in unseen])
over["line"] = [epoch[run] / predicted_epoch(run) for run in unseen]
over["in proportion"] = [epoch[run] / in_proportion(run) for run in unseen]
show_table(over, "Timed over predicted seconds", 2)

# %%
narrow = over["in proportion"].filter(like="width 32")
expect("prices by the line are good to within a quarter", over.line.between(0.75, 1.25))
expect("in proportion, the narrowest is predicted far too cheap", narrow > 1.2)
expect("no line begins at 0", [intercept > 0 for _, intercept in lines.values()])

# %% [markdown]
# Prices by the line are good to within a quarter, for networks that it has not seen. No line begins at 0: in proportion to
# operations alone, the narrowest network would be predicted far too cheap. All prices in the grid are taken from the
# lines, and so the hours are uncertain by a quarter too.
#
# ### With its measurements
#
# Each run is also measured on 2,000 validation images: the metrics of Table 1, sensitivity, drift. Nearly all of that is
# saliency maps, whose price depends on the network and the orbit and hardly on the training. So we measure untrained
# networks.

# %% {"tags": ["hide-input"]}
prices = pd.DataFrame(
    {
        "once (s a stack)": {key: timed[one(*key)][0] for key in measuring},
        "epoch (s a run)": {key: epoch[one(*key)] for key in measuring},
        "measuring (s a run)": measuring,
    }
).rename_axis(["group", "method"])
show_table(prices, "One core, width 128, stacks of four", 2)

# %%
training = grid.runs[0].epochs * prices["epoch (s a run)"]
expect("measuring takes less than a tenth", prices["measuring (s a run)"] < 0.1 * training)

# %% [markdown]
# Measuring a run takes less than a tenth of the time that its 300 epochs take.
#
# ## What workers add
#
# Workers have to start, and what they train they also store, verify and send. To see what that comes to, we let real
# workers, with a core each, do what the second command does, for a small sweep of eight runs and a few epochs. Its price is
# predicted as above.

# %% {"tags": ["hide-input"]}
rows = {"predicted": (counted, np.nan), **used}
table = pd.DataFrame(rows, index=["seconds of cores", "seconds it took"]).T
show_table(table, "The small sweep", 1)

# %%
expect("a worker as Dask starts it uses at least a tenth more", hasty > 1.1 * alone)
expect("two workers used less than twice what was predicted", 0.75 * counted < both < 2 * counted)
expect("a start takes less than a minute, a task less than 20 ms", (start < 60) & (task < 0.02))

# %% [markdown]
# A worker as Dask starts it uses at least a tenth more of its core than it has to. Dask sets `MALLOC_TRIM_THRESHOLD_` so
# that memory goes back to the system as soon as it is free. But a training frees and takes the same memory in every step,
# and waits for it each time. Start your workers so that they keep what they have:
#
# ```sh
# export MALLOC_TRIM_THRESHOLD_=1073741824 MALLOC_MMAP_THRESHOLD_=1073741824
# dask worker tcp://scheduler:8786 --nworkers 2 --nthreads 1
# ```
#
# Two such workers side by side used less than twice what was predicted. The ratio of the two, in which the neighbours
# also slow each other down, is a factor in all that follows; for long trainings it is too high rather than too low. The
# rest is small: a worker is ready in less than a minute, and the scheduler takes less than 20 ms for a task.
#
# ## The product
#
# A stack costs what is done once, its epochs and its measurements, times the ratio above. Step by step, for the dearest:

# %%
part = parts[seconds.argmax()]
run, n = part[0], len(part)
trained = once + n * run.epochs * predicted_epoch(run)
minutes = (trained + n * measuring[run.group, run.method]) * overhead / 60
print(f"{n} runs of {run.method} on {run.group}, width {run.width}: {minutes:.1f} minutes")

# %% [markdown]
# Summed over the 280 stacks:

# %% {"tags": ["hide-input"]}
each = [(part[0].method, 1, len(part), s / 3600) for part, s in zip(parts, seconds)]
by_method = pd.DataFrame(each, columns=["method", "stacks", "runs", "core-hours"])
by_method = by_method.groupby("method", sort=False).sum()
by_method.loc["all"] = by_method.sum()
by_method["seconds a run"] = 3600 * by_method["core-hours"] / by_method.runs
show_table(by_method.astype({"stacks": int, "runs": int}), "The sweep on one core", 1)

# %%
per_run = by_method["seconds a run"]
expect("DA is the cheapest and WT the dearest", per_run["DA"] < per_run["IR"] < per_run["WT"])
expect("most of the hours are IR's", by_method["core-hours"]["IR"] > seconds.sum() / 3600 / 2)

# %% [markdown]
# A run of DA is the cheapest and one of WT the dearest. Most of the hours are IR's, which is trained at three $\nu$.
#
# ## On more machines
#
# A machine is one like this, with a worker per core. Three things bend the straight line:
#
# - **The longest stack.** A stack is one task, and no task is cut. Tasks are handed out, longest first, to whichever worker
#   is free; at the end some wait for the last.
# - **Starting.** Each worker loads ginv and the data once, as timed above.
# - **The network.** Each record crosses it once. Where workers share a folder, so do checkpoints, once a minute: four
#   numbers for each weight, which are itself, the best so far and Adam's two moments. With `--store` these stay on the
#   worker. We assume a network of 100 Mbit/s.

# %% {"tags": ["hide-input"]}
shown = plan.loc[[1, 2, 8, 64]].rename(
    columns={"straight line": "divided (h)", "computed": "computed (h)"}
)
show_table(shown, f"The sweep on machines of {cores} cores", 2)

# %%
longest = seconds.max() / seconds.sum()
expect(
    "the longest stack has four wide networks of WT", [run.method, run.width, n] == ["WT", 192, 4]
)
expect("the longest stack is about a hundredth of all work", 1 / 150 < longest < 1 / 60)

# %%
checkpoints = 4 * 4 * max(len(part) * count[part[0]] for part in parts) / 60  # bytes a second
expect("the records are 0.75 GB, a minute of the network", round(records / 1e9, 2) == 0.75)
expect("checkpoints fill the network from 29 workers on", round(link / checkpoints) == 29)

# %% [markdown]
# The longest stack has four wide networks of WT and is about a hundredth of all work. Hence the hundred cores: with as
# many, the others are done when it is. All records together are 0.75 GB, a minute of the network. Checkpoints are the
# larger traffic: in a shared folder they would fill the network from 29 workers on, were all stacks of the largest kind.
# With more workers than that, take `--store`.
#
# In none of these numbers are machines of another kind, or of several kinds in one cluster; others who use them; a network
# slower than we assume; a worker that dies, which costs what its stack had done since its last checkpoint or, where
# workers share no folder, since it began. And seconds on a machine say little about hours on it, since processors slow
# down as they get warm.
#
# ## What you saw

# %% {"tags": ["hide-input"]}
rows = {
    **{("seconds per run-epoch, stack", n): s for n, s in stacked.items()},
    **{("told", label): ratio for label, ratio in over.line.items()},
    **{("evaluating, seconds a run", f"{m} {g}"): s for (g, m), s in measuring.items()},
    ("seconds", "a worker starts"): start,
    ("seconds", "a task"): task,
    ("ratio", "a worker as Dask starts it"): hasty / alone,
    ("ratio", "forgotten"): alone / counted,
    ("ratio", "two workers"): both / alone,
    ("bytes", "per weight"): per_weight,
    ("sweep", "runs"): len(grid.runs),
    ("sweep", "stacks"): len(parts),
    ("sweep", "core-hours"): seconds.sum() / 3600,
    **{("hours, machines", m): h for m, h in plan.computed.items()},
    **{("straight line, machines", m): h for m, h in plan["straight line"].items()},
}
saved = pd.Series(rows).rename_axis(["quantity", "item"]).rename("value")
settings.save(saved.reset_index(), results, "scaling")

# %% [markdown]
# - A thousand runs of the paper's length cost less than two days of one core, so that a question about widths, data and
#   $\nu$ can be asked on an ordinary machine.
# - The price of a run follows from counted operations and two timed widths, to within a quarter. Operations alone are not
#   enough.
# - About a hundred cores are worth having. What ends the gain is the longest stack, not the scheduler and not the records.
#
# ## Change this, and predict what happens


# %%
def spread(runs, largest=4):
    """Stacks, hours of one core, and the cores that are worth having."""
    every = [price(part) for part, _ in stacks(runs, largest)]
    total = float(sum(every))
    return len(every), round(total / 3600, 1), round(total / max(every))


spread(grid.runs)

# %% [markdown]
# 1. Let each run train alone: `spread(grid.runs, largest=1)`. How many cores are worth having then, and what is wrong with
#    the hours that it returns?
# 2. Train for a tenth of the epochs: `spread([replace(run, epochs=30) for run in grid.runs])`. What becomes of the hours?
#
# <details><summary>What happens</summary>
#
# 1. 1,000 stacks, and four times as many cores, since the longest task is a quarter of what it was: 428 instead of 107
#    when we tried it. The hours hardly change, and they are too few: they are reckoned at the price that a run has in a
#    stack of four, and alone it costs more.
# 2. They fall to an eighth and not to a tenth. The measuring takes as long as before, and so does what a stack does once.
#
# </details>
