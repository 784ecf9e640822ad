"""Students that were all trained fully, once: what selectors are held against."""
