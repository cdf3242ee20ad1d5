"""The log of a robot session: what was seen, chosen, sent, and what came of it, in one kill-safe MCAP file."""

from robots.log.labels import Label, append_label, labels_path, read_labels
from robots.log.reader import Episode, Header, Log, read_log, verify
from robots.log.scan import DAMAGED, SEALED, TORN, Integrity
from robots.log.schema import SECTIONS, TIMES, Event, Shadow, Step, plain
from robots.log.writer import Image, LogWriter, Session, Statistics, log_path

__all__ = [
    "DAMAGED",
    "SEALED",
    "SECTIONS",
    "TIMES",
    "TORN",
    "Episode",
    "Event",
    "Header",
    "Image",
    "Integrity",
    "Label",
    "Log",
    "LogWriter",
    "Session",
    "Shadow",
    "Statistics",
    "Step",
    "append_label",
    "labels_path",
    "log_path",
    "plain",
    "read_labels",
    "read_log",
    "verify",
]
