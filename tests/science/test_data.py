import gzip
import hashlib
import shutil
from contextlib import suppress
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread

import naive_training  # noqa: F401  # first: it gets torchvision imported beside another build of torch
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torchvision.datasets import MNIST

from ginv import blend, load_dataset, partners
from ginv.data import DATASETS, _normalised

CLONE = Path(__file__).resolve().parents[2] / "data"


@pytest.mark.parametrize("name", DATASETS)
def test_splits_are_what_the_paper_says(name):
    data = load_dataset(name)
    splits = (data.train, data.validation, data.test)
    assert [len(split) for split in splits] == [10_000, 2_000, 50_000]
    assert all(split.images.shape[1:] == (1, 36, 36) for split in splits)
    assert data.train.images.mean().abs() < 1e-4 and abs(data.train.images.std() - 1) < 1e-4
    assert sorted(data.test.labels.unique().tolist()) == list(range(9))
    border = torch.cat(
        [data.test.images[..., :4, :].flatten(), data.test.images[..., -4:].flatten()]
    )
    torch.testing.assert_close(border.unique(), torch.tensor([-data.mean / data.std]))


def test_splits_are_disjoint():
    """Images of MNIST are distinct, so none may stand in two splits; the split seed moves them."""
    data = load_dataset("MNIST")
    seen = [
        {image.numpy().tobytes() for image in split.images}
        for split in (data.train, data.validation, data.test)
    ]
    assert sum(map(len, seen)) == len(set().union(*seen)) == 62_000
    assert not torch.equal(load_dataset("MNIST", 1).train.labels, data.train.labels)


def test_a_corrupted_file_is_refused_by_name(tmp_path, monkeypatch):
    shutil.copytree(CLONE / "MNIST", tmp_path / "MNIST")
    monkeypatch.setenv("GINV_DATA", str(tmp_path))
    file = tmp_path / "MNIST/raw/t10k-labels-idx1-ubyte.gz"
    content = bytearray(gzip.decompress(file.read_bytes()))
    content[100] ^= 1
    file.write_bytes(gzip.compress(content))
    with pytest.raises(ValueError, match="t10k-labels-idx1-ubyte.gz is corrupted: md5"):
        load_dataset("MNIST", split_seed=9)
    packed = (CLONE / "MNIST/raw/t10k-labels-idx1-ubyte.gz").read_bytes()
    for broken in (b"not gzip", packed[:1000], packed[:1000] + bytes(50) + packed[1050:]):
        file.write_bytes(broken)
        with pytest.raises(
            ValueError, match=r"t10k-labels-idx1-ubyte.gz (cannot be unpacked|is corrupted)"
        ):
            load_dataset("MNIST", split_seed=9)
    file.unlink()
    with pytest.raises(FileNotFoundError, match="no MNIST/raw/t10k-labels-idx1-ubyte.gz in"):
        load_dataset("MNIST", split_seed=9)


def test_unpacked_files_are_read_too(tmp_path, monkeypatch):
    packed = load_dataset("MNIST")
    (tmp_path / "MNIST/raw").mkdir(parents=True)
    for path in (CLONE / "MNIST/raw").iterdir():
        (tmp_path / "MNIST/raw" / path.stem).write_bytes(gzip.decompress(path.read_bytes()))
    monkeypatch.setenv("GINV_DATA", str(tmp_path))
    _normalised.cache_clear()
    assert torch.equal(load_dataset("MNIST").test.images[:100], packed.test.images[:100])


def test_unknown_dataset_is_refused():
    with pytest.raises(ValueError, match="dataset is 'KMNIST'; allowed: MNIST, FashionMNIST"):
        load_dataset("KMNIST")


class Handler(SimpleHTTPRequestHandler):
    """Serves a folder; `broken` turns what it sends into something else."""

    broken = staticmethod(lambda content: content)

    def copyfile(self, source, outputfile):
        outputfile.write(self.broken(source.read()))

    def handle(self):
        with suppress(ConnectionError):
            super().handle()

    def log_message(self, *_):
        pass


