"""Redo the search for nu: `python tools/tune.py` writes ginv/runs/nu_sweep.csv."""

import argparse
import sys
from itertools import product
from pathlib import Path

from ginv.machine import choose_device
from ginv.recipe import GROUPS, REGULARISERS
from ginv.runs import nu

TABLE = Path(nu.__file__).with_name("nu_sweep.csv")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--device", default="auto")
    device = parser.parse_args().device
    try:
        choose_device(device)
    except ValueError as error:  # now, and not after the search
        sys.exit(str(error))
    forms = [*product(GROUPS, REGULARISERS)]
    nu.search(forms, device=device).round(6).to_csv(TABLE, index=False)


if __name__ == "__main__":
    main()
