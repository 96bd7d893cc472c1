"""The three kinds of entity, read from the very examples of ccs-rest.md."""

from typing import TYPE_CHECKING, Any

import pytest

from ccs_dacs_pipeline.entities import entity_named

from .conftest import Start
from .servers import in_turn, page, reply

if TYPE_CHECKING:
    from ccs_dacs_pipeline.ccs import Searchable

PERSON = {
    "personId": "5775933103",
    "personOrBusiness": "P ",
    "version": 7,
    "names": {
        "namesList": [
            {
                "nameType": "PRIM",
                "entityName": "Reddy,John",
                "firstName": "John",
                "lastName": "Reddy",
                "isPrimary": "Y ",
            }
        ]
    },
    "contactDetails": {
        "contactDetailsList": [
            {
                "contactDetailType": "HOME",
                "contactDetailValue": "(415) 555-0199",
                "contactDetailValueExtension": "12",
                "contactDetailPrimary": "C1YS",
            },
            {
                "contactDetailType": "CELL",
                "contactDetailValue": "(415) 555-0134",
                "contactDetailPrimary": "C1NO",
            },
        ]
    },
    "emailAddress": "john.reddy@example.com",
    "lifeSupportSensitiveLoad": "N ",
    "lifeSupportSensitiveLoadDescription": None,
    "purged": False,
}
SERVICE_POINT = {
    "servicePointId": "3996166619",
    "servicePointType": "E-RES",
    "sourceStatus": "C ",
    "division": "CA ",
    "version": 3,
    "premise": {
        "premiseId": "2242620736",
        "timeZone": "America/Los_Angeles",
        "address": {
            "country": "USA",
            "postal": "94105",
            "address1": "1 Main St",
            "address2": None,
            "address3": None,
            "address4": None,
            "city": "San Francisco",
            "county": "San Francisco",
            "state": "CA",
        },
        "geocodeLatitude": 37.789,
        "geocodeLongitude": -122.394,
    },
    "installationDate": "2011-03-04",
    "abolishedDate": None,
}
SERVICE_AGREEMENT = {
    "serviceAgreementId": "4410297731",
    "saType": "E-RES",
    "status": "20",
    "division": "CA ",
    "version": 12,
    "account": {"accountId": "2710098812", "mainCustomerPersonId": "5775933103"},
    "startDate": "2020-01-01",
    "endDate": None,
    "servicePoints": {
        "servicePointsList": [
            {
                "servicePointId": "3996166619",
                "startDateTime": "2020-01-01T00:00:00-08:00",
                "stopDateTime": None,
            }
        ]
    },
}


def leaves(value: Any) -> list[str]:
    """The texts of all scalars that are not null, in their order, numbers and booleans as JSON writes them."""
    match value:
        case None:
            return []
        case dict():
            return [leaf for name in sorted(value) for leaf in leaves(value[name])]
        case list():
            return [leaf for item in value for leaf in leaves(item)]
        case bool():
            return [str(value).lower()]
    return [str(value)]


@pytest.mark.parametrize(
    ("name", "list_member", "record", "unread"),
    [
        ("contact", "personList", PERSON, set()),
        ("metered_service_point", "servicePointList", SERVICE_POINT, {"installationDate", "abolishedDate"}),
        ("metered_service", "serviceAgreementList", SERVICE_AGREEMENT, set()),
    ],
)
def test_the_example_of_the_contract_arrives_whole(
    start: Start, name: str, list_member: str, record: dict[str, Any], unread: set[str]
) -> None:
    entity: Searchable = entity_named(name)
    client, server = start(in_turn(reply(page([record], member=list_member))))
    (row,) = client.search_range(entity, "0000000000", "9999999999").frame.to_dicts()
    assert server.requests[0].path == f"/rest/apis/cm/dacs/{entity.service}/search"
    unread = unread - row.keys()
    plain = {member: value for member, value in record.items() if member not in unread}
    for member in entity.plural_members:
        plain[member] = plain[member][entity.plural_members[member]]
    assert leaves(row) == leaves(plain)
