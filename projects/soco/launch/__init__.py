"""Functions that the tools share: configs, checks before a run starts, errors and exit codes."""
