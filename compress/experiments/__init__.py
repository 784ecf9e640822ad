"""One file is one published claim, tried again at small scale; `compress reproduce` runs it."""
