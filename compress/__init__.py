"""From a trained teacher and data to a small model proven on its target."""

__version__ = "0.1.0"
