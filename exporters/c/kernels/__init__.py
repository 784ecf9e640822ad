"""C sources of the kernels; the generator copies those that a model uses into its model.c."""
