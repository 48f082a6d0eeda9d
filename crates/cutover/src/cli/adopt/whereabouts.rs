//! Where the old process's state and configuration lie: what its environment and command line come to by OpenClaw's rules, held
//! against its own word.

use super::takeover::quoted;
use crate::config::{CONFIGURATION, STATE};
use crate::predecessor::Predecessor;
use crate::probe::Places;
use crate::resolved::real;
use anyhow::{Context, bail};
use std::fmt::Write as _;
use std::path::{Path, PathBuf};

/// What takes the place of HOME.
const HOME: &str = "OPENCLAW_HOME";
/// Names of the state in a home, and of the configuration in the state: today's, and that of years ago where only it is there.
const STATES: [&str; 2] = [".openclaw", ".clawdbot"];
const CONFIGURATIONS: [&str; 2] = ["openclaw.json", "clawdbot.json"];

/// Where the old process's files lie.
pub(super) struct Whereabouts {
    /// Its state.
    pub state: PathBuf,
    /// Its configuration, whether or not the file is there.
    pub configuration: PathBuf,
    /// Where that of the state was read.
    pub source: String,
    /// What it told itself.
    pub told: Places,
    /// Why it told nothing, or not all; in words.
    pub untold: Option<String>,
}

impl Whereabouts {
    /// What the environment and the command line come to.
    ///
    /// # Errors
    /// They do not say.
    pub(super) fn derived(old: &Predecessor) -> anyhow::Result<Self> {
        let home = home(old);
        let named = |name: &str| variable(old, name).map(|path| resolved(old, &path, home.as_deref()));
        let state = named(STATE).or_else(|| state_at(home.as_deref()?, profile(old).as_deref()));
        let state = state.context(
            "the process has neither OPENCLAW_STATE_DIR nor OPENCLAW_HOME nor HOME: where its state lies is not known",
        )?;
        let configuration = named(CONFIGURATION).unwrap_or_else(|| first_there(&state, CONFIGURATIONS));
        let source = format!("derived from /proc/{}/environ and its command line", old.instance.pid);
        Ok(Self { state, configuration, source, told: Places::default(), untold: None })
    }

    /// The same, held against what the process tells. Either may be wrong: 2026.5 tells another directory than it works in if its
    /// `dist/index.js` was started with a profile.
    ///
    /// # Errors
    /// It tells something else.
    pub(super) fn told(mut self, told: Result<Places, String>) -> anyhow::Result<Self> {
        self.untold = match &told {
            Err(why) => Some(why.clone()),
            Ok(Places { state: Some(_), configuration: Some(_) }) => None,
            Ok(_) => Some("its hello does not tell both".to_owned()),
        };
        self.told = told.unwrap_or_default();
        agrees(("state", STATE), &self.state, self.told.state.as_deref())?;
        agrees(("configuration", CONFIGURATION), &self.configuration, self.told.configuration.as_deref())?;
        if self.told.state.is_some() {
            self.source = format!("{}; its hello tells the same", self.source);
        }
        Ok(self)
    }

    /// The configuration by the name that the new process gets it by; `None` where it finds it in its state by itself. One that a
    /// link in the state leads to elsewhere is named, since a copy of the link is none of it.
    fn named_configuration(&self) -> Option<PathBuf> {
        let own = real(&self.configuration);
        match own.strip_prefix(real(&self.state)) {
            Ok(_) if own == real(&self.state.join(CONFIGURATIONS[0])) => None,
            // By the state's own name it is seen to be part of it.
            Ok(below) => Some(self.state.join(below)),
            Err(_) => Some(own),
        }
    }

    /// The configuration where it is no part of the state.
    pub(super) fn elsewhere(&self) -> Option<PathBuf> {
        self.named_configuration().filter(|path| !path.starts_with(&self.state))
    }

    /// The variables of the new process, as lines of a TOML table.
    pub(super) fn variables(&self) -> String {
        let mut text = format!("{STATE} = {}\n", quoted(&self.state.display()));
        if let Some(path) = self.named_configuration() {
            let _ = writeln!(text, "{CONFIGURATION} = {}", quoted(&path.display()));
        }
        text
    }
}

fn agrees((what, variable): (&str, &str), derived: &Path, told: Option<&Path>) -> anyhow::Result<()> {
    let Some(told) = told.filter(|told| real(told) != real(derived)) else { return Ok(()) };
    bail!(
        "the gateway tells that its {what} is {}, and its environment and command line come to {}: which of them it works on is not \
         known, and the wrong one would be copied and proven. Start it with {variable} set to the right one, and adopt it then",
        told.display(),
        derived.display()
    )
}

