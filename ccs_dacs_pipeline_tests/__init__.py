"""Tests, by room; each reads like the specification that it names."""
