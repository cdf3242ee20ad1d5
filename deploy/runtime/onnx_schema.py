"""The part of onnx.proto that an exported policy uses: field numbers of each message. Whatever else is refused."""

from typing import Any

import numpy as np

from deploy.runtime.protobuf import anything, many, number, one

# TensorProto.DataType → little-endian numpy dtype, for the types that a policy may hold
DTYPES: dict[int, np.dtype[Any]] = {
    1: np.dtype("<f4"),
    2: np.dtype("u1"),
    3: np.dtype("i1"),
    6: np.dtype("<i4"),
    7: np.dtype("<i8"),
    9: np.dtype("?"),
    11: np.dtype("<f8"),
}

MODEL = {
    1: number("ir_version"),
    2: one("producer_name"),
    3: one("producer_version"),
    7: one("graph"),
    8: many("opset_import"),
    14: many("metadata_props"),
}
GRAPH = {
    1: many("node"),
    2: one("name"),
    5: many("initializer"),
    11: many("input"),
    12: many("output"),
}
NODE = {
    1: many("input"),
    2: many("output"),
    3: one("name"),
    4: one("op_type"),
    5: many("attribute"),
    7: one("domain"),
}
ATTRIBUTE = {  # numbers and texts only: no tensors, no subgraphs
    1: one("name"),
    2: anything("f"),
    3: anything("i"),
    4: anything("s"),
    7: anything("floats"),
    8: anything("ints"),
    9: anything("strings"),
    20: number("type"),
}
TENSOR = {
    1: anything("dims"),
    2: number("data_type"),
    8: one("name"),
    9: one("raw_data"),
    13: many("external_data"),
    14: number("data_location"),
}
VALUE = {1: one("name"), 2: one("type")}
TYPE = {1: one("tensor_type")}
TENSOR_TYPE = {1: number("elem_type"), 2: one("shape")}
SHAPE = {1: many("dim")}
DIMENSION = {1: number("dim_value"), 2: one("dim_param")}
OPSET = {1: one("domain"), 2: number("version")}
ENTRY = {1: one("key"), 2: one("value")}
