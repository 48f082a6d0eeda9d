//! Reading the file: every complaint names the key, the line where it can, and what to write instead.

use super::fragment::File;
use super::layout::Misplaced;
use super::preset;
use super::settings::{Directories, Settings, check};
use std::path::{Path, PathBuf};
use thiserror::Error;

/// The configuration cannot be used. Nothing was changed by reading it.
#[derive(Debug, Error)]
pub enum Error {
    /// The file cannot be read.
    #[error("{path}: cannot be read; write one (see `cutover config schema`) or name another with --config")]
    Read {
        /// Where.
        path: PathBuf,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// It is not TOML, or a key or type is wrong.
    #[error("{path}: {problem}")]
    Parse {
        /// Where.
        path: PathBuf,
        /// Line, key and the nearest valid one.
        problem: String,
    },
    /// Values do not fit together.
    #[error("{path}:\n{}", problems.join("\n"))]
    Check {
        /// Where.
        path: PathBuf,
        /// Each a key and what to write instead.
        problems: Vec<String>,
    },
    /// A directory or an address.
    #[error(transparent)]
    Place(#[from] Misplaced),
}

/// Loads a file and the `conf.d/*.toml` beside it (services alone, in name order; each may be named only once).
///
/// # Errors
/// [`Error`], naming file, key and what to write.
pub fn load(path: &Path) -> Result<Settings, Error> {
    let mut whole = fragment(path)?;
    for path in beside(path) {
        let (more, table) = expanded(&path, &text(&path)?)?;
        if table.contains_key("daemon") {
            let problems = vec!["  daemon: only the main file has it; move it there".to_owned()];
            return Err(Error::Check { path, problems });
        }
        for (name, service) in more.service {
            if whole.service.insert(name.clone(), service).is_some() {
                let problems = vec![format!("  service.{name}: already defined in another file")];
                return Err(Error::Check { path, problems });
            }
        }
    }
    checked(path, whole)
}

/// Where a file says that the daemon's directories are. Whatever else is wrong with it is no matter: whoever asks how a
/// service stands, or ends a maintenance, needs no more of it than this.
///
/// # Errors
/// If the file cannot be read or is not TOML.
pub fn directories(path: &Path) -> Result<Directories, Error> {
    #[derive(Default, serde::Deserialize)]
    #[serde(default)]
    struct Daemon {
        daemon: Directories,
    }
    let told: Result<Daemon, toml::de::Error> = toml::from_str(&text(path)?);
    told.map(|told| told.daemon)
        .map_err(|error| Error::Parse { path: path.into(), problem: error.to_string() })
}

/// What a file and those beside it come to, presets filled in and secrets hidden, as a file of the same format.
///
/// # Errors
/// As [`load`].
pub fn shown(path: &Path) -> Result<String, Error> {
    load(path)?;
    let mut whole = expanded(path, &text(path)?)?.1;
    for path in beside(path) {
        let more = expanded(&path, &text(&path)?)?.1;
        if let Some(toml::Value::Table(more)) = more.get("service").cloned() {
            let services = whole.entry("service").or_insert_with(|| toml::Table::new().into());
            services.as_table_mut().expect("it was read as one").extend(more);
        }
    }
    preset::hide(&mut whole);
    Ok(toml::to_string_pretty(&whole).expect("what was TOML is TOML"))
}

/// The files of `conf.d`, in name order.
fn beside(path: &Path) -> Vec<PathBuf> {
    let beside = path.parent().unwrap_or(Path::new(".")).join("conf.d");
    let mut more: Vec<PathBuf> = std::fs::read_dir(&beside)
        .map(|entries| entries.flatten().map(|entry| entry.path()).collect())
        .unwrap_or_default();
    more.retain(|path| path.extension().is_some_and(|extension| extension == "toml"));
    more.sort();
    more
}

/// Parses a text as if it stood in `path`.
///
/// # Errors
/// [`Error`], naming key and what to write.
pub fn parse(path: &Path, text: &str) -> Result<Settings, Error> {
    checked(path, expanded(path, text)?.0)
}

fn fragment(path: &Path) -> Result<File, Error> {
    Ok(expanded(path, &text(path)?)?.0)
}

fn text(path: &Path) -> Result<String, Error> {
    std::fs::read_to_string(path).map_err(|source| Error::Read { path: path.into(), source })
}

/// A file over its presets, as fragments and as plain TOML. It is read by itself first: only so a complaint names its line.
fn expanded(path: &Path, text: &str) -> Result<(File, toml::Table), Error> {
    let failed =
        |error: toml::de::Error| Error::Parse { path: path.into(), problem: explained(&error.to_string()) };
    let own: File = toml::from_str(text).map_err(failed)?;
    let mut table: toml::Table = toml::from_str(text).map_err(failed)?;
    let presets = own.service.iter().filter_map(|(name, service)| Some((name, service.preset?)));
    preset::expand(&mut table, presets);
    let mut whole: File = table.clone().try_into().map_err(failed)?;
    preset::mark(&mut whole, &own);
    Ok((whole, table))
}

fn checked(path: &Path, file: File) -> Result<Settings, Error> {
    check(file).map_err(|complaints| Error::Check {
        path: path.into(),
        problems: complaints
            .iter()
            .map(|c| format!("  {}: {}", c.key.trim_end_matches('.'), c.problem))
            .collect(),
    })
}

/// Adds the nearest valid word to an "unknown field" or "unknown variant" message.
fn explained(message: &str) -> String {
    let names: Vec<&str> = message.split('`').skip(1).step_by(2).collect();
    let Some((unknown, valid)) = names
        .split_first()
        .filter(|_| message.contains("unknown field") || message.contains("unknown variant"))
    else {
        return message.to_owned();
    };
    match valid.iter().min_by_key(|name| distance(unknown, name)) {
        Some(nearest) if distance(unknown, nearest) <= 3 => {
            format!("{}\ndid you mean `{nearest}`?", message.trim_end())
        }
        _ => message.to_owned(),
    }
}

/// Levenshtein distance.
fn distance(a: &str, b: &str) -> usize {
    let b: Vec<char> = b.chars().collect();
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, x) in a.chars().enumerate() {
        let mut diagonal = row[0];
        row[0] = i + 1;
        for (j, y) in b.iter().enumerate() {
            let substituted = diagonal + usize::from(x != *y);
            diagonal = row[j + 1];
            row[j + 1] = substituted.min(row[j] + 1).min(row[j + 1] + 1);
        }
    }
    row[b.len()]
}

/// The JSON Schema of the file.
#[must_use]
pub fn schema() -> serde_json::Value {
    schemars::schema_for!(File).to_value()
}

#[cfg(test)]
mod tests {
    use super::*;

