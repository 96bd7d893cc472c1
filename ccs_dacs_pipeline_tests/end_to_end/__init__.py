"""The whole pipeline between a simulated CCS and DACS, in this process."""
