"""The durable record: batches, requests, files, acknowledgements, leases. The ledger decides, Dagster shows."""

from ccs_dacs_pipeline.ledger.store import Ledger, LedgerError

__all__ = ["Ledger", "LedgerError"]
