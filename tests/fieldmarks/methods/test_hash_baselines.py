import math
import signal

import pytest
import torch
from torch import nn

from fieldmarks.data.augment import TestViews, TrainingViews
from fieldmarks.data.batches import TrainingStream
from fieldmarks.evaluation.hamming import mean_average_precision
from fieldmarks.methods import hash_baselines
from fieldmarks.methods.hash_baselines import (
    DSH,
    HashNet,
    balanced_mean,
    contrastive_loss,
    create_hash_baseline,
    pair_likelihood,
)
from fieldmarks.methods.hashing import to_codes
from fieldmarks.training import Interrupted, Settings, embed_all, fit
from helpers.training_run import PLAIN, Pictures, SmallBackbone

NAMES = ["dpsh", "dsh", "hashnet"]
LABELS = torch.tensor([0, 1, 2, 0, 1, 2, 0, 1, 2, 3])


@pytest.fixture(autouse=True)
def one_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


class Given(nn.Module):
    """A backbone that takes features for images."""

    channels = 5

    def forward(self, images):
        return images[:, :, None, None]


def method_of(name, bits=6, labels=LABELS):
    torch.manual_seed(0)
    return create_hash_baseline(name, Given(), bits, labels)


def batch_of(index, labels=LABELS, seed=0):
    index = torch.as_tensor(index)
    return {
        "images": torch.randn(len(index), 5, generator=torch.Generator().manual_seed(seed)) * 2,
        "labels": labels[index],
        "index": index,
    }


def losses(method, batch):
    """DSH takes no index."""
    if isinstance(method, DSH):
        batch = {key: value for key, value in batch.items() if key != "index"}
    return method.losses(**batch)


def rows(outputs):
    return outputs.detach().double().tolist()


def dot(a, b):
    return sum(x * y for x, y in zip(a, b, strict=True))


def naive_softplus(x):
    return math.log(1 + math.exp(x))


def recorded(method, batches, activate):
    """The last output of each image seen, {position: (output, label)}, in plain Python."""
    memory = {}
    for batch in batches:
        outputs = rows(activate(method.representation(batch["images"])))
        memory.update(
            zip(
                batch["index"].tolist(),
                zip(outputs, batch["labels"].tolist(), strict=True),
                strict=True,
            )
        )
    return memory


BATCHES = [batch_of([1, 4, 7]), batch_of([0, 9, 4, 2], seed=1), batch_of([2, 3, 0, 5], seed=2)]


def test_dpsh_equals_its_formula():
    method = method_of("dpsh")
    for last, batch in enumerate(BATCHES):
        terms = losses(method, batch)
        memory = recorded(method, BATCHES[: last + 1], lambda u: u)
        likelihood, distance = [], []
        for u, label in zip(
            rows(method.representation(batch["images"])), batch["labels"].tolist(), strict=True
        ):
            for other, other_label in memory.values():
                theta, s = dot(u, other) / 2, float(label == other_label)
                likelihood.append(-(s * theta - naive_softplus(theta)))
            distance += [(x - math.copysign(1, x)) ** 2 for x in u]
        assert list(terms) == ["likelihood", "quantisation"]
        assert terms["likelihood"].item() == pytest.approx(
            sum(likelihood) / len(likelihood), rel=1e-5
        )
        assert terms["quantisation"].item() == pytest.approx(
            0.1 * sum(distance) / len(distance), rel=1e-5
        )


