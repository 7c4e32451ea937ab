"""Lets the published torchvision wheel import beside a CPU build of torch. Installed by `make` only where it fails to.

torchvision on PyPI is built for CUDA; beside a CPU torch its operators are missing, and its import stops at the first
two that it describes without having them. They are declared here, before that import, in every process that starts from
this environment (vLLM starts several): run as a script, this file puts itself and one `.pth` line into site-packages.
Nothing here runs the operators, and no model of ours needs them.
"""

import importlib.abc
import shutil
import sys
import sysconfig
from pathlib import Path

OPERATORS = ("nms", "qnms")
SCHEMA = "(Tensor dets, Tensor scores, float iou_threshold) -> Tensor"


class _BeforeTorchvision(importlib.abc.MetaPathFinder):
    """Declares the operators when somebody imports torchvision, and finds nothing itself."""

    def find_spec(self, name, path=None, target=None):
        """Called for every import until torchvision's."""
        if name == "torchvision":
            sys.meta_path.remove(self)
            import torch

            for operator in OPERATORS:
                if not hasattr(torch.ops.torchvision, operator):
                    torch.library.define(f"torchvision::{operator}", SCHEMA)


if __name__ == "__main__":
    here = Path(sysconfig.get_path("purelib"))
    shutil.copy(__file__, here / "torchvision_cpu.py")
    (here / "torchvision_cpu.pth").write_text("import torchvision_cpu\n", encoding="utf-8")
else:
    sys.meta_path.insert(0, _BeforeTorchvision())
