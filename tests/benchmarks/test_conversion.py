"""Both ways of reading annotations read all of them."""

from cellseg_d2.benchmarks.conversion import measure_conversion


def test_both_ways_are_measured(tmp_path):
    rows = [f"{name},{1 + 40 * cell} 20 {21 + 40 * cell + 200} 9,200,100,cort" for name in "abc" for cell in range(4)]
    (tmp_path / "train.csv").write_text("id,annotation,width,height,cell_type\n" + "\n".join(rows) + "\n")
    costs = measure_conversion(tmp_path / "train.csv", float_images=2)
    assert costs["runs to COCO RLE"].rows == 12
    assert costs["float mask per row"].rows == 8
    assert all(cost.seconds > 0 and cost.megabytes >= 0 for cost in costs.values())
