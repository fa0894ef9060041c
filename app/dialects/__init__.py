"""The dialects: the bodies that other services' clients send, and the answers that they expect. One file a dialect."""

from app.dialects import hf, nim, roboflow
from app.dialects.base import Dialect

DIALECTS: tuple[Dialect, ...] = (hf.DIALECT, roboflow.DIALECT, nim.DIALECT)
BY_NAME: dict[str, Dialect] = {dialect.name: dialect for dialect in DIALECTS}
