"""Runs on disk: records, logs, reports, publishing, and the commands that continue from a run."""
