"""TensorBoard's event files, written epoch by epoch, with each epoch in them once.

Curves; the KL of every latent dimension as a histogram; at the end the final metrics as the hparams
plugin shows them.

A run that was killed has epochs in its file that it will train again. Its next start begins a new
file with a START event, on which TensorBoard drops earlier data from that step on. TensorBoard's
own writer is not used, because its thread meets a full disk where the error can't be caught, and
its buffer is lost with a killed process.
"""

import importlib.util
import os
import socket
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from jaxvae.runtime.escapes import escaped

KL_PER_DIMENSION = "val/kl_per_dimension"
_FORMAT = "brain.Event:2"
_BINS = 30
"""Bins of a histogram, as many as TensorBoard draws."""


def is_installed() -> bool:
    """Returns whether TensorBoard is installed."""
    return importlib.util.find_spec("tensorboard") is not None


class EventFile:
    """The event file of one start of a run.

    Args:
      folder: the folder of all the run's event files, made if missing.
      first_epoch: the epoch this start begins with.

    Attributes:
      path: the file.
    """

    def __init__(self, folder: Path, *, first_epoch: int):
        from tensorboard.compat.proto import event_pb2

        folder.mkdir(parents=True, exist_ok=True)
        # TensorBoard reads files in name order, so the timestamp has microseconds.
        name = f"events.out.tfevents.{time.time():017.6f}.{socket.gethostname()}.{os.getpid()}"
        self.path = folder / name
        self._add(event_pb2.Event(wall_time=time.time(), file_version=_FORMAT))
        start = event_pb2.SessionLog(status=event_pb2.SessionLog.START)
        # At the first start, too: TensorBoard takes a START for a restart only if it saw another.
        self._add(event_pb2.Event(wall_time=time.time(), step=first_epoch, session_log=start))

    def append(
        self, line: Mapping[str, Any], kl_per_dimension: Sequence[float] | None = None
    ) -> None:
        """Adds an epoch.

        Args:
          line: a line of `metrics.jsonl`; numbers with a stage in their name become curves.
          kl_per_dimension: `[L]` nats, if the epoch has a validation.
        """
        values = _scalars(line)
        if kl_per_dimension is not None:
            values.append(_histogram(KL_PER_DIMENSION, kl_per_dimension))
        self._add_summary(values, step=line["epoch"])

    def _add_summary(self, values: list, *, step: int) -> None:
        from tensorboard.compat.proto import event_pb2, summary_pb2

        summary = summary_pb2.Summary(value=values)
        self._add(event_pb2.Event(wall_time=time.time(), step=step, summary=summary))

    def _add(self, event) -> None:
        from tensorboard.summary.writer.record_writer import RecordWriter

        with self.path.open("ab") as file:
            RecordWriter(file).write(event.SerializeToString())


def write_final(
    folder: Path, *, fields: Mapping[str, Any], metrics: Mapping[str, Any], epochs: int
) -> None:
    """Writes config and final metrics for TensorBoard's hparams page, which shows the last file's.

    Final metrics are written at step `epochs + 1`, so that the START event of a later file, of this
    function or of further training, purges them.

    Args:
      folder: the folder of the event files.
      fields: the config as {dotted name: value}.
      metrics: final metrics by name; values that are not numbers are left out.
      epochs: epochs trained.
    """
    from tensorboard.compat.proto import summary_pb2
    from tensorboard.plugins.hparams import api_pb2, metadata, plugin_data_pb2

    scalars = _scalars(metrics)
    infos = [
        api_pb2.MetricInfo(name=api_pb2.MetricName(tag=value.tag), display_name=value.tag)
        for value in scalars
    ]
    types = {
        "bool_value": api_pb2.DATA_TYPE_BOOL,
        "number_value": api_pb2.DATA_TYPE_FLOAT64,
        "string_value": api_pb2.DATA_TYPE_STRING,
    }
    experiment = api_pb2.Experiment(
        hparam_infos=[
            api_pb2.HParamInfo(name=field, type=types[_kind(value)])
            for field, value in fields.items()
        ],
        metric_infos=infos,
    )
    start = plugin_data_pb2.SessionStartInfo(start_time_secs=time.time())
    for field, value in fields.items():
        kind = _kind(value)
        setattr(
            start.hparams[field], kind, escaped(str(value)) if kind == "string_value" else value
        )
    end = plugin_data_pb2.SessionEndInfo(
        status=api_pb2.Status.STATUS_SUCCESS, end_time_secs=time.time()
    )
    data = plugin_data_pb2.HParamsPluginData
    pages = {
        metadata.EXPERIMENT_TAG: data(experiment=experiment),
        metadata.SESSION_START_INFO_TAG: data(session_start_info=start),
        metadata.SESSION_END_INFO_TAG: data(session_end_info=end),
    }
    values = [
        summary_pb2.Summary.Value(
            tag=tag, metadata=metadata.create_summary_metadata(page), tensor=metadata.NULL_TENSOR
        )
        for tag, page in pages.items()
    ]
    file = EventFile(folder, first_epoch=epochs + 1)
    file._add_summary([*values, *scalars], step=epochs + 1)


def _kind(value: Any) -> str:
    if isinstance(value, bool):
        return "bool_value"
    return "number_value" if isinstance(value, int | float) else "string_value"


def _scalars(values: Mapping[str, Any]) -> list:
    from tensorboard.compat.proto import summary_pb2

    return [
        summary_pb2.Summary.Value(tag=name, simple_value=value)
        for name, value in values.items()
        if "/" in name and isinstance(value, int | float) and not isinstance(value, bool)
    ]


def _histogram(name: str, values: Sequence[float]):
    from tensorboard.compat.proto import histogram_pb2, summary_pb2

    array = np.asarray(values, np.float64)
    counts, edges = np.histogram(array, _BINS)
    return summary_pb2.Summary.Value(
        tag=name,
        histo=histogram_pb2.HistogramProto(
            min=array.min(),
            max=array.max(),
            num=len(array),
            sum=array.sum(),
            sum_squares=np.square(array).sum(),
            bucket_limit=edges[1:],
            bucket=counts,
        ),
    )
