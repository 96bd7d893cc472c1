"""Tests of the CCS client, over real sockets."""