    const WEB: &str = r#"
[service.web]
source = { directory = "/srv/releases" }
command = ["{root}/bin/server", "--port", "{port}"]
listen = "127.0.0.1:8080"
probe = { ready = "/readyz", version = { http = "/version" } }
"#;

    fn complaint(text: &str) -> String {
        parse(Path::new("cutover.toml"), text).expect_err("must be refused").to_string()
    }

    #[test]
    fn the_smallest_service_is_complete() {
        let settings = parse(Path::new("cutover.toml"), WEB).expect("valid");
        let web = &settings.services["web"];
        assert_eq!(web.entry, "{root}/bin/server");
        assert_eq!(web.channel(), "latest");
    }

    #[test]
    fn an_unknown_key_names_its_line_and_the_nearest_valid_one() {
        let text = complaint(&WEB.replace("listen =", "lisen ="));
        assert!(text.contains("did you mean `listen`?"), "{text}");
        assert!(text.contains("line 5"), "{text}");
    }

    #[test]
    fn an_entry_outside_the_release_proves_nothing_and_is_refused() {
        let text = complaint(&WEB.replace("listen =", "entry = \"/opt/web/server\"\nlisten ="));
        assert!(text.contains("service.web.entry: begin it with `{root}/`"), "{text}");
    }

    #[test]
    fn a_daemon_beside_the_main_file_is_refused_and_not_left_out() {
        let home = tempfile::tempdir().expect("a directory");
        let main = home.path().join("cutover.toml");
        std::fs::create_dir(home.path().join("conf.d")).expect("made");
        std::fs::write(&main, WEB).expect("written");
        std::fs::write(home.path().join("conf.d/more.toml"), "[daemon]\nlisten = \"off\"\n")
            .expect("written");
        let text = load(&main).expect_err("must be refused").to_string();
        assert!(text.contains("more.toml") && text.contains("daemon: only the main file has it"), "{text}");
    }

