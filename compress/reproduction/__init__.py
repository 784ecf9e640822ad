"""Trying published claims again: paired statistics, verdicts, tables."""
