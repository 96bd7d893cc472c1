"""Synchronizes Oracle Utilities Customer Cloud Service (CCS) with Digital Asset Cloud Service (DACS)."""
