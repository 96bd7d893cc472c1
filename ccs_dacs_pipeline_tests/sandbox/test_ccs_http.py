"""CCS's services over real sockets: every point of ccs-rest.md."""

import base64
import json
import re

import httpx
import pytest

from ccs_dacs_pipeline.sandbox import Sandbox, SandboxConfig
from ccs_dacs_pipeline.sandbox.entities import ENTITIES

PERSONS = "/rest/apis/cm/dacs/persons/search"
REQUESTS = "/rest/apis/cm/dacs/syncRequests/search"
TRANSITION = "/rest/apis/common/sync/syncRequest"
HEALTH = "/rest/apis/common/system/healthCheck/"


def client_of(sandbox: Sandbox, **options) -> httpx.Client:
    options.setdefault("auth", ("sandbox", "sandbox"))
    return httpx.Client(base_url=sandbox.base_url, trust_env=False, **options)


@pytest.fixture(scope="module")
def sandbox():
    with Sandbox(SandboxConfig(persons=500)) as running:
        yield running


@pytest.fixture(scope="module")
def ccs(sandbox):
    with client_of(sandbox) as client:
        yield client


@pytest.fixture
def fresh():
    """A sandbox of one's own, for tests that change it."""
    with Sandbox(SandboxConfig(persons=30)) as running:
        yield running


def search(client: httpx.Client, path: str, limit: int | None = 2000, **filters) -> dict:
    answer = client.post(path, json={"filters": filters} | ({} if limit is None else {"limit": limit}))
    assert answer.status_code == 200, answer.text
    assert answer.headers["content-type"] == "application/json"
    return answer.json()


def problem(answer: httpx.Response) -> dict:
    document = answer.json()["problemDetailDocument"]
    assert re.search(r"/message/\d+/\d+$", document["problemType"])
    assert document["httpStatus"] == answer.status_code
    assert {"title", "detail", "problemInstance", "stackTrace", "serverMessage"} <= document.keys()
    return document


# Searches


@pytest.mark.parametrize("entity", ENTITIES, ids=lambda entity: entity.ccs)
def test_keyset_paging_gives_every_record_once_in_ascending_order(sandbox, ccs, entity) -> None:
    path, ids, after = f"/rest/apis/cm/dacs/{entity.path}/search", [], {}
    while True:
        page = search(ccs, path, 150, lowId="0000000000", highId="9999999999", **after)
        assert page["limit"] == 150
        assert page["totalNumberOfRecords"] == sandbox.ccs.count(entity.ccs)
        ids += [record[entity.id_name] for record in page[entity.list_name]]
        if not page["hasMore"]:
            break
        after = {"afterId": ids[-1]}
    assert ids == [id_ for id_, _ in sandbox.ccs.records(entity.ccs)]


def test_the_total_counts_the_range_whatever_after_says(ccs) -> None:
    ids = [person["personId"] for person in search(ccs, PERSONS)["personList"]]
    low, high = ids[10], ids[19]
    page = search(ccs, PERSONS, 4, lowId=low, highId=high, afterId=ids[15])
    assert [person["personId"] for person in page["personList"]] == ids[16:20]
    assert (page["totalNumberOfRecords"], page["hasMore"]) == (10, False)
    assert search(ccs, PERSONS, 3, lowId=low, highId=high, afterId=ids[15])["hasMore"] is True


def test_limit_zero_asks_for_the_count_alone(ccs) -> None:
    page = search(ccs, PERSONS, 0)
    assert (page["personList"], page["totalNumberOfRecords"]) == ([], 500)
    assert "hasMore" in page


def test_ids_give_those_that_exist_and_ignore_limit_and_range(ccs) -> None:
    ids = [person["personId"] for person in search(ccs, PERSONS)["personList"]]
    page = search(ccs, PERSONS, 1, ids=[ids[7], ids[3], "0000000001", ids[7]], lowId="9999999999")
    assert [person["personId"] for person in page["personList"]] == [ids[3], ids[7]]
    assert page["hasMore"] is False


