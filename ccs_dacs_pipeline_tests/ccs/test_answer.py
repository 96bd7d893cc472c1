"""The body of a transition (ccs-rest.md, Sync requests)."""

import json

import pytest

from ccs_dacs_pipeline.ccs import Answer, ExceptionInfo
from ccs_dacs_pipeline.ccs.answer import NO_REASON

NEGATIVE = {
    "hasError": True,
    "exceptionInfo": [
        {
            "sequence": 1,
            "messageCategory": 11508,
            "messageNumber": 17055,
            "comments": "too-long: Name",
            "messageParameters": [{"parameterSequence": 1, "messageParameterValue": "Name"}],
        }
    ],
    "externalIds": {"entityIdList": [{"entity": "D1-CONTACT", "externalPk1": "12"}]},
}


def test_a_negative_answer_reads_and_prints_as_the_contract_names_its_members() -> None:
    assert Answer.from_json(NEGATIVE).to_json() == NEGATIVE


def test_a_positive_answer_passes_the_external_ids_on_as_they_are() -> None:
    ids = {"entityIdList": [{"entity": "D1-CONTACT", "externalPk1": 7, "odd": [None, 1.50]}]}
    assert Answer.positive(ids).to_json() == {"hasError": False, "externalIds": ids}
    assert Answer.positive().to_json() == {"hasError": False}


def test_an_error_of_ours_is_one_message() -> None:
    assert Answer.error(11508, 17055, "unlisted-code: SP Source Status").to_json() == {
        "hasError": True,
        "exceptionInfo": [
            {
                "sequence": 1,
                "messageCategory": 11508,
                "messageNumber": 17055,
                "comments": "unlisted-code: SP Source Status",
                "messageParameters": [],
            }
        ],
    }


def test_texts_of_just_the_limit_stay_and_longer_ones_are_cut_with_an_ellipsis_and_counted() -> None:
    whole = Answer.error(1, 2, "😀" * 254)
    assert whole.exception_info[0].comments == "😀" * 254
    assert whole.cut == Answer.error(1, 2, "in short…").cut == 0
    parameters = [{"parameterSequence": n, "messageParameterValue": "x" * (1999 + n)} for n in (1, 2)]
    message = {"sequence": 1, "comments": "😀" * 255, "messageParameters": parameters}
    cut = Answer.from_json({"hasError": True, "exceptionInfo": [message]})
    assert cut.exception_info[0].comments == "😀" * 253 + "…"
    assert [len(parameter.message_parameter_value) for parameter in cut.exception_info[0].message_parameters] == [
        2000
    ] * 2
    assert cut.cut == 2
    assert Answer.from_json(json.loads(json.dumps(cut.to_json()))) == cut, "cut texts survive storage, and their count"


def test_unknown_members_of_an_acknowledgement_are_ignored() -> None:
    document = {"syncRequestId": "85810617092033", "ackId": "a1", "hasError": False, "surprise": {"x": 1}}
    assert Answer.from_json(document) == Answer.positive()


@pytest.mark.parametrize("messages", [None, []])
def test_an_error_without_a_message_gets_one_since_ccs_would_take_it_as_positive(messages: object) -> None:
    answer = Answer.from_json({"hasError": True, "exceptionInfo": messages}, category=90000, number=7)
    (message,) = answer.exception_info
    assert (message.message_category, message.message_number) == (90000, 7)
    assert message.comments
    with pytest.raises(ValueError, match="at least one message"):
        Answer(has_error=True)


def test_missing_members_of_a_message_have_defaults_and_messages_are_numbered() -> None:
    answer = Answer.from_json({"hasError": True, "exceptionInfo": [{"comments": None}, {"messageNumber": "12"}]})
    assert answer.exception_info == (
        ExceptionInfo(sequence=1),
        ExceptionInfo(sequence=2, message_number=12),
    )


MESSAGE = {"sequence": 1, "messageCategory": 7, "messageNumber": 12, "comments": "too-long: Name"}


@pytest.mark.parametrize(
    "messages",
    [
        [MESSAGE],
        {"exceptionInfoList": [MESSAGE]},
        {"anyName": [MESSAGE], "note": "ignored"},
        MESSAGE,
    ],
)
def test_messages_come_plain_wrapped_or_collapsed(messages: object) -> None:
    answer = Answer.from_json({"hasError": True, "exceptionInfo": messages})
    assert answer.to_json()["exceptionInfo"] == [{**MESSAGE, "messageParameters": []}]


PARAMETER = {"parameterSequence": 1, "messageParameterValue": "Name"}


@pytest.mark.parametrize(
    "parameters",
    [
        [PARAMETER],
        {"messageParametersList": [PARAMETER]},
        PARAMETER,
        [{"parameterSequence": None, "messageParameterValue": "Name"}],
    ],
)
def test_parameters_of_a_message_come_so_too(parameters: object) -> None:
    document = {"hasError": True, "exceptionInfo": [{**MESSAGE, "messageParameters": parameters}]}
    assert Answer.from_json(document).to_json()["exceptionInfo"] == [{**MESSAGE, "messageParameters": [PARAMETER]}]


@pytest.mark.parametrize("nothing", [None, [], {}, {"exceptionInfoList": []}])
def test_no_messages_in_any_shape_are_none(nothing: object) -> None:
    assert Answer.from_json({"hasError": False, "exceptionInfo": nothing}) == Answer.positive()
    (message,) = Answer.from_json({"hasError": True, "exceptionInfo": nothing}).exception_info
    assert message.comments == NO_REASON


def test_a_parameter_without_a_value_is_an_empty_one() -> None:
    parameters = [{"messageParameterValue": None}, {}]
    answer = Answer.from_json({"hasError": True, "exceptionInfo": [{**MESSAGE, "messageParameters": parameters}]})
    assert [one.parameter_sequence for one in answer.exception_info[0].message_parameters] == [1, 2]
    assert {one.message_parameter_value for one in answer.exception_info[0].message_parameters} == {""}


@pytest.mark.parametrize(
    "document",
    [
        {},
        {"hasError": None},
        {"hasError": "false"},
        {"hasError": 0},
        {"hasError": True, "exceptionInfo": ["text"]},
        {"hasError": True, "exceptionInfo": {"one": [MESSAGE], "other": [MESSAGE]}},
        {"hasError": True, "exceptionInfo": {"note": "text"}},
        {"hasError": True, "exceptionInfo": [{"messageParameters": {"one": [], "other": []}}]},
    ],
)
def test_what_is_no_verdict_is_refused(document: dict[str, object]) -> None:
    with pytest.raises(ValueError, match=r"hasError|exceptionInfo"):
        Answer.from_json(document)
