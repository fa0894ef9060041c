"""Requests become one batch and come back as answers; an error stays with its request."""

from types import SimpleNamespace

import numpy as np
import pytest

from stages import serving
from stages.serving import RefusalError


def run(requests, *, read=lambda request: request, compute=None, answer=lambda request, results: results):
    """Serve lists of numbers; the answer doubles each number."""
    calls = []

    def double(items):
        calls.append(list(items))
        return [2 * item for item in items]

    answers = serving.serve(
        requests, read=read, compute=compute or double, answer=answer, refuse=lambda refusal: refusal.message("here")
    )
    return answers, calls


def test_the_items_of_all_requests_are_computed_at_once_and_answered_in_order():
    assert run([[1], [2, 3], [4]]) == ([[2], [4, 6], [8]], [[1, 2, 3, 4]])


def test_no_requests_and_no_items_need_no_computing():
    assert run([]) == ([], [])
    assert run([[], []]) == ([[], []], [])


def test_a_request_that_cannot_be_read_is_refused_alone():
    def read(request):
        if request == [2]:
            raise RefusalError("invalid_parameter", "No twos.")
        return request

    assert run([[1], [2], [3]], read=read) == ([[2], "invalid_parameter@here: No twos.", [6]], [[1, 3]])


def test_a_refused_item_refuses_its_request_alone():
    def compute(items):
        return [RefusalError("text_empty", f"Not {item}.") if item < 0 else item for item in items]

    answers, _ = run([[1], [2, -3, -4], [5]], compute=compute)
    assert answers == [[1], "text_empty@here: Not -3.", [5]]


def test_when_the_batch_fails_each_item_is_computed_alone():
    sizes = []

    def compute(items):
        sizes.append(len(items))
        if 0 in items:
            raise ZeroDivisionError
        return items

    answers, _ = run([[1], [0], [2]], compute=compute)
    assert answers == [[1], "backend_error@here: the step failed on this item", [2]]
    assert sizes == [3, 1, 1, 1]


def test_a_single_failing_item_is_not_computed_twice():
    calls = []

    def compute(items):
        calls.append(items)
        raise RefusalError("text_empty", "Empty.")

    assert run([[1]], compute=compute)[0] == ["text_empty@here: Empty."]
    assert calls == [[1]]


def test_what_fails_unforeseen_is_a_backend_error_without_detail(caplog):
    def read(request):
        raise KeyError("/secret/path")

    assert run([[1]], read=read)[0] == ["backend_error@here: the step failed on this item"]
    assert "/secret/path" in caplog.text


def test_an_answer_that_cannot_be_made_is_refused_alone():
    def answer(request, results):
        if request == [2]:
            raise ValueError("no")
        return results

    assert run([[1], [2]], answer=answer)[0] == [[2], "backend_error@here: the step failed on this item"]


def test_a_sentence_is_not_cut_by_what_it_quotes():
    """A NUL or line end in a caller's input would cut the message on its way through Triton."""
    assert (
        RefusalError("invalid_parameter", "a\0b\nc é 猫.").message("here")
        == "invalid_parameter@here: a\ufffdb\ufffdc é 猫."
    )


def test_a_refusal_is_an_invalid_argument_to_triton():
    """Triton gets code, step and sentence, with the gRPC status that the gateway reads as a refusal."""
    api = SimpleNamespace(
        TritonError=lambda message, code: (message, code), InferenceResponse=lambda error: SimpleNamespace(error=error)
    )
    api.TritonError.INVALID_ARG = "invalid"
    response = serving.refuser(api, "here")(RefusalError("text_empty", "Empty."))
    assert response.error == ("text_empty@here: Empty.", "invalid")


def test_parameters_come_from_json_text():
    assert serving.parameters("") == {}
    assert serving.parameters('{"top_k": 3, "classes": "[1]"}') == {"top_k": 3, "classes": "[1]"}


def test_a_number_is_taken_within_its_bounds_and_has_a_default():
    assert serving.number({"x": 0.25}, "x", 0.5, 0, 1) == 0.25
    assert serving.number({}, "x", 0.5, 0, 1) == 0.5
    assert serving.number({"x": 0}, "x", 0.5, 0, 1) == 0
    assert serving.number({"x": 1}, "x", 0.5, 0, 1) == 1


@pytest.mark.parametrize("value", [-0.1, 1.1, "0.5", None, True, float("nan"), float("inf"), [0.5]])
def test_a_number_out_of_bounds_or_of_another_kind_is_refused(value):
    with pytest.raises(RefusalError, match="x must be between 0 and 1") as caught:
        serving.number({"x": value}, "x", 0.5, 0, 1)
    assert caught.value.code == "invalid_parameter"


def test_padding_fills_short_rows_up():
    rows = [np.array([1, 2, 3], np.int32), np.array([], np.int32), np.array([4], np.int32)]
    padded = serving.pad(rows, -1)
    assert padded.dtype == np.int32
    assert padded.tolist() == [[1, 2, 3], [-1, -1, -1], [4, -1, -1]]


def test_padding_keeps_the_shape_of_what_a_row_holds():
    padded = serving.pad([np.ones((2, 4), np.float32), np.ones((0, 4), np.float32)], 0)
    assert padded.shape == (2, 2, 4)
    assert padded[1].sum() == 0


def test_padding_strings_keeps_them_whole():
    rows = [np.array([b"espresso", b"cup"], object), np.array([b"a rather long label"], object)]
    assert serving.pad(rows, b"").tolist() == [[b"espresso", b"cup"], [b"a rather long label", b""]]
