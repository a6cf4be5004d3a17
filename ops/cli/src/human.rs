//! Figures as people read them: how long ago, how much, and text that is safe to show.

use outlive_schemas::time::{Millis, Timestamp};
use std::time::{SystemTime, UNIX_EPOCH};

pub fn now() -> Timestamp {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    Timestamp(u64::try_from(since.as_millis()).unwrap_or(u64::MAX))
}

/// `12s ago`, or `in 12s` for what is to come.
pub fn relative(at: Timestamp, now: Timestamp) -> String {
    if at > now { format!("in {}", rough(at.since(now))) } else { format!("{} ago", rough(now.since(at))) }
}

/// A length of time in its two largest units at most: `340ms`, `1.5s`, `12s`, `3m20s`, `2h5m`, `4d`.
pub fn rough(length: Millis) -> String {
    let seconds = length.0 / 1_000;
    match seconds {
        0 => format!("{}ms", length.0),
        1..10 => format!("{}.{}s", seconds, length.0 % 1_000 / 100),
        10..60 => format!("{seconds}s"),
        60..3_600 => two(seconds / 60, "m", seconds % 60, "s"),
        3_600..86_400 => two(seconds / 3_600, "h", seconds % 3_600 / 60, "m"),
        _ => two(seconds / 86_400, "d", seconds % 86_400 / 3_600, "h"),
    }
}

fn two(large: u64, large_unit: &str, small: u64, small_unit: &str) -> String {
    if small == 0 { format!("{large}{large_unit}") } else { format!("{large}{large_unit}{small}{small_unit}") }
}

/// An amount of bytes, rounded: `512 B`, `4.0 KiB`, `1.2 GiB`.
pub fn size(bytes: u64) -> String {
    const UNITS: [&str; 5] = ["KiB", "MiB", "GiB", "TiB", "PiB"];
    if bytes < 1_024 {
        return format!("{bytes} B");
    }
    let mut amount = bytes as f64 / 1_024.0;
    let mut unit = 0;
    while amount >= 1_023.95 && unit + 1 < UNITS.len() {
        amount /= 1_024.0;
        unit += 1;
    }
    format!("{amount:.1} {}", UNITS[unit])
}

/// `text` with every control character but the end of a line written out, so that it cannot steer a terminal.
pub fn printable(text: &str) -> String {
    let mut shown = String::with_capacity(text.len());
    for character in text.chars() {
        if character.is_control() && character != '\n' {
            shown.extend(character.escape_default());
        } else {
            shown.push(character);
        }
    }
    shown
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lengths_of_time() {
        for (ms, text) in [
            (0, "0ms"),
            (340, "340ms"),
            (1_540, "1.5s"),
            (12_900, "12s"),
            (60_000, "1m"),
            (200_000, "3m20s"),
            (7_500_000, "2h5m"),
            (345_600_000, "4d"),
        ] {
            assert_eq!(rough(Millis(ms)), text);
        }
        assert_eq!(relative(Timestamp(1_000), Timestamp(13_000)), "12s ago");
        assert_eq!(relative(Timestamp(13_000), Timestamp(1_000)), "in 12s");
    }

    #[test]
    fn sizes() {
        for (bytes, text) in [
            (0, "0 B"),
            (1_023, "1023 B"),
            (4_096, "4.0 KiB"),
            (1_048_575, "1.0 MiB"),
            (1_288_490_188, "1.2 GiB"),
            (u64::MAX, "16384.0 PiB"),
        ] {
            assert_eq!(size(bytes), text);
        }
    }
}
