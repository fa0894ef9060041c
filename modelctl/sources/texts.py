"""A text network in ONNX -> a draft: its maximum length, and whether padding changes its answers.

sample texts --tokenizer.json--> tokens --network, for one text, with padding and in a batch--> length, batch, sizes
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
from tokenizers import Tokenizer

from modelctl.errors import CommandError
from modelctl.graphs import batch, networks, surgery, trial, trim
from modelctl.graphs.networks import Arrays, Port
from modelctl.reference.samples import SAMPLES
from modelctl.sources import missing
from modelctl.sources.draft import (
    BOXES,
    PICTURES,
    Draft,
    Order,
    activation_of,
    batch_note,
    labels_for,
    refuse_idle,
    spec_of,
    store,
)

INPUTS = ("input_ids", "attention_mask", "token_type_ids")
DEFAULT_LENGTH = 512


def from_graph(
    order: Order, model: onnx.ModelProto, inputs: list[Port], outputs: list[Port], known: dict[str, Any]
) -> Draft:
    """Return the draft of a text classifier whose tokenizer the user names.

    Raises:
        CommandError: when its inputs or outputs do not fit, or when an option is missing or has no effect.

    """
    refuse_idle(order, (*PICTURES, *BOXES), "a text network")
    unknown = [port.name for port in inputs if port.name not in INPUTS]
    if unknown or "input_ids" not in {port.name for port in inputs}:
        has = ", ".join(port.name for port in inputs)
        raise CommandError(f"A text network takes {', '.join(INPUTS)}; this one takes {has}: give another --task.")
    odd = [port for port in inputs if len(port.shape) != 2 or port.dtype not in ("INT32", "INT64")]
    if odd:
        raise CommandError(
            f"The input '{odd[0].name}' is {odd[0].dtype} {list(odd[0].shape)}; tokens are INT64 or INT32 "
            "[batch, length]: give another --task."
        )
    if len(outputs) != 1 or len(outputs[0].shape) != 2:
        raise CommandError("A text classifier has one output [batch, classes]: give another --task.")
    missing.require_of_texts(order, model, outputs[0], known)
    limit = (_tokenizer(order.options.tokenizer).truncation or {}).get("max_length")
    length = inputs[0].shape[1] or order.options.max_length or limit or DEFAULT_LENGTH
    return text_draft(order, model, inputs, outputs[0], length, order.options.tokenizer, known)


def text_draft(
    order: Order,
    model: onnx.ModelProto,
    inputs: list[Port],
    output: Port,
    length: int,
    tokenizer: Path,
    known: dict[str, Any],
) -> Draft:
    """Return the draft of a text network; one of free length is rewritten to cut its padding (`graphs.trim`).

    Args:
        order: the call of `modelctl add`.
        model: the network, which is changed.
        inputs: its inputs, INT64 or INT32 [N, L].
        output: its logits or probabilities [N, classes].
        length: the maximum number of tokens.
        tokenizer: tokenizer.json.
        known: what the source knows: `labels`, `license`, `pad_id`, `truncation_side`, `activation`.

    Raises:
        CommandError: when it cannot be served.

    """
    if order.options.max_length and order.options.max_length > length:
        raise CommandError(f"The network reads {length} tokens at most, --max-length is {order.options.max_length}.")
    is_free = all(port.shape[1] is None for port in inputs)
    if not is_free and order.options.max_length and order.options.max_length < length:
        raise CommandError(f"The network reads exactly {length} tokens: omit --max-length.")
    length = min(length, order.options.max_length or length) if is_free else length
    read = _tokenizer(tokenizer)
    pad = known.get("pad_id", (read.padding or {}).get("pad_id", 0))
    side = known.get("truncation_side", (read.truncation or {}).get("direction", "right"))
    surgery.free_batch(model)
    notes = []
    if is_free and "attention_mask" in {port.name for port in inputs} and not trim.is_trimmed(model):
        try:
            model = trim.trim_to_longest(model)
        except (ValueError, onnx.checker.ValidationError) as error:
            text = " ".join(str(error).split())[:200]
            raise CommandError(f"The network cannot be made to cut its padding: {text}: export it again.") from error
        notes.append("The network cuts its own padding, so texts of different lengths share a batch.")
    path = order.work / "model.onnx"
    store(model, path)
    tokens, short = _tokens(read, inputs, length, pad)
    alone = {name: array[1:, :short] for name, array in tokens.items()}
    ran = trial.run(path, [*batch.feeds(tokens)[: batch.AGAIN], *([alone] if is_free else [])])
    try:
        fits, made = batch.fits(ran), [ran.made(run)[output.name] for run in (batch.FIRST, batch.SECOND)]
    except CommandError as error:
        raise CommandError(f"With {length} tokens: {error} If it reads fewer, give --max-length.") from error
    _require_rows(batch.whole(ran))
    scores = np.concatenate(made)
    if is_free:
        _require_padding(ran.made(len(ran.runs) - 1)[output.name][0], scores[1])
    largest = order.options.max_batch_size if fits else 1
    spec = spec_of(
        order,
        known.get("license", "unknown"),
        task="text-classification",
        preprocess={"max_length": length, "pad_id": pad, "truncation_side": side},
        network={
            "inputs": {port.name: {"name": port.name, "dtype": port.dtype} for port in inputs},
            "outputs": {"logits": {"name": output.name, "dtype": output.dtype, "dims": list(scores.shape[1:])}},
            "batching": {"max_batch_size": largest},
        },
        postprocess={"activation": known.get("activation") or activation_of(order, scores)},
    )
    labels = labels_for(order, scores.shape[-1], known.get("labels", []))
    return Draft(spec, path, labels, tokenizer=tokenizer, notes=notes + batch_note(largest))


def _tokenizer(path: Path) -> Tokenizer:
    try:
        return Tokenizer.from_file(str(path))
    except Exception as error:
        text = " ".join(str(error).split())[:200]
        raise CommandError(
            f"{path} is not a tokenizer.json: {text}: give the file of the tokenizers library."
        ) from error


def _tokens(tokenizer: Tokenizer, inputs: list[Port], length: int, pad: int) -> tuple[Arrays, int]:
    """Return the tokens of a text of full length and of a short, padded one, each [2, length]; and the short length."""
    texts = (SAMPLES / "texts.txt").read_text("utf-8").splitlines()
    tokenizer.enable_truncation(length)
    tokenizer.no_padding()
    long, short = tokenizer.encode(" ".join(texts * (length // 50 + 1))), tokenizer.encode(texts[0])
    shape = (2, length)
    ids, mask = np.full(shape, pad), np.zeros(shape, np.int64)
    beginning = short.ids[: max(1, length // 2)]  # so that padding is tried with any length
    for row, tokens in enumerate((long.ids, beginning)):
        ids[row, : len(tokens)], mask[row, : len(tokens)] = tokens, 1
    rows = {"input_ids": ids, "attention_mask": mask, "token_type_ids": np.zeros(shape)}
    return {port.name: rows[port.name].astype(networks.NUMPY[port.dtype]) for port in inputs}, len(beginning)


def _require_rows(whole: dict[str, list[int]]) -> None:
    """Raise CommandError when an output's first axis is not the batch."""
    for name, sizes in whole.items():
        raise CommandError(
            f"The first axis of the output '{name}' is not the batch: one text gives {sizes}. Export the network with "
            "a batch as its first axis, or serve its tensors whole with --task none."
        )


def _require_padding(alone: Any, padded: Any) -> None:
    """Raise CommandError when padding behind a text changes its answer."""
    if not np.allclose(alone, padded, rtol=1e-3, atol=1e-4):
        raise CommandError(
            "The network's answer changes with the padding behind a text, which serving needs: "
            "export it with an attention_mask that it respects."
        )
