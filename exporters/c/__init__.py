"""From an ONNX graph to C: graph reads it, lower makes steps of it, arena plans their memory, emit prints them."""
