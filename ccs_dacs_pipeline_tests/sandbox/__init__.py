"""The sandbox: a simulated CCS and DACS."""
