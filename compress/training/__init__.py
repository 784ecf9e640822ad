"""The training loop with its optimisers and checkpoints; driven by contracts, it knows no method by name."""
