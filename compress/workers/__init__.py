"""Run many evaluations: here, in processes of this machine, or on a Ray cluster."""
