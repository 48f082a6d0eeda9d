//! Which variables of the old process the new one gets: all but those that speak of a session, a service manager or the
//! old process itself.

use std::collections::BTreeMap;

/// Variables that are not carried over.
const LEFT: [&str; 41] = [
    "COLORTERM",
    "DBUS_SESSION_BUS_ADDRESS",
    "DISPLAY",
    "INVOCATION_ID",
    "JOURNAL_STREAM",
    "LESSCLOSE",
    "LESSOPEN",
    "LOGNAME",
    "LS_COLORS",
    "MAIL",
    "MANAGERPID",
    "MEMORY_PRESSURE_WATCH",
    "MEMORY_PRESSURE_WRITE",
    "NOTIFY_SOCKET",
    "OLDPWD",
    "OPENCLAW_CONFIG_PATH",
    "OPENCLAW_GATEWAY_PORT",
    "OPENCLAW_GATEWAY_TOKEN",
    "OPENCLAW_NO_AUTO_UPDATE",
    "OPENCLAW_STATE_DIR",
    "OPENCLAW_SUPERVISOR_MODE",
    "OPENCLAW_SYSTEMD_UNIT",
    "OPENCLAW_VERSION",
    "PWD",
    "SHELL",
    "SHLVL",
    "STY",
    "TERM",
    "TERM_PROGRAM",
    "TERM_PROGRAM_VERSION",
    "TMUX",
    "TMUX_PANE",
    "USER",
    "WAYLAND_DISPLAY",
    "WINDOWID",
    "XAUTHORITY",
    "XDG_SEAT",
    "XDG_VTNR",
    "_",
    "HOSTNAME",
    "OPENCLAW_SERVICE",
];

/// Beginnings of names that are not carried over.
const FAMILIES: [&str; 9] = [
    "SSH_",
    "SYSTEMD_",
    "LISTEN_",
    "WATCHDOG_",
    "CUTOVER_",
    "XDG_SESSION_",
    "OPENCLAW_SERVICE_",
    "npm_",
    "NPM_",
];

/// What becomes of an environment.
pub(super) struct Carried {
    /// What the new process gets.
    pub variables: BTreeMap<String, String>,
    /// Names of what it does not get.
    pub left: Vec<String>,
    /// Names of what a line of a file cannot hold.
    pub unwritable: Vec<String>,
}

/// Sorts the variables of an environment.
pub(super) fn carried(env: &BTreeMap<String, String>) -> Carried {
    let mut carried = Carried { variables: BTreeMap::new(), left: Vec::new(), unwritable: Vec::new() };
    for (name, value) in env {
        let is_left = LEFT.contains(&name.as_str()) || FAMILIES.iter().any(|family| name.starts_with(family));
        // As a file of KEY=VALUE lines is read.
        let is_kept =
            !value.contains('\n') && value.trim().trim_matches('"') == value && !name.starts_with('#');
        if is_left {
            carried.left.push(name.clone());
        } else if is_kept {
            carried.variables.insert(name.clone(), value.clone());
        } else {
            carried.unwritable.push(name.clone());
        }
    }
    carried
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_of_the_operator_are_carried_and_marks_of_a_session_are_not() {
        let env = [
            ("ANTHROPIC_API_KEY", "k"),
            ("OPENCLAW_SKIP_CHANNELS", "1"),
            ("PATH", "/bin"),
            ("INVOCATION_ID", "x"),
            ("SSH_TTY", "y"),
            ("TWO", "a\nb"),
            ("QUOTED", "\"q\""),
        ];
        let env = env.map(|(name, value)| (name.to_owned(), value.to_owned())).into();
        let carried = carried(&env);
        let names: Vec<&str> = carried.variables.keys().map(String::as_str).collect();
        assert_eq!(names, ["ANTHROPIC_API_KEY", "OPENCLAW_SKIP_CHANNELS", "PATH"]);
        assert_eq!(carried.left, ["INVOCATION_ID", "SSH_TTY"]);
        assert_eq!(carried.unwritable, ["QUOTED", "TWO"]);
    }
}
