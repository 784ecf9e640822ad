"""Quantisation-aware training: one file per runtime family says where Q/DQ stand; the rest is shared."""
