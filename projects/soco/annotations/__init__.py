"""Annotations of detectors: read once, judged once, mended in memory; no torch, no model code."""