@pytest.fixture
def cache(tmp_path, monkeypatch):
    """An empty cache, no clone, and a server on this machine that stands for the mirrors."""
    monkeypatch.setattr("ginv.published.__file__", str(tmp_path / "nowhere/ginv/published.py"))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    with ThreadingHTTPServer(
        ("127.0.0.1", 0), partial(Handler, directory=CLONE / "MNIST/raw")
    ) as server:
        Thread(target=server.serve_forever, daemon=True).start()
        address = f"http://127.0.0.1:{server.server_port}/"
        monkeypatch.setattr(MNIST, "mirrors", ["http://127.0.0.1:1/", address])
        packed = [
            (file.name, hashlib.md5(file.read_bytes()).hexdigest())
            for file in (CLONE / "MNIST/raw").glob("*.gz")
        ]
        monkeypatch.setattr(MNIST, "resources", packed)  # these were packed anew
        _normalised.cache_clear()
        yield tmp_path / "ginv" / "data"
        server.shutdown()
    _normalised.cache_clear()


def test_what_is_missing_is_downloaded(cache, monkeypatch):
    assert len(load_dataset().test) == 50_000
    assert len(list((cache / "MNIST/raw").iterdir())) == 4
    monkeypatch.setattr(MNIST, "mirrors", [])  # nothing is asked for again
    _normalised.cache_clear()
    assert len(load_dataset().test) == 50_000


def reset(content):
    raise ConnectionResetError("reset")


@pytest.mark.parametrize(
    "broken",
    [
        lambda content: content[: len(content) // 2],
        lambda content: content[:-1] + b"x",
        lambda content: b"",
        reset,
    ],
    ids=["half", "altered", "empty", "reset"],
)
def test_a_download_that_fails_is_one_line_and_leaves_nothing(broken, cache, monkeypatch):
    whole = [True, False]

    def after_the_first(content):
        return content if whole.pop(0) else broken(content)

    monkeypatch.setattr(Handler, "broken", staticmethod(after_the_first))
    with pytest.raises(OSError, match=r"^\S+/MNIST/raw cannot be filled from [^\n]*$") as error:
        load_dataset()
    mirrors = MNIST.mirrors
    assert all(
        text in str(error.value) for text in (*mirrors, "set GINV_DATA to a folder with MNIST/raw")
    )
    assert not [path for path in cache.rglob("*") if path.is_file()]


def test_a_cache_that_cannot_be_written_is_one_line(cache):
    cache.parent.write_text("a file")
    with pytest.raises(OSError, match=r"^\S+ cannot be filled from [^\n]*Not a directory[^\n]*$"):
        load_dataset()


def test_partners_are_of_the_same_class_and_differ_while_they_can():
    labels, others = torch.tensor([0, 1, 0, 0, 2]), torch.tensor([2, 0, 1, 0, 2])
    chosen = partners(labels, others)
    assert (others[chosen] == labels).all()
    assert chosen.tolist() == [1, 2, 3, 1, 0]


@given(st.lists(st.integers(0, 3), min_size=1), st.lists(st.integers(0, 3)), st.integers(0, 99))
def test_random_partners_are_too(labels, others, seed):
    labels, others = torch.tensor(labels), torch.tensor([0, 1, 2, 3, *others])
    chosen = partners(labels, others, torch.Generator().manual_seed(seed))
    assert (others[chosen] == labels).all()
    for label in labels.unique():
        times = chosen[labels == label].bincount(minlength=len(others))[others == label]
        assert times.max() - times.min() <= 1  # none twice before all were once
    assert torch.equal(partners(labels, others, torch.Generator().manual_seed(seed)), chosen)


def test_partners_are_random_where_there_is_a_generator(generator):
    labels, others = torch.zeros(50, dtype=torch.int64), torch.zeros(100, dtype=torch.int64)
    first, second = (partners(labels, others, generator) for _ in range(2))
    assert not torch.equal(first, second) and not torch.equal(first, partners(labels, others))
    assert max(first) >= 50  # from all of them


def test_a_blend_goes_from_one_image_to_the_other(generator):
    images, others = torch.randn(2, 3, 1, 6, 6, generator=generator)
    assert torch.equal(blend(images, others, 0.0), images)
    assert torch.equal(blend(images, others, 1.0), others)
    torch.testing.assert_close(blend(images, others, 0.5), (images + others) / 2)
    torch.testing.assert_close(blend(images, others, 0.3), 0.7 * images + 0.3 * others)


def test_what_drifts_does_not_hang_on_the_default_device():
    labels, images = torch.tensor([0, 1, 1, 2]), torch.ones(4, 1, 3, 3)
    with torch.device("meta"):
        assert partners(labels, labels).tolist() == [0, 1, 2, 3]
        assert blend(images, images, 0.5).device.type == "cpu"
