"""Service Agreement of CCS, Metered Service of DACS (record-layouts.md, Metered Service; ccs-rest.md)."""

from __future__ import annotations

import polars as pl

from ccs_dacs_pipeline.entities.conversions import instant
from ccs_dacs_pipeline.entities.model import (
    ColumnSource,
    Criterion,
    Entity,
    Flaw,
    Kind,
    Scope,
    common_sources,
    element,
    member_source,
    texts,
)
from ccs_dacs_pipeline.entities.rules import Rule

_LINKS = "links"
_LINK = tuple(
    f"servicePoints.servicePointsList.{member}" for member in ("servicePointId", "startDateTime", "stopDateTime")
)


def _links(_: Scope) -> pl.Expr:
    """The service point links with their times read, which costs more than all that is made of them."""
    texts = element("startDateTime"), element("stopDateTime")
    link = pl.struct(element("servicePointId"), *texts, start=instant(texts[0]), stop=instant(texts[1]))
    return pl.col("servicePoints").list.eval(link)


def _service_point(scope: Scope) -> pl.Expr:
    """The service point that is linked now, else the one that was linked last (record-layouts.md, Metered Service 12).

    Linked now: started and not stopped at the time of the fetch; of several the latest start, then the lowest id. Else
    the latest stop. A link that starts later counts as none; one without a start has always been there.
    """
    now = pl.lit(scope.context.moment)
    start, stop = element("start"), element("stop")
    linked_now = (stop > now).fill_null(value=True)
    started = pl.col(_LINKS).list.filter(element("servicePointId").is_not_null() & (start <= now).fill_null(value=True))
    return started.list.agg(
        element("servicePointId")
        .sort_by(
            linked_now,
            pl.when(linked_now).then(start).otherwise(stop),
            element("servicePointId"),
            descending=[True, True, False],
            nulls_last=True,
        )
        .first()
    )


def _unreadable(time: str, text: str) -> pl.Expr:
    return element(time).is_null() & element(text).is_not_null()


_unreadable_link = Flaw(
    Rule.IMPOSSIBLE_DATE,
    pl.col(_LINKS).list.eval(_unreadable("start", "startDateTime") | _unreadable("stop", "stopDateTime")).list.any(),
    "a service point link, which may be the one that counts, starts or stops at no ISO 8601 time with offset",
)


SERVICE_AGREEMENT = Entity(
    name="metered_service",
    source="service_agreement",
    label="Metered Service",
    source_label="Service Agreement",
    service="serviceAgreements",
    list_member="serviceAgreementList",
    id_member="serviceAgreementId",
    initial_code="C1-DMSIL",
    incremental_code="C1-DMSEX",
    business_object="C1-DACSMSSyncRequest",
    maintenance_object="SA",
    schema=pl.Schema(
        {
            **texts("serviceAgreementId", "saType", "status", "division", "version"),
            "account": pl.Struct(texts("accountId", "mainCustomerPersonId")),
            **texts("startDate", "endDate"),
            "servicePoints": pl.List(pl.Struct(texts("servicePointId", "startDateTime", "stopDateTime"))),
        }
    ),
    plural_members={"servicePoints": "servicePointsList"},
    sources={
        **common_sources("serviceAgreementId"),
        "sa_type": member_source("saType", Kind.CODE, required=True),
        "external_contact_id": member_source("account.mainCustomerPersonId", Kind.REFERENCE, references="contact"),
        "external_account_id": member_source("account.accountId", Kind.TEXT),
        "start_date_time": member_source("startDate", Kind.DATE, required=True),
        "end_date_time": member_source("endDate", Kind.DATE),
        "division": member_source("division", Kind.CODE),
        "sa_status": member_source("status", Kind.CODE),
        "external_sp_id": ColumnSource(
            _service_point,
            Kind.REFERENCE,
            _LINK,
            references="metered_service_point",
            flaw=_unreadable_link,
        ),
    },
    criteria=(
        Criterion("agreement type", pl.col("saType"), lambda allowed: allowed.sa_types),
        Criterion("agreement status", pl.col("status"), lambda allowed: allowed.sa_statuses),
        Criterion("division", pl.col("division"), lambda allowed: allowed.divisions),
    ),
    parts={_LINKS: _links},
)
