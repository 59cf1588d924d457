"""What a finished run has learnt, to be used on other pictures: its network, its views, and what it makes of an image."""
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from ..backbones import create_backbone
from ..checkpoints import load_checkpoint
from ..data.augment import TestViews
from ..labs.results import read_result
from ..methods.hashing import to_codes
from ..methods.method import Method
from ..training import choose_device, choose_precision, embed_all
from . import hashing, open_set
from . import parameters as reading


@dataclass
class Model:
    """A run's method on a device, in evaluation mode.

    Attributes:
        run: the run's folder.  result: its result.json.
        bits: length of its codes; 0 for a method that gives embeddings.
        resize: shorter side of the pictures that it reads.
    """

    run: Path
    result: dict
    method: Method
    views: TestViews
    device: torch.device
    precision: str
    bits: int
    resize: int

    @property
    def identity(self) -> str:
        """What tells this model from another: what was run, on which data, and when it ended."""
        return f"{self.result['method']} {self.result['data_fingerprint']} {self.result['finished']}"

    def describe(self, pixels, batch_size: int = 64) -> Tensor:
        """Embeddings (N, D) of unit length, or codes (N, k) of -1/+1, of pictures with `batch(index)` and a length."""
        outputs = embed_all(self.method, pixels, self.views, batch_size=batch_size, device=self.device, precision=self.precision)
        return to_codes(outputs) if self.bits else outputs


def load_model(run: Path, device: str = "auto") -> Model:
    """The model of a finished run of the open-set or the hashing experiment.

    Raises:
        ValueError: the folder holds no finished run, or one whose method is no network (ITQ and the like).
    """
    run = Path(run).expanduser().absolute()
    result = read_result(run)
    if result is None:
        raise ValueError(f"'{run}' is not a finished run: give the folder of a complete result.json (make one with fieldmarks run)")
    kind = hashing if "bits" in result["parameters"] else open_set
    p = reading.parse(kind.Parameters, result["parameters"])
    if kind is hashing and p.method in hashing.SHALLOW:
        raise ValueError(f"'{run}' is a run of {p.method}, which learnt no network: give one of fcaenet, adsh or an open-set method")
    trained = (run / "last.pt").is_file()
    backbone = create_backbone(p.backbone, "none" if trained else p.weights, p.size)
    if kind is hashing:
        from safetensors.torch import load_file
        method = hashing.build_method(p, backbone, load_file(run / "codes.safetensors")["database_labels"])
    else:
        method = open_set.build_method(p, backbone, result["counts"]["train_classes"])
    if trained:
        state = load_checkpoint(run / "last.pt")
        method.load_state_dict(state["method"])
        # Normalisation belongs to the weights, which the checkpoint replaces.
        backbone.mean, backbone.std = tuple(state["mean"]), tuple(state["std"])
    chosen = choose_device(device)
    method.to(chosen, memory_format=torch.channels_last).eval()
    return Model(run, result, method, TestViews(p.size, backbone.mean, backbone.std, p.resize), chosen,
                 choose_precision(p.precision, chosen, method), p.bits if kind is hashing else 0, p.resize)
