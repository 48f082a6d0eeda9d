//! Durations ("30s", "1m30s") and sizes ("10MiB") as people write them.

use schemars::JsonSchema;
use serde::{Deserialize, Deserializer, de};
use std::time::Duration;

/// A duration written as "250ms", "30s", "5m", "1h", or several of these in a row.
#[derive(Clone, Copy, Debug, PartialEq, Eq, JsonSchema)]
#[schemars(with = "String")]
pub(super) struct Span(pub Duration);

impl<'de> Deserialize<'de> for Span {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        span(&text).map(Span).ok_or_else(|| {
            de::Error::custom(format!(
                "`{text}` is not a duration; write for example \"250ms\", \"30s\" or \"5m\""
            ))
        })
    }
}

fn span(text: &str) -> Option<Duration> {
    let mut rest = text.trim();
    let mut total = Duration::ZERO;
    if rest.is_empty() {
        return None;
    }
    if rest == "0" {
        return Some(total);
    }
    while !rest.is_empty() {
        let digits = rest.find(|c: char| !c.is_ascii_digit())?;
        let amount: u64 = rest[..digits].parse().ok()?;
        let unit_end = rest[digits..].find(|c: char| c.is_ascii_digit()).map_or(rest.len(), |at| digits + at);
        let one = match rest[digits..unit_end].trim() {
            "ms" => Duration::from_millis(1),
            "s" => Duration::from_secs(1),
            "m" | "min" => Duration::from_secs(60),
            "h" => Duration::from_secs(3600),
            "d" => Duration::from_secs(86_400),
            _ => return None,
        };
        total = total.checked_add(one.checked_mul(u32::try_from(amount).ok()?)?)?;
        rest = &rest[unit_end..];
    }
    Some(total)
}

/// A size in bytes written as "512", "64KiB", "10MiB" or "2GiB".
#[derive(Clone, Copy, Debug, PartialEq, Eq, JsonSchema)]
#[schemars(with = "String")]
pub(super) struct Size(pub u64);

impl<'de> Deserialize<'de> for Size {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        size(&text).map(Size).ok_or_else(|| {
            de::Error::custom(format!(
                "`{text}` is not a size; write for example \"64KiB\", \"10MiB\" or \"2GiB\""
            ))
        })
    }
}

fn size(text: &str) -> Option<u64> {
    let text = text.trim();
    let digits = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    let amount: u64 = text[..digits].parse().ok()?;
    let unit = match text[digits..].trim() {
        "" | "B" => 1,
        "KiB" => 1 << 10,
        "MiB" => 1 << 20,
        "GiB" => 1 << 30,
        _ => return None,
    };
    amount.checked_mul(unit)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_are_read_as_people_write_them() {
        assert_eq!(span("250ms"), Some(Duration::from_millis(250)));
        assert_eq!(span("1m30s"), Some(Duration::from_secs(90)));
        assert_eq!(span("10min"), Some(Duration::from_secs(600)));
        assert_eq!(span("30"), None);
        assert_eq!(span("s"), None);
        assert_eq!(span(""), None);
        assert_eq!(span("99999999999999d"), None);
    }

    #[test]
    fn sizes_are_binary() {
        assert_eq!(size("10MiB"), Some(10 << 20));
        assert_eq!(size("7"), Some(7));
        assert_eq!(size("10MB"), None);
    }
}
