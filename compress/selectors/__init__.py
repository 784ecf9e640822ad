"""Who is trained a little before one is chosen: one file is one selector; each ends with `SELECTOR = <class>`."""