def test_dsh_equals_its_formula():
    method, far = method_of("dsh"), 0
    for batch in BATCHES:
        terms = losses(method, batch)
        outputs, labels = rows(method.representation(batch["images"])), batch["labels"].tolist()
        pairs = []
        for i in range(len(outputs)):
            for j in range(i + 1, len(outputs)):
                squared, y = (
                    sum((a - b) ** 2 for a, b in zip(outputs[i], outputs[j], strict=True)),
                    float(labels[i] != labels[j]),
                )
                pairs.append((1 - y) / 2 * squared + y / 2 * max(2 * 6 - squared, 0))
                far += y and squared > 2 * 6
        distance = [abs(abs(x) - 1) for row in outputs for x in row]
        assert terms["contrastive"].item() == pytest.approx(sum(pairs) / len(pairs), rel=1e-5)
        assert terms["quantisation"].item() == pytest.approx(
            0.1 * sum(distance) / len(distance), rel=1e-5
        )
    assert far  # the margin was put to the test


def test_hashnet_equals_its_formula():
    method = method_of("hashnet")
    method.steps += 700
    scale = math.sqrt(1 + 0.005 * 700)
    for last, batch in enumerate(BATCHES):
        memory = recorded(method, BATCHES[: last + 1], lambda u: torch.tanh(scale * u))
        loss = losses(method, batch)["likelihood"]
        pairs = []
        for h, label in zip(
            rows(torch.tanh(scale * method.representation(batch["images"]))),
            batch["labels"].tolist(),
            strict=True,
        ):
            for other, other_label in memory.values():
                product, s = dot(h, other), float(label == other_label)
                pairs.append((s, math.log(1 + math.exp(0.1 * product)) - 0.1 * s * product))
        positives = sum(s for s, _ in pairs)
        weighted = [
            value * len(pairs) / (positives if s else len(pairs) - positives) for s, value in pairs
        ]
        assert loss.item() == pytest.approx(sum(weighted) / len(pairs), rel=1e-5)


@pytest.mark.parametrize("name", ["dpsh", "hashnet"])
def test_the_memory_holds_the_last_outputs_by_position_without_their_gradients(name):
    method = method_of(name)
    assert method.outputs.isnan().all()
    losses(method, BATCHES[0])
    expected = method.embed(BATCHES[0]["images"]).detach()
    assert torch.equal(method.outputs[[1, 4, 7]], expected) and not method.outputs.requires_grad
    assert method.outputs[[0, 2, 3, 5, 6, 8, 9]].isnan().all()
    with torch.no_grad():
        method.hash_layer.weight += 1
    losses(method, BATCHES[1])
    assert torch.equal(method.outputs[[0, 9, 4, 2]], method.embed(BATCHES[1]["images"]).detach())
    assert torch.equal(
        method.outputs[[1, 7]], expected[[0, 2]]
    )  # as they were before the network changed


def test_hashnet_sharpens_step_by_step():
    method, images = HashNet(Given(), 6, LABELS, growth=0.02), BATCHES[0]["images"]
    u = method.representation(images)
    for step in range(300):
        if step % 50 == 0:
            torch.testing.assert_close(
                method.embed(images), torch.tanh(math.sqrt(1 + 0.02 * step) * u)
            )
        method.after_step()
    assert method.scale.item() == pytest.approx(math.sqrt(7))
    assert HashNet(Given(), 6, LABELS, growth=0).scale == 1


@pytest.mark.parametrize("name", NAMES)
def test_codes_are_the_signs_of_the_hash_layer(name):
    method, images = method_of(name), BATCHES[1]["images"]
    assert torch.equal(to_codes(method.embed(images)), method.hash_layer(images).sign())
    assert (method.embed(images).abs().max() > 1) == (
        name != "hashnet"
    )  # the others' outputs are not bounded


def test_likelihood_of_large_products_is_finite():
    theta = torch.tensor([0.0, 30, -30, 1000, -1000], dtype=torch.float64)
    expected = [math.log(2), 30 + math.log1p(math.exp(-30)), math.log1p(math.exp(-30)), 1000, 0]
    torch.testing.assert_close(
        pair_likelihood(theta, torch.zeros(5)), torch.tensor(expected).double()
    )
    torch.testing.assert_close(
        pair_likelihood(-theta, torch.ones(5)), torch.tensor(expected).double()
    )


