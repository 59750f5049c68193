//! Hours, days, weeks, months and years at a fixed distance from UTC.

use std::fmt;

use jiff::tz::Offset;

use crate::clock::Timestamp;

/// The most that local time may differ from UTC, in seconds: 18 hours.
pub(super) const OFFSET_MAX: i32 = 18 * 3_600;

/// A stretch of the calendar. Those of one kind are ordered as they follow each other.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[non_exhaustive]
pub enum Period {
    /// An hour of a day.
    Hour {
        /// The year.
        year: i16,
        /// From 1.
        month: i8,
        /// From 1.
        day: i8,
        /// From 0.
        hour: i8,
    },
    /// A day.
    Day {
        /// The year.
        year: i16,
        /// From 1.
        month: i8,
        /// From 1.
        day: i8,
    },
    /// A week as ISO 8601 has it.
    Week {
        /// The year that most of the week is in.
        year: i16,
        /// From 1.
        week: i8,
    },
    /// A month.
    Month {
        /// The year.
        year: i16,
        /// From 1.
        month: i8,
    },
    /// A year.
    Year {
        /// The year.
        year: i16,
    },
}

impl fmt::Display for Period {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Period::Hour { year, month, day, hour } => write!(f, "the hour {year:04}-{month:02}-{day:02} {hour:02}:00"),
            Period::Day { year, month, day } => write!(f, "{year:04}-{month:02}-{day:02}"),
            Period::Week { year, week } => write!(f, "week {year:04}-W{week:02}"),
            Period::Month { year, month } => write!(f, "{year:04}-{month:02}"),
            Period::Year { year } => write!(f, "{year:04}"),
        }
    }
}

/// A kind of period.
#[derive(Clone, Copy, Debug)]
pub(super) enum Unit {
    Hour,
    Day,
    Week,
    Month,
    Year,
}

/// Tells in which periods a moment lies.
pub(super) struct Calendar(Offset);

impl Calendar {
    /// For a local time so many seconds ahead of UTC; more than is possible counts as the most that is.
    pub(super) fn new(utc_offset_seconds: i32) -> Self {
        let seconds = utc_offset_seconds.clamp(-OFFSET_MAX, OFFSET_MAX);
        Self(Offset::from_seconds(seconds).unwrap_or(Offset::UTC))
    }

    pub(super) fn period(&self, unit: Unit, moment: Timestamp) -> Period {
        // 64 bits of nanoseconds reach from 1677 to 2262, all of which the calendar has.
        let moment =
            jiff::Timestamp::from_nanosecond(i128::from(moment.as_nanos())).unwrap_or(jiff::Timestamp::UNIX_EPOCH);
        let local = self.0.to_datetime(moment);
        let (year, month, day) = (local.year(), local.month(), local.day());
        match unit {
            Unit::Hour => Period::Hour { year, month, day, hour: local.hour() },
            Unit::Day => Period::Day { year, month, day },
            Unit::Week => {
                let week = local.date().iso_week_date();
                Period::Week { year: week.year(), week: week.week() }
            }
            Unit::Month => Period::Month { year, month },
            Unit::Year => Period::Year { year },
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn told(unit: Unit, offset: i32, moment: Timestamp) -> String {
        Calendar::new(offset).period(unit, moment).to_string()
    }

    fn at(moment: &str) -> Timestamp {
        let nanos = moment.parse::<jiff::Timestamp>().unwrap().as_nanosecond();
        Timestamp::from_nanos(i64::try_from(nanos).unwrap())
    }

    #[test]
    fn periods_begin_where_the_local_calendar_says() {
        // 2027-01-01 is a Friday: its week began on Monday in 2026, whose 53rd it is.
        let eve = at("2026-12-31T23:30:00Z");
        assert_eq!(told(Unit::Hour, 0, eve), "the hour 2026-12-31 23:00");
        assert_eq!(told(Unit::Hour, 3_600, eve), "the hour 2027-01-01 00:00");
        assert_eq!(told(Unit::Day, 1_799, eve), "2026-12-31");
        assert_eq!(told(Unit::Day, 1_800, eve), "2027-01-01");
        assert_eq!(told(Unit::Month, -18 * 3_600, at("2026-03-01T17:59:59Z")), "2026-02");
        assert_eq!(told(Unit::Year, 3_600, eve), "2027");
        assert_eq!(told(Unit::Week, 3_600, eve), "week 2026-W53");
        // The last days of 2024, from Monday the 30th, are in the first week of 2025.
        assert_eq!(told(Unit::Week, 0, at("2024-12-29T23:59:59Z")), "week 2024-W52");
        assert_eq!(told(Unit::Week, 0, at("2024-12-30T00:00:00Z")), "week 2025-W01");
    }

    #[test]
    fn every_timestamp_lies_in_a_period() {
        let (first, last) = (Timestamp::from_nanos(i64::MIN), Timestamp::from_nanos(i64::MAX));
        for offset in [i32::MIN, -OFFSET_MAX, 0, OFFSET_MAX, i32::MAX] {
            assert_eq!(told(Unit::Year, offset, first), "1677");
            assert_eq!(told(Unit::Year, offset, last), "2262");
        }
        assert_eq!(told(Unit::Hour, 0, first), "the hour 1677-09-21 00:00");
        assert_eq!(told(Unit::Hour, 0, last), "the hour 2262-04-11 23:00");
    }
}
