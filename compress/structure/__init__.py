"""What can be taken out of a network: coupled channels and blocks. Shared by the spaces; no space itself."""
