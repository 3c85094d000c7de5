"""``python -m alignbench``."""

from alignbench.processes import hold_tether

hold_tether()  # before the imports, which take a moment

from alignbench.cli.main import main  # noqa: E402

main()
