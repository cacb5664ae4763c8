"""``python -m lmc_tune``."""

from lmc_tune.cli import main

main()
