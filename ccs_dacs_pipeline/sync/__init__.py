"""The life of a batch, step by step, as plain functions: choose, claim, fetch, map, extract, publish, settle.

Knows nothing of Dagster; the assets are thin shells round these functions. Each function may be called again after any
interruption: it looks into the ledger first, and does what is still to be done.
"""
