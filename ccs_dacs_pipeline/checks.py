"""Blocking asset checks: the extract files against their layout, and the ledger against its equations."""

from typing import Any

import dagster as dg

from ccs_dacs_pipeline.dacs.verify import Rule
from ccs_dacs_pipeline.entities import EntityLayout
from ccs_dacs_pipeline.ledger.report import Equation
from ccs_dacs_pipeline.sync.extract import Extracted

CONTROL_TOTALS = "control_totals"
EQUATIONS = "control_equations"


def _name(rule: Rule) -> str:
    return rule.value.replace("-", "_")


def extract_check_specs(asset: dg.AssetKey, layout: EntityLayout) -> list[dg.AssetCheckSpec]:
    """Returns the checks of an extract asset, from its layout."""
    required = ", ".join(column.name for column in layout.columns if column.required)
    descriptions = {
        Rule.ENCODING: "Every line is text in the profile's encoding.",
        Rule.HEADER: "The header row is as the profile has it: absent, or the column names.",
        Rule.LINE_END: "Every line, the last too, ends as the profile has it.",
        Rule.COLUMN_COUNT: f"Every line has exactly {len(layout.columns)} columns.",
        Rule.REQUIRED_VALUES: f"No required value is empty: {required}.",
        Rule.EXTERNAL_IDS_ASCENDING: "External Ids ascend strictly, so each stands once.",
    }
    specs = [
        dg.AssetCheckSpec(_name(rule), asset=asset, blocking=True, description=descriptions[rule]) for rule in Rule
    ]
    totals = "Mapped rows, recorded figures and the files read back agree in rows, bytes and sha256."
    return [*specs, dg.AssetCheckSpec(CONTROL_TOTALS, asset=asset, blocking=True, description=totals)]


def extract_check_results(asset: dg.AssetKey, result: Extracted) -> list[dg.AssetCheckResult]:
    """Judges extract files by what the verifier read; delivered ones by what it had recorded."""
    basis = "files read back" if result.verified or not result.files else "recorded when the batch was sealed"
    checks = []
    for rule in Rule:
        found = sum(one.counts[rule] for one in result.verified)
        examples = [
            f"line {example.line}: {example.detail}"
            for one in result.verified
            for example in one.examples
            if example.rule is rule
        ]
        metadata: dict[str, Any] = {"findings": found, "basis": basis, "examples": examples}
        checks.append(dg.AssetCheckResult(asset_key=asset, check_name=_name(rule), passed=not found, metadata=metadata))
    metadata = {"mapped rows": result.mapped_rows, "rows in files": result.rows, "basis": basis}
    checks.append(
        dg.AssetCheckResult(asset_key=asset, check_name=CONTROL_TOTALS, passed=result.totals_agree, metadata=metadata)
    )
    return checks


def equation_check_spec(asset: dg.AssetKey) -> dg.AssetCheckSpec:
    """Returns the check of the ledger's control equations (sync-lifecycle.md, What is promised)."""
    text = "The control equations of the batch hold: nothing is lost between request, record, file and answer."
    return dg.AssetCheckSpec(EQUATIONS, asset=asset, blocking=True, description=text)


def equation_check_result(asset: dg.AssetKey, equations: list[Equation]) -> dg.AssetCheckResult:
    """Judges the equations of a batch."""
    return dg.AssetCheckResult(
        asset_key=asset,
        check_name=EQUATIONS,
        passed=all(one.holds for one in equations),
        metadata={one.name: f"{one.left} = {one.right}" for one in equations},
    )
