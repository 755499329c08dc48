//! Durations and sizes as people write them: `1h30m`, `250ms`, `64MiB`.

use std::time::Duration;

/// A text that is no duration.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "`{text}` is not a duration: write whole numbers with `ms`, `s`, `m`, `h` or `d`, as in `250ms` or `1h30m`"
)]
pub struct DurationError {
    /// The text.
    pub text: String,
}

/// A text that is no size.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "`{text}` is not a size: write a whole number with `B`, `KiB`, `MiB` or `GiB`, as in `64MiB`"
)]
pub struct SizeError {
    /// The text.
    pub text: String,
}

/// Units of time with their milliseconds, the largest first.
const UNITS: &[(&str, u64)] = &[
    ("d", 86_400_000),
    ("h", 3_600_000),
    ("m", 60_000),
    ("s", 1_000),
    ("ms", 1),
];

/// Reads a duration such as `250ms`, `10m` or `1h30m`: whole numbers, each with a unit, the larger units first.
pub fn parse_duration(text: &str) -> Result<Duration, DurationError> {
    let wrong = || DurationError {
        text: text.to_owned(),
    };
    let (mut rest, mut units, mut total_ms) = (text, UNITS, 0_u64);
    while !rest.is_empty() {
        let (digits, after) = split_digits(rest);
        let number: u64 = digits.parse().map_err(|_| wrong())?;
        let letters = after
            .find(|char: char| char.is_ascii_digit())
            .unwrap_or(after.len());
        let position = units
            .iter()
            .position(|(unit, _)| *unit == &after[..letters])
            .ok_or_else(wrong)?;
        let part_ms = number.checked_mul(units[position].1).ok_or_else(wrong)?;
        total_ms = total_ms.checked_add(part_ms).ok_or_else(wrong)?;
        units = &units[position + 1..];
        rest = &after[letters..];
    }
    if text.is_empty() {
        Err(wrong())
    } else {
        Ok(Duration::from_millis(total_ms))
    }
}

/// Reads a size such as `64MiB` into bytes.
pub fn parse_size(text: &str) -> Result<u64, SizeError> {
    let wrong = || SizeError {
        text: text.to_owned(),
    };
    let (digits, unit) = split_digits(text);
    let number: u64 = digits.parse().map_err(|_| wrong())?;
    let shift = match unit {
        "B" => 0,
        "KiB" => 10,
        "MiB" => 20,
        "GiB" => 30,
        _ => return Err(wrong()),
    };
    number.checked_mul(1 << shift).ok_or_else(wrong)
}

/// A size as people write it, in the largest unit that divides it.
pub(super) fn size_text(bytes: u64) -> String {
    let units = [("GiB", 30), ("MiB", 20), ("KiB", 10)];
    match units
        .iter()
        .find(|(_, shift)| bytes != 0 && bytes.is_multiple_of(1 << shift))
    {
        Some((unit, shift)) => format!("{}{unit}", bytes >> shift),
        None => format!("{bytes}B"),
    }
}

/// A duration as people write it.
pub(super) fn duration_text(duration: Duration) -> String {
    let mut rest_ms = u64::try_from(duration.as_millis()).unwrap_or(u64::MAX);
    let mut text = String::new();
    for (unit, unit_ms) in UNITS {
        let number = rest_ms / unit_ms;
        rest_ms %= unit_ms;
        if number > 0 {
            text.push_str(&format!("{number}{unit}"));
        }
    }
    if text.is_empty() {
        "0s".to_owned()
    } else {
        text
    }
}

fn split_digits(text: &str) -> (&str, &str) {
    text.split_at(
        text.find(|char: char| !char.is_ascii_digit())
            .unwrap_or(text.len()),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_read_as_written() {
        for (text, ms) in [
            ("1s", 1_000),
            ("250ms", 250),
            ("10m", 600_000),
            ("1h30m", 5_400_000),
            ("1d2h3m4s5ms", 93_784_005),
            ("0s", 0),
            ("90m", 5_400_000),
        ] {
            assert_eq!(
                parse_duration(text),
                Ok(Duration::from_millis(ms)),
                "{text}"
            );
        }
        for wrong in [
            "",
            " 1s",
            "1s ",
            "1",
            "s",
            "-1s",
            "1.5s",
            "1 s",
            "1S",
            "1sec",
            "30m1h",
            "1s1s",
            "1us",
            "é",
            "1é",
            "18446744073709551616ms",
            "999999999999999999d",
        ] {
            assert!(parse_duration(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn sizes_read_as_written() {
        for (text, bytes) in [
            ("64MiB", 64 << 20),
            ("1KiB", 1024),
            ("1GiB", 1 << 30),
            ("0B", 0),
            ("7B", 7),
        ] {
            assert_eq!(parse_size(text), Ok(bytes), "{text}");
            assert_eq!(size_text(bytes), text);
        }
        for wrong in [
            "",
            "64",
            "64MB",
            "64M",
            "1.5GiB",
            "MiB",
            "-1B",
            "1 MiB",
            "64mib",
            "99999999999999GiB",
            "1é",
        ] {
            assert!(parse_size(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn durations_print_as_they_are_read() {
        for text in ["1s", "250ms", "1h30m", "1d2h3m4s5ms"] {
            assert_eq!(parse_duration(text).map(duration_text).as_deref(), Ok(text));
        }
        assert_eq!(duration_text(Duration::ZERO), "0s");
    }
}
