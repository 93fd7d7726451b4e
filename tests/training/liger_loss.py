"""Print the loss and gradients of liger-kernel as JSON, by triton's interpreter on the CPU."""

import json
import os
import sys

os.environ["TRITON_INTERPRET"] = "1"  # read when triton is imported

import torch
import triton.language as tl
from liger_kernel.ops import cross_entropy
from liger_kernel.transformers import LigerFusedLinearCrossEntropyLoss

from hpc_llm.training.kernels.losses import _by_liger


class Constant(float):
    """A number as the interpreter hands it to a kernel: it has the method that compiled ones do."""

    def to(self, dtype):
        return self


# the interpreter runs no functions of CUDA's library
cross_entropy.tanh = lambda x: 2 * tl.sigmoid(2 * x) - 1
inputs = torch.load(sys.argv[1], weights_only=True)
found = []
for softcap in json.loads(sys.argv[2]):
    hidden, weight, labels = (inputs[name] for name in ("hidden", "weight", "labels"))
    hidden, weight = (t.clone().requires_grad_() for t in (hidden, weight))
    capped = None if softcap is None else Constant(softcap)
    loss = _by_liger(LigerFusedLinearCrossEntropyLoss, hidden, weight, labels, capped)
    loss.backward()
    found.append([float(loss.detach()), hidden.grad.tolist(), weight.grad.tolist()])
print(json.dumps(found))
