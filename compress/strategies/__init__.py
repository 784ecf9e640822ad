"""Which examples a step sees: one file per strategy that several methods share."""
