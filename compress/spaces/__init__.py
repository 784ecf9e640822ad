"""Student spaces: one file is one family of students; each ends with `SPACE = <class>`."""
