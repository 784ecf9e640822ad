"""Which parts of a graph may compute in half precision, and where its Casts stand."""
