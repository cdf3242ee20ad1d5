"""The log of a robot session: what was seen, chosen, sent, and what came of it, in one kill-safe MCAP file."""

from robots.log.episode import Episode
from robots.log.header import Header, Session, log_path
from robots.log.identity import Opening, read_opening
from robots.log.images import Image, pixels_of, read_images
from robots.log.labels import Label, append_label, labels_path, read_labels
from robots.log.paths import (
    SET_ASIDE,
    files_below,
    find_logs,
    folders_below,
    logs_below,
    out_of_reach,
    without_strangers,
)
from robots.log.reader import Log, read_header, read_log, read_logs, verify
from robots.log.scan import DAMAGED, FOREIGN, NEWER, SEALED, TORN, Integrity
from robots.log.schema import SECTIONS, TIMES, Event, Shadow, Step, plain
from robots.log.stream import LogStream
from robots.log.writer import LogWriter, Statistics

__all__ = [
    "DAMAGED",
    "FOREIGN",
    "NEWER",
    "SEALED",
    "SECTIONS",
    "SET_ASIDE",
    "TIMES",
    "TORN",
    "Episode",
    "Event",
    "Header",
    "Image",
    "Integrity",
    "Label",
    "Log",
    "LogStream",
    "LogWriter",
    "Opening",
    "Session",
    "Shadow",
    "Statistics",
    "Step",
    "append_label",
    "files_below",
    "find_logs",
    "folders_below",
    "labels_path",
    "log_path",
    "logs_below",
    "out_of_reach",
    "pixels_of",
    "plain",
    "read_header",
    "read_images",
    "read_labels",
    "read_log",
    "read_logs",
    "read_opening",
    "verify",
    "without_strangers",
]
