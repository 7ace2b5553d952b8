"""What a chapter runs: the parameters that its reader sets, checked before anything trains."""

import ast
import re
from dataclasses import dataclass, replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import pandas as pd
from IPython import get_ipython

from ginv.data import SPLITS
from ginv.machine import choose_device
from ginv.measurement import Measurement
from ginv.pages.paper import book_file
from ginv.recipe import GROUPS, METHODS, Run
from ginv.refuse import require, require_folder
from ginv.runs import costs, store
from ginv.runs.files import write_whole
from ginv.runs.measured import measured, named
from ginv.runs.nu import chosen_nu
from ginv.runs.train import load_run, train
from ginv.stack import TrainedRun

WEIGHT_DECAYS = (0.3, 1.0, 3.0, 10.0)  # from hardly any to one that ruins the network

# Other readings of what the paper says of the training: choice, reading, the methods that it
# concerns, and the fields of `Run` that it changes
READINGS: list[tuple[str, str, str, dict[str, Any]]] = [
    ("hidden layers", "4", "WT DA IR", {"depth": 4}),
    ("pooling", "mean, then ReLU", "WT", {"pooling": "mean"}),
    ("pooling", "ReLU, then mean", "WT", {"pooling": "mean after ReLU"}),
    ("epoch kept", "the last", "WT DA IR", {"selection": "last"}),
    ("split", "seed 1", "WT DA IR", {"split_seed": 1}),
    ("pairs in the penalty", "all pairs", "IR", {"whole_orbit": True}),
    ("initial weights", "Glorot's", "DA", {"initialisation": "glorot"}),
    ("initial weights", "He's", "DA", {"initialisation": "he"}),
]


@dataclass(frozen=True)
class Profile:
    """How much of the paper a chapter runs."""

    seeds: tuple[int, ...]
    epochs: int
    test_images: int


PROFILES = {
    "paper": Profile((0, 1, 2, 3), 300, SPLITS["test"]),
    "sample": Profile((0, 1, 2, 3), 300, 5_000),  # the same networks, on fewer test images
    "quick": Profile((0,), 20, 1_000),
}


@dataclass(frozen=True)
class Settings:
    """The parameters of a chapter. Raises ValueError, in one line, for a value that is not allowed.

    profile: "paper", "sample" or "quick". group: "both", "R4" or "T3". seeds: a list, or None for
    those of the profile. device: "auto", "cpu" or "cuda". results: the folder for the numbers of
    the chapter.
    """

    profile: str = "paper"
    group: str = "both"
    seeds: tuple[int, ...] = None  # type: ignore[assignment]  # or a list, or None; a tuple once it is checked
    device: str = "auto"
    results: str = "results"

    def __post_init__(self) -> None:
        for name, allowed in (("profile", [*PROFILES]), ("group", ["both", *GROUPS])):
            value = getattr(self, name)
            require(isinstance(value, str) and value in allowed, name, value, ", ".join(allowed))
        seeds = PROFILES[self.profile].seeds if self.seeds is None else self.seeds
        fits = (
            isinstance(seeds, list | tuple)
            and seeds
            and all(type(s) is int and 0 <= s < 2**63 for s in seeds)
        )
        require(bool(fits), "seeds", self.seeds, "a list of integers from 0 up, such as [0, 1]")
        object.__setattr__(self, "seeds", tuple(dict.fromkeys(seeds)))
        choose_device(self.device)
        _require_place("results", self.results)
        require_folder("results", self.results)

    @property
    def groups(self) -> tuple[str, ...]:
        return GROUPS if self.group == "both" else (self.group,)

    @property
    def test_images(self) -> int:
        return PROFILES[self.profile].test_images

    @property
    def fewer_images(self) -> int:
        """What is measured over and over is measured on a fifth of the test images."""
        return self.test_images // 5

    @property
    def label(self) -> str:
        """What was run, for the captions of tables and figures."""
        epochs, seeds = PROFILES[self.profile].epochs, len(self.seeds)
        text = f"{seeds} seed{'s' * (seeds > 1)}, {epochs} epochs, {self.test_images:,} test images"
        return text if self.profile == "paper" else f"{self.profile} profile: {text}"

    def run(self, group: str, method: str, seed: int, regulariser: str = "logit") -> Run:
        """A run at this profile; IR at the nu that the sweep chose."""
        nu = chosen_nu(group, regulariser) if method == "IR" else 0.0
        return Run(group, method, seed, nu, regulariser, epochs=PROFILES[self.profile].epochs)

    def runs(self) -> list[Run]:
        """The runs of Table 1: groups x methods x seeds."""
        return [
            self.run(g, method, seed)
            for g in self.groups
            for method in METHODS
            for seed in self.seeds
        ]

    def train(self) -> dict[Run, TrainedRun]:
        """The trained runs of Table 1, from the store where they are there."""
        is_long = self.profile != "quick" and choose_device(self.device).type == "cpu"
        if is_long and not all(store.contains(run.specification) for run in self.runs()):
            store.say('These are all networks of Table 1; profile = "quick" is a look in minutes')
        return train(self.runs(), device=self.device)

    def spectral_runs(self) -> list[Run]:
        """The further runs of Figure 5.

        IR with the other forms of the regulariser, and DA with weight decay for two seeds.
        """
        forms = ("kl", "normalised")
        others = [
            self.run(g, "IR", seed, form)
            for g in self.groups
            for form in forms
            for seed in self.seeds
        ]
        return others + [
            replace(self.run(g, "DA", seed), weight_decay=decay)
            for g in self.groups
            for seed in self.seeds[:2]
            for decay in WEIGHT_DECAYS
        ]

    def readings(self) -> dict[Run, tuple[str, str]]:
        """Runs of the first seed, one for each of `READINGS`, group and method: choice and reading.

        IR keeps the nu that was tuned for ours.
        """
        return {
            replace(self.run(group, method, self.seeds[0]), **changes): (choice, reading)
            for group in self.groups
            for choice, reading, methods, changes in READINGS
            for method in methods.split()
        }

    def measure(self, trained: TrainedRun, images: int | None = None) -> Measurement:
        """`ginv.measure` of a run on the first test images, by default all of the profile."""
        images = self.test_images if images is None else images
        return measured(trained, "test", images, device=self.device)

    def table(self, trained: dict[Run, TrainedRun]) -> pd.DataFrame:
        """Mean of each metric of each run, in long form: group, method, seed, nu, metric, value."""
        fits = isinstance(trained, dict)
        require(fits, "trained", trained, "runs and what was trained, as ginv.train returns them")
        rows = [
            (run.group, run.method, run.seed, run.nu, metric, value)
            for run, result in trained.items()
            for metric, value in self.measure(result).summary.items()
        ]
        return pd.DataFrame(rows, columns=["group", "method", "seed", "nu", "metric", "value"])

    def save(self, table: pd.DataFrame, folder: str, name: str) -> None:
        """Write a table to FOLDER/NAME.csv, or NAME-quick.csv, say.

        So a look never overwrites the paper's results.
        """
        require(isinstance(table, pd.DataFrame), "table", table, "a pandas.DataFrame")
        write_whole(self._file(folder, name), table.to_csv(index=False))

    def load(self, folder: str, name: str) -> pd.DataFrame:
        """A table that another chapter saved at this profile, or else the committed one.

        That is of the paper's profile, which is said. Raises FileNotFoundError, naming the chapter,
        where there is neither.
        """
        if (file := self._file(folder, name)).is_file():
            try:
                return pd.read_csv(file)
            except ValueError as error:  # empty, or no CSV
                reason = " ".join(str(error).split())
                again = f"run the chapter {name} at the {self.profile} profile again"
                raise ValueError(f"{file} is no table ({reason}); {again}") from None
        try:
            committed = book_file(f"results/{name}.csv")
        except FileNotFoundError:
            text = f"no {file}; run the chapter {name} at the {self.profile} profile first"
            raise FileNotFoundError(text) from None
        print(
            f"{name} has not been run here at the {self.profile} profile: these are its committed "
            "numbers, of the paper's profile"
        )
        return pd.read_csv(committed)

    def _file(self, folder: str, name: str) -> Path:
        _require_place("folder", folder)
        fits = isinstance(name, str) and re.fullmatch(r"[\w-]+", name, re.ASCII)
        require(bool(fits), "name", name, "the name of a chapter, such as table1")
        return Path(folder) / f"{name}{'' if self.profile == 'paper' else f'-{self.profile}'}.csv"


