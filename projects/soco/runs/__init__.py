"""A run on disk: its record, log and report, and how to continue from it."""
