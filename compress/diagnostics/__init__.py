"""How student and teacher relate: one file per measure."""
