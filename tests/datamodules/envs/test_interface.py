"""Names, units and rates against MetaWorld's own layout."""

import numpy as np

from datamodules.envs.interface import gymnasium_interface
from datamodules.envs.tasks import simulation


def test_every_number_of_metaworld_has_one_name_and_unit() -> None:
    interface = simulation("reach-v3").interface
    assert len(set(interface["observation_names"])) == len(interface["observation_units"]) == 39
    assert len(set(interface["action_names"])) == len(interface["action_units"]) == 4


def test_names_stand_where_metaworld_puts_the_numbers() -> None:
    env = simulation("push-v3").make(1, seed=3)
    simulator = env.simulators[0]
    observation = dict(
        zip(simulation("reach-v3").interface["observation_names"], env.reset()["observation"][0].tolist(), strict=True)
    )

    def at(name: str) -> list[float]:
        return [observation[f"{name}_{axis}"] for axis in "xyz"]

    np.testing.assert_allclose(at("hand"), simulator.get_endeff_pos(), atol=1e-6)
    np.testing.assert_allclose(at("object_1"), simulator._get_pos_objects(), atol=1e-6)
    np.testing.assert_allclose(at("goal"), simulator._target_pos, atol=1e-6)
    assert at("previous_hand") == at("hand")
    env.close()


def test_an_action_is_in_centimetres_and_the_rate_is_the_simulators() -> None:
    env = simulation("reach-v3").make(1, seed=0)
    assert env.simulators[0].action_scale == 0.01
    assert 1 / env.simulators[0].dt == simulation("reach-v3").interface["control_rate_hz"]
    env.close()


def test_a_gymnasium_id_gets_generic_names_and_its_own_rate() -> None:
    interface = gymnasium_interface("Pendulum-v1", 3, 1)
    assert interface["observation_names"] == ["observation_0", "observation_1", "observation_2"]
    assert interface["control_rate_hz"] == 30.0
