"""Tests of the folders."""
