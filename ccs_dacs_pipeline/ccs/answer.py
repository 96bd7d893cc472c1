"""The body of a sync request's transition: what CCS is told about a request (ccs-rest.md, Sync requests)."""

from collections.abc import Mapping
from functools import partial
from typing import Annotated, Any, Self

from pydantic import AfterValidator, BaseModel, ConfigDict, StrictBool, model_validator
from pydantic.alias_generators import to_camel

MESSAGE_CATEGORY = 11508
"""The message category of our own errors, where a site sets no other (ccs-rest.md)."""
MESSAGE_NUMBER = 17055
"""The message number of our own errors, where a site sets no other (ccs-rest.md)."""
COMMENTS_LENGTH = 254
PARAMETER_LENGTH = 2000
ELLIPSIS = "…"
NO_REASON = "refused without a reason"


def _cut(text: str, length: int) -> str:
    return text if len(text) <= length else text[: length - len(ELLIPSIS)] + ELLIPSIS


def _was_cut(text: str, length: int) -> bool:
    return len(text) == length and text.endswith(ELLIPSIS)


class _Member(BaseModel):
    model_config = ConfigDict(alias_generator=to_camel, populate_by_name=True, frozen=True, extra="ignore")


class MessageParameter(_Member):
    """One parameter of a message, its value cut at 2,000 characters."""

    parameter_sequence: int
    message_parameter_value: Annotated[str, AfterValidator(partial(_cut, length=PARAMETER_LENGTH))] = ""


class ExceptionInfo(_Member):
    """One message of an error, its comments cut at 254 characters."""

    sequence: int = 1
    message_category: int = MESSAGE_CATEGORY
    message_number: int = MESSAGE_NUMBER
    comments: Annotated[str, AfterValidator(partial(_cut, length=COMMENTS_LENGTH))] = ""
    message_parameters: tuple[MessageParameter, ...] = ()

    @property
    def cut(self) -> int:
        """How many of its texts end in the ellipsis of a cut."""
        values = (parameter.message_parameter_value for parameter in self.message_parameters)
        return _was_cut(self.comments, COMMENTS_LENGTH) + sum(_was_cut(value, PARAMETER_LENGTH) for value in values)


class Answer(_Member):
    """A positive or negative answer to a sync request, its texts cut to what CCS takes.

    Attributes:
        has_error: whether the request goes to its error state; else it goes to its default next state.
        exception_info: the messages; an error has at least one, for without a message CCS would take it as positive.
        external_ids: DACS's ids, passed on as they are.

    Raises:
        ValueError: an error has no message, or a member is of a wrong type (`pydantic.ValidationError`).
    """

    has_error: StrictBool
    exception_info: tuple[ExceptionInfo, ...] = ()
    external_ids: Any = None

    @model_validator(mode="after")
    def _an_error_has_a_message(self) -> Self:
        if self.has_error and not self.exception_info:
            raise ValueError("an error needs at least one message, or CCS takes it as positive: use Answer.error")
        return self

    @property
    def cut(self) -> int:
        """How many texts were cut at their limit; each ends in an ellipsis (ccs-rest.md, Sync requests)."""
        return sum(message.cut for message in self.exception_info)

    @classmethod
    def positive(cls, external_ids: object = None) -> Self:
        """The answer that takes a request to its default next state."""
        return cls(has_error=False, external_ids=external_ids)

    @classmethod
    def error(cls, category: int, number: int, comments: str) -> Self:
        """The answer that takes a request to its error state, with one message of ours."""
        message = ExceptionInfo(message_category=category, message_number=number, comments=comments)
        return cls(has_error=True, exception_info=(message,))

    @classmethod
    def from_json(
        cls, document: Mapping[str, Any], *, category: int = MESSAGE_CATEGORY, number: int = MESSAGE_NUMBER
    ) -> Self:
        """Reads an answer from members named as in ccs-rest.md; unknown members are ignored.

        Args:
            document: an acknowledgement as DACS posts it, or what `to_json` gave.
            category: message category where DACS reports an error without one.
            number: message number where DACS reports an error without one.

        Raises:
            ValueError: `hasError` is missing, or a member is of a wrong type (`pydantic.ValidationError`).
        """
        default = {"messageCategory": category, "messageNumber": number}
        messages = _plain_list(document.get("exceptionInfo"), ExceptionInfo)
        if document.get("hasError") is True and not messages:
            messages = [{"comments": NO_REASON}]
        if isinstance(messages, list):
            messages = [_message({"sequence": n, **default}, message) for n, message in enumerate(messages, start=1)]
        return cls.model_validate({**document, "exceptionInfo": messages})

    def to_json(self) -> dict[str, Any]:
        """The members of the PATCH body but for `syncRequestId`, named as in ccs-rest.md."""
        body = self.model_dump(by_alias=True, mode="json", exclude={"external_ids"})
        if not self.exception_info:
            del body["exceptionInfo"]
        return body if self.external_ids is None else body | {"externalIds": self.external_ids}


def _plain_list(value: object, item: type[_Member]) -> object:
    """The list of a plural member, which may be wrapped or be its one item alone; all else is left for the validation.

    The same two shapes that CCS's own plural members may have, and the collapsed one (ccs-rest.md, JSON).
    """
    if not isinstance(value, dict):
        return value or []
    if value.keys() & {field.alias for field in item.model_fields.values()}:
        return [value]
    lists = [one for one in value.values() if isinstance(one, list)]
    return lists[0] if len(lists) == 1 else value or []


def _message(default: Mapping[str, int], message: object) -> object:
    """A message with defaults for its missing and null members, and for those of its parameters."""
    if not isinstance(message, dict):
        return message
    parameters = _plain_list(message.get("messageParameters"), MessageParameter)
    if isinstance(parameters, list):
        parameters = [_completed({"parameterSequence": n}, one) for n, one in enumerate(parameters, start=1)]
    return _completed(default, {**message, "messageParameters": parameters})


def _completed(default: Mapping[str, int], item: object) -> object:
    """An object with defaults for its missing and null members; what is none is left for the validation."""
    if not isinstance(item, dict):
        return item
    return {**default} | {name: value for name, value in item.items() if value is not None}
