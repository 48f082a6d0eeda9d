//! What the process was asked to be, from its arguments and environment.

use crate::descendant;
use std::ffi::OsString;
use std::path::PathBuf;
use std::time::Duration;

/// What this process is.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Role {
    Serve(Invocation),
    Check(Invocation),
    Descendant { life: Duration },
}

/// Everything that is not in the release.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Invocation {
    pub(super) port: u16,
    pub(super) state: Option<PathBuf>,
    pub(super) config: Option<PathBuf>,
    pub(super) token: Option<String>,
    pub(super) knobs: Option<String>,
    pub(super) intent_file: Option<PathBuf>,
}

/// Why the arguments or the environment make no sense.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum Usage {
    #[error("unknown argument {0:?}")]
    Unknown(OsString),
    #[error("{0} needs a value")]
    ValueMissing(&'static str),
    #[error("--port is required")]
    PortMissing,
    #[error("{name} is not valid: {value:?}")]
    Invalid { name: &'static str, value: OsString },
}

impl Role {
    /// Reads arguments; what they leave open comes from `variable` (the environment).
    pub(super) fn parse(
        args: Vec<OsString>,
        variable: impl Fn(&str) -> Option<OsString>,
    ) -> Result<Self, Usage> {
        let mut args = args.into_iter().peekable();
        let leading = args.peek().and_then(|arg| arg.to_str());
        if leading == Some(descendant::ROLE) {
            let life_ms = parsed("life", args.nth(1).ok_or(Usage::ValueMissing("life"))?)?;
            return Ok(Self::Descendant { life: Duration::from_millis(life_ms) });
        }
        let only_check = leading == Some("check");
        if only_check {
            args.next();
        }
        let mut port = None;
        let mut invocation = Invocation {
            state: variable("SAMPLE_STATE").map(PathBuf::from),
            config: variable("SAMPLE_CONFIG").map(PathBuf::from),
            token: variable("SAMPLE_TOKEN").map(|value| text("SAMPLE_TOKEN", value)).transpose()?,
            knobs: variable("SAMPLE_KNOBS").map(|value| text("SAMPLE_KNOBS", value)).transpose()?,
            intent_file: variable(cutover_intent::FILE_VARIABLE).map(PathBuf::from),
            port: 0,
        };
        while let Some(arg) = args.next() {
            let mut value = |name| args.next().ok_or(Usage::ValueMissing(name));
            match arg.to_str() {
                Some("--port") => port = Some(parsed("--port", value("--port")?)?),
                Some("--state") => invocation.state = Some(value("--state")?.into()),
                Some("--config") => invocation.config = Some(value("--config")?.into()),
                _ => return Err(Usage::Unknown(arg)),
            }
        }
        if only_check {
            return Ok(Self::Check(invocation));
        }
        invocation.port = port.ok_or(Usage::PortMissing)?;
        Ok(Self::Serve(invocation))
    }
}

fn text(name: &'static str, value: OsString) -> Result<String, Usage> {
    value.into_string().map_err(|value| Usage::Invalid { name, value })
}

fn parsed<T: std::str::FromStr>(name: &'static str, value: OsString) -> Result<T, Usage> {
    let parsed = value.to_str().and_then(|text| text.parse().ok());
    parsed.ok_or(Usage::Invalid { name, value })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(args: &[&str], environment: &[(&str, &str)]) -> Result<Role, Usage> {
        Role::parse(args.iter().map(OsString::from).collect(), |name| {
            environment.iter().find(|(key, _)| *key == name).map(|(_, value)| OsString::from(value))
        })
    }

    #[test]
    fn arguments_win_over_the_environment() {
        let role =
            parse(&["--port", "81", "--state", "/a"], &[("SAMPLE_STATE", "/e"), ("SAMPLE_CONFIG", "/c")]);
        let expected = Invocation {
            port: 81,
            state: Some("/a".into()),
            config: Some("/c".into()),
            ..Invocation::default()
        };
        assert_eq!(role, Ok(Role::Serve(expected)));
    }

    #[test]
    fn what_makes_no_sense_is_named() {
        assert_eq!(parse(&[], &[]), Err(Usage::PortMissing));
        assert_eq!(parse(&["--port"], &[]), Err(Usage::ValueMissing("--port")));
        assert_eq!(parse(&["--prot", "1"], &[]), Err(Usage::Unknown("--prot".into())));
        let invalid = Usage::Invalid { name: "--port", value: "70000".into() };
        assert_eq!(parse(&["--port", "70000"], &[]), Err(invalid));
        assert_eq!(parse(&["descendant", "5"], &[]), Ok(Role::Descendant { life: Duration::from_millis(5) }));
    }
}
