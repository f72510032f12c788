"""Which theta_p is this?"""

import torch

from dwlt_lib.models.tensors import fingerprint


def test_a_fingerprint_changes_with_any_bit_name_or_shape_but_not_with_order():
    theta = {"a.weight": torch.randn(8, 3, 3, 3), "c.weight": torch.randn(5, 7)}
    was = fingerprint(theta)
    assert fingerprint(dict(reversed(theta.items()))) == was
    theta["a.weight"].view(torch.int32)[0, 0, 0, 0] ^= 1
    others = {fingerprint(theta)}
    theta["a.weight"].view(torch.int32)[0, 0, 0, 0] ^= 1
    others.add(fingerprint({**theta, "c.weight": theta["c.weight"].reshape(7, 5)}))
    others.add(
        fingerprint({("d" if name == "c.weight" else name): value for name, value in theta.items()})
    )
    assert was not in others and len(others) == 3
