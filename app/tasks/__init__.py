"""The tasks that the gateway speaks. To add one: a file here, and its entry in `TASKS`."""

from app.tasks import classification, detection, sentiment
from app.tasks.base import Task

TASKS: tuple[Task, ...] = (classification.TASK, detection.TASK, sentiment.TASK)
BY_NAME: dict[str, Task] = {task.name: task for task in TASKS}
