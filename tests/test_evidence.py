"""What a question's answer is kept under: two that are asked about other limits are two."""

import pytest

from cds_service.evidence import Answer, Trace, finding, question


class Asked:
    """Whoever carries a trace."""

    def __init__(self) -> None:
        self.trace = Trace()
        self.times = 0


@question
def more_than(patient: Asked, limit: int) -> Answer | bool:
    """More than {}?"""
    patient.times += 1
    return limit < 5


@finding
def twice(patient: Asked, number: int) -> int:
    """A number, doubled."""
    patient.times += 1
    return 2 * number


def test_a_question_is_answered_once_for_each_limit() -> None:
    patient = Asked()
    record = patient.trace.begin("row")
    assert [more_than(patient, x).value for x in (4, 6, 4)] == [True, False, True]
    assert patient.times == 2
    assert [x.text for x in record.because] == ["More than 4?", "More than 6?", "More than 4?"]


def test_a_finding_is_made_once_for_each_argument() -> None:
    patient = Asked()
    assert [twice(patient, x) for x in (1, 2, 1)] == [2, 4, 2]
    assert patient.times == 2


@pytest.mark.parametrize(("ask", "name"), [(more_than, "limit"), (twice, "number")])
def test_what_is_given_by_keyword_is_refused_not_mixed_up(ask: object, name: str) -> None:
    assert callable(ask)
    with pytest.raises(TypeError, match=name):
        ask(Asked(), **{name: 4})
