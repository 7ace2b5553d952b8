"""Put the trained networks of Table 1 and Figure 5 from the store into `data/runs`.

`python tools/ship.py` trains what the store lacks, leaves what is there as it is, and removes what
no page needs any more.
"""

import shutil

from ginv import train
from ginv.pages import Settings
from ginv.recipe import Run
from ginv.runs import store


def shipped_runs() -> list[Run]:
    settings = Settings("paper")
    return [*dict.fromkeys([*settings.runs(), *settings.spectral_runs()])]


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
