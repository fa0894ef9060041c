"""The real server's behaviour with each case that it does not refuse: no rule is folklore.

Each test is named after its rule; those that the server refuses are in test_rules.py, driven by the cases.
Times are far apart: an execution takes 0.2 s or more where a test tells one from several.
"""

from __future__ import annotations

import shutil
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tritonclient import grpc as triton
from tritonclient.utils import InferenceServerException

ONE = np.array([[1, 2]], np.float32)
Prove = Callable[[str], Any]
Make = Callable[..., Any]
Read = Callable[[str], Any]


def texts(*given: str) -> Any:
    """Return an array of strings, one an item."""
    return np.array([[text] for text in given], np.object_)


@pytest.mark.parametrize("name", ["TG004", "TG004-hidden"])
def test_tg004_the_server_exits(name: str, case_of: Read, make_proof: Make) -> None:
    """Outside explicit mode a stray folder, hidden or not, is a model that fails: the server ends."""
    proof = make_proof(case_of(name), extra=("--model-control-mode=none", "--exit-on-error=true"))
    assert not proof.wait()
    assert "failed to load all models" in proof.log()


def test_tg005_loading_python_never_ends(case_of: Read, make_proof: Make) -> None:
    """Without model.py the Python backend neither loads nor refuses."""
    proof = make_proof(case_of("TG005-python"))
    assert proof.wait()
    assert "Deadline Exceeded" in proof.load("model", seconds=5)
    assert "Python model file not found" in proof.log()


def test_tg006_the_version_is_not_served(prove: Prove) -> None:
    """The server skips the folder `02` beside `1`: version 1 serves, and there is no version 2."""
    proof = prove("TG006")
    assert proof.client.get_model_metadata("model").versions == ["1"]
    with pytest.raises(InferenceServerException, match=r"not found|no version"):
        proof.infer("model", model_version="2")


def test_tg007_a_clone_does_not_load(case_of: Read, make_proof: Make, tmp_path: Path) -> None:
    """A clone lacks the empty version folder, and the server refuses it."""
    source = case_of("TG007").write(tmp_path / "source" / "models").parent
    shutil.rmtree(source / ".git")
    git = ("git", "-c", "user.name=a", "-c", "user.email=a@example.org", "-c", "init.defaultBranch=main")
    for arguments in (("init", "-q"), ("add", "-A"), ("commit", "-q", "-m", "models")):
        subprocess.run([*git, *arguments], cwd=source, check=True)
    proof = make_proof()
    subprocess.run([*git, "clone", "-q", str(source), str(tmp_path / "clone")], check=True)
    shutil.copytree(tmp_path / "clone" / "models", proof.models, dirs_exist_ok=True)
    assert proof.wait()
    assert "at least one version must be available" in proof.load("model")


def test_tg012_every_request_is_refused(prove: Prove) -> None:
    """A model with two inputs X loads, and then requires two."""
    with pytest.raises(InferenceServerException, match="expected 2 inputs but got 1"):
        prove("TG012").infer("model")


def test_tg015_another_parameter_gets_the_same_answer(prove: Prove) -> None:
    """Of two requests that differ only in a parameter, the second never reaches the model."""
    proof = prove("TG015")
    for value in ("first", "second"):
        proof.infer("model", parameters={"option": value})
    assert len(proof.calls("model")) == 1


def test_tg021_the_server_refuses_or_dies(case_of: Read, make_proof: Make) -> None:
    """Three items for a model of two keep it from loading, and sometimes crash the server."""
    proof = make_proof(case_of("TG021"))
    assert proof.wait()
    said = proof.load("model")
    assert "max allowed is 2" in said or "UNAVAILABLE" in said


@pytest.mark.parametrize("name", ["TG016", "TG016-zero"])
def test_tg016_the_model_gets_empty_strings(name: str, prove: Prove) -> None:
    """Random and zero data of TYPE_STRING are b''."""
    assert [call["inputs"] for call in prove(name).calls("model")] == [["b''"]]


@pytest.mark.parametrize("name", ["TG017", "TG017-unbatched"])
def test_tg017_nothing_is_warmed_up(name: str, prove: Prove) -> None:
    """A sample without batch_size never reaches the model, with and without max_batch_size."""
    assert prove(name).calls("model") == []


def test_tg044_requests_are_never_answered(case_of: Read, make_proof: Make) -> None:
    """20 callers fill the queue, and most get no answer."""
    proof = make_proof(case_of("TG044"))
    assert proof.wait()
    assert proof.load("model") == ""
    answers = [said for said, _ in proof.many("model", 20, seconds=3)]
    assert sum("Deadline Exceeded" in said for said in answers) >= 5


def test_tg044_the_server_dies(case_of: Read, make_proof: Make) -> None:
    """Where steps read the ensemble's own inputs, a full queue is a segmentation fault."""
    proof = make_proof(case_of("TG044-first"))
    assert proof.wait()
    assert proof.load("model") == ""
    proof.many("model", 20, seconds=3)
    deadline = time.monotonic() + 10
    while proof.server.is_alive() and time.monotonic() < deadline:
        time.sleep(0.1)
    assert not proof.server.is_alive()
    assert "Signal (11)" in proof.log()


