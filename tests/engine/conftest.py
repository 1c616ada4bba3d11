"""What tests of trainings share."""

import pytest

from tests.discs import write_disc_dataset


@pytest.fixture(scope="module")
def dataset_root(tmp_path_factory):
    """A folder of datasets with the one called ``discs``."""
    root = tmp_path_factory.mktemp("datasets")
    write_disc_dataset(root)
    return root