fn variable(old: &Predecessor, name: &str) -> Option<String> {
    let value = old.env.get(name)?.trim();
    (!value.is_empty()).then(|| value.to_owned())
}

/// What it takes for a home.
fn home(old: &Predecessor) -> Option<PathBuf> {
    let account = variable(old, "HOME").map(|home| old.cwd.join(home));
    variable(old, HOME).map(|home| resolved(old, &home, account.as_deref())).or(account)
}

/// A path as it reads it: from its own directory, `~` for a home.
fn resolved(old: &Predecessor, path: &str, home: Option<&Path>) -> PathBuf {
    match (path.strip_prefix('~'), home) {
        (Some(below), Some(home)) if below.is_empty() || below.starts_with('/') => {
            home.join(below.trim_start_matches('/'))
        }
        _ => old.cwd.join(path),
    }
}

/// The profile that its command line names. `OPENCLAW_PROFILE` alone moves no state.
fn profile(old: &Predecessor) -> Option<String> {
    let gateway = old.command.iter().position(|word| word == "gateway").unwrap_or(0);
    let is_dev = old.command[..gateway].iter().any(|word| word == "--dev");
    old.option("--profile").map(|name| name.trim().to_owned()).or_else(|| is_dev.then(|| "dev".to_owned()))
}

fn state_at(home: &Path, profile: Option<&str>) -> Option<PathBuf> {
    match profile {
        Some(name) if !name.eq_ignore_ascii_case("default") => {
            Some(home.join(format!("{}-{name}", STATES[0])))
        }
        Some(_) => Some(home.join(STATES[0])),
        None => Some(first_there(home, STATES)),
    }
}