def test_gradients_in_double_precision():
    generator = torch.Generator().manual_seed(0)
    u = torch.randn(4, 3, dtype=torch.float64, generator=generator).requires_grad_()
    other = torch.randn(5, 3, dtype=torch.float64, generator=generator)
    similar = (torch.rand(4, 5, generator=generator) < 0.4).double()
    assert torch.autograd.gradcheck(lambda x: pair_likelihood(x @ other.T / 2, similar).mean(), u)
    assert torch.autograd.gradcheck(
        lambda x: balanced_mean(pair_likelihood(x @ other.T, similar), similar), u
    )
    labels = torch.tensor([0, 0, 1, 2])
    for margin in (2.0, 6.0):
        assert torch.autograd.gradcheck(contrastive_loss, (u, labels, margin))


@pytest.mark.parametrize("kind", [0.0, 1.0])
def test_a_kind_of_pair_that_does_not_occur_adds_nothing(kind):
    values = torch.rand(3, 4)
    torch.testing.assert_close(balanced_mean(values, torch.full((3, 4), kind)), values.mean())


def test_a_single_similar_pair_weighs_as_much_as_all_others():
    values, similar = torch.rand(3, 4), torch.zeros(3, 4)
    similar[1, 2] = 1
    torch.testing.assert_close(
        balanced_mean(values, similar), values[1, 2] + values[similar == 0].mean()
    )


def test_contrastive_loss_of_one_image_is_zero():
    outputs = torch.randn(1, 4, requires_grad=True)
    loss = contrastive_loss(outputs, torch.tensor([3]), 8.0)
    loss.backward()
    assert loss == 0 and not outputs.grad.any()


@pytest.mark.parametrize("name", NAMES)
def test_two_processes_see_the_pairs_of_the_whole_batch(name, monkeypatch):
    full = batch_of([3, 8, 0, 6, 5, 1])
    alone = method_of(name)
    expected = losses(alone, full)
    first, second = (
        {key: value[half] for key, value in full.items()} for half in (slice(3), slice(3, 6))
    )
    method = method_of(name)
    elsewhere = {
        "outputs": method.embed(second["images"]),
        "labels": second["labels"],
        "index": second["index"],
    }

    def gather(values):
        """What the first of two processes would get, which holds three of the six images."""
        key = (
            "outputs"
            if values.is_floating_point()
            else "labels"
            if values is first["labels"]
            else "index"
        )
        return torch.cat([values, elsewhere[key]])

    monkeypatch.setattr(hash_baselines, "gather", gather)
    for term, value in losses(method, first).items():
        torch.testing.assert_close(value, expected[term])
    for key, value in alone.state_dict().items():
        torch.testing.assert_close(method.state_dict()[key], value, equal_nan=True)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("classes", [1, 24])
def test_one_class_pulls_codes_together_and_one_image_a_class_keeps_them_apart(name, classes):
    labels = torch.arange(24) % classes
    method, batch = method_of(name, 8, labels), batch_of(range(24), labels)
    optimizer = torch.optim.Adam(method.parameters(), lr=0.02)
    for _ in range(150):
        loss = sum(losses(method, batch).values())
        assert loss.isfinite()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        method.after_step()
    codes = to_codes(method.embed(batch["images"]))
    different = (codes[:, None] != codes[None]).float().sum() / (24 * 23 * 8)
    assert different < 0.2 if classes == 1 else different > 0.45


@pytest.mark.parametrize("name", ["dpsh", "hashnet"])
@pytest.mark.parametrize(
    "change",
    [
        lambda batch: batch | {"labels": batch["labels"].flip(0)},
        lambda batch: batch | {"index": batch["index"] + 7},
    ],
)
def test_labels_of_another_set_of_images_are_refused(name, change):
    batch = change(BATCHES[1])
    with pytest.raises(ValueError, match="labels differ from those that the method was made with"):
        method_of(name).losses(**batch)


