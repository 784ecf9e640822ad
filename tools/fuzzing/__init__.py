"""Damaged and hostile inputs, one kind a file; `python -m tools.fuzz_inputs` reads thousands of each."""
