//! Dates, times and intervals, in ISO style and UTC.

use std::fmt::Write as _;

use super::Reader;

const SECOND: i64 = 1_000_000;
const DAY: i64 = 86_400 * SECOND;
/// Days from 1970-01-01 to 2000-01-01, from which the server counts.
const EPOCH_DAYS: i64 = 10_957;
/// What the server takes: 4714-11-24 BC to 5874897-12-31, in days; to 294276-12-31, in microseconds (exclusive).
const DATES: std::ops::RangeInclusive<i64> = -2_451_545..=2_145_031_948;
const TIMESTAMPS: std::ops::Range<i64> = -211_813_488_000_000_000..9_223_371_331_200_000_000;

/// Days since 2000-01-01.
pub(super) fn date(out: &mut String, input: &mut Reader<'_>) -> Option<()> {
    match input.i32()? {
        i32::MAX => out.push_str("infinity"),
        i32::MIN => out.push_str("-infinity"),
        days => {
            let days = i64::from(days);
            if !DATES.contains(&days) {
                return None;
            }
            let era = day(out, days)?;
            out.push_str(era);
        }
    }
    Some(())
}

/// Microseconds since midnight.
pub(super) fn time(out: &mut String, input: &mut Reader<'_>) -> Option<()> {
    let microseconds = input.i64()?;
    (0..=DAY).contains(&microseconds).then_some(())?;
    clock(out, microseconds)
}

/// Microseconds since midnight, and seconds west of Greenwich.
pub(super) fn time_tz(out: &mut String, input: &mut Reader<'_>) -> Option<()> {
    time(out, input)?;
    let west = input.i32()?;
    let seconds = west.unsigned_abs();
    // The server takes zones within sixteen hours.
    (seconds < 16 * 3600).then_some(())?;
    write!(out, "{}{:02}", if west > 0 { '-' } else { '+' }, seconds / 3600).ok()?;
    let (minutes, seconds) = (seconds / 60 % 60, seconds % 60);
    if minutes != 0 || seconds != 0 {
        write!(out, ":{minutes:02}").ok()?;
    }
    if seconds != 0 {
        write!(out, ":{seconds:02}").ok()?;
    }
    Some(())
}

/// Microseconds since 2000-01-01, printed with `zone`.
pub(super) fn timestamp(out: &mut String, input: &mut Reader<'_>, zone: &str) -> Option<()> {
    match input.i64()? {
        i64::MAX => out.push_str("infinity"),
        i64::MIN => out.push_str("-infinity"),
        microseconds => {
            if !TIMESTAMPS.contains(&microseconds) {
                return None;
            }
            let era = day(out, microseconds.div_euclid(DAY))?;
            out.push(' ');
            clock(out, microseconds.rem_euclid(DAY))?;
            out.push_str(zone);
            out.push_str(era);
        }
    }
    Some(())
}

/// Writes year, month and day, and returns what stands at the end: ` BC`, or nothing.
fn day(out: &mut String, days: i64) -> Option<&'static str> {
    // The proleptic Gregorian calendar, in years that begin in March (so that the leap day is the last) and eras of
    // 400 years.
    let days = days + EPOCH_DAYS + 719_468;
    let (era, day_of_era) = (days.div_euclid(146_097), days.rem_euclid(146_097));
    let year_of_era = (day_of_era - day_of_era / 1460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let month = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * month + 2) / 5 + 1;
    let month = if month < 10 { month + 3 } else { month - 9 };
    let year = era * 400 + year_of_era + i64::from(month <= 2);
    // There is no year 0: it is 1 BC.
    let (year, era) = if year > 0 { (year, "") } else { (1 - year, " BC") };
    write!(out, "{year:04}-{month:02}-{day:02}").ok()?;
    Some(era)
}

fn clock(out: &mut String, microseconds: i64) -> Option<()> {
    let seconds = microseconds / SECOND;
    write!(out, "{:02}:{:02}:{:02}", seconds / 3600, seconds / 60 % 60, seconds % 60).ok()?;
    fraction(out, microseconds % SECOND)
}

fn fraction(out: &mut String, microseconds: i64) -> Option<()> {
    if microseconds != 0 {
        write!(out, ".{:06}", microseconds.abs()).ok()?;
        out.truncate(out.trim_end_matches('0').len());
    }
    Some(())
}

/// Microseconds, days and months, each with its own sign.
pub(super) fn interval(out: &mut String, input: &mut Reader<'_>) -> Option<()> {
    let (microseconds, days, months) = (input.i64()?, input.i32()?, input.i32()?);
    match (microseconds, days, months) {
        (i64::MAX, i32::MAX, i32::MAX) => {
            out.push_str("infinity");
            return Some(());
        }
        (i64::MIN, i32::MIN, i32::MIN) => {
            out.push_str("-infinity");
            return Some(());
        }
        _ => {}
    }
    let start = out.len();
    // After a negative part, a positive one is marked.
    let mut after_negative = false;
    for (value, unit) in [(months / 12, "year"), (months % 12, "mon"), (days, "day")] {
        if value == 0 {
            continue;
        }
        let space = if out.len() > start { " " } else { "" };
        let plus = if after_negative && value > 0 { "+" } else { "" };
        let plural = if value == 1 { "" } else { "s" };
        write!(out, "{space}{plus}{value} {unit}{plural}").ok()?;
        after_negative = value < 0;
    }
    if microseconds != 0 || out.len() == start {
        let space = if out.len() > start { " " } else { "" };
        let sign = match microseconds < 0 {
            true => "-",
            false if after_negative => "+",
            false => "",
        };
        let length = microseconds.unsigned_abs();
        let seconds = length / 1_000_000;
        let (hours, minutes) = (seconds / 3600, seconds / 60 % 60);
        write!(out, "{space}{sign}{hours:02}:{minutes:02}:{:02}", seconds % 60).ok()?;
        fraction(out, i64::try_from(length % 1_000_000).ok()?)?;
    }
    Some(())
}
