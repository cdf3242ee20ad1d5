"""Files that stand among our logs and are not ours to read."""

import json
from pathlib import Path

from mcap.writer import CompressionType, Writer

from robots.log.container import add_message, open_channel, start_writer
from robots.log.header import SESSION, Session, digest
from robots.log.schema import SCHEMA


def write_rosbag(path: Path) -> Path:
    """A bag as rosbag2 writes it: profile ros2, messages in CDR."""
    with open(path, "wb") as file:
        writer = Writer(file, compression=CompressionType.ZSTD)
        writer.start(profile="ros2", library="rosbag2_storage_mcap 0.26.4")
        schema = writer.register_schema("std_msgs/msg/String", "ros2msg", b"string data")
        channel = writer.register_channel("/chatter", "cdr", schema, {"offered_qos_profiles": "[]"})
        for index in range(200):
            writer.add_message(channel, index, b"\x00\x01\x00\x00\x06\x00\x00\x00hello\x00", index)
        writer.add_metadata("rosbag2", {"serialized_metadata": json.dumps({"version": 9})})
        writer.finish()
    return path


def write_of_schema(path: Path, schema: int | str = SCHEMA + 1) -> Path:
    """A log of ours as another version would begin it, with a channel and a form of its rows unknown here."""
    texts = Session('{"name": "fake"}').metadata()
    del texts["sha256"]
    texts["schema"] = str(schema)
    with open(path, "wb") as file:
        writer = start_writer(file, "gipo-robot")
        writer.add_metadata(SESSION, {**texts, "sha256": digest(texts)})
        if schema == SCHEMA + 1:
            channel = open_channel(writer, "touch", b"{}")
            for index in range(20):
                add_message(writer, channel, index, index, b'{"form": "of later days"}')
        writer.finish()
    return path
