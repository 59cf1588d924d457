import json

import faiss
import numpy as np
import pytest
import torch

from fieldmarks.search import codes as search
from fieldmarks.search.codes import CodeIndex, pack


@pytest.fixture(autouse=True)
def one_thread():
    before = faiss.omp_get_max_threads()
    faiss.omp_set_num_threads(1)
    yield
    faiss.omp_set_num_threads(before)


def random_codes(size: int, bits: int, seed: int = 0) -> torch.Tensor:
    return (
        torch.randint(0, 2, (size, bits), generator=torch.Generator().manual_seed(seed)) * 2.0 - 1
    )


def clustered_codes(size: int, bits: int, seed: int = 0) -> torch.Tensor:
    """Around 50 centres, with one bit in twenty flipped."""
    generator = torch.Generator().manual_seed(seed)
    codes = random_codes(50, bits)[torch.randint(0, 50, (size,), generator=generator)]
    return torch.where(torch.rand(codes.shape, generator=generator) < 0.05, -codes, codes)


def all_distances(queries, codes) -> torch.Tensor:
    return (queries[:, None] != codes[None]).sum(dim=2)


def check(actual, queries, codes, k: int) -> None:
    """Exact distances in order, each that of its position, lower positions first among equals."""
    distances, positions = actual
    table = all_distances(queries, codes)
    assert (
        distances.dtype == positions.dtype == torch.int64
        and distances.shape == positions.shape == (len(queries), k)
    )
    assert torch.equal(distances, table.sort(dim=1).values[:, :k])
    assert torch.equal(distances, table.gather(1, positions))
    keys = distances * len(codes) + positions
    assert (keys.diff(dim=1) > 0).all()  # also: no position twice


