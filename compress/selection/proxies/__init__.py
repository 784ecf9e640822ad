"""Training-free scores of a student: one file per score; each ends with `PROXY = Proxy(...)`."""
