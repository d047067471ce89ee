"""Key chains and checkpoints against the files that the original program wrote."""

import experiments
import goldens
import jax
import numpy as np

from score_core.checkpoints import msgpack_format
from score_sde.jax_experiment import Keys


def real(name):
    return msgpack_format.loads(goldens.path("score_sde", f"checkpoint_real/{name}").read_bytes())


def test_the_evaluation_chain_is_the_originals():
    """After 4 splits (loss batch, three bits/dim batches) and after 8 (five, two sampling rounds)."""
    with jax.threefry_partitionable(False):
        keys = Keys(42)
        np.testing.assert_array_equal(keys.carry(4), real("eval_meta_0_9")["rng"])
        np.testing.assert_array_equal(keys.carry(8), real("eval_meta_0_13")["rng"])
        np.testing.assert_array_equal(jax.random.split(keys.carry(4))[1], keys.at(4))


def test_the_training_chain_is_the_originals():
    """Three splits (train, eval, train) before the pre-emption file, four before the permanent one."""
    with jax.threefry_partitionable(False):
        rng = jax.random.fold_in(jax.random.split(jax.random.PRNGKey(42))[0], 0)
        carries = []
        for _ in range(4):
            rng, _ = jax.random.split(rng)
            carries.append(np.asarray(rng))
    np.testing.assert_array_equal(carries[2], real("meta_checkpoint_1")["rng"])
    np.testing.assert_array_equal(carries[3], real("checkpoint_1")["rng"])


def test_the_originals_checkpoint_is_read_and_written_back_byte_for_byte():
    experiment = experiments.golden_experiment(goldens.load("score_sde", "checkpoint_real/tree.json"))
    for name in ("checkpoint_1", "meta_checkpoint_1"):
        data = goldens.path("score_sde", f"checkpoint_real/{name}").read_bytes()
        state = experiment.decode_state(data, where=name)
        assert int(state.step) == int(state.adam.count) == 2
        assert experiment.encode_state(state) == data
