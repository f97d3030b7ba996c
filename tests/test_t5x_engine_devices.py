"""T5X on four forced CPU devices uses the mesh, and goes on from its states."""

import pytest

from tests import four_devices, t5x_required

t5x_required.t5x_module("xprompt_jax.t5x_engine.engines")

pytestmark = [pytest.mark.t5x, pytest.mark.slow]


@pytest.fixture(scope="module")
def found(tmp_path_factory):
  """What tests/t5x_four_devices.py prints."""
  folder = tmp_path_factory.mktemp("devices")
  return four_devices.run("-m", "tests.t5x_four_devices", str(folder))


def test_the_weights_stay_where_they_are(found):
  assert found["mesh"] == {"data": 2, "model": 2}
  placement = found["placement"]
  assert sorted(placement["same"]) == placement["all"]


def test_a_kernel_is_split_over_model(found):
  """[18, 12], half of its rows on each device."""
  assert found["placement"]["kernel"] == ["model", "None"]
  assert found["placement"]["kernel_shards"] == [[9, 12]]


def test_batches_are_split_over_data(found):
  assert found["batch"] == dict.fromkeys(
      (
          "encoder_input_tokens",
          "decoder_input_tokens",
          "decoder_target_tokens",
          "decoder_loss_weights",
      ),
      True,
  )


def test_a_stopped_table_goes_on_bit_for_bit(found):
  """With the dropout of its seed."""
  whole, left, stopped = found["resumed"]
  assert left == ["checkpoint_3"]
  assert stopped == whole
