"""Checkpoints of theta_p in the layouts that their authors publish, out of any network's state dictionary."""

from collections import OrderedDict

import torch

MEAN, STD = torch.tensor([0.485, 0.456, 0.406]), torch.tensor([0.229, 0.224, 0.225])


def plain(state):
    return state


def parameters(state):
    """As torchvision's older files: what is trained is a Parameter."""
    return OrderedDict((name, torch.nn.Parameter(part) if "running" not in name and part.is_floating_point() else part)
                       for name, part in state.items())


def robust(state, key="model"):
    """As robust-models-transfer and MadryLab's robustness: the attacker holds the same network once more."""
    found = OrderedDict({"module.normalizer.new_mean": MEAN.view(3, 1, 1), "module.normalizer.new_std":
                         STD.view(3, 1, 1)})
    found |= {f"module.model.{name}": part for name, part in state.items()}
    found |= {"module.attacker.normalize.new_mean": MEAN.view(3, 1, 1).clone(),
              "module.attacker.normalize.new_std": STD.view(3, 1, 1).clone()}
    found |= {f"module.attacker.model.{name}": part.clone() for name, part in state.items()}
    model = torch.nn.Linear(2, 2)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
    model(torch.ones(1, 2)).sum().backward()
    optimizer.step()
    schedule = torch.optim.lr_scheduler.StepLR(optimizer, 50)
    return {key: found, "optimizer": optimizer.state_dict(), "schedule": schedule.state_dict(), "epoch": 90,
            "nat_prec1": torch.tensor(47.91), "adv_prec1": torch.tensor(33.06)}


def older_robust(state):
    return robust(state, "state_dict")


def parallel(state):
    """As fast_adversarial: a DataParallel network beside epoch, arch, best_prec1 and optimizer."""
    rest = robust(state)
    return {"epoch": 15, "arch": "resnet50", "state_dict": OrderedDict((f"module.{name}", part) for name, part in
                                                                       state.items()),
            "best_prec1": torch.tensor(55.62), "optimizer": rest["optimizer"]}
