"""PAN and its baselines over seeds, few-shot, in-shop and on outfits: python
tests/benchmarks/pan.py SHARED_DATA OUT [--rows NAME ...] [--seeds 0 1 2] [--workers 2].

Few-shot: CUB's classes 1-50 and Fieldguide, 25 / 13 / 12 and 50 / 25 / 25 classes; in-shop and
outfits: the generated Wardrobe. Bundled network at 192 px, frozen unless a row trains it; encoders
from scratch are trained at the 84 px of the few-shot literature. Finished runs are not run again,
others resume."""

import itertools

from photographs import measure

FEWSHOT = {
    "cosine": {"method": "cosine"},
    "ProtoNet": {"method": "protonet"},
    "Baseline++": {"method": "baseline++"},
    "Attr. Multitask": {"method": "multitask"},
    "Attr. Similarity": {"method": "attribute_similarity"},
    "without attributes": {"method": "plain"},
    "PAN-Unsupervised": {"method": "pan_unsupervised"},
    "PAN-Supervised": {"method": "pan_supervised"},
    "PAN-Supervised, end to end": {"method": "pan_supervised", "end_to_end": 3, "freeze_stages": 5},
}
FROZEN = [name for name, row in FEWSHOT.items() if row["method"] not in ("protonet", "baseline++")]
SHORT = {"epochs": 4, "freeze_stages": 5, "evaluate_every": 0}
PROXIES = SHORT | {"method": "proxynca++", "per_class": 4}
TRAINED = {
    "MS": SHORT | {"method": "multisimilarity", "per_class": 4},
    "NormSoftMax": SHORT | {"method": "normsoftmax"},
    "ProxyNCA++": PROXIES,
}
INSHOP = {f"frozen, {name}": FEWSHOT[name] for name in FROZEN[:-1]}
for name, settings in TRAINED.items():
    INSHOP[name] = {"method": "cosine", "embedding_settings": settings}
for name in FROZEN[-3:]:
    INSHOP[f"ProxyNCA++, {name}"] = FEWSHOT[name] | {"embedding_settings": PROXIES}
for place in ("frozen", "ProxyNCA++"):
    unsupervised, supervised = (INSHOP[f"{place}, {name}"] for name in FROZEN[-3:-1])
    INSHOP[f"{place}, PAN-Unsupervised, as many concepts"] = unsupervised | {"free": 65}
    for weight in (0.1, 0.01, 0.001):
        row = INSHOP[f"{place}, PAN-Supervised"] | {"attribute_weight": weight}
        INSHOP[f"{place}, PAN-Supervised, lambda {weight}"] = row
# Three graph layers, as CGAE has; "type_aware" is trained on images.
TYPES = {"epochs": 4, "triplets": 640, "evaluate_every": 1, "lr": 1e-3, "freeze_stages": 5}
LONG = TYPES | {"epochs": 40, "evaluate_every": 4}
OUTFITS = {
    "TAN": TYPES | {"method": "type_aware"},
    "TAN, ten times as long": LONG | {"method": "type_aware"},
    "CGAE": {"method": "plain", "hidden": [350, 350, 350]},
    "Attr. Multitask": {"method": "multitask"},
    "Attr. Similarity": {"method": "attribute_similarity"},
    "PAN-Unsupervised": {"method": "pan_unsupervised"},
    "PAN-Supervised": {"method": "pan_supervised"},
    "PAN-Supervised, type-aware features": {
        "method": "pan_supervised",
        "embedding_settings": TYPES,
    },
    "PAN-Supervised, type-aware features, ten times as long": {
        "method": "pan_supervised",
        "embedding_settings": LONG,
    },
}
SCRATCH = {"backbone": "resnet10t", "weights": "none", "resize": 96, "size": 84}
ONCE = {"optimizer": "adam", "lr": 1e-3, "freeze_norm": False, "evaluate_every": 0}
ENCODERS = {  # 20,000 to 30,000 images each
    "triplets": ONCE | {"method": "triplet", "epochs": 15, "triplets": 640},
    "episodes": ONCE
    | {"method": "protonet", "epochs": 20, "per_class": 10, "shots": 5, "batch_size": 100},
    "cosine head": ONCE | {"method": "vapnet", "constraint": "none", "epochs": 20},
}
CUB = {"dataset": "cub", "root": "CUB_200_2011"}
ROWS = {f"cub: {n}": ("fewshot", CUB | row) for n, row in FEWSHOT.items()}
ROWS |= {f"fieldguide: {n}": ("fewshot", row) for n, row in FEWSHOT.items()}
ROWS |= {f"in-shop: {n}": ("inshop", {"attribute_weight": 1.0} | row) for n, row in INSHOP.items()}
ROWS |= {f"outfits: {n}": ("outfits", row) for n, row in OUTFITS.items()}
ROWS |= {
    f"scratch: {encoder}, {n}": ("fewshot", SCRATCH | FEWSHOT[n] | {"embedding_settings": settings})
    for (encoder, settings), n in itertools.product(
        ENCODERS.items(), ("ProtoNet", "Baseline++", "PAN-Unsupervised", "PAN-Supervised")
    )
}
# What suits PAN's concepts does not suit attributes that are predicted of each image.
for place, name, weight in itertools.product(
    ("cub: ", "fieldguide: ", "in-shop: frozen, "),
    ("Attr. Multitask", "Attr. Similarity"),
    (0.1, 1.0, 10.0, 100.0),
):
    module, row = ROWS[f"{place}{name}"]
    ROWS[f"{place}{name}, lambda {weight:g}"] = module, row | {"attribute_weight": weight}
