//! What an update waits for before anything stops: checked words, days, hours and zones.

use super::complaint::Complaint;
use super::fragment::{ApproveFragment, DayFragment, PolicyFragment, WindowFragment};
use cutover_core::{ApprovalRule, Clearance, Day, Window};
use jiff::civil::Time;
use jiff::tz::TimeZone;
use std::collections::BTreeSet;

/// The clearance of a policy, with all that cannot be used of it.
pub(super) fn clearance(policy: &PolicyFragment) -> Result<Clearance, Vec<Complaint>> {
    let default = Clearance::default();
    let (mut windows, mut complaints) = (Vec::new(), Vec::new());
    for (at, fragment) in policy.windows.iter().enumerate() {
        match window(fragment) {
            Ok(window) => windows.push(window),
            Err((key, problem)) => {
                complaints.push(Complaint::new(format!("policy.windows[{at}].{key}"), problem));
            }
        }
    }
    let limit = policy.await_limit.map_or(default.limit, |span| span.0);
    if limit.is_zero() {
        let problem =
            "an update that waits for nobody waits for nothing: leave `approve` and `windows` out instead";
        complaints.push(Complaint::new("policy.await_limit", problem));
    }
    if !complaints.is_empty() {
        return Err(complaints);
    }
    let approve = match policy.approve {
        Some(ApproveFragment::Always) => ApprovalRule::Always,
        Some(ApproveFragment::Never) | None => ApprovalRule::Never,
    };
    Ok(Clearance { approve, windows, limit })
}

fn window(fragment: &WindowFragment) -> Result<Window, (&'static str, String)> {
    let days: BTreeSet<Day> = match &fragment.days {
        None => Day::ALL.into(),
        Some(days) if days.is_empty() => {
            return Err(("days", "name at least one day, or leave `days` out for every day".into()));
        }
        Some(days) => days.iter().map(|day| self::day(*day)).collect(),
    };
    let from = second("from", &fragment.from)?;
    let to = second("to", &fragment.to)?;
    Ok(Window { days: days.into_iter().collect(), from, to, zone: zone(fragment.zone.as_deref())? })
}

fn second(key: &'static str, text: &str) -> Result<u32, (&'static str, String)> {
    let complaint = || (key, format!("`{text}` is not a time of day; write for example \"02:00\""));
    let is_clock = text.len() >= 5 && text.bytes().all(|byte| byte.is_ascii_digit() || byte == b':');
    let time: Time = text.parse().ok().filter(|_| is_clock).ok_or_else(complaint)?;
    let seconds = i32::from(time.hour()) * 3600 + i32::from(time.minute()) * 60 + i32::from(time.second());
    u32::try_from(seconds).map_err(|_| complaint())
}

/// The zone by its name, so that what is written down means the same after the machine's own was changed.
fn zone(given: Option<&str>) -> Result<String, (&'static str, String)> {
    let Some(name) = given else {
        let system = TimeZone::try_system().ok();
        let name = system.as_ref().and_then(TimeZone::iana_name).map(str::to_owned);
        return name.ok_or_else(|| {
            (
                "zone",
                "this machine does not tell its time zone; write for example \"Europe/Berlin\" or \"UTC\""
                    .into(),
            )
        });
    };
    match TimeZone::get(name) {
        Ok(zone) => Ok(zone.iana_name().unwrap_or(name).to_owned()),
        Err(_) => Err((
            "zone",
            format!(
                "`{name}` is not a time zone that this machine knows (/usr/share/zoneinfo); write for example \
                 \"Europe/Berlin\" or \"UTC\""
            ),
        )),
    }
}

fn day(day: DayFragment) -> Day {
    match day {
        DayFragment::Mon => Day::Mon,
        DayFragment::Tue => Day::Tue,
        DayFragment::Wed => Day::Wed,
        DayFragment::Thu => Day::Thu,
        DayFragment::Fri => Day::Fri,
        DayFragment::Sat => Day::Sat,
        DayFragment::Sun => Day::Sun,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn checked(text: &str) -> Result<Clearance, Vec<String>> {
        let policy: PolicyFragment = toml::from_str(text).unwrap();
        clearance(&policy)
            .map_err(|all| all.into_iter().map(|one| format!("{}: {}", one.key, one.problem)).collect())
    }

    #[test]
    fn days_are_sorted_and_named_once_and_without_a_word_all_are_meant() {
        let text = "windows = [{ days = [\"sun\", \"sat\", \"sun\"], from = \"22:00\", to = \"04:30\", zone = \"Europe/Berlin\" },\n\
                    { from = \"01:02:03\", to = \"05:00\", zone = \"UTC\" }]";
        let windows = checked(text).unwrap().windows;
        assert_eq!(windows[0].to_string(), "Sat, Sun 22:00-04:30 Europe/Berlin");
        assert_eq!(windows[1].to_string(), "01:02:03-05:00 UTC");
        assert_eq!(checked("").unwrap(), Clearance::default());
    }

    #[test]
    fn what_is_no_time_no_day_and_no_zone_is_named_with_its_place() {
        for (window, says) in [
            (
                "from = \"2\", to = \"05:00\", zone = \"UTC\"",
                "policy.windows[0].from: `2` is not a time of day",
            ),
            ("from = \"24:00\", to = \"05:00\", zone = \"UTC\"", "policy.windows[0].from: `24:00` is not"),
            ("from = \"02:00\", to = \"5am\", zone = \"UTC\"", "policy.windows[0].to: `5am` is not"),
            (
                "days = [], from = \"02:00\", to = \"05:00\", zone = \"UTC\"",
                "policy.windows[0].days: name at least",
            ),
            (
                "from = \"02:00\", to = \"05:00\", zone = \"Mars/Base\"",
                "policy.windows[0].zone: `Mars/Base` is not",
            ),
        ] {
            let told = checked(&format!("windows = [{{ {window} }}]")).unwrap_err().join("; ");
            assert!(told.contains(says), "{told}");
        }
        assert!(checked("await_limit = \"0\"").unwrap_err()[0].contains("policy.await_limit"));
    }
}