def refuse_unknown(cells: list[str] | None = None) -> None:
    """Raise ValueError for a name that papermill passed and the chapter's parameters cell lacks.

    papermill itself only warns. cells: the code run so far, by default IPython's; a script has
    none. papermill puts its own cell right after the parameters cell.
    """
    if cells is None:
        shell = get_ipython()
        cells = shell.user_ns["In"] if shell is not None else []
    fits = isinstance(cells, list) and all(isinstance(cell, str) for cell in cells)
    require(fits, "cells", cells, "the code cells so far, a list of texts")
    for parameters, passed in pairwise(cells):
        if passed.startswith("# Parameters\n"):
            known = _assigned(parameters)
            unknown = {name for name in _assigned(passed) - known if name[:10] != "PAPERMILL_"}
            if unknown:  # but for those of papermill itself
                names, allowed = (", ".join(sorted(each)) for each in (unknown, known))
                raise ValueError(f"no parameter {names}; allowed: {allowed}")


def _assigned(cell: str) -> set[str]:
    """The names that a cell gives a value to; what it reads, such as `float`, is none of them."""
    try:
        nodes = [*ast.walk(ast.parse(cell))]
    except SyntaxError as error:
        raise ValueError(f"a cell of parameters is no Python: {error}: {cell!r}") from None
    names = (node for node in nodes if isinstance(node, ast.Name))
    return {node.id for node in names if isinstance(node.ctx, ast.Store)}


def _require_place(name: str, folder: str) -> None:
    """Refuse what is no name of a folder, and a URL or a home, which would become one here."""
    fits = isinstance(folder, str) and folder.isprintable() and folder == folder.strip()
    fits = fits and "://" not in folder and not folder.startswith("~")
    require(fits, name, folder, "a folder that can be written")


def announce(profile: str, device: str = "auto") -> str:
    """How many of a profile's runs the store lacks, and about how long they take here."""
    settings, where = Settings(profile, device=device), choose_device(device)
    images = dict.fromkeys(settings.runs(), settings.test_images)
    images |= dict.fromkeys(settings.spectral_runs(), settings.fewer_images)
    missing, operations = 0, 0.0
    for run, n in images.items():
        trained = load_run(run)
        if trained is None:
            missing += 1
            operations += costs.training_operations(run)
        if trained is None or not store.contains(named("measurement", trained, "test", n)):
            operations += costs.measurement_operations(run, n)
    work = "nothing to train"
    if operations:
        minutes = max(costs.minutes(operations, where), 1)
        work = f"about {minutes:.0f} minutes of training and measuring here"
    runs = f"{missing} of {len(images)} runs of Table 1 and Figure 5"
    return f"{runs} are missing from {store.store_folder()}: {work}"
