"""Names of files that all systems take."""

from cellseg_d2.io.file_names import file_stem


def test_file_stems():
    assert file_stem("plate 1/A5: day 2") == "plate 1_A5_ day 2"
    assert file_stem("a.b.c") == "a.b.c"
    assert file_stem("..") == file_stem("") == "image"
    assert file_stem("../x") == "_x"
    assert file_stem("bad \udcff byte") == "bad _ byte"
