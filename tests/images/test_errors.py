import io

import pytest

from cellseg_d2.images.errors import closed_on_error


def test_a_file_is_closed_if_what_follows_its_opening_fails_and_only_then():
    kept, failed = io.BytesIO(), io.BytesIO()
    with closed_on_error(kept):
        pass
    with pytest.raises(KeyboardInterrupt), closed_on_error(failed):
        raise KeyboardInterrupt
    assert (kept.closed, failed.closed) == (False, True)
