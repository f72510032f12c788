"""Every form of a ticket is the ticket, and its cost is counted as by hand."""

import pytest
import seeds
import torch
from torch import nn

from dwlt_lib import models
from dwlt_lib.benchmarks import inference
from dwlt_lib.models import architectures
from dwlt_lib.records import store

TICKET = store.checkout() / "outputs" / "reference" / "ticket"
CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def case():
    return inference.read_case(TICKET, CPU)


def test_every_form_gives_the_logits_of_the_ticket_but_the_dense_one(case):
    logits = {
        one.name: (one.run()[0], one.same) for one in inference.inferences(case, size=8, batch=5)
    }
    wanted, _ = logits["masked"]
    assert wanted.shape == (5, 10) and len(logits) == 4
    for name, (found, same) in logits.items():
        assert same == (name != "dense")
        assert torch.allclose(found, wanted, atol=1e-4) == same, name


def test_the_dense_network_has_the_ticket_s_weights_and_no_zeros(case):
    dense = models.prunable(case.networks["dense"])
    kept, num_weights = 0, 0
    for name, weight in models.prunable(case.networks["masked"]).items():
        assert (dense[name] != 0).all()
        assert torch.equal(dense[name][weight != 0], weight[weight != 0])
        kept, num_weights = kept + int((weight != 0).sum()), num_weights + weight.numel()
    assert case.about["sparsity"] == pytest.approx(1 - kept / num_weights, abs=1e-4)
    assert 0 < case.about["RA"] < case.about["SA"] < 1


@pytest.mark.parametrize("stride, bias", [(1, True), (2, False), ((2, 3), True)])
def test_a_sparse_matrix_convolves(stride, bias):
    seeds.set_global()
    layer = nn.Conv2d(6, 9, 1, stride, bias=bias).double()
    layer.weight.data *= torch.rand(layer.weight.shape, generator=seeds.torch_rng()) < 0.3
    x = torch.rand(4, 6, 7, 8, generator=seeds.torch_rng(1)).double()
    with torch.no_grad():
        assert torch.allclose(inference.SparseConvolution(layer)(x), layer(x), atol=1e-12)


def test_cost_counts_what_is_run(case):
    found = {name: inference.cost(model, 8) for name, model in case.networks.items()}
    gmac = architectures.gmac("resnet8", 8)
    for name in ("masked", "dense"):
        assert found[name]["MMAC"] == pytest.approx(1e3 * gmac, rel=1e-3)
    sparse = case.networks["compacted, 1x1 as sparse matrices"]
    spared = sum(  # places of the two shortcuts' outputs
        places * int((case.networks["masked"].get_parameter(name) == 0).sum())
        for name, places in (
            ("layer2.0.downsample.0.weight", 16),
            ("layer3.0.downsample.0.weight", 4),
        )
    )
    less = found["compacted"]["MMAC"] - inference.cost(sparse, 8)["MMAC"]
    assert less == pytest.approx(spared / 1e6, abs=2e-3)
    assert found["masked"]["kB"] == found["dense"]["kB"]
    assert found["masked"]["kB compressed"] < found["dense"]["kB compressed"] / 2
