"""Preprocessing that belongs to a model and is exported with it."""
