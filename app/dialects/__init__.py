"""The dialects: bodies that clients of other services send, and answers that they expect. One file for each."""

from app.dialects import hf, nim, roboflow
from app.dialects.base import Dialect

DIALECTS: tuple[Dialect, ...] = (hf.DIALECT, roboflow.DIALECT, nim.DIALECT)
BY_NAME: dict[str, Dialect] = {dialect.name: dialect for dialect in DIALECTS}