/// The first of these that is there; the first of all, if none is.
fn first_there(directory: &Path, names: [&str; 2]) -> PathBuf {
    let there = names.map(|name| directory.join(name)).into_iter().find(|path| path.exists());
    there.unwrap_or_else(|| directory.join(names[0]))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;

    fn old(ground: &Path, env: &[(&str, &str)], words: &[&str]) -> Predecessor {
        let env: std::collections::BTreeMap<_, _> = env.iter().copied().collect();
        let command: Vec<_> = ["node", "/app/dist/index.js"].iter().chain(words).collect();
        serde_json::from_value(serde_json::json!({
            "instance": { "pid": 1, "startTime": 2, "bootId": "b" }, "program": "/bin/node", "command": command,
            "cwd": ground, "env": env, "account": { "uid": 1, "gid": 1, "groups": [] }, "output": [null, null],
            "addresses": ["127.0.0.1:1"], "entry": "/app/dist/index.js",
            "package": { "name": "openclaw", "version": "1.0.0", "root": "/app" }, "unit": null, "parent": null,
        }))
        .unwrap()
    }

    fn derived(env: &[(&str, &str)], words: &[&str], there: &[&str]) -> (String, String) {
        let ground = tempfile::tempdir().unwrap();
        for path in there {
            fs::create_dir_all(ground.path().join(path)).unwrap();
        }
        let found = Whereabouts::derived(&old(ground.path(), env, words)).unwrap();
        let below = |path: &Path| path.strip_prefix(ground.path()).unwrap_or(path).display().to_string();
        (below(&found.state), below(&found.configuration))
    }

    #[test]
    fn state_and_configuration_lie_where_the_gateway_s_own_rules_have_them() {
        let at = |state: &str| (state.to_owned(), format!("{state}/openclaw.json"));
        let home = ("HOME", "/h");
        assert_eq!(derived(&[home], &["gateway"], &[]), at("/h/.openclaw"));
        assert_eq!(derived(&[home, (HOME, "~/own")], &["gateway"], &[]), at("/h/own/.openclaw"));
        assert_eq!(derived(&[home, (HOME, "own")], &[], &[]), at("own/.openclaw"), "from its directory");
        for words in [&["--profile", "work", "gateway"][..], &["gateway", "--profile=work"]] {
            assert_eq!(derived(&[home], words, &[]), at("/h/.openclaw-work"));
        }
        assert_eq!(derived(&[home], &["--dev", "gateway"], &[]), at("/h/.openclaw-dev"));
        assert_eq!(derived(&[home], &["gateway", "--dev"], &[]), at("/h/.openclaw"), "another option");
        assert_eq!(derived(&[home], &["gateway", "--profile", "Default"], &[]), at("/h/.openclaw"));
        assert_eq!(derived(&[home, ("OPENCLAW_PROFILE", "work")], &["gateway"], &[]), at("/h/.openclaw"));
        assert_eq!(
            derived(&[home, (HOME, "/o"), (STATE, " ~/claw ")], &["gateway", "--profile", "x"], &[]),
            at("/o/claw")
        );
        let legacy = [("HOME", "home")];
        assert_eq!(derived(&legacy, &[], &["home/.clawdbot"]), at("home/.clawdbot"));
        assert_eq!(derived(&legacy, &[], &["home/.clawdbot", "home/.openclaw"]), at("home/.openclaw"));
        let old_name = derived(&legacy, &[], &["home/.clawdbot/clawdbot.json"]);
        assert_eq!(old_name, ("home/.clawdbot".into(), "home/.clawdbot/clawdbot.json".into()));
        assert_eq!(
            derived(&[home, (CONFIGURATION, "c.json")], &[], &[]),
            ("/h/.openclaw".into(), "c.json".into())
        );
        let nowhere = Whereabouts::derived(&old(Path::new("/"), &[], &[])).err().unwrap().to_string();
        assert!(nowhere.contains("nor HOME"), "{nowhere}");
    }

    #[test]
    fn a_gateway_that_tells_something_else_is_refused_with_what_to_set_and_what_it_does_not_tell_is_said() {
        let ground = tempfile::tempdir().unwrap();
        let claw = ground.path().join("claw");
        fs::create_dir(&claw).unwrap();
        let file = claw.join("openclaw.json");
        let found = |more: &[(&str, &str)]| {
            let env = [&[("HOME", "/h"), (STATE, "claw")], more].concat();
            Whereabouts::derived(&old(ground.path(), &env, &[])).unwrap()
        };
        let places = |state: &Path, configuration: &Path| {
            Ok(Places { state: Some(state.to_owned()), configuration: Some(configuration.to_owned()) })
        };
        let told = found(&[]).told(places(&claw, &file)).unwrap();
        assert_eq!((told.elsewhere(), &told.untold), (None, &None));
        assert_eq!(told.variables(), format!("{STATE} = \"{}\"\n", claw.display()));
        let wrong = found(&[]).told(places(Path::new("/h/.openclaw"), &file)).err().unwrap().to_string();
        assert!(
            wrong.contains("its state is /h/.openclaw") && wrong.contains("Start it with OPENCLAW_STATE_DIR"),
            "{wrong}"
        );
        let wrong = found(&[]).told(places(&claw, Path::new("/h/c.json"))).err().unwrap().to_string();
        assert!(wrong.contains("its configuration is /h/c.json") && wrong.contains(CONFIGURATION), "{wrong}");
        let silent = found(&[]).told(Ok(Places::default())).unwrap();
        assert_eq!(silent.untold.as_deref(), Some("its hello does not tell both"));
        let refused = found(&[]).told(Err("no".into())).unwrap();
        assert!(refused.told.are_untold() && refused.untold.as_deref() == Some("no"));
    }

    #[test]
    fn a_configuration_elsewhere_is_named_by_its_real_place_and_one_below_the_state_is_part_of_it() {
        let ground = tempfile::tempdir().unwrap();
        fs::create_dir(ground.path().join("claw")).unwrap();
        let named = |configuration: &str| {
            let env = [(STATE, "claw"), (CONFIGURATION, configuration), ("HOME", "/h")];
            Whereabouts::derived(&old(ground.path(), &env, &[])).unwrap()
        };
        let expected = real(ground.path()).join("c.json");
        let other = named("claw/../c.json");
        assert_eq!(other.elsewhere(), Some(expected.clone()));
        assert!(other.variables().contains(&format!("{CONFIGURATION} = \"{}\"", expected.display())));
        let inside = named("claw/clawdbot.json");
        assert!(inside.elsewhere().is_none() && inside.variables().contains("/claw/clawdbot.json"));
        let usual = named("claw/openclaw.json");
        assert!(usual.elsewhere().is_none() && !usual.variables().contains(CONFIGURATION));
        // A copy of the link would be none of it.
        std::os::unix::fs::symlink(&expected, ground.path().join("claw/openclaw.json")).unwrap();
        fs::write(&expected, "{}").unwrap();
        assert_eq!(named("claw/openclaw.json").elsewhere(), Some(expected));
    }
}
