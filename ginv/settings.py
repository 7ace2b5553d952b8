"""What a chapter runs: the parameters that its reader sets, checked before anything trains."""

import copy
from dataclasses import dataclass, replace
from pathlib import Path

import pandas as pd
import torch

from ginv import costs, store
from ginv.data import SPLITS, load_dataset
from ginv.groups import group_named
from ginv.metrics import Measurement, measure
from ginv.parameters import require, require_folder
from ginv.training import METHODS, REGULARISERS, Run, TrainedRun, choose_device, train
from ginv.tuning import GROUPS, chosen_nu

WEIGHT_DECAYS = (0.3, 1.0, 3.0, 10.0)  # from hardly any to one that ruins the network
MEASUREMENT = 1  # a change in what `measure` computes counts this up, so that stored measurements are redone


@dataclass(frozen=True)
class Profile:
    """How much of the paper a chapter runs."""

    seeds: tuple[int, ...]
    epochs: int
    test_images: int


PROFILES = {
    "paper": Profile((0, 1, 2, 3), 300, SPLITS["test"]),
    "quick": Profile((0,), 20, 1_000),
}


@dataclass(frozen=True)
class Settings:
    """The parameters of a chapter. Raises ValueError, in one line, for a value that is not allowed.

    profile: "paper" or "quick". group: "both", "R4" or "T3". seeds: a list, or None for the profile's.
    device: "auto", "cpu" or "cuda". results: the folder for the numbers of the chapter.
    """

    profile: str = "paper"
    group: str = "both"
    seeds: tuple[int, ...] = None  # type: ignore[assignment]  # or a list, or None; a tuple once it is checked
    device: str = "auto"
    results: str = "results"

    def __post_init__(self) -> None:
        require(self.profile in [*PROFILES], "profile", self.profile, ", ".join(PROFILES))
        require(self.group in ("both", *GROUPS), "group", self.group, ", ".join(("both", *GROUPS)))
        seeds = PROFILES[self.profile].seeds if self.seeds is None else self.seeds
        fits = isinstance(seeds, list | tuple) and seeds and all(type(s) is int and 0 <= s < 2**63 for s in seeds)
        require(bool(fits), "seeds", self.seeds, "a list of integers from 0 up, such as [0, 1]")
        object.__setattr__(self, "seeds", tuple(dict.fromkeys(seeds)))
        choose_device(self.device)
        require_folder("results", self.results)

    @property
    def groups(self) -> tuple[str, ...]:
        return GROUPS if self.group == "both" else (self.group,)

    @property
    def test_images(self) -> int:
        return PROFILES[self.profile].test_images

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
        return [self.run(g, method, seed) for g in self.groups for method in METHODS for seed in self.seeds]

    def train(self) -> dict[Run, TrainedRun]:
        """The trained runs of Table 1, from the store where they are there."""
        return train(self.runs(), device=self.device)

    def spectral_runs(self) -> list[Run]:
        """The further runs of Figure 5: the other forms of the regulariser, and DA with weight decay for two seeds."""
        others = [form for form in REGULARISERS if form != "logit"]
        return [self.run(g, "IR", seed, form) for g in self.groups for form in others for seed in self.seeds] + [
            replace(self.run(g, "DA", seed), weight_decay=decay)
            for g in self.groups
            for seed in self.seeds[:2]
            for decay in WEIGHT_DECAYS
        ]

    def measurement(self, run: Run, images: int | None = None) -> dict:
        """What names the measurement of a run in the store."""
        fits = images is None or (type(images) is int and 1 <= images <= SPLITS["test"])
        require(fits, "images", images, f"1 to {SPLITS['test']}, or None")
        return {"measurement": MEASUREMENT, "run": run.specification, "images": images or self.test_images}

    def measure(self, trained: TrainedRun, images: int | None = None) -> Measurement:
        """`ginv.measure` of a run on the first or, without a number, all test images of the profile; from the store
        where it is there.
        """
        specification = self.measurement(trained.run, images)
        if stored := store.load(specification):
            return Measurement(pd.DataFrame(stored[0])[stored[1]["columns"]], stored[1]["sample_variance"])
        test = (
            load_dataset(trained.run.dataset, trained.run.split_seed)
            .test.head(specification["images"])
            .to(choose_device(self.device))
        )
        model = copy.deepcopy(trained.model).to(test.images.device)
        try:
            measurement = measure(model, test.images, test.labels, group_named(trained.run.group))
        except ValueError as error:
            epoch = trained.record["best_epoch"]
            raise ValueError(f"{error}: that of epoch {epoch} of {trained.run}") from None
        columns = {name: torch.tensor(column.to_numpy()) for name, column in measurement.samples.items()}
        record = {"columns": list(columns), "sample_variance": measurement.sample_variance}
        store.save(specification, columns, record)
        return measurement

    def table(self, trained: dict[Run, TrainedRun]) -> pd.DataFrame:
        """Mean of each metric of each run, in long form: group, method, seed, nu, metric, value."""
        rows = [
            (run.group, run.method, run.seed, run.nu, metric, value)
            for run, result in trained.items()
            for metric, value in self.measure(result).summary.items()
        ]
        return pd.DataFrame(rows, columns=["group", "method", "seed", "nu", "metric", "value"])

    def save(self, table: pd.DataFrame, folder: str, name: str) -> None:
        """Write a table to FOLDER/NAME.csv, or NAME-quick.csv: a look never overwrites the paper's results."""
        Path(folder).mkdir(parents=True, exist_ok=True)
        table.to_csv(self._file(folder, name), index=False)

    def load(self, folder: str, name: str) -> pd.DataFrame:
        """A table that another chapter saved at this profile. Raises FileNotFoundError, naming the chapter."""
        if not (file := self._file(folder, name)).is_file():
            raise FileNotFoundError(f"no {file}; run the chapter {name} at the {self.profile} profile first")
        return pd.read_csv(file)

    def _file(self, folder: str, name: str) -> Path:
        return Path(folder) / f"{name}{'' if self.profile == 'paper' else f'-{self.profile}'}.csv"


def announce(profile: str, device: str = "auto") -> str:
    """How many of a profile's runs are missing from the store, and about how long they take on this machine."""
    settings, where = Settings(profile, device=device), choose_device(device)
    images = dict.fromkeys(settings.runs(), settings.test_images)
    images |= dict.fromkeys(settings.spectral_runs(), settings.test_images // 5)
    missing = [run for run in images if not store.contains(run.specification)]
    unmeasured = [run for run, n in images.items() if not store.contains(settings.measurement(run, n))]
    operations = sum(costs.training_operations(run) for run in missing)
    operations += sum(costs.measurement_operations(run, images[run]) for run in unmeasured)
    minutes = operations / costs.operations_per_second(where) / costs.EFFICIENCY / 60
    work = f"about {max(minutes, 1):.0f} minutes of training and measuring here" if operations else "nothing to train"
    return (
        f"{len(missing)} of {len(images)} runs of Table 1 and Figure 5 are missing from {store.store_folder()}: {work}"
    )
