"""The seven stages, one function each; `compress/pipeline.py` says in which order."""
