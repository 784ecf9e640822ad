"""Where knowledge comes from: frozen networks, black boxes, moving averages, ensembles, caches."""
