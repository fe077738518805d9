"""Fixtures that more than one folder of tests uses."""

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch
from planted_data import write_dataset, write_planted

from recsys.dataset import Dataset

torch.set_num_threads(1)  # the same sums in the same order, here and in the processes that tests start


@pytest.fixture(scope="session")
def planted(tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    return write_planted(tmp_path_factory.mktemp("planted") / "dataset")


@pytest.fixture
def make_dataset(tmp_path: Path) -> Callable[..., Dataset]:
    """`write_dataset` into a folder of the test's own."""
    return lambda *args, **options: write_dataset(tmp_path / "dataset", *args, **options)


@pytest.fixture(scope="session")
def group() -> Iterator[torch.device]:
    """The process group of one process that TorchRec needs; the device is the CPU, whatever the machine has."""
    import torch.distributed as dist

    from recsys.train.distributed import process_group

    if not dist.is_initialized():
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(torch.cuda, "is_available", lambda: False)
            with process_group() as device:
                yield device
