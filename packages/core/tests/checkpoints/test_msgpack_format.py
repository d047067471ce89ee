"""The flax wire format against the original's own checkpoint files and against flax itself."""

import flax.serialization
import goldens
import jax.numpy as jnp
import ml_dtypes
import msgpack
import numpy as np
import pytest

from score_core.checkpoints import msgpack_format
from score_core.checkpoints.errors import CheckpointError
from score_core.checkpoints.tree import flatten, sort_names

GOLDEN = ("checkpoint_1", "meta_checkpoint_1", "eval_meta_0_9", "eval_meta_0_13")


def golden_bytes(name):
    return goldens.path("score_sde", f"checkpoint_real/{name}").read_bytes()


@pytest.fixture(scope="module")
def facts():
    return goldens.load("score_sde", "checkpoint_real/tree.json")


def assert_same(one, other):
    """Same structure and order, same types, same bits."""
    assert type(one) is type(other)
    if isinstance(one, dict):
        assert list(one) == list(other)
        for key in one:
            assert_same(one[key], other[key])
    elif isinstance(one, (np.ndarray, np.generic)):
        assert (one.dtype, one.shape) == (other.dtype, other.shape)
        assert one.tobytes() == other.tobytes()
    else:
        assert one == other


@pytest.mark.parametrize("name", GOLDEN)
def test_the_originals_files_are_reproduced_byte_for_byte(name):
    data = golden_bytes(name)
    assert msgpack_format.dumps(msgpack_format.loads(data)) == data


@pytest.mark.parametrize("name", GOLDEN)
def test_the_originals_files_read_as_flax_reads_them(name):
    data = golden_bytes(name)
    assert_same(msgpack_format.loads(data), flax.serialization.msgpack_restore(data))


def test_every_leaf_of_the_original_checkpoint(facts):
    leaves = flatten(msgpack_format.loads(golden_bytes("checkpoint_1")))
    assert leaves.pop("model_state") == {}
    listed = [row for row in facts["checkpoint_leaves"] if row[0] != "model_state"]
    assert list(leaves) == [row[0] for row in listed]
    for name, kind, shape, total, absolute in listed:
        leaf = leaves[name]
        assert f"ndarray:{leaf.dtype}" == kind
        assert list(leaf.shape) == shape
        np.testing.assert_allclose(np.sum(leaf, dtype=np.float64), total, rtol=1e-12, atol=1e-300, err_msg=name)
        np.testing.assert_allclose(np.sum(np.abs(leaf, dtype=np.float64)), absolute, rtol=1e-12, err_msg=name)


def test_random_states_and_the_meta_files(facts):
    checkpoint = msgpack_format.loads(golden_bytes("checkpoint_1"))
    meta = msgpack_format.loads(golden_bytes("meta_checkpoint_1"))
    assert checkpoint["rng"].dtype == np.uint32
    assert checkpoint["rng"].tolist() == facts["rng"]["checkpoint"]
    assert meta["rng"].tolist() == facts["rng"]["meta"]
    del checkpoint["rng"], meta["rng"]
    assert_same(checkpoint, meta)
    for number in (9, 13):
        leaves = msgpack_format.loads(golden_bytes(f"eval_meta_0_{number}"))
        for name, (value, kind) in facts["eval_meta"][f"meta_0_{number}"].items():
            assert type(leaves[name]).__name__ == kind
            assert np.asarray(leaves[name]).tolist() == value


def test_levels_are_in_the_order_of_the_file():
    tree = msgpack_format.loads(golden_bytes("checkpoint_1"))
    assert list(tree) == ["step", "optimizer", "lr", "model_state", "ema_rate", "params_ema", "rng"]
    assert list(tree["optimizer"]) == ["target", "state"]
    shuffled = dict(reversed(tree["params_ema"].items()))
    assert list(sort_names(shuffled)) == list(tree["params_ema"])
    assert_same(sort_names(shuffled), tree["params_ema"])


def sample_tree():
    rng = np.random.default_rng(0)
    return {
        "zeta": {"b": rng.normal(size=(3, 2)).astype(np.float32), "a": np.arange(4, dtype=np.uint8).reshape(1, 4)},
        "scalar": np.float32(1.5),
        "zero_d": np.array(7, np.int32),
        "empty": np.zeros((0, 3)),
        "flags": np.array([True, False]),
        "half": np.array([1.5, -2.25], ml_dtypes.bfloat16),
        "half_scalar": ml_dtypes.bfloat16(0.5),
        "half_float": np.array([0.1], np.float16),
        "complex_array": np.array([1 + 2j], np.complex64),
        "complex": 1.5 - 2j,
        "int": -3,
        "large": 2**64 - 1,
        "small": -(2**63),
        "float": 0.1,
        "text": "η",
        "bytes": b"\x00\xff",
        "none": None,
        "yes": True,
        "list": [1, 2.5, "x"],
        "nothing": {},
    }