    #[test]
    fn where_the_daemon_is_can_be_read_whatever_else_is_wrong() {
        let home = tempfile::tempdir().expect("a directory");
        let main = home.path().join("cutover.toml");
        let told = |text: &str| {
            std::fs::write(&main, text).expect("written");
            directories(&main)
        };
        let good = told("[daemon]\nstate = \"/s\"\nlisen = 1\n[service.web]\nsorce = 1\n").expect("read");
        assert_eq!(good, Directories { state: Some("/s".into()), runtime: None });
        assert_eq!(told("").expect("read"), Directories::default());
        let text = told("[daemon\n").expect_err("no TOML").to_string();
        assert!(text.contains("cutover.toml") && text.contains("line 1"), "{text}");
    }

    #[test]
    fn a_service_without_version_probe_is_refused() {
        let text = complaint(&WEB.replace(r#"version = { http = "/version" }"#, "version = {}"));
        assert!(text.contains("service.web.probe.version"), "{text}");
    }

    #[test]
    fn a_websocket_that_cannot_be_asked_is_refused_by_its_key() {
        let with =
            |websocket: &str| WEB.replace("probe = {", &format!("probe = {{ websocket = {{ {websocket} }},"));
        let good = with("path = \"/ws\", pointer = \"/event\", equals = \"hello\"");
        let settings = parse(Path::new("cutover.toml"), &good).expect("valid");
        assert_eq!(settings.services["web"].websocket.as_ref().map(|one| one.path.as_str()), Some("/ws"));
        let path = complaint(&good.replace("\"/ws\"", "\"ws\""));
        assert!(path.contains("service.web.probe.websocket.path"), "{path}");
        let pointer = complaint(&good.replace("\"/event\"", "\"event\""));
        assert!(pointer.contains("service.web.probe.websocket.pointer"), "{pointer}");
        let twice = complaint(&good.replace("http = \"/version\"", "openclaw = \"{env:TOKEN}\""));
        assert!(twice.contains("service.web.probe.websocket") && twice.contains("leave it out"), "{twice}");
    }

    #[test]
    fn a_button_without_a_front_is_refused() {
        let direct = WEB.replace("listen = \"127.0.0.1:8080\"", "port = 8080\nupdate_button = \"openclaw\"");
        let text = complaint(&direct);
        assert!(text.contains("service.web.update_button") && text.contains("`listen`"), "{text}");
        let fronted = format!("{}update_button = \"openclaw\"\ncheck_every = \"0\"\n", WEB);
        let settings = parse(Path::new("cutover.toml"), &fronted).expect("valid");
        let web = &settings.services["web"];
        assert_eq!((web.button, web.check_every), (Some(crate::config::Button::OpenClaw), None));
    }

    #[test]
    fn a_port_that_nobody_learns_is_refused() {
        let text = complaint(&WEB.replace(r#", "--port", "{port}""#, ""));
        assert!(text.contains("{port}"), "{text}");
    }

    #[test]
    fn the_api_never_leaves_loopback() {
        let text = complaint(&format!("[daemon]\nlisten = \"0.0.0.0:7117\"\n{WEB}"));
        assert!(text.contains("loopback"), "{text}");
    }

    #[test]
    fn every_complaint_is_told_at_once() {
        let text = complaint(&WEB.replace("/srv", "srv").replace("127.0.0.1:8080", "nowhere"));
        assert!(text.contains("source.directory") && text.contains("listen"), "{text}");
    }
}
