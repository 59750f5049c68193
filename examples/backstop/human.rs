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

/// What can't be seen escaped, and the backslash, so that no two texts look the same: a name must not move the cursor,
/// turn what follows around, or make two lines of one. Each name that comes from elsewhere goes through this before it
/// is put into a line of ours.
pub(crate) fn visible(text: &str) -> String {
    if !text.chars().any(|c| c == '\\' || is_hidden(c)) {
        return text.to_owned();
    }
    let escape = |c: char| match c {
        '\\' | '\n' | '\r' | '\t' => c.escape_default().collect(),
        c if is_hidden(c) => c.escape_unicode().collect(),
        c => vec![c],
    };
    text.chars().flat_map(escape).collect()
}

/// Whether a terminal shows nothing for a character, or something else than its place in the text: control characters,
/// separators of lines, marks of direction, and what has no width.
pub(crate) fn is_hidden(c: char) -> bool {
    c.is_control()
        || matches!(c,
            '\u{ad}' | '\u{34f}' | '\u{61c}' | '\u{115f}' | '\u{1160}' | '\u{17b4}' | '\u{17b5}' | '\u{3164}'
            | '\u{feff}' | '\u{ffa0}' | '\u{180b}'..='\u{180f}' | '\u{200b}'..='\u{200f}'
            | '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{206f}' | '\u{fff0}'..='\u{fffb}'
            | '\u{1bca0}'..='\u{1bca3}' | '\u{1d173}'..='\u{1d17a}' | '\u{e0000}'..='\u{e0fff}')
}

/// Bytes that mean something to an application: as text where they are some, otherwise in hexadecimal.
pub(crate) fn opaque(bytes: &[u8]) -> String {
    match std::str::from_utf8(bytes) {
        Ok(text) if !text.is_empty() && !text.chars().any(is_hidden) => text.to_owned(),
        _ => bytes.iter().fold("0x".to_owned(), |text, byte| text + &format!("{byte:02x}")),
    }
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
        assert_eq!(visible("a\\nb"), "a\\\\nb", "told from a line break");
        assert_eq!(visible("rtl\u{202e}gnp.exe"), "rtl\\u{202e}gnp.exe");
        for hidden in "\u{200b}\u{200d}\u{2028}\u{2029}\u{202a}\u{2066}\u{2069}\u{feff}\u{ad}\u{e0041}".chars() {
            assert_eq!(visible(&hidden.to_string()), hidden.escape_unicode().to_string());
        }
        assert_eq!(visible("\u{5e9}\u{1f600} e\u{301}"), "\u{5e9}\u{1f600} e\u{301}");
    }

    #[test]
    fn times_beyond_the_calendar_are_numbers() {
        assert_eq!(file_time(i64::MAX), format!("{} s", i64::MAX));
        assert!(file_time(-1).starts_with("19"));
    }
}
