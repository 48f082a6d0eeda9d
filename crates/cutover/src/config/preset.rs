//! Presets: what is known of a service, as a fragment that lies below what the file says of it.

use super::fragment::{DeclaredBy, File, Preset};
use super::gateway::{CONFIGURATION, STATE};
use std::path::Path;
use toml::{Table, Value};

/// Keys of which a service has one: where the file names one of them, the preset's other one is no part of it.
const ALTERNATIVES: [(&[&str], [&str; 2]); 3] = [
    (&["source"], ["directory", "npm"]),
    (&["probe", "version"], ["http", "openclaw"]),
    (&["probe", "idle"], ["http", "method"]),
];

/// Names in which a value is not shown.
const SECRET: [&str; 5] = ["token", "secret", "password", "passwd", "key"];

/// What stands in place of a secret.
const HIDDEN: &str = "[hidden]";

impl Preset {
    fn text(self) -> &'static str {
        match self {
            Self::OpenClaw => include_str!("presets/openclaw.toml"),
        }
    }

    /// The fragment of a service.
    fn fragment(self) -> Table {
        self.text().parse().expect("BUG: a preset that is no TOML")
    }
}

/// The command of OpenClaw's preset, for a file that adds to it.
#[must_use]
pub fn preset_command() -> Vec<String> {
    let fragment = Preset::OpenClaw.fragment();
    let words = fragment.get("command").and_then(Value::as_array).into_iter().flatten();
    words.filter_map(Value::as_str).map(ToOwned::to_owned).collect()
}

/// Lays the services of a file over their presets. `presets` names them.
pub(super) fn expand<'a>(file: &mut Table, presets: impl Iterator<Item = (&'a String, Preset)>) {
    let Some(services) = file.get_mut("service").and_then(Value::as_table_mut) else { return };
    for (name, preset) in presets {
        let Some(own) = services.get_mut(name).and_then(Value::as_table_mut) else { continue };
        let mut whole = preset.fragment();
        for (path, alternatives) in ALTERNATIVES {
            choose(&mut whole, own, path, alternatives);
        }
        without_handshake(&mut whole, own);
        with_its_configuration(&mut whole, own);
        merge(&mut whole, own);
        *own = whole;
    }
}

/// Notes which state of a file over its presets the file itself does not name.
pub(super) fn mark(whole: &mut File, own: &File) {
    let says_nothing = |name: &String| own.service.get(name).is_none_or(|service| service.state.is_empty());
    let services = whole.service.iter_mut().filter(|(name, _)| says_nothing(name));
    services.flat_map(|(_, service)| &mut service.state).for_each(|state| state.by = DeclaredBy::Preset);
}

/// Takes out of `below` what the file has chosen another way to say.
fn choose(below: &mut Table, own: &Table, path: &[&str], alternatives: [&str; 2]) {
    let Some(chosen) = path.iter().try_fold(own, |table, key| table.get(*key)?.as_table()) else { return };
    if !alternatives.iter().any(|key| chosen.contains_key(*key)) {
        return;
    }
    let table = path.iter().try_fold(below, |table, key| table.get_mut(*key)?.as_table_mut());
    if let Some(table) = table {
        table.clear();
    }
}

/// A question that is put with the preset's handshake goes with it.
fn without_handshake(below: &mut Table, own: &Table) {
    let version = own.get("probe").and_then(|probe| probe.get("version"));
    let has_another = version.is_some_and(|version| version.get("http").is_some());
    if let Some(probe) = below.get_mut("probe").and_then(Value::as_table_mut).filter(|_| has_another) {
        probe.remove("idle");
    }
}

/// A gateway's configuration that `env` has elsewhere than in its state is state, and is what is mended.
fn with_its_configuration(below: &mut Table, own: &Table) {
    let in_env = |table: &Table, name: &str| Some(table.get("env")?.get(name)?.as_str()?.to_owned());
    let Some(configuration) = in_env(own, CONFIGURATION).filter(|path| !path.is_empty()) else { return };
    let named = format!("{{env:{CONFIGURATION}}}");
    let repair = below.get_mut("preflight").and_then(|preflight| preflight.get_mut("repair"));
    if let Some(repair) = repair.and_then(Value::as_table_mut) {
        repair.insert("files".into(), vec![named.clone()].into());
    }
    let state = in_env(own, STATE).or_else(|| in_env(below, STATE)).unwrap_or_default();
    let states = below.get_mut("state").and_then(Value::as_array_mut);
    if let Some(states) = states.filter(|_| !Path::new(&configuration).starts_with(state)) {
        let entry = [("path", named), ("kind", "files".to_owned())];
        states.push(
            entry
                .map(|(key, value)| (key.to_owned(), Value::from(value)))
                .into_iter()
                .collect::<Table>()
                .into(),
        );
    }
}

