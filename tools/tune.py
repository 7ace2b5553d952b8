"""Go on with the search for nu: `python tools/tune.py` writes ginv/runs/nu_sweep.csv."""

import argparse
import sys
from itertools import product
from pathlib import Path

from ginv.machine import choose_device
from ginv.recipe import GROUPS, INITIALISATIONS, REGULARISERS, Run
from ginv.runs import nu
from ginv.runs.files import require_writable, write_whole

TABLE = Path(nu.__file__).with_name("nu_sweep.csv")
FORMS = dict.fromkeys(  # each once
    [
        *(Run(g, "IR", nu=1.0, regulariser=each) for g, each in product(GROUPS, REGULARISERS)),
        *(Run(g, "IR", nu=1.0, initialisation=i) for g, i in product(GROUPS, INITIALISATIONS)),
        *(Run(g, "IR", nu=1.0, whole_orbit=True) for g in GROUPS),
    ]
)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--device", default="auto")
    parser.add_argument("--anew", action="store_true", help="without the rows that are there")
    arguments = parser.parse_args()
    try:
        choose_device(arguments.device)
        require_writable("table", TABLE)  # now, and not after the search
        known = None if arguments.anew else nu.whole_sweep()
        table = nu.search([*FORMS], known, device=arguments.device)
        write_whole(TABLE, table.round(6).to_csv(index=False))
    except (ValueError, OSError, RuntimeError) as error:
        sys.exit(str(error))


if __name__ == "__main__":
    main()