def test_tg045_the_output_is_made_for_nothing(prove: Prove) -> None:
    """The step computes Z although nobody requests it."""
    proof = prove("TG045")
    proof.infer("model")
    assert [(call["asked"], call["made"]) for call in proof.calls("step")] == [([["Y"]], ["Y", "Z"])]


def test_tg046_only_single_items_pass(prove: Prove) -> None:
    """One item works, three do not."""
    proof = prove("TG046")
    proof.infer("model")
    with pytest.raises(InferenceServerException, match="unexpected shape"):
        proof.infer("model", array=np.ones((3, 2), np.float32))


def test_tg047_requests_are_never_answered(case_of: Read, make_proof: Make) -> None:
    """Neither the first request nor the second is answered: the server hangs, or dies."""
    proof = make_proof(case_of("TG047"))
    assert proof.wait()
    assert proof.load("model") == ""
    for _ in range(2):
        with pytest.raises(InferenceServerException, match=r"Deadline Exceeded|UNAVAILABLE"):
            proof.infer("model", seconds=3)


def test_tg051_nothing_is_batched(prove: Prove) -> None:
    """Without max_batch_size each request is an execution of its own, dynamic_batching or not."""
    proof = prove("TG051")
    proof.many("model", 5, array=ONE[0])
    assert [len(call["inputs"]) for call in proof.calls("model")] == [1] * 5


def test_tg052_requests_run_one_by_one(prove: Prove) -> None:
    """Waiting requests are not batched."""
    proof = prove("TG052")
    proof.many("model", 5)
    assert [len(call["inputs"]) for call in proof.calls("model")] == [1] * 5


def test_tg053_all_wait(prove: Prove) -> None:
    """Of 30 requests to a busy model none is refused; the last waits for all others."""
    answers = prove("TG053").many("model", 30, seconds=60)
    assert [said for said, _ in answers] == [""] * 30
    assert max(seconds for _, seconds in answers) > 4


@pytest.mark.parametrize("name", ["TG054", "TG054-timeout", "TG054-priorities"])
def test_tg054_requests_wait_half_a_second(name: str, prove: Prove) -> None:
    """Four simultaneous requests to a 5 ms model sometimes take 500 ms; without the policy never."""
    proof = prove(name)
    config = proof.models / "model" / "config.pbtxt"
    assert _stalls(proof) > 0
    text = config.read_text()
    begin = text.index("dynamic_batching")
    config.write_text(text[:begin] + "dynamic_batching { }\n")
    assert proof.load("model") == ""
    assert _stalls(proof, least=30) == 0


def _stalls(proof: Any, least: int = 0) -> int:
    """Return the number of rounds over 0.4 s; stop early after one of them and at least `least` rounds."""
    stalls = 0
    for number in range(600):
        stalls += any(seconds > 0.4 for _, seconds in proof.many("model", 4, apart=0))
        if number >= least and (stalls or least):
            break
    return stalls


def test_tg055_every_lone_request_expires(prove: Prove) -> None:
    """It waits for others until its timeout."""
    with pytest.raises(InferenceServerException, match="Request timeout expired"):
        prove("TG055").infer("model")


def test_tg056_the_timeout_is_ignored(prove: Prove) -> None:
    """Requests with a timeout of 100 ms wait longer, and are answered."""
    answers = prove("TG056").many("model", 3, timeout=100_000)
    assert [said for said, _ in answers] == [""] * 3
    assert max(seconds for _, seconds in answers) > 0.9


def test_tg057_the_timeout_is_noticed_late(prove: Prove) -> None:
    """A timeout of 100 ms behind a run of one second is reported after that second."""
    (_, first), (said, seconds) = prove("TG057").many("model", 2)
    assert first > 0.9
    assert "Request timeout expired" in said
    assert seconds > 0.8


def test_tg059_the_bound_is_ignored(prove: Prove) -> None:
    """A policy for level 1 with one waiting request refuses none."""
    assert [said for said, _ in prove("TG059").many("model", 5)] == [""] * 5


def test_tg081_a_class_has_no_name(prove: Prove) -> None:
    """The classification extension names the first element, and not the second."""
    proof = prove("TG081")
    wanted = [triton.InferRequestedOutput("Y", class_count=2)]
    answer = proof.infer("model", outputs=wanted).as_numpy("Y").tolist()
    assert answer == [[b"2.000000:1", b"1.000000:0:one"]]


def test_tg084_every_text_fails(prove: Prove) -> None:
    """The tokenizer gives 8 tokens, whatever its dims, to a network that takes 4."""
    with pytest.raises(InferenceServerException, match=r"Expected \[-1,4\], got \[1,8\]"):
        prove("TG084").infer("model", name="text", array=texts("good"))


def test_tg085_every_text_fails(prove: Prove) -> None:
    """The same where the tokenizer's dims are free."""
    with pytest.raises(InferenceServerException, match=r"Expected \[-1,4\], got \[1,8\]"):
        prove("TG085").infer("model", name="text", array=texts("good"))


def test_tg093_the_contract_changes(case_of: Read, make_proof: Make) -> None:
    """The variant refuses the same request that config.pbtxt accepts."""
    plain, other = (make_proof(case_of("TG093"), variant=variant) for variant in (None, "tensorrt"))
    for proof in (plain, other):
        assert proof.wait()
        assert proof.load("model") == ""
    plain.infer("model")
    with pytest.raises(InferenceServerException, match="unexpected shape"):
        other.infer("model")