def test_the_bytes_are_those_of_flax_and_both_read_both():
    tree = sample_tree()
    data = msgpack_format.dumps(tree)
    assert data == flax.serialization.msgpack_serialize(sample_tree(), in_place=True)
    assert_same(msgpack_format.loads(data), tree)
    assert_same(flax.serialization.msgpack_restore(data), tree)


def test_device_arrays_and_strided_and_big_endian_arrays_are_stored_by_value():
    array = np.arange(12, dtype=np.float32).reshape(3, 4)
    data = msgpack_format.dumps({"jax": jnp.asarray(array), "strided": array.T, "big": array.astype(">f4")})
    tree = msgpack_format.loads(data)
    assert_same(tree, {"jax": array, "strided": np.ascontiguousarray(array.T), "big": array})


def test_arrays_that_were_read_can_be_written_to():
    array = msgpack_format.loads(msgpack_format.dumps({"a": np.zeros(3)}))["a"]
    array += 1
    assert array.tolist() == [1, 1, 1]


def test_oversized_arrays_are_cut_into_the_pieces_of_flax(monkeypatch):
    monkeypatch.setattr(msgpack_format, "MAX_CHUNK_BYTES", 40)
    monkeypatch.setattr(flax.serialization, "MAX_CHUNK_SIZE", 40)
    tree = {
        "even": np.arange(20, dtype=np.float32).reshape(4, 5),
        "uneven": np.arange(13, dtype=np.float64),
        "odd_size": np.arange(33, dtype=np.uint8).reshape(3, 11),
        "exact": np.arange(10, dtype=np.float32),
    }
    data = msgpack_format.dumps(tree)
    assert b"__msgpack_chunked_array__" in data
    assert data == flax.serialization.msgpack_serialize(dict(tree), in_place=True)
    assert_same(msgpack_format.loads(data), tree)
    assert_same(flax.serialization.msgpack_restore(data), tree)


@pytest.mark.parametrize(
    ("tree", "message"),
    [
        ({"a": {"b": (1, 2)}}, r"'a/b'.*tuple"),
        ({"a": np.array([object()])}, "'a'.*object"),
        ({"a": np.array(["text"])}, "'a'.*<U4"),
        ({"a": np.zeros(2, [("x", "f4")])}, "'a'.*no place"),
        ({"a": {1: 2}}, "'a'.*key 1 .*int"),
        ({"a": print}, "'a'.*builtin"),
        ({"a": 2**64}, "'a'.*64 bits"),
        ({"a": -(2**63) - 1}, "'a'.*64 bits"),
        ({"a": "\ud800"}, "surrogates"),
        ([1], "root is a list"),
        ({"a": [0] * 2000}, "2000 entries"),
    ],
)
def test_what_cannot_be_stored_is_named(tree, message):
    with pytest.raises(CheckpointError, match=message):
        msgpack_format.dumps(tree)


def test_trees_too_deep_to_be_read_are_not_written():
    tree = {"leaf": 1}
    for _ in range(70):
        tree = {"a": tree}
    with pytest.raises(CheckpointError, match="deeper than 64"):
        msgpack_format.dumps(tree)


def extension(code, payload):
    return msgpack.packb({"a": msgpack.ExtType(code, msgpack.packb(payload))})


