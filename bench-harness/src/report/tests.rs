use super::*;

#[test]
fn numbers_are_written_for_people() {
    for (value, expected) in [
        (0.5, "0.5"),
        (3.0, "3"),
        (1.4286, "1.43"),
        (12.34, "12.3"),
        (345.6, "346"),
        (1234.0, "1.2K"),
        (45_678.0, "46K"),
        (8_765_432.0, "8.77M"),
    ] {
        assert_eq!(bare(value), expected);
    }
}
