"""Opening the ledger (interface.md, Settings)."""

import pytest

from ccs_dacs_pipeline.ledger import Ledger


@pytest.mark.parametrize("url", ["postgresql://u:canary/x", "postgresql://u:canary@127.0.0.1:abc/x", "canary"])
def test_a_url_that_is_none_is_named_by_its_setting_and_not_repeated(url: str):
    with pytest.raises(ValueError, match=r"^CCS_DACS_LEDGER_URL is no SQLAlchemy URL") as caught:
        Ledger(url)
    error: BaseException | None = caught.value
    while error is not None:
        assert "canary" not in str(error)
        error = None if error.__suppress_context__ else error.__cause__ or error.__context__
