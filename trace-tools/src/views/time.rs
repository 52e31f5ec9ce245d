//! Ticks as times that people read.

/// A moment as `seconds.microseconds`, digits cut, not rounded.
pub fn timestamp(ticks: u64, tick_hz: u64) -> String {
    let micros = u128::from(ticks) * 1_000_000 / u128::from(tick_hz.max(1));
    format!("{}.{:06}", micros / 1_000_000, micros % 1_000_000)
}

/// A duration with three or four digits and the unit that fits.
pub fn duration(ticks: u64, tick_hz: u64) -> String {
    let nanos = ticks as f64 * 1e9 / tick_hz.max(1) as f64;
    let (value, unit) = match nanos {
        n if n < 1e3 => (n, "ns"),
        n if n < 1e6 => (n / 1e3, "us"),
        n if n < 1e9 => (n / 1e6, "ms"),
        n => (n / 1e9, "s"),
    };
    if value >= 100.0 || unit == "ns" {
        format!("{value:.0} {unit}")
    } else if value >= 10.0 {
        format!("{value:.1} {unit}")
    } else {
        format!("{value:.2} {unit}")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_cut_to_microseconds() {
        assert_eq!(timestamp(2_600_000_000 + 2_599, 2_600_000_000), "1.000000");
        assert_eq!(timestamp(u64::MAX, 1), "18446744073709551615.000000");
    }

    #[test]
    fn durations_choose_their_unit() {
        let cases = [(0, "0 ns"), (999, "999 ns"), (1_500, "1.50 us"), (25_000_000, "25.0 ms")];
        for (ticks, text) in cases {
            assert_eq!(duration(ticks, 1_000_000_000), text);
        }
        assert_eq!(duration(300, 1), "300 s");
    }
}
