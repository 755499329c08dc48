//! Moments as logs write them: local time of whoever wrote, mostly without a zone.
//!
//! They are compared and subtracted, never turned into another zone's. A form that names no year gets one in which there
//! is a 29th of February, and is shown without.

use std::fmt;

/// Stands for the year that a form does not name.
const NO_YEAR: i64 = 2000;
const MONTHS: [&str; 12] = [
    "Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec",
];
const DAY_MS: i64 = 24 * 60 * 60 * 1000;

/// A moment by a log's own clock.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Moment {
    /// Milliseconds since the beginning of 1970 by that clock.
    pub ms: i64,
    /// Whether the year was written.
    pub has_year: bool,
}

impl Moment {
    /// This much later.
    #[must_use]
    pub fn plus_ms(self, ms: i64) -> Self {
        Self {
            ms: self.ms.saturating_add(ms),
            ..self
        }
    }

    /// `Sun Dec 04 04:47:44 2005`, with a part of a second or not.
    pub(crate) fn apache(text: &str) -> Option<Self> {
        let mut words = text.split_ascii_whitespace();
        let (_weekday, month) = (words.next()?, month(words.next()?)?);
        let (day, time) = (number(words.next()?)?, words.next()?);
        let year = number(words.next()?)?;
        let at = moment(date(year, month, day)?, clock(time)?, true);
        words.next().is_none().then_some(at)
    }

    /// `Dec 10 06:55:46 ` at the start, and what follows.
    pub(crate) fn syslog(line: &str) -> Option<(Self, &str)> {
        let month = month(line.get(..3)?)?;
        let rest = line[3..].trim_start();
        let (day, rest) = rest.split_once(' ')?;
        let (time, rest) = rest.split_once(' ')?;
        let day = date(NO_YEAR, month, number(day)?)?;
        Some((moment(day, clock(time)?, false), rest))
    }

    /// `20171224-1:2:35:789`
    pub(crate) fn health_app(text: &str) -> Option<Self> {
        let (day, time) = text.split_once('-')?;
        if day.len() != 8 || !day.is_ascii() {
            return None;
        }
        let (year, month, day) = (number(&day[..4])?, number(&day[4..6])?, number(&day[6..])?);
        let (time, ms) = time.rsplit_once(':')?;
        let ms = number(ms).filter(|ms| *ms < 1000)?;
        Some(moment(date(year, month, day)?, clock(time)? + ms, true))
    }

    /// `2017-05-16 00:00:00.008 ` or `2017-05-16T00:00:00.008Z ` at the start, and what follows.
    pub(crate) fn dated(line: &str) -> Option<(Self, &str)> {
        let day = line.get(..10)?;
        let mut fields = day.split('-');
        let (year, month) = (fields.next()?, number(fields.next()?)?);
        let day = number(fields.next()?)?;
        let rest = line[10..].strip_prefix([' ', 'T'])?;
        let (time, rest) = rest.split_once(' ').unwrap_or((rest, ""));
        // A zone is left out: moments are compared within one log.
        let end = time.find(['Z', '+', '-']).unwrap_or(time.len());
        if year.len() != 4 {
            return None;
        }
        let day = date(number(year)?, month, day)?;
        Some((moment(day, clock(&time[..end])?, true), rest))
    }
}

/// `10/Oct/2000:13:55:36 -0700`, as access logs have it.
pub fn clf(text: &str) -> Option<Moment> {
    let (day, rest) = text.split_once('/')?;
    let (name, rest) = rest.split_once('/')?;
    let (year, rest) = rest.split_once(':')?;
    let time = rest.split(' ').next()?;
    let day = date(number(year)?, month(name)?, number(day)?)?;
    Some(moment(day, clock(time)?, true))
}

fn moment(days: i64, ms: i64, has_year: bool) -> Moment {
    Moment {
        ms: days * DAY_MS + ms,
        has_year,
    }
}

fn month(name: &str) -> Option<i64> {
    let place = MONTHS.iter().position(|month| *month == name)?;
    Some(place as i64 + 1)
}

/// At most nine digits: no field of a date has more.
fn number(text: &str) -> Option<i64> {
    let digits = !text.is_empty() && text.len() <= 9 && text.bytes().all(|it| it.is_ascii_digit());
    digits.then(|| text.parse().ok())?
}

