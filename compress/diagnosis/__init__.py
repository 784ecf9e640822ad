"""Finding which layer is at fault, where a side is a torch module."""
