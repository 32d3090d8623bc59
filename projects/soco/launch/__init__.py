"""What the tools share: configs, checks before a start, errors and exit codes."""
