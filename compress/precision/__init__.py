"""Which layer runs in which number format, decided by what was measured: sensitivity, cost, a solver, the choice."""
