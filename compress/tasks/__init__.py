"""One file is one task: data, preprocessing, metric, reference teacher. The folder is the registry."""