/// Milliseconds of `H:M:S`, with a part of a second behind `.` or `,` or not.
fn clock(text: &str) -> Option<i64> {
    let mut fields = text.split(':');
    let (hour, minute) = (number(fields.next()?)?, number(fields.next()?)?);
    let second = fields.next()?;
    let (second, part) = second.split_once(['.', ',']).unwrap_or((second, "0"));
    let second = number(second)?;
    if fields.next().is_some() || hour > 23 || minute > 59 || second > 60 {
        return None;
    }
    let mut ms = 0;
    for place in 0..3 {
        let digit = part.as_bytes().get(place).copied().unwrap_or(b'0');
        ms = ms * 10 + i64::from(char::from(digit).to_digit(10)?);
    }
    Some(((hour * 60 + minute) * 60 + second) * 1000 + ms)
}

/// Days since 1970 of a day that exists.
fn date(year: i64, month: i64, day: i64) -> Option<i64> {
    if !(1..=12).contains(&month) || !(1..=9999).contains(&year) {
        return None;
    }
    let leap = year % 4 == 0 && (year % 100 != 0 || year % 400 == 0);
    let days = match month {
        2 => 28 + i64::from(leap),
        4 | 6 | 9 | 11 => 30,
        _ => 31,
    };
    // Years begin in March here, so that a leap day is the last of one.
    let (y, m) = if month > 2 {
        (year, month - 3)
    } else {
        (year - 1, month + 9)
    };
    let era_days = y * 365 + y / 4 - y / 100 + y / 400;
    let days_since = era_days + (153 * m + 2) / 5 + day - 1 - 719_468;
    (1..=days).contains(&day).then_some(days_since)
}

/// Year, month and day of so many days since 1970.
fn civil(days: i64) -> (i64, i64, i64) {
    let shifted = days + 719_468;
    let era = shifted.div_euclid(146_097);
    let of_era = shifted.rem_euclid(146_097);
    let year = (of_era - of_era / 1460 + of_era / 36_524 - of_era / 146_096) / 365;
    let of_year = of_era - (365 * year + year / 4 - year / 100);
    let m = (5 * of_year + 2) / 153;
    let day = of_year - (153 * m + 2) / 5 + 1;
    let month = if m < 10 { m + 3 } else { m - 9 };
    (era * 400 + year + i64::from(month <= 2), month, day)
}

impl fmt::Display for Moment {
    /// As ISO 8601 has it, without a zone; without a year where none was written, and without milliseconds where there are
    /// none.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (year, month, day) = civil(self.ms.div_euclid(DAY_MS));
        let ms = self.ms.rem_euclid(DAY_MS);
        if self.has_year {
            write!(f, "{year:04}-")?;
        }
        let (second, ms) = (ms / 1000, ms % 1000);
        write!(
            f,
            "{month:02}-{day:02}T{:02}:{:02}:{:02}",
            second / 3600,
            second / 60 % 60,
            second % 60
        )?;
        if ms > 0 {
            write!(f, ".{ms:03}")?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    #[test]
    fn every_day_of_four_centuries_is_the_next_one() {
        let mut expected = date(1850, 1, 1).unwrap();
        for year in 1850..2250 {
            for month in 1..=12 {
                for day in 1..=31 {
                    let Some(days) = date(year, month, day) else {
                        assert!(day > 28, "{year}-{month}-{day}");
                        continue;
                    };
                    assert_eq!(days, expected);
                    assert_eq!(civil(days), (year, month, day));
                    expected += 1;
                }
            }
        }
        assert_eq!(date(1970, 1, 1), Some(0));
        assert_eq!(date(2000, 3, 1), Some(11_017));
    }

    #[test]
    fn access_logs_and_shown_moments() {
        let at = clf("10/Oct/2000:13:55:36 -0700").unwrap();
        assert_eq!(at.to_string(), "2000-10-10T13:55:36");
        assert_eq!(at.plus_ms(7).to_string(), "2000-10-10T13:55:36.007");
        assert_eq!(at.ms / 1000, 971_186_136);
        for wrong in [
            "",
            "10/Oct/2000",
            "10/Okt/2000:13:55:36 -0700",
            "31/Apr/2000:13:55:36 +0",
        ] {
            assert_eq!(clf(wrong), None, "{wrong}");
        }
    }
}