# PAN-Supervised has a concept for each attribute, PAN-Unsupervised 50.
for place, count in (("cub: ", 114), ("scratch: triplets, ", 232)):
    module, row = ROWS[f"{place}PAN-Unsupervised"]
    ROWS[f"{place}PAN-Unsupervised, as many concepts"] = module, row | {"free": count}
SHOWN = ("accuracy", "concept_auc", "recall@1", "recall@1_rerank", "fitb", "fitb_resampled")
SHOWN += ("auc", "auc_resampled", "fitb_k0", "auc_k0")

# What the paper says of its tables, a metric each, and what it leaves out: everything that learns
# against the frozen features' own cosine.
METRICS = {
    "cub": ("accuracy",),
    "fieldguide": ("accuracy",),
    "in-shop": ("recall@1",),
    "outfits": ("fitb_resampled", "auc_resampled"),
    "scratch": ("accuracy",),
}
COMPARED = (
    ("PAN-Supervised", "PAN-Unsupervised"),
    ("PAN-Supervised", "PAN-Unsupervised, as many concepts"),
    ("PAN-Supervised, lambda 0.01", "PAN-Unsupervised, as many concepts"),
    ("PAN-Unsupervised, as many concepts", "PAN-Unsupervised"),
    ("PAN-Unsupervised", "Attr. Similarity"),
    ("PAN-Unsupervised", "Attr. Multitask"),
    ("PAN-Unsupervised", "without attributes"),
    ("PAN-Unsupervised", "CGAE"),
    ("PAN-Unsupervised", "ProtoNet"),
    ("PAN-Unsupervised", "Baseline++"),
    ("PAN-Unsupervised", "cosine"),
    ("PAN-Supervised, end to end", "PAN-Supervised"),
    ("PAN-Supervised, type-aware features", "PAN-Supervised"),
    ("PAN-Supervised, type-aware features, ten times as long", "PAN-Supervised"),
)
PLACES = ("", "frozen, ", "ProxyNCA++, ", *(f"{encoder}, " for encoder in ENCODERS))
CLAIMS = [
    (*(f"{data}: {place}{name}" for name in pair), metric)
    for data, metrics in METRICS.items()
    for place, pair, metric in itertools.product(PLACES, COMPARED, metrics)
]
CLAIMS += [
    (f"in-shop: ProxyNCA++, {name}", f"in-shop: {other}", "recall@1")
    for name in (*FROZEN[-3:], "PAN-Unsupervised, as many concepts", "PAN-Supervised, lambda 0.01")
    for other in ("ProxyNCA++", f"frozen, {name}")
]

if __name__ == "__main__":
    measure(__doc__, ROWS, {"weights": "bundled", "progress": "none"}, SHOWN, CLAIMS)
