//! Sizes, times and names for people.

use backstop::{Key, Timestamp};
use jiff::tz::TimeZone;

/// `1.5 MiB`: three digits are enough.
pub(crate) fn bytes(bytes: u64) -> String {
    const UNITS: [&str; 6] = ["KiB", "MiB", "GiB", "TiB", "PiB", "EiB"];
    if bytes < 1024 {
        return format!("{bytes} B");
    }
    #[expect(clippy::cast_precision_loss, reason = "shown with three digits")]
    let mut value = bytes as f64 / 1024.0;
    let mut unit = 0;
    // What would be shown as 1024 is one of the next.
    while value >= 1023.5 && unit + 1 < UNITS.len() {
        value /= 1024.0;
        unit += 1;
    }
    if value < 99.95 { format!("{value:.1} {}", UNITS[unit]) } else { format!("{value:.0} {}", UNITS[unit]) }
}

/// `78,611`.
pub(crate) fn count(number: u64) -> String {
    let digits = number.to_string();
    let mut text = String::with_capacity(digits.len() + digits.len() / 3);
    for (at, digit) in digits.chars().enumerate() {
        if at > 0 && (digits.len() - at).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

/// `1 file`, `2 files`.
pub(crate) fn counted(number: u64, one: &str, many: &str) -> String {
    format!("{} {}", count(number), if number == 1 { one } else { many })
}

/// In the system's time zone, to the second.
pub(crate) fn time(time: Timestamp) -> String {
    file_time(time.as_nanos().div_euclid(1_000_000_000))
}

/// Seconds since the epoch in the system's time zone; the number itself where no calendar reaches.
pub(crate) fn file_time(seconds: i64) -> String {
    match jiff::Timestamp::from_second(seconds) {
        Ok(instant) => instant.to_zoned(TimeZone::system()).strftime("%Y-%m-%d %H:%M:%S").to_string(),
        Err(_) => format!("{seconds} s"),
    }
}

/// The path of a key, safe to show on a terminal.
pub(crate) fn path(key: &Key) -> String {
    visible(&key.to_string())
}

/// Control characters escaped: a name must not move the cursor, nor a line break make two names of one.
pub(crate) fn visible(text: &str) -> String {
    if !text.chars().any(char::is_control) {
        return text.to_owned();
    }
    text.chars().flat_map(|c| if c.is_control() { c.escape_default().collect() } else { vec![c] }).collect()
}

/// Bytes that mean something to an application: as text where they are some, otherwise in hexadecimal.
pub(crate) fn opaque(bytes: &[u8]) -> String {
    match std::str::from_utf8(bytes) {
        Ok(text) if !text.is_empty() && !text.chars().any(char::is_control) => text.to_owned(),
        _ => bytes.iter().fold("0x".to_owned(), |text, byte| text + &format!("{byte:02x}")),
    }
}

/// Lines that are ours, with control characters in them escaped.
pub(crate) fn visible_lines(text: &str) -> String {
    text.lines().map(visible).collect::<Vec<_>>().join("\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_position_is_shown_as_text_or_in_hexadecimal() {
        assert_eq!(opaque(b"0/16B3748"), "0/16B3748");
        assert_eq!(opaque(&[0, 0, 0, 41]), "0x00000029");
        assert_eq!((opaque(b"\xff"), opaque(b""), opaque(b"a\n")), ("0xff".into(), "0x".into(), "0x610a".into()));
    }

    #[test]
    fn sizes_have_three_digits() {
        let sizes = [0, 1023, 1024, 1536, 102_348, 102_399, 1_048_524, 1_048_575, 1 << 30, u64::MAX].map(bytes);
        let expected =
            ["0 B", "1023 B", "1.0 KiB", "1.5 KiB", "99.9 KiB", "100 KiB", "1.0 MiB", "1.0 MiB", "1.0 GiB", "16.0 EiB"];
        assert_eq!(sizes, expected);
    }

    #[test]
    fn numbers_are_grouped() {
        assert_eq!([0, 999, 1000, 78_611, 1_234_567].map(count), ["0", "999", "1,000", "78,611", "1,234,567"]);
        assert_eq!(counted(1, "file", "files"), "1 file");
        assert_eq!(counted(0, "file", "files"), "0 files");
    }

    #[test]
    fn names_cannot_steer_a_terminal() {
        assert_eq!(visible("caf\u{e9} x"), "caf\u{e9} x");
        assert_eq!(visible("a\n\u{1b}[31mb\u{9b}"), "a\\n\\u{1b}[31mb\\u{9b}");
    }

    #[test]
    fn times_beyond_the_calendar_are_numbers() {
        assert_eq!(file_time(i64::MAX), format!("{} s", i64::MAX));
        assert!(file_time(-1).starts_with("19"));
    }
}
