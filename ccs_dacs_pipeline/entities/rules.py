"""The rules a record can break: stable names, which quarantine reports, error answers and figures quote."""

from enum import StrEnum


class Rule(StrEnum):
    """Why a record is quarantined. The value is the rule's stable name, ``description`` says it in words."""

    description: str

    def __new__(cls, name: str, description: str) -> "Rule":
        """Make a member of a name and its description."""
        member = str.__new__(cls, name)
        member._value_ = name
        member.description = description
        return member

    LONE_SURROGATE = "lone-surrogate", "A value holds half of a surrogate pair, which no encoding can carry."
    IMPOSSIBLE_DATE = "impossible-date", "A date is not a day of the calendar, or not written as CCS writes dates."
    NOT_A_NUMBER = "not-a-number", "A number is not a decimal number that a field can carry."
    NOT_A_BOOLEAN = "not-a-boolean", "A truth value is neither true nor false."
    UNLISTED_CODE = "unlisted-code", "A code is not in its value map, and the map quarantines such codes."
    REQUIRED_VALUE = "required-value", "A required column is empty."
    TOO_LONG = "too-long", "A value has more characters (Unicode code points, after cleaning) than its column takes."
    HOLDS_SEPARATOR = "holds-separator", "A value holds the file's separator, and the file knows no quoting."
    NOT_ENCODABLE = "not-encodable", "A value holds a character that the file's encoding cannot carry."