/// Tables are merged key by key; everything else is replaced.
fn merge(below: &mut Table, own: &Table) {
    for (key, value) in own {
        match (below.get_mut(key), value) {
            (Some(Value::Table(below)), Value::Table(own)) => merge(below, own),
            _ => drop(below.insert(key.clone(), value.clone())),
        }
    }
}

/// Hides what sounds secret in environments and headers, addresses of webhooks, and users in addresses of registries.
pub(super) fn hide(file: &mut Table) {
    let told = file.get_mut("daemon").and_then(|daemon| daemon.get_mut("notify"));
    told.into_iter().for_each(hide_webhooks);
    let Some(services) = file.get_mut("service").and_then(Value::as_table_mut) else { return };
    for service in services.iter_mut().filter_map(|(_, service)| service.as_table_mut()) {
        service.get_mut("notify").into_iter().for_each(hide_webhooks);
        for path in [&["env"][..], &["probe", "headers"]] {
            let table = path.iter().try_fold(&mut *service, |table, key| table.get_mut(*key)?.as_table_mut());
            for (name, value) in table.into_iter().flat_map(Table::iter_mut) {
                let name = name.to_lowercase();
                let is_reference = value.as_str().is_none_or(|text| text.is_empty() || text.starts_with('{'));
                if !is_reference && (SECRET.iter().any(|word| name.contains(word)) || path.len() > 1) {
                    *value = HIDDEN.into();
                }
            }
        }
        if let Some(Value::String(registry)) = service.get_mut("source").and_then(|s| s.get_mut("registry")) {
            *registry = crate::store::without_user(registry);
        }
        if let Some(Value::String(token)) =
            service.get_mut("probe").and_then(|p| p.get_mut("version")).and_then(|v| v.get_mut("openclaw"))
            && !token.starts_with('{')
        {
            *token = HIDDEN.into();
        }
    }
}

