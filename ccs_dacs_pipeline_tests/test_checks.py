"""How the blocking checks judge: extract files by what was read back, a batch by its equations."""

from dataclasses import replace
from datetime import UTC, datetime

import dagster as dg
import pytest

from ccs_dacs_pipeline.checks import equation_check_result, extract_check_results, extract_check_specs
from ccs_dacs_pipeline.dacs.verify import Finding, Rule, Verified
from ccs_dacs_pipeline.entities import load_profile
from ccs_dacs_pipeline.ledger.contents import File
from ccs_dacs_pipeline.ledger.report import Equation
from ccs_dacs_pipeline.sync.extract import Extracted

ASSET = dg.AssetKey(["extract", "contact"])
SHA256 = "0" * 64
FILE = File("initial-7-01of01", "contact", 1, "C1-DCTIL_0033_00.csv", rows=3, bytes=90, sha256=SHA256, delivered=None)
READ = Verified(rows=3, bytes=90, sha256=SHA256, counts=dict.fromkeys(Rule, 0), examples=(), last_id="3")
GOOD = Extracted(files=[FILE], verified=[READ], mapped_rows=3)


def failed(result: Extracted) -> set[str]:
    return {check.check_name or "" for check in extract_check_results(ASSET, result) if not check.passed}


def metadata(result: Extracted, name: str) -> dict[str, object]:
    found = next(check for check in extract_check_results(ASSET, result) if check.check_name == name)
    return {key: value.value for key, value in found.metadata.items()}


def test_every_check_that_is_announced_is_judged():
    specs = extract_check_specs(ASSET, load_profile("core").entities["contact"])
    assert [spec.name for spec in specs] == [check.check_name for check in extract_check_results(ASSET, GOOD)]


def test_good_files_pass():
    assert failed(GOOD) == set()


def test_no_rows_and_no_file_pass():
    assert failed(Extracted(files=[], verified=[], mapped_rows=0)) == set()


@pytest.mark.parametrize("rule", Rule)
def test_a_broken_rule_fails_its_own_check_and_says_where(rule: Rule):
    example = Finding(rule, line=2, column=None, detail="12 columns")
    second = replace(READ, counts={**READ.counts, rule: 7}, examples=(example,))
    result = Extracted([FILE, replace(FILE, part=2)], [READ, second], mapped_rows=6)
    name = rule.value.replace("-", "_")
    assert failed(result) == {name}
    assert metadata(result, name) == {"findings": 7, "basis": "files read back", "examples": ["line 2: 12 columns"]}


@pytest.mark.parametrize(
    "result",
    [
        pytest.param(replace(GOOD, mapped_rows=4), id="mapping gave more rows"),
        pytest.param(replace(GOOD, verified=[replace(READ, rows=2)]), id="rows"),
        pytest.param(replace(GOOD, verified=[replace(READ, bytes=91)]), id="bytes"),
        pytest.param(replace(GOOD, verified=[replace(READ, sha256="1" * 64)]), id="sha256"),
        pytest.param(replace(GOOD, verified=[]), id="a file that was not read back"),
        pytest.param(replace(GOOD, files=[], mapped_rows=0), id="a file that is not recorded"),
    ],
)
def test_totals_that_disagree_fail(result: Extracted):
    assert failed(result) == {"control_totals"}


def test_delivered_files_are_judged_by_what_was_recorded():
    """They may have been consumed: nothing is there to be read back."""
    delivered = Extracted([replace(FILE, delivered=datetime(2026, 3, 1, tzinfo=UTC))], [], mapped_rows=3)
    assert failed(delivered) == set()
    assert metadata(delivered, "control_totals")["basis"] == "recorded when the batch was sealed"


def test_the_equations_pass_when_every_one_holds():
    equations = [Equation("fetched", 10, 10), Equation("rows", 3, 3)]
    result = equation_check_result(ASSET, equations)
    assert result.passed
    assert {key: value.value for key, value in result.metadata.items()} == {"fetched": "10 = 10", "rows": "3 = 3"}


@pytest.mark.parametrize("wrong", [0, 1])
def test_one_equation_that_does_not_hold_fails_the_check(wrong: int):
    equations = [Equation("fetched", 10, 10), Equation("rows", 3, 3)]
    equations[wrong] = replace(equations[wrong], left=2)
    assert not equation_check_result(ASSET, equations).passed