def test_more_than_500_ids_are_refused(ccs) -> None:
    assert search(ccs, PERSONS, ids=["0000000000"] * 500)["personList"] == []
    answer = ccs.post(PERSONS, json={"filters": {"ids": ["0000000000"] * 501}})
    assert answer.status_code == 400
    assert "500" in problem(answer)["detail"]


@pytest.mark.parametrize(
    "body",
    [
        b"not json",
        b"[]",
        b'{"limit": -1}',
        b'{"limit": "many"}',
        b'{"filters": {"lowId": "12"}}',
        b'{"filters": {"afterId": 5}}',
        b'{"filters": {"ids": "0000000000"}}',
    ],
)
def test_a_wrong_search_is_a_business_error(ccs, body) -> None:
    answer = ccs.post(PERSONS, content=body)
    assert answer.status_code == 400
    problem(answer)


def test_paths_are_exact(ccs) -> None:
    assert ccs.post(f"{PERSONS}/", json={}).status_code == 404
    assert ccs.get(HEALTH.rstrip("/")).status_code == 404


def test_an_envelope_names_the_service_and_a_page_may_be_capped() -> None:
    with Sandbox(SandboxConfig(persons=9, envelope=True, page_cap=4)) as sandbox, client_of(sandbox) as ccs:
        (body,) = search(ccs, PERSONS, 2000).values()
    assert len(body["personList"]) == 4
    assert body["hasMore"] is True


def test_health(ccs) -> None:
    assert ccs.get(HEALTH).json()["healthOverallResponse"] == 200


# Authentication


def test_basic_authentication_is_asked_for(sandbox, ccs) -> None:
    for auth in (None, ("sandbox", "wrong")):
        with client_of(sandbox, auth=auth) as client:
            answer = client.get(HEALTH)
            assert answer.status_code == 401
            assert answer.headers["www-authenticate"].startswith("Basic")


def test_oauth_client_credentials_in_header_or_form_until_they_expire() -> None:
    with (
        Sandbox(SandboxConfig(persons=1, auth="oauth", token_seconds=60)) as sandbox,
        client_of(sandbox, auth=None) as ccs,
    ):
        grant = {"grant_type": "client_credentials"}
        answer = ccs.post("/oauth/token", data=grant, auth=("sandbox", "sandbox")).json()
        assert (answer["token_type"], answer["expires_in"]) == ("Bearer", 60)
        bearer = {"Authorization": f"Bearer {answer['access_token']}"}
        assert ccs.get(HEALTH, headers=bearer).status_code == 200
        sandbox.expire_tokens()
        assert ccs.get(HEALTH, headers=bearer).status_code == 401
        form = grant | {"client_id": "sandbox", "client_secret": "sandbox", "scope": "ccs"}
        answer = ccs.post("/oauth/token", data=form).json()
        assert answer["scope"] == "ccs"
        assert ccs.get(HEALTH, headers={"Authorization": f"Bearer {answer['access_token']}"}).status_code == 200
        assert ccs.post("/oauth/token", data=form | {"client_secret": "x"}).status_code == 401
        assert ccs.post("/oauth/token", data={"grant_type": "password"}).status_code == 400
        basic = "Basic " + base64.b64encode(b"sandbox:sandbox").decode()
        assert ccs.get(HEALTH, headers={"Authorization": basic}).status_code == 401


def test_no_authentication_on_request() -> None:
    with Sandbox(SandboxConfig(persons=1, auth="none")) as sandbox, client_of(sandbox, auth=None) as ccs:
        assert ccs.get(HEALTH).status_code == 200


# Sync requests


