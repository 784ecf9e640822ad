"""How long a kernel takes: one file per device family, constants with their origin in `fitted.toml`."""
