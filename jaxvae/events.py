"""TensorBoard's event files, written epoch by epoch, with each epoch in them once.

A run that was killed has epochs in its file that it will train again. Its next start begins a file
of its own with the mark that TensorBoard knows for this: what came before, from that step on, no
longer counts. Written here and not by TensorBoard's writer, whose thread meets a full disk where
nobody can catch it, and whose buffer a killed process takes along.
"""

import os
import socket
import time
from pathlib import Path
from typing import Any

_FORMAT = "brain.Event:2"


class EventFile:
    """One start of a run, as a file for TensorBoard.

    Args:
      folder: where the files of all its starts are; made if missing.
      first_epoch: the epoch this start begins with.

    Attributes:
      path: the file.
    """

    def __init__(self, folder: Path, *, first_epoch: int):
        from tensorboard.compat.proto import event_pb2

        folder.mkdir(parents=True, exist_ok=True)
        # Read in the order of their names, so the clock is finer here than a restart is quick.
        name = f"events.out.tfevents.{time.time():017.6f}.{socket.gethostname()}.{os.getpid()}"
        self.path = folder / name
        self._add(event_pb2.Event(wall_time=time.time(), file_version=_FORMAT))
        start = event_pb2.SessionLog(status=event_pb2.SessionLog.START)
        # At the first start too: TensorBoard takes a mark for a restart only if it saw one before.
        self._add(event_pb2.Event(wall_time=time.time(), step=first_epoch, session_log=start))

    def append(self, line: dict[str, Any]) -> None:
        """Adds an epoch: of a line of `metrics.jsonl`, the numbers with a stage in their name."""
        from tensorboard.compat.proto import event_pb2, summary_pb2

        values = [
            summary_pb2.Summary.Value(tag=name, simple_value=value)
            for name, value in line.items()
            if "/" in name and isinstance(value, (int, float))
        ]
        summary = summary_pb2.Summary(value=values)
        self._add(event_pb2.Event(wall_time=time.time(), step=line["epoch"], summary=summary))

    def _add(self, event) -> None:
        from tensorboard.summary.writer.record_writer import RecordWriter

        with self.path.open("ab") as file:
            RecordWriter(file).write(event.SerializeToString())