/// Whoever knows such an address may post there.
fn hide_webhooks(ways: &mut Value) {
    for way in ways.as_array_mut().into_iter().flatten() {
        if let Some(address) = way.get_mut("webhook") {
            *address = HIDDEN.into();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{IdleAskSettings, SourceSettings, VersionSettings, parse, shown};

    const LEAST: &str =
        "[service.gate]\npreset = \"openclaw\"\nnode = \"/opt/node\"\nlisten = \"127.0.0.1:18789\"\n";

    fn gate(more: &str) -> crate::config::ServiceSettings {
        let settings = parse(Path::new("cutover.toml"), &format!("{LEAST}{more}"));
        settings.unwrap_or_else(|error| panic!("{error}")).services["gate"].clone()
    }

    #[test]
    fn the_least_file_is_the_whole_preset() {
        let least = gate("");
        assert!(matches!(&least.source, SourceSettings::Npm { package, .. } if package == "openclaw"));
        assert_eq!(least.entry, "{root}/dist/index.js");
        assert_eq!(least.state[0].path, Path::new("{home}/.openclaw"));
        assert_eq!(least.env["OPENCLAW_NO_AUTO_UPDATE"], "1");
        assert_eq!(least.policy.start_deadline.as_secs(), 120);
        // What it says of itself: "drain=315000ms shutdown=325000ms … Gateway stop policy=330000ms".
        assert_eq!(least.policy.stop_grace.as_secs(), 330);
        assert_eq!(least.env["OPENCLAW_SUPERVISOR_MODE"], "external");
        assert_eq!(least.env["OPENCLAW_SERVICE_REPAIR_POLICY"], "external");
        assert_eq!((least.restart_prevent_exit_status, least.restart_force_exit_status), (vec![78], vec![0]));
        assert_eq!(least.policy.repair, cutover_core::RepairRule::Offer);
        let repair = least.repair.unwrap();
        assert_eq!(repair.files, [Path::new("{home}/.openclaw/openclaw.json")]);
        assert!(matches!(least.idle.unwrap().ask, IdleAskSettings::OpenClaw { .. }));
        assert_eq!(least.validate.len(), 5);
    }

    #[test]
    fn the_service_s_own_keys_go_before_the_preset_s_table_by_table() {
        let own = gate(
            "command = [\"{node}\", \"{root}/x.js\", \"{port}\"]\n[service.gate.env]\nOPENCLAW_STATE_DIR = \"/var/lib/claw\"\nMORE = \"1\"\n\
             [service.gate.policy]\nsoak = \"5s\"\n",
        );
        assert_eq!(own.command.len(), 3);
        assert_eq!(own.state[0].path, Path::new("/var/lib/claw"), "the state lies where the gateway has it");
        assert_eq!((own.env["MORE"].as_str(), own.env["OPENCLAW_NO_AUTO_UPDATE"].as_str()), ("1", "1"));
        assert_eq!((own.policy.soak.as_secs(), own.policy.hold.as_secs()), (5, 120));
    }

    #[test]
    fn a_configuration_that_lies_elsewhere_is_state_and_is_what_is_mended() {
        let at = |path: &str| gate(&format!("[service.gate.env]\nOPENCLAW_CONFIG_PATH = \"{path}\"\n"));
        let paths = |path: &str| -> Vec<String> {
            at(path).state.iter().map(|state| state.path.display().to_string()).collect()
        };
        assert_eq!(paths("/etc/claw.json"), ["{home}/.openclaw", "/etc/claw.json"]);
        assert_eq!(paths("{home}/claw.json"), ["{home}/.openclaw", "{home}/claw.json"]);
        assert_eq!(paths("{home}/.openclaw/clawdbot.json"), ["{home}/.openclaw"], "it lies in it");
        assert_eq!(paths(""), ["{home}/.openclaw"]);
        let inside = at("{home}/.openclaw/clawdbot.json").repair.unwrap().files;
        assert_eq!(inside, [Path::new("{home}/.openclaw/clawdbot.json")]);
        assert_eq!(at("/etc/claw.json").repair.unwrap().files, [Path::new("/etc/claw.json")]);
    }

    #[test]
    fn the_page_is_asked_for_unless_the_file_says_that_there_is_none() {
        assert_eq!(gate("").page.as_deref(), Some("/"));
        assert_eq!(gate("[service.gate.probe]\npage = \"/ui/\"\n").page.as_deref(), Some("/ui/"));
        let headless = gate("[service.gate.probe]\npage = \"\"\n");
        assert_eq!((headless.page, headless.ready.as_deref()), (None, Some("/readyz")));
    }

    #[test]
    fn of_alternatives_the_file_s_own_is_taken_alone() {
        let own = gate(
            "source = { directory = \"/srv/gate\" }\n[service.gate.probe]\nversion = { http = \"/version\" }\n",
        );
        assert!(matches!(own.source, SourceSettings::Directory { .. }));
        assert!(matches!(own.version, VersionSettings::Http { .. }));
        assert!(own.idle.is_none(), "it would be asked with the handshake that is not there");
        assert_eq!(own.ready.as_deref(), Some("/readyz"));
        let npm = gate("source = { registry = \"http://127.0.0.1:1\" }\n");
        assert!(
            matches!(npm.source, SourceSettings::Npm { package, registry: Some(_), .. } if package == "openclaw")
        );
    }

    #[test]
    fn an_unknown_preset_and_an_unknown_key_beside_one_are_told_with_line_and_nearest_name() {
        let told = |text: &str| parse(Path::new("cutover.toml"), text).unwrap_err().to_string();
        let unknown = told(&LEAST.replace("\"openclaw\"", "\"openclw\""));
        assert!(unknown.contains("did you mean `openclaw`?") && unknown.contains("line 2"), "{unknown}");
        let key = told(&LEAST.replace("listen", "lisen"));
        assert!(key.contains("did you mean `listen`?") && key.contains("line 4"), "{key}");
    }

    #[test]
    fn what_is_in_effect_is_shown_without_secrets() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("cutover.toml");
        let secret = "[service.gate.env]\nOPENCLAW_GATEWAY_TOKEN = \"do-not-tell\"\n";
        std::fs::write(&path, format!("{LEAST}{secret}")).unwrap();
        let shown = shown(&path).unwrap();
        assert!(!shown.contains("do-not-tell") && shown.contains(HIDDEN), "{shown}");
        assert!(shown.contains("/readyz") && shown.contains("{env:OPENCLAW_GATEWAY_TOKEN}"), "{shown}");
        parse(&path, &shown).unwrap_or_else(|error| panic!("{error}\n{shown}"));
    }
}
