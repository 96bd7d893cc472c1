"""What can go wrong between the pipeline and CCS.

Every error names the call (method and path, never a query, body or credential), what happened, and the way out. The
classes tell a caller what to do next: repeat later (`Transient`), repair something first (`Permanent`, `BadAnswer`,
`IncompleteRange`), wait (`RetryAfterTooLong`), or read the state before anything else (`TransitionUnknown`).
"""

from dataclasses import dataclass
from datetime import datetime


class CcsError(Exception):
    """The base of all errors of this room.

    Attributes:
        call: method and path of the call, for example `POST /rest/apis/cm/dacs/persons/search`.
        reason: what happened and the way out, without the call.
    """

    def __init__(self, call: str, reason: str) -> None:
        super().__init__(call, reason)
        self.call = call
        self.reason = reason

    def __str__(self) -> str:
        return f"{self.call}: {self.reason}"


class Transient(CcsError):
    """CCS could not be reached or was not able to answer, and the repetitions are used up. Later may do."""


class RetryAfterTooLong(CcsError):
    """CCS asked to be left alone for longer than is waited (ccs-rest.md, Limits).

    Attributes:
        seconds: how long CCS asked to wait.
        until: the moment from which it can be asked again.
    """

    def __init__(self, call: str, reason: str, seconds: float, until: datetime) -> None:
        super().__init__(call, reason)
        self.seconds = seconds
        self.until = until


@dataclass(frozen=True)
class Problem:
    """What a `problemDetailDocument` says (ccs-rest.md, Errors); stack trace and server message are left out.

    Attributes:
        title: the kind of problem.
        detail: the text of the message.
        category: message category, the last but one segment of `problemType`.
        number: message number, the last segment of `problemType`.
    """

    title: str | None = None
    detail: str | None = None
    category: int | None = None
    number: int | None = None

    def __str__(self) -> str:
        texts = " - ".join(text for text in (self.title, self.detail) if text)
        return texts if self.number is None else f"{texts} (message {self.category}/{self.number})".lstrip()


class Permanent(CcsError):
    """CCS understood the call and refuses it; the same call will be refused again.

    Attributes:
        status: HTTP status; `None` where there was none (a certificate that cannot be verified).
        problem: what CCS said about it; empty where a gateway answered.
    """

    def __init__(self, call: str, reason: str, status: int | None = None, problem: Problem | None = None) -> None:
        super().__init__(call, reason)
        self.status = status
        self.problem = problem or Problem()


class Rejected(Permanent):
    """A business error, about this one call: 400 or the like, as for the transition of a request that is final."""


class BadAnswer(CcsError):
    """An answer with status 200 that is not what the contract says."""


class IncompleteRange(CcsError):
    """A key range gave another number of entities than CCS says it holds (sync-lifecycle.md, Completeness).

    Attributes:
        received: entities received at the last reading.
        total: `totalNumberOfRecords` of that reading's last page.
    """

    def __init__(self, call: str, reason: str, received: int, total: int) -> None:
        super().__init__(call, reason)
        self.received = received
        self.total = total


class TransitionUnknown(CcsError):
    """A transition may or may not have taken effect: its state must be read before any repeat (ccs-rest.md)."""
