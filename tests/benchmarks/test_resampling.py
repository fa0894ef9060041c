"""The table of the filters' CPU times."""

from benchmarks.resampling import FILTERS, table


def test_a_row_holds_the_sizes_and_a_column_each_filter() -> None:
    made = {("600 x 400 to 224 x 224", name): number + 0.26 for number, name in enumerate(FILTERS)}
    assert table(made).splitlines()[::2] == [
        "| CPU ms | `bilinear` | `bicubic` | `opencv_linear` | `opencv_area` |",
        "| 600 x 400 to 224 x 224 | 0.3 | 1.3 | 2.3 | 3.3 |",
    ]
