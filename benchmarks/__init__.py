"""Measures the pipeline against what is possible, against its peers, and against itself at other sizes."""
