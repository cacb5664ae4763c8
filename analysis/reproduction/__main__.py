"""``python -m lmc_tune.analysis.reproduction``."""

from lmc_tune.analysis.reproduction.page import main

main()
