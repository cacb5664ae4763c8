"""``python -m lmc_tune``."""

from lmc_tune.cli.commands import app

app(prog_name="lmc-tune")