def test_requests_are_searched_by_filters_that_combine(fresh) -> None:
    person, *_ = (id_ for id_, _ in fresh.ccs.records("person"))
    point, *_ = (id_ for id_, _ in fresh.ccs.records("service_point"))
    first, second = fresh.ccs.touch("person", person), fresh.ccs.touch("service_point", point)
    with client_of(fresh) as ccs:
        assert {request["syncRequestId"] for request in search(ccs, REQUESTS)["syncRequestList"]} == {first, second}
        (request,) = search(ccs, REQUESTS, businessObject="C1-DACSContactSyncRequest", boStatus="PENDING")[
            "syncRequestList"
        ]
        assert (request["maintenanceObject"], request["pkValue1"]) == ("PERSON", person)
        assert re.fullmatch(r"\d{14}", request["syncRequestId"])
        assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d[+-]\d\d:\d\d", request["createDateTime"])
        assert search(ccs, REQUESTS, ids=[first], boStatus="ERROR")["syncRequestList"] == []
        assert search(ccs, REQUESTS, ids=[second, "1"])["totalNumberOfRecords"] == 1
        assert search(ccs, REQUESTS, 0, boStatus="PENDING")["totalNumberOfRecords"] == 2
        assert ccs.post(REQUESTS, json={"filters": {"boStatus": "NEW"}}).status_code == 400
        assert ccs.post(REQUESTS, json={"filters": {"businessObject": "X"}}).status_code == 400
        assert ccs.post(REQUESTS, json={"filters": {"ids": ["1"] * 501}}).status_code == 400


def test_requests_are_paged_by_keyset(fresh) -> None:
    made = {fresh.ccs.touch("person", id_) for id_, _ in fresh.ccs.records("person")}
    found: list[str] = []
    with client_of(fresh) as ccs:
        while True:
            page = search(ccs, REQUESTS, 7, boStatus="PENDING", **({"afterId": found[-1]} if found else {}))
            assert page["totalNumberOfRecords"] == len(made)
            found += [request["syncRequestId"] for request in page["syncRequestList"]]
            if not page["hasMore"]:
                break
    assert found == sorted(made)


def patch(client: httpx.Client, request_id: str, **body) -> httpx.Response:
    return client.patch(f"{TRANSITION}/{request_id}", json={"syncRequestId": request_id, "hasError": False} | body)


def error(comments: str = "name-too-long: Name has 300 characters", value: str = "") -> dict:
    parameters = [{"parameterSequence": 1, "messageParameterValue": value}]
    return {
        "hasError": True,
        "exceptionInfo": [
            {
                "sequence": 1,
                "messageCategory": 11508,
                "messageNumber": 17055,
                "comments": comments,
                "messageParameters": parameters,
            }
        ],
    }


@pytest.fixture
def request_id(fresh) -> str:
    person, *_ = (id_ for id_, _ in fresh.ccs.records("person"))
    return fresh.ccs.touch("person", person)


def test_each_transition_goes_one_state_on_and_a_final_state_refuses(fresh, request_id) -> None:
    with client_of(fresh) as ccs:
        for state in ("AWAITINGACK", "SYNCHRONIZED"):
            assert patch(ccs, request_id).status_code in (200, 204)
            assert fresh.ccs.sync_request(request_id).bo_status == state
        answer = patch(ccs, request_id)
        assert answer.status_code == 400
        assert "final" in problem(answer)["detail"]
    assert fresh.ccs.sync_request(request_id).history == ["PENDING", "AWAITINGACK", "SYNCHRONIZED"]


@pytest.mark.parametrize("claimed", [False, True])
def test_exceptions_lead_to_the_error_state(fresh, request_id, claimed) -> None:
    with client_of(fresh) as ccs:
        if claimed:
            patch(ccs, request_id)
        patch(ccs, request_id, **error())
        request = fresh.ccs.sync_request(request_id)
        assert request.bo_status == "ERROR"
        assert request.exceptions[0]["comments"].startswith("name-too-long")
        assert patch(ccs, request_id).status_code == 400


def test_external_ids_are_kept(fresh, request_id) -> None:
    ids = {"entityIdList": [{"entity": "D1-CONTACT", "externalPk1": "981"}]}
    with client_of(fresh) as ccs:
        patch(ccs, request_id)
        patch(ccs, request_id, externalIds=ids)
    assert fresh.ccs.sync_request(request_id).external_ids == ids


