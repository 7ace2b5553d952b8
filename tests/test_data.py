import gzip
import shutil
from pathlib import Path

import pytest
import torch

from ginv.data import DATASETS, load_dataset

CLONE = Path(__file__).resolve().parents[1] / "data"


@pytest.mark.parametrize("name", DATASETS)
def test_splits_are_what_the_paper_says(name):
    data = load_dataset(name)
    splits = (data.train, data.validation, data.test)
    assert [len(split) for split in splits] == [10_000, 2_000, 50_000]
    assert all(split.images.shape[1:] == (1, 36, 36) for split in splits)
    assert data.train.images.mean().abs() < 1e-4 and abs(data.train.images.std() - 1) < 1e-4
    assert sorted(data.test.labels.unique().tolist()) == list(range(9))
    border = torch.cat([data.test.images[..., :4, :].flatten(), data.test.images[..., -4:].flatten()])
    torch.testing.assert_close(border.unique(), torch.tensor([-data.mean / data.std]))


def test_splits_are_disjoint():
    """Images of MNIST are distinct, so no image may stand in two splits; the split seed moves them."""
    data = load_dataset("MNIST")
    seen = [{image.numpy().tobytes() for image in split.images} for split in (data.train, data.validation, data.test)]
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
        with pytest.raises(ValueError, match=r"t10k-labels-idx1-ubyte.gz (cannot be unpacked|is corrupted)"):
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
    load_dataset.cache_clear()
    assert torch.equal(load_dataset("MNIST").test.images[:100], packed.test.images[:100])


def test_unknown_dataset_is_refused():
    with pytest.raises(ValueError, match="dataset is 'KMNIST'; allowed: MNIST, FashionMNIST"):
        load_dataset("KMNIST")
