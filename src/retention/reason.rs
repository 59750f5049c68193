//! Why a snapshot is kept or not, in words.

use std::fmt;
use std::time::Duration;

use super::period::Period;

/// Why a snapshot is kept, or that nothing keeps it. Displayed in plain words.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Reason {
    /// It is one of so many newest snapshots.
    Last(u32),
    /// It is the last complete snapshot of a period, or the last of one that has no complete snapshot.
    Period(Period),
    /// It is at most so much older than the newest snapshot.
    Within(Duration),
    /// It carries a label.
    Label {
        /// The label's key.
        key: String,
        /// The label's value.
        value: String,
    },
    /// It is the series' last complete snapshot, which is always kept.
    LastComplete,
    /// It is the series' newest snapshot, which is always kept; told of a partial one.
    Newest,
    /// Its clock can't be believed: it said a time that is still to come.
    Future,
    /// Its clock can't be believed: it was behind those of earlier snapshots.
    Behind,
    /// Its clock can't be believed: it was ahead of those of later snapshots.
    Ahead,
    /// No rule keeps it.
    NoRule,
    /// It was named to be forgotten.
    Named,
    /// Others of its series were named to be forgotten, and no policy is about it.
    NotNamed,
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Reason::Last(1) => f.write_str("the last one"),
            Reason::Last(count) => write!(f, "one of the last {count}"),
            Reason::Period(period) => write!(f, "the last of {period}"),
            Reason::Within(age) => write!(f, "within {} of the newest", Words(*age)),
            Reason::Label { key, value } => write!(f, "carries the label {key}={value}"),
            Reason::LastComplete => f.write_str("the series' last complete snapshot"),
            Reason::Newest => f.write_str("the series' newest snapshot"),
            Reason::Future => f.write_str("its time can't be trusted: it lies in the future"),
            Reason::Behind => f.write_str("its time can't be trusted: its clock was behind"),
            Reason::Ahead => f.write_str("its time can't be trusted: its clock was ahead"),
            Reason::NoRule => f.write_str("covered by no rule"),
            Reason::Named => f.write_str("named to be forgotten"),
            Reason::NotNamed => f.write_str("not named"),
        }
    }
}

/// A duration in the largest unit that needs no fraction.
struct Words(Duration);

impl fmt::Display for Words {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.0.subsec_nanos() > 0 {
            return write!(f, "{:?}", self.0);
        }
        let seconds = self.0.as_secs();
        let units = [(86_400, "day"), (3_600, "hour"), (60, "minute")];
        let (length, name) =
            units.into_iter().find(|(length, _)| seconds.is_multiple_of(*length)).unwrap_or((1, "second"));
        let count = seconds / length;
        write!(f, "{count} {name}{}", if count == 1 { "" } else { "s" })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_are_told_in_the_largest_whole_unit() {
        let told = [
            (Duration::from_secs(14 * 86_400), "14 days"),
            (Duration::from_secs(86_400), "1 day"),
            (Duration::from_secs(36 * 3_600), "36 hours"),
            (Duration::from_secs(90 * 60), "90 minutes"),
            (Duration::from_secs(61), "61 seconds"),
            (Duration::from_millis(1_500), "1.5s"),
            (Duration::from_secs(u64::MAX), "18446744073709551615 seconds"),
        ];
        for (duration, words) in told {
            assert_eq!(Words(duration).to_string(), words);
        }
    }
}