@pytest.mark.parametrize(
    "body",
    [
        error(comments="x" * 255),
        error(value="x" * 2001),
        {"hasError": "yes"},
        {"syncRequestId": "1"},
        {"hasError": True, "exceptionInfo": [{"comments": "no numbers"}]},
        {"externalIds": {"entityIdList": [{"entity": "D1-CONTACT"}]}},
    ],
)
def test_a_body_that_breaks_the_schema_changes_nothing(fresh, request_id, body) -> None:
    with client_of(fresh) as ccs:
        answer = patch(ccs, request_id, **body)
    assert answer.status_code == 400
    problem(answer)
    assert fresh.ccs.sync_request(request_id).bo_status == "PENDING"


def test_texts_at_their_limits_are_taken(fresh, request_id) -> None:
    with client_of(fresh) as ccs:
        assert patch(ccs, request_id, **error("x" * 254, "y" * 2000)).status_code == 204


def test_an_unknown_request_is_told(fresh) -> None:
    with client_of(fresh) as ccs:
        answer = patch(ccs, "12345678901234")
    assert answer.status_code == 404
    assert "12345678901234" in problem(answer)["detail"]


# Controls


def test_changes_on_request_over_http(fresh) -> None:
    with client_of(fresh, auth=None) as controls:
        summary = controls.post("/sandbox/ccs/changes", json={"count": 5, "kinds": ["person_email"]}).json()
        assert summary["changed"] == 5
        assert summary["by_kind"] == {"person_email": 5}
        pending = controls.get("/sandbox/ccs/summary").json()["sync_requests"]["PENDING"]
        assert pending == len(summary["sync_requests"])
        assert controls.post("/sandbox/ccs/changes", json={"count": 1, "kinds": ["flood"]}).status_code == 400
        assert controls.post("/sandbox/ccs/changes", json={"count": -1}).status_code == 400
        assert controls.post("/sandbox/ccs/changes", content=b"{").status_code == 400


@pytest.mark.parametrize("control", ["changes", "touch", "delete"])
def test_a_page_in_a_browser_changes_nothing(fresh, control: str) -> None:
    person, *_ = (id_ for id_, _ in fresh.ccs.records("person"))
    body = {"count": 5, "entity": "person", "id": person}
    before = fresh.ccs.summary()
    with client_of(fresh, auth=None) as controls:
        answer = controls.post(f"/sandbox/ccs/{control}", json=body, headers={"Origin": "https://example.com"})
    assert (answer.status_code, fresh.ccs.summary()) == (403, before)


def test_touch_and_delete_over_http(fresh) -> None:
    person, *_ = (id_ for id_, _ in fresh.ccs.records("person"))
    with client_of(fresh, auth=None) as controls:
        body = {"entity": "person", "id": person}
        assert len(controls.post("/sandbox/ccs/touch", json=body).json()["syncRequestId"]) == 14
        assert controls.post("/sandbox/ccs/delete", json=body).json() == {"deleted": 1}
        assert controls.post("/sandbox/ccs/delete", json=body).status_code == 400
    assert fresh.ccs.get("person", person) is None


def test_a_middleware_sees_every_call() -> None:
    seen: list[str] = []

    def spy(app):
        async def wrapped(scope, receive, send):
            seen.append(scope["type"])
            await app(scope, receive, send)

        return wrapped

    with Sandbox(SandboxConfig(persons=1), middleware=spy) as sandbox, client_of(sandbox) as ccs:
        ccs.get(HEALTH)
    assert "http" in seen


def test_records_are_json_objects_with_members_beyond_the_contract(ccs) -> None:
    person = search(ccs, PERSONS, 1)["personList"][0]
    assert person.keys() - {
        "personId", "personOrBusiness", "version", "names", "contactDetails", "emailAddress",
        "lifeSupportSensitiveLoad", "lifeSupportSensitiveLoadDescription", "purged",
    }  # fmt: skip
    assert json.dumps(person)