@pytest.mark.parametrize("bits", [1, 7, 8, 12, 16, 48, 65])
def test_packing(bits):
    codes = random_codes(30, bits)
    packed = pack(codes)
    assert packed.dtype == np.uint8 and packed.shape == (30, -(-bits // 8))
    for row, code in zip(packed, codes.tolist(), strict=True):
        word = "".join("1" if bit > 0 else "0" for bit in code).ljust(8 * len(row), "0")
        assert row.tolist() == [int(word[i : i + 8], 2) for i in range(0, len(word), 8)]
    again = np.unpackbits(packed, axis=1)
    assert np.array_equal(again[:, :bits] * 2.0 - 1, codes) and not again[:, bits:].any()


def test_what_cannot_be_packed_codes_of_a_length():
    packed = pack(random_codes(5, 12))
    for bits in (0, 8, 17):
        with pytest.raises(ValueError, match=f"packed codes of {bits} bits are"):
            CodeIndex.of_packed(packed, bits)
    with pytest.raises(ValueError, match=r"got \(5, 2\) int64"):
        CodeIndex.of_packed(packed.astype(np.int64), 12)


@pytest.mark.parametrize("bits", [1, 12, 48, 130])
@pytest.mark.parametrize("make", [random_codes, clustered_codes])
def test_flat_is_exact(make, bits):
    codes, queries = make(300, bits), make(20, bits, seed=1)
    index = CodeIndex.build(codes)
    assert index.kind == "flat" and index.bits == bits and len(index) == 300 and index.probes == 1
    for k in (1, 10, 300):
        check(index.search(queries, k), queries, codes, k)
    assert index.recall_against_exact(queries, 10) == 1.0


@pytest.mark.parametrize("bits", [12, 48])
def test_packed_codes_mapped_into_memory_are_searched_exactly(tmp_path, bits):
    codes, queries = random_codes(400, bits), random_codes(7, bits, seed=1)
    np.save(tmp_path / "codes.npy", pack(codes))
    index = CodeIndex.of_packed(np.load(tmp_path / "codes.npy", mmap_mode="r"), bits)
    assert index.kind == "flat" and len(index) == 400
    check(tuple(map(torch.from_numpy, index.search_packed(pack(queries), 10))), queries, codes, 10)
    for wrong in (pack(codes)[:, :-1], pack(codes).astype(np.int64)):
        with pytest.raises(ValueError, match=f"packed codes of {bits} bits are"):
            CodeIndex.of_packed(wrong, bits)
        with pytest.raises(ValueError, match=f"packed codes of {bits} bits are"):
            index.search_packed(wrong, 1)


def test_ivf_that_looks_everywhere_is_exact():
    codes, queries = random_codes(5000, 24), random_codes(15, 24, seed=1)
    index = CodeIndex.build(codes, "ivf")
    assert index.lists == 71 and index.probes == 9
    index.probes = index.lists
    for k in (1, 40, 5000):
        check(index.search(queries, k), queries, codes, k)


def test_ivf_recall_is_the_share_of_results_as_near_as_the_exact_ones():
    codes, queries = random_codes(4000, 32), random_codes(50, 32, seed=1)
    index = CodeIndex.build(codes, "ivf")
    shares = []
    for probes in (1, 8, index.lists):
        index.probes = probes
        distances, positions = index.search(queries, 10)
        table = all_distances(queries, codes)
        assert torch.equal(distances, table.gather(1, positions))
        worst = table.sort(dim=1).values[:, 9].tolist()
        hits = [
            sum(d <= limit for d in row)
            for row, limit in zip(distances.tolist(), worst, strict=True)
        ]
        shares.append(index.recall_against_exact(queries, 10))
        assert shares[-1] == pytest.approx(sum(hits) / 500)
    assert shares[0] < shares[1] < shares[2] == 1
    clustered = CodeIndex.build(clustered_codes(4000, 32), "ivf")
    assert clustered.recall_against_exact(clustered_codes(50, 32, seed=1), 10) > 0.98


def test_where_the_lists_hold_too_few_all_are_searched():
    codes = random_codes(2000, 16)
    index = CodeIndex.build(codes, "ivf")
    index.probes = 1
    distances, positions = index.search(codes[:5], 2000)
    assert (
        torch.equal(positions.sort(dim=1).values, torch.arange(2000).expand(5, -1))
        and index.probes == 1
    )
    check((distances, positions), codes[:5], codes, 2000)


@pytest.mark.parametrize(
    "codes",
    [
        torch.ones(3000, 24),
        random_codes(3, 48)[torch.arange(4000) % 3],
        random_codes(3000, 1),
        random_codes(1, 9),
        random_codes(60, 40),
    ],
    ids=["collapsed", "three codes", "one bit", "a single code", "few"],
)
def test_repeated_and_few_codes_build_a_silent_exact_ivf(codes, capfd):
    index = CodeIndex.build(codes, "ivf")
    k = min(7, len(codes))
    check(index.search(codes[:4], k), codes[:4], codes, k)
    assert capfd.readouterr() == ("", "")


def test_auto_takes_ivf_for_large_galleries(monkeypatch):
    codes = random_codes(1000, 16)
    assert CodeIndex.build(codes).kind == "flat"
    monkeypatch.setattr(search, "FLAT_UP_TO", 999)
    assert CodeIndex.build(codes).kind == "ivf" and CodeIndex.build(codes, "flat").kind == "flat"


@pytest.mark.parametrize("kind", ["flat", "ivf"])
@pytest.mark.parametrize("bits", [12, 64])
def test_save_and_load(tmp_path, kind, bits):
    codes, queries = random_codes(2000, bits), random_codes(10, bits, seed=1)
    index = CodeIndex.build(codes, kind)
    if kind == "ivf":
        index.probes = 5
    path = tmp_path / "new folder" / "codes.faiss"
    index.save(path)
    loaded = CodeIndex.load(str(path))
    assert (loaded.kind, loaded.bits, loaded.probes, len(loaded)) == (
        kind,
        bits,
        index.probes,
        2000,
    )
    assert all(map(torch.equal, loaded.search(queries, 20), index.search(queries, 20)))
    assert sorted(file.name for file in path.parent.iterdir()) == [
        "codes.faiss",
        "codes.faiss.json",
    ]
    assert faiss.read_index_binary(str(path)).ntotal == 2000  # faiss alone can read it


def test_a_wrong_code_length_is_refused_even_if_it_packs_alike(tmp_path):
    CodeIndex.build(random_codes(50, 12)).save(tmp_path / "codes")
    index = CodeIndex.load(tmp_path / "codes")
    for bits in (11, 13, 16, 24):
        with pytest.raises(
            ValueError, match=f"the codes have {bits} bits, those in the index have 12"
        ):
            index.search(random_codes(2, bits), 1)


def test_damaged_files(tmp_path):
    path, note = tmp_path / "codes", tmp_path / "codes.json"
    with pytest.raises(
        FileNotFoundError, match="there is no '.*codes': an index is two files, .*codes.json'$"
    ):
        CodeIndex.load(path)
    CodeIndex.build(random_codes(50, 12)).save(path)
    for text, message in (
        ("{}", 'must hold "bits" and "codes"'),
        ("[1]", "must hold"),
        ("half a fi", "must hold"),
        ('{"bits": null, "codes": 50}', "must hold"),
        ('{"bits": 12, "codes": 49}', "do not belong together"),
        (
            '{"bits": 20, "codes": 50}',
            "50 codes of 20 bits, but .*codes' holds 50 of 16: .* do not belong",
        ),
    ):
        note.write_text(text)
        with pytest.raises(ValueError, match=message) as caught:
            CodeIndex.load(path)
        assert "\n" not in str(caught.value)
    note.write_text(json.dumps({"bits": 12, "codes": 50}))
    assert len(CodeIndex.load(path)) == 50
    whole = path.read_bytes()
    faiss.write_index(faiss.IndexFlatL2(12), str(tmp_path / "of floats"))
    for content in (b"", b"no index", whole[:-9], (tmp_path / "of floats").read_bytes()):
        path.write_bytes(content)
        with pytest.raises(ValueError, match="codes' is not a faiss index of binary codes"):
            CodeIndex.load(path)
    note.unlink()
    with pytest.raises(
        FileNotFoundError, match="there is no '.*codes.json': an index is two files"
    ):
        CodeIndex.load(path)


@pytest.mark.parametrize(
    "call, message",
    [
        (lambda index: index.search(torch.ones(2, 12), 51), "between 1 and 50, got 51"),
        (lambda index: index.search(torch.ones(2, 12), 0), "got 0"),
        (lambda index: index.search(torch.zeros(2, 12), 1), "found 0 at row 0, bit 0: .*to_codes"),
        (lambda index: index.search(torch.ones(12), 1), "non-empty"),
        (
            lambda index: setattr(index, "probes", 2),
            "probes is 2: it must lie between 1 and the 1 lists",
        ),
        (lambda index: CodeIndex.build(torch.ones(4, 0)), "non-empty"),
        (lambda index: CodeIndex.build(torch.ones(0, 12)), "non-empty"),
        (lambda index: CodeIndex.build(torch.full((4, 12), 0.3)), "found 0.3 at row 0"),
        (
            lambda index: CodeIndex.build(torch.ones(4, 12), "hnsw"),
            "kind is 'hnsw': it must be one of auto, flat, ivf",
        ),
        (lambda index: pack(torch.full((4, 12), float("nan"))), "found nan"),
    ],
)
def test_bad_input(call, message):
    with pytest.raises(ValueError, match=message) as caught:
        call(CodeIndex.build(random_codes(50, 12)))
    assert "\n" not in str(caught.value)
