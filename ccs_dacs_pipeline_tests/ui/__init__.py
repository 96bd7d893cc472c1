"""The Dagster UI and daemon for real: every service a process of its own."""
