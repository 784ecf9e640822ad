"""One file is one published teacher-student system; it ends with `METHOD = Method(...)`."""