CHUNKED = "__msgpack_chunked_array__"
PIECE = msgpack.ExtType(1, msgpack.packb([[2], "uint8", b"ab"]))
HOSTILE = {
    "empty file": (b"", "empty"),
    "zip": (b"PK\x03\x04 rest", "zip archive"),
    "pickle": (b"\x80\x02ccollections\nOrderedDict\n", "pickle"),
    "web page": (b"<html>not found</html>", "HTML"),
    "root is not a map": (b"\x05", "root is of type int"),
    "trailing bytes": (b"\x81\xa1a\x01\x00", "extra data"),
    "list said to be huge": (b"\x81\xa1a\xdd\x7f\xff\xff\xff", "max_array_len"),
    "map said to be huge": (b"\x81\xa1a\xdf\xff\xff\xff\xff", "max_map_len"),
    "bytes said to be huge": (b"\x81\xa1a\xc6\xff\xff\xff\xff", "incomplete"),
    "string said to be huge": (b"\x81\xa1a\xdb\xff\xff\xff\xff", "incomplete"),
    "extension said to be huge": (b"\x81\xa1a\xc9\xff\xff\xff\xff\x01", "exceeds max_ext_len"),
    "nested maps": (b"\x81\xa1a" * 70 + b"\xc0", "deeper than 64"),
    "nested lists": (b"\x81\xa1a" + b"\x91" * 100_000 + b"\xc0", "nested too deeply"),
    "nested lists said to be long": (b"\x81\xa1a" + b"\xdc\x04\x00" * 1000, "incomplete"),
    "key is a number": (b"\x81\x01\x02", "name is of type int"),
    "key is a list": (b"\x81\x90\x02", "name is of type list"),
    "key twice": (b"\x82\xa1a\x02\xa1a\x03", "'a' occurs twice"),
    "not unicode": (b"\x81\xa1\xff\x02", "utf-8"),
    "timestamp": (b"\x81\xa1a\xd6\xff\x00\x00\x00\x00", "Timestamp"),
    "malformed timestamp": (b"\x81\xa1a\xd4\xff\x00", "Timestamp"),
    "unknown extension": (b"\x81\xa1a\xd4\x05\x00", "extension type 5"),
    "extension payload cut": (b"\x81\xa1a\xc7\x05\x01\x93\xdd\xff\xff\xff", "incomplete"),
    "extension in extension": (extension(1, msgpack.ExtType(1, b"")), "not a list of 3|max_ext_len"),
    "map in extension": (extension(1, {"a": 1}), "max_map_len"),
    "array of two parts": (extension(1, [[1], "float32"]), "not a list of 3"),
    "array of objects": (extension(1, [[1], "object", b"12345678"]), "type 'object'"),
    "array of records": (extension(1, [[1], "f4,f4", b"12345678"]), "type 'f4,f4'"),
    "array of text": (extension(1, [[1], "<U2", b"12345678"]), "type '<U2'"),
    "array of dates": (extension(1, [[1], "datetime64[s]", b"12345678"]), "datetime64"),
    "negative size": (extension(1, [[-1], "float32", b"1234"]), r"shape \[-1\]"),
    "boolean size": (extension(1, [[True], "float32", b"1234"]), r"shape \[True\]"),
    "shape is not a list": (extension(1, [4, "uint8", b"1234"]), "shape 4"),
    "too few bytes": (extension(1, [[2], "float32", b"1234"]), "4 bytes of data"),
    "too many bytes": (extension(1, [[2], "float32", b"123456789"]), "9 bytes of data"),
    "petabytes": (extension(1, [[2**50], "float32", b"1234"]), "4 bytes of data"),
    "overflowing product": (extension(1, [[2**32, 2**32], "float32", b""]), "0 bytes of data"),
    "overflowing size": (extension(1, [[2**63, 0], "float32", b""]), "dimension"),
    "overflowing shape": (extension(1, [[2**60, 2**60, 0], "float32", b""]), "reshape"),
    "many dimensions": (extension(1, [[1] * 40, "float32", b"1234"]), "max_array_len"),
    "scalar with a shape": (extension(3, [[1], "float32", b"1234"]), "scalar has shape"),
    "complex of one part": (extension(2, [1.0]), "not a list of 2"),
    "complex of text": (extension(2, ["1", "2"]), "not floats"),
    "pieces without a shape": (msgpack.packb({CHUNKED: True, "chunks": {"0": PIECE}}), "not numbered"),
    "pieces out of order": (msgpack.packb({CHUNKED: True, "shape": {"0": 2}, "chunks": {"1": PIECE}}), "not numbered"),
    "no pieces": (msgpack.packb({CHUNKED: True, "shape": {"0": 0}, "chunks": {}}), "without its shape"),
    "pieces and more": (
        msgpack.packb({CHUNKED: True, "shape": {"0": 2}, "chunks": {"0": PIECE}, "more": 1}),
        "without its shape",
    ),
    "pieces that are no arrays": (msgpack.packb({CHUNKED: True, "shape": {"0": 2}, "chunks": {"0": 1}}), "not flat"),
    "pieces of another total": (
        msgpack.packb({CHUNKED: True, "shape": {"0": 3}, "chunks": {"0": PIECE}}),
        "do not add up",
    ),
    "pieces for text": (msgpack.packb({CHUNKED: True, "shape": {"0": "2"}, "chunks": {"0": PIECE}}), "do not add up"),
}


@pytest.mark.parametrize("name", HOSTILE)
def test_damaged_and_hostile_bytes_are_refused_with_the_cause_and_the_file(name):
    data, cause = HOSTILE[name]
    with pytest.raises(CheckpointError, match=f"(?i)^runs/checkpoint_3: .*({cause})") as caught:
        msgpack_format.loads(data, where="runs/checkpoint_3")
    assert "earlier checkpoint" in str(caught.value)


def test_bfloat16_without_its_package_names_the_package(monkeypatch):
    data = msgpack_format.dumps({"a": np.array([1], ml_dtypes.bfloat16)})
    monkeypatch.setitem(__import__("sys").modules, "ml_dtypes", None)
    with pytest.raises(CheckpointError, match="ml_dtypes"):
        msgpack_format.loads(data)
