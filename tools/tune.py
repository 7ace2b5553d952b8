"""Redo the search for nu: `python tools/tune.py` writes ginv/runs/nu_sweep.csv."""

import argparse
import sys
from itertools import product
from pathlib import Path

from ginv.machine import choose_device
from ginv.recipe import GROUPS, REGULARISERS
from ginv.runs import nu
from ginv.runs.files import require_writable, write_whole

TABLE = Path(nu.__file__).with_name("nu_sweep.csv")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--device", default="auto")
    device = parser.parse_args().device
    try:
        choose_device(device)
        require_writable("table", TABLE)  # now, and not after the search
        table = nu.search([*product(GROUPS, REGULARISERS)], device=device)
        write_whole(TABLE, table.round(6).to_csv(index=False))
    except (ValueError, OSError, ArithmeticError) as error:
        sys.exit(str(error))


if __name__ == "__main__":
    main()
