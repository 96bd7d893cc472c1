"""The benchmarks, at the smallest size."""
