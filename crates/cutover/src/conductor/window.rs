//! When a service may be stopped for an update: windows against the wall clock of their zones. A window is open while that
//! clock stands in it, whatever it was set to or whatever a change of summer time makes of it: hours that a day does not
//! have do not open, hours that it has twice are open twice. It must not know what is waited for.

use cutover_core::{Day, Window};
use jiff::civil::{Date, Time};
use jiff::tz::TimeZone;
use jiff::{Error, Span, Timestamp, ToSpan};

/// So far ahead the next opening is looked for: a week and the day after a change of the clock.
const DAYS: i64 = 9;
/// Over a gap in the clock the first open minute is looked for this far.
const GAP_MINUTES: i64 = 180;

/// Whether one of them is open at `now`.
///
/// # Errors
/// A zone that this machine does not know.
pub(super) fn is_open(windows: &[Window], now: Timestamp) -> Result<bool, Error> {
    for window in windows {
        if stands_in(window, now)? {
            return Ok(true);
        }
    }
    Ok(false)
}

/// When the next one opens, if one does.
///
/// # Errors
/// A zone that this machine does not know.
pub(super) fn opens(windows: &[Window], now: Timestamp) -> Result<Option<Timestamp>, Error> {
    let mut next: Option<Timestamp> = None;
    for window in windows {
        if let Some(at) = opening(window, now)? {
            next = Some(next.map_or(at, |known| known.min(at)));
        }
    }
    Ok(next)
}

fn stands_in(window: &Window, now: Timestamp) -> Result<bool, Error> {
    let clock = now.to_zoned_datetime(TimeZone::get(&window.zone)?).datetime();
    let second = second_of(clock.time());
    let begins = |date: Date| window.days.contains(&day_of(date));
    if window.from < window.to {
        return Ok(begins(clock.date()) && (window.from..window.to).contains(&second));
    }
    let since_yesterday = begins(clock.date().yesterday()?) && second < window.to;
    Ok(since_yesterday || (begins(clock.date()) && second >= window.from))
}

fn opening(window: &Window, now: Timestamp) -> Result<Option<Timestamp>, Error> {
    let zone = TimeZone::get(&window.zone)?;
    let today = now.to_zoned_datetime(zone.clone()).date();
    let from = Time::midnight().checked_add(Span::new().seconds(window.from))?;
    for ahead in 0..DAYS {
        let date = today.checked_add(ahead.days())?;
        if !window.days.contains(&day_of(date)) {
            continue;
        }
        let begun = zone.to_ambiguous_timestamp(date.to_datetime(from));
        let is_gap = begun.is_ambiguous();
        let begun = begun.earlier()?;
        for minute in 0..=(if is_gap { GAP_MINUTES } else { 0 }) {
            let at = begun.checked_add(minute.minutes())?;
            if at > now && stands_in(window, at)? {
                return Ok(Some(at));
            }
        }
    }
    Ok(None)
}

fn second_of(time: Time) -> u32 {
    let parts = [(time.hour(), 3600), (time.minute(), 60), (time.second(), 1)];
    parts.into_iter().map(|(count, seconds)| u32::from(count.unsigned_abs()) * seconds).sum()
}

fn day_of(date: Date) -> Day {
    let monday_based = usize::from(date.weekday().to_monday_zero_offset().unsigned_abs());
    Day::ALL[monday_based]
}

#[cfg(test)]
mod tests {
    use super::*;

    fn window(days: &[Day], from: u32, to: u32, zone: &str) -> Window {
        Window { days: days.to_vec(), from: from * 60, to: to * 60, zone: zone.into() }
    }

    fn at(text: &str) -> Timestamp {
        text.parse().unwrap()
    }

    fn open(window: &Window, now: &str) -> bool {
        is_open(std::slice::from_ref(window), at(now)).unwrap()
    }

    fn next(window: &Window, now: &str) -> Option<String> {
        opens(std::slice::from_ref(window), at(now)).unwrap().map(|at| at.to_string())
    }

    #[test]
    fn r79_a_window_is_open_on_its_days_from_its_first_second_to_before_its_last() {
        let sunday = window(&[Day::Sun], 120, 300, "UTC");
        // The 29th of November 2026 is a Sunday.
        assert!(!open(&sunday, "2026-11-29T01:59:59Z"));
        assert!(open(&sunday, "2026-11-29T02:00:00Z"));
        assert!(open(&sunday, "2026-11-29T04:59:59Z"));
        assert!(!open(&sunday, "2026-11-29T05:00:00Z"));
        assert!(!open(&sunday, "2026-11-30T03:00:00Z"));
        assert_eq!(next(&sunday, "2026-11-29T01:00:00Z").as_deref(), Some("2026-11-29T02:00:00Z"));
        assert_eq!(next(&sunday, "2026-11-29T05:00:00Z").as_deref(), Some("2026-12-06T02:00:00Z"));
    }

    #[test]
    fn one_that_passes_midnight_belongs_to_the_day_on_which_it_begins() {
        let night = window(&[Day::Sat], 22 * 60, 4 * 60, "UTC");
        assert!(open(&night, "2026-11-28T23:00:00Z") && open(&night, "2026-11-29T03:59:00Z"));
        assert!(!open(&night, "2026-11-29T23:00:00Z") && !open(&night, "2026-11-28T03:00:00Z"));
        let weekend = window(&[Day::Sat, Day::Sun], 0, 0, "UTC");
        assert!(open(&weekend, "2026-11-28T00:00:00Z") && open(&weekend, "2026-11-29T23:59:59Z"));
        assert!(!open(&weekend, "2026-11-30T00:00:00Z") && !open(&weekend, "2026-11-27T23:59:59Z"));
    }

    #[test]
    fn the_clock_is_that_of_the_zone() {
        let night = window(&Day::ALL, 120, 240, "Europe/Berlin");
        assert!(open(&night, "2026-11-29T01:30:00Z") && !open(&night, "2026-11-29T03:30:00Z"));
        assert!(open(&night, "2026-07-29T00:30:00Z") && !open(&night, "2026-07-29T02:30:00Z"));
        assert!(is_open(&[window(&Day::ALL, 0, 0, "Nowhere/Nothing")], at("2026-11-29T00:00:00Z")).is_err());
    }

    #[test]
    fn hours_that_a_day_does_not_have_do_not_open_and_hours_that_it_has_twice_are_open_twice() {
        // 2026-03-29 02:00 becomes 03:00 in Berlin, 2026-10-25 03:00 becomes 02:00.
        let lost = window(&Day::ALL, 120, 180, "Europe/Berlin");
        let minutes = |date: &str| {
            let begun = at(&format!("{date}T00:00:00Z"));
            (0..180)
                .filter(|minute| is_open(std::slice::from_ref(&lost), begun + minute.minutes()).unwrap())
                .count()
        };
        assert_eq!(minutes("2026-03-29"), 0);
        assert_eq!(minutes("2026-10-25"), 120);
        assert_eq!(next(&lost, "2026-03-28T12:00:00Z").as_deref(), Some("2026-03-30T00:00:00Z"));
        let half = window(&Day::ALL, 150, 240, "Europe/Berlin");
        assert_eq!(next(&half, "2026-03-28T12:00:00Z").as_deref(), Some("2026-03-29T01:00:00Z"));
    }
}
