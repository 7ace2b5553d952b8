"""Put the trained networks that pages of the book use from the store into `data/runs`.

`python tools/ship.py` trains what the store lacks, leaves what is there as it is, and removes what
no page needs any more.
"""

import shutil

from ginv import train
from ginv.pages import Settings
from ginv.pages.paper import book_file
from ginv.recipe import Run
from ginv.runs import store
from ginv.runs.grid import read_grid

SHOWN_LIVE = "DA, same budget", "symmetry decay"  # recipes of controls.yaml, in book/price


def shipped_runs() -> list[Run]:
    """Of Table 1, of Figure 5, of the price of invariance and of the open choices."""
    settings = Settings("paper")
    grid = read_grid(book_file("controls.yaml"))
    price = [run for recipe in SHOWN_LIVE for run in grid.recipes[recipe]]
    runs = [*settings.runs(), *settings.spectral_runs(), *price, *settings.readings()]
    return [*dict.fromkeys(runs)]


def main() -> None:
    runs = shipped_runs()
    train(runs)
    store.SHIPPED.mkdir(exist_ok=True)
    names = {store.record_name(run.specification) for run in runs}
    for stranger in {path.name for path in store.SHIPPED.iterdir()} - names:
        shutil.rmtree(store.SHIPPED / stranger)
    for run in runs:
        target = store.SHIPPED / store.record_name(run.specification)
        if not target.is_dir():
            shutil.copytree(store.record_folder(run.specification), target)
    print(f"{len(runs)} records in {store.SHIPPED}")


if __name__ == "__main__":
    main()
