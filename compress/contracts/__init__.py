"""The plug points: one contract per file. Imports nothing above it."""
