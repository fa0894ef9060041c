"""All rules, by subject. A new rule gets a code that was never used, such as one of TG060 to TG069."""

from __future__ import annotations

from collections.abc import Callable, Iterator

from modelctl.lint.repository import Model
from modelctl.lint.rule import Finding, Rule
from modelctl.lint.rules import batching, config, ensemble, files, links, machine, onnx, suppression, tensorrt, text

SUBJECTS: dict[str, tuple[Rule, ...]] = {
    "The linter itself": suppression.RULES,
    "Files and folders": files.RULES,
    "One config": config.RULES,
    "Ensembles": (*ensemble.RULES, *links.RULES),
    "Batches and queues": batching.RULES,
    "ONNX": onnx.RULES,
    "Labels and tokenizers": text.RULES,
    "TensorRT": tensorrt.RULES,
    "This machine": machine.RULES,
}
RULES: dict[str, Rule] = {rule.code: rule for rules in SUBJECTS.values() for rule in rules}
CHECKS: tuple[Callable[[Model], Iterator[Finding]], ...] = (
    *(files.check, config.check, ensemble.check, links.check, batching.check, onnx.check, text.check),
    *(tensorrt.check, machine.check),
)
