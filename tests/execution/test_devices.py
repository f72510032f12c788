"""A device is the one that was named, or it is refused."""

import pytest
import torch

from dwlt_lib.execution import devices


def test_devices_are_named_or_refused():
    assert devices.resolve_device("cpu") == torch.device("cpu")
    assert devices.resolve_device("auto").type == ("cuda" if torch.cuda.is_available() else "cpu")
    with pytest.raises(ValueError, match="auto, cpu or cuda"):
        devices.resolve_device("gpu")
    if not torch.cuda.is_available():
        with pytest.raises(ValueError, match="want cpu or auto"):
            devices.resolve_device("cuda")


@pytest.mark.parametrize(
    "named, wanted", [(None, ["0", "1", "2"]), ("4,GPU-7f,2,-1", ["4", "GPU-7f", "2"])]
)
def test_gpus_are_named_as_the_environment_names_them(named, wanted, monkeypatch):
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 3)
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    if named:
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", named)
    assert devices.visible_gpus() == wanted
