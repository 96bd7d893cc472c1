"""Tests of the files for DACS."""
