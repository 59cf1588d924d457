"""A sixth experiment in one file: classify birds by the nearest mean of each class."""

import torch
import torch.nn.functional as F

from fieldmarks import Method, TrainingStream
from fieldmarks.experiments.experiment import Experiment, ImageParameters, run_as_module
from fieldmarks.experiments.parameters import composed_of
from fieldmarks.experiments.scores import Scores


class LinearHead(Method):
    def __init__(self, backbone, classes: int, *, scale: float = 2.0):
        super().__init__(backbone)
        self.head, self.scale = torch.nn.Linear(backbone.channels, classes), scale

    def losses(self, images, labels):
        return {"loss": F.cross_entropy(self.scale * self.head(self.embed(images)), labels)}


@composed_of(LinearHead, resize=32, size=32, backbone="resnet10t", weights="none", batch_size=4)
class Parameters(ImageParameters):
    kind = "sixth_experiment"


class NearestMean(Experiment):
    Parameters = Parameters
    monitor = "accuracy"
    saved_file = "embeddings.safetensors"

    def prepare(self):
        self.train_set, self.test_set = self.load_images().closed_split()
        backbone, classes = self.create_backbone(), len(self.train_set.class_names)
        self.method = LinearHead(backbone, classes, **self.parameters.options(LinearHead))
        self.train_pixels, self.test_pixels = self.use(self.train_set, self.test_set)
        self.stream = self.training_stream(TrainingStream, self.train_pixels, self.train_set.labels)

    def evaluate(self):
        saved = {"labels": self.train_set.labels, "truth": self.test_set.labels}
        saved |= {"gallery": self.embed(self.train_pixels), "query": self.embed(self.test_pixels)}
        return self.measure(saved, {})

    @classmethod
    def measure(cls, saved, parameters):
        means = [saved["gallery"][saved["labels"] == c].mean(0) for c in saved["labels"].unique()]
        right = torch.cdist(saved["query"], torch.stack(means)).argmin(1) == saved["truth"]
        return Scores({"accuracy": right.double()}, {}, saved["truth"], len(right), saved=saved)

    def counts(self):
        train, classes = len(self.train_set), len(self.train_set.class_names)
        return train, len(self.test_set), train, classes, classes

    @classmethod
    def rebuild(cls, p, backbone, result, folder):
        return LinearHead(backbone, result["counts"]["train_classes"], **p.options(LinearHead))


if __name__ == "__main__":
    run_as_module(NearestMean)
