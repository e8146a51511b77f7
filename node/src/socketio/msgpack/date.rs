//! JavaScript's dates as the text that JSON has for them.

/// JavaScript's dates end there (ECMA-262, "Time Values and Time Range").
const MAX_DATE_MILLIS: i64 = 8_640_000_000_000_000;

/// A date as its `toJSON` has it, which is how dates travel in JSON: `2025-11-22T08:26:40.123Z`.
pub(super) fn iso_date(millis: i64) -> Option<String> {
    if !(-MAX_DATE_MILLIS..=MAX_DATE_MILLIS).contains(&millis) {
        return None;
    }
    let (days, in_day) = (millis.div_euclid(86_400_000), millis.rem_euclid(86_400_000));
    let (year, month, day) = civil_date(days);
    let year =
        if (0..10_000).contains(&year) { format!("{year:04}") } else { format!("{year:+07}") };
    let (seconds, millis) = (in_day / 1000, in_day % 1000);
    let (hour, minute, second) = (seconds / 3600, seconds / 60 % 60, seconds % 60);
    Some(format!("{year}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}.{millis:03}Z"))
}

/// The day of the Gregorian calendar that is so many days after 1970-01-01. Years are counted
/// from March here, so that a leap day is a year's last.
fn civil_date(days: i64) -> (i64, i64, i64) {
    let since_march_0 = days + 719_468;
    let (era, day_of_era) = (since_march_0.div_euclid(146_097), since_march_0.rem_euclid(146_097));
    let year_of_era =
        (day_of_era - day_of_era / 1460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let month_from_march = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * month_from_march + 2) / 5 + 1;
    let month = if month_from_march < 10 { month_from_march + 3 } else { month_from_march - 9 };
    let year = era * 400 + year_of_era + i64::from(month <= 2);
    (year, month, day)
}