@pytest.mark.parametrize(
    "labels", [torch.zeros(3, 2, dtype=torch.long), torch.rand(4), torch.empty(0, dtype=torch.long)]
)
def test_labels_that_are_none_are_refused(labels):
    with pytest.raises(ValueError, match="whole numbers"):
        create_hash_baseline("dpsh", Given(), 8, labels)


def test_other_refusals():
    with pytest.raises(
        ValueError, match="hashing baseline is 'adsh': it must be one of dpsh, dsh, hash"
    ):
        create_hash_baseline("adsh", Given(), 8, LABELS)
    with pytest.raises(ValueError, match="bits is 0"):
        create_hash_baseline("dsh", Given(), 0, LABELS)
    with pytest.raises(ValueError, match="growth is -1"):
        HashNet(Given(), 8, LABELS, growth=-1)


@pytest.mark.parametrize("name", NAMES)
def test_freeze_norm_reaches_the_method(name):
    method = create_hash_baseline(name, SmallBackbone(), 8, LABELS, freeze_norm=True).train()
    assert method.training and not method.backbone.layers[1].training


# In the training loop


class Part:
    """Some of the pictures."""

    def __init__(self, pictures, start, stop):
        self.pictures, self.start, self.labels = pictures, start, pictures.labels[start:stop]

    def __len__(self):
        return len(self.labels)

    def batch(self, index):
        return self.pictures.batch(index + self.start)


def training_set():
    return Part(Pictures(count=90, classes=6), 0, 60)


def train(name, folder=None, stop_at=0, norm="group", sharpness=0.1, **settings):
    torch.manual_seed(0)
    pictures = training_set()
    method = create_hash_baseline(name, SmallBackbone(norm, dropout=0), 12, pictures.labels)
    method.sharpness = sharpness  # HashNet's
    stream = TrainingStream(pictures, pictures.labels, TrainingViews(16, **PLAIN, jitter=0), 12)
    settings = Settings(
        **{"epochs": 3, "lr": 0.01, "optimizer": "adam", "precision": "fp32", **settings}
    )
    after_step, steps = method.after_step, [0]

    def counted():
        after_step()
        steps[0] += 1
        if steps[0] == stop_at:
            signal.raise_signal(signal.SIGINT)

    method.after_step = counted
    history = fit(method, stream, settings, folder=folder, progress="none")
    losses = [{k: v for k, v in row.items() if k != "images_per_second"} for row in history.epochs]
    return method, {"state": method.state_dict(), "losses": losses}


@pytest.mark.parametrize("name", NAMES)
def test_a_run_that_resumes_ends_as_a_straight_run(tmp_path, name):
    straight = train(name)[1]
    with pytest.raises(Interrupted):
        train(name, tmp_path, stop_at=7)  # in the second epoch of five steps
    resumed = train(name, tmp_path)[1]
    assert resumed["losses"] == straight["losses"]
    for key, value in straight["state"].items():
        torch.testing.assert_close(resumed["state"][key], value, rtol=0, atol=0, equal_nan=True)
    if name == "hashnet":
        assert resumed["state"]["steps"] == 15


def score(method):
    """Mean average precision of pictures not trained on among those trained on."""
    views = TestViews(16, resize=24, **PLAIN)
    queries, gallery = Part(Pictures(count=90, classes=6), 60, 90), training_set()
    query, items = (to_codes(embed_all(method, pictures, views)) for pictures in (queries, gallery))
    return mean_average_precision(query, queries.labels, items, gallery.labels)


@pytest.mark.parametrize("name", NAMES)
def test_training_raises_mean_average_precision(name):
    # Six classes are few: HashNet needs its authors' sharpness, and DPSH batch normalisation.
    options = {"norm": "group" if name == "dsh" else "batch", "sharpness": 10 / 12}
    before, after = (score(train(name, epochs=epochs, **options)[0]) for epochs in (0, 25))
    assert after > before + 0.15, (before, after)
