"""Tests of the sync steps."""
