"""Build a TensorRT engine on the machine that will run it, check it there, and say how it went.

This folder is part of every deploy bundle and is what a remote build sends, as it is: it needs Python 3.8 (JetPack 5)
or later, its standard library, numpy and the machine's own tensorrt (8.5 to 11.x) or tensorrt_rtx, and imports nothing
else of this project. That is also why it drives TensorRT itself and not through Polygraphy, which a device would have
to install first and whose loaders ask what a module has instead of which version it is.

Written after NVIDIA's documents, headers and binding sources and tested against modules that have exactly the names of
each recorded release; with a GPU it has not been run by its authors.
"""
