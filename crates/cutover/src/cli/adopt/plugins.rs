//! Plugins that the gateway has installed itself: those that run come with it, and are configured so that they stay one thing
//! with it.

use super::takeover::quoted;
use crate::config::usual_id;
use crate::predecessor::Package;
use crate::store::{Import, ImportedPlugin, is_package_name, json_at};
use std::fmt::Write as _;
use std::path::{Path, PathBuf};

/// Below the state: where the gateway's installer lays a project for each plugin, since 2026.9.
const PROJECTS: &str = "npm/projects";
/// Below the state: the one project that it laid them all into before.
const SHARED: &str = "npm";
/// What makes a plugin of a package.
const MANIFEST: &str = "openclaw.plugin.json";

/// What becomes of the plugins that the gateway has installed itself.
#[derive(Debug, Default)]
pub(super) struct Plugins {
    /// They come with it.
    pub taken: Vec<Taken>,
    /// They stay where they lie, for a reason.
    pub left: Vec<(ImportedPlugin, String)>,
}

/// A plugin that comes with its host.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Taken {
    /// As it is installed.
    pub plugin: ImportedPlugin,
    /// How the gateway calls it.
    pub id: String,
    /// As what its project names it: a version, or whatever npm takes in its place.
    wanted: String,
}

/// What is said of one that stays.
pub(super) fn stays(plugin: &ImportedPlugin, why: &str) -> String {
    let ImportedPlugin { package, version, .. } = plugin;
    format!(
        "{package} {version} stays where it lies, no part of what is proven, updated and taken back: {why}"
    )
}

/// Looks at the plugins in a gateway's state, of which it has told those that run. A project that cannot be read has none.
pub(super) fn found(state: &Path, host: &Package, told: &[String]) -> Plugins {
    let mut plugins = Plugins::default();
    let installed = installed(state);
    for one in &installed {
        match obstacle(one, &installed, state, host, told) {
            Some(why) => plugins.left.push((one.plugin.clone(), why)),
            None => plugins.taken.push(one.clone()),
        }
    }
    plugins
}

fn installed(state: &Path) -> Vec<Taken> {
    let mut projects: Vec<PathBuf> = std::fs::read_dir(state.join(PROJECTS))
        .into_iter()
        .flatten()
        .filter_map(|entry| Some(entry.ok()?.path()))
        .chain([state.join(SHARED)])
        .collect();
    projects.sort();
    let mut installed = Vec::new();
    for project in projects {
        let manifest = json_at(&project.join("package.json"));
        let named = manifest["dependencies"].as_object().into_iter().flatten();
        // It is somebody else's file: a name may be anything.
        installed.extend(named.filter(|(name, _)| is_package_name(name)).filter_map(|(name, wanted)| {
            let plugin = ImportedPlugin::installed(&project, name)?;
            let id = json_at(&plugin.root().join(MANIFEST))["id"].as_str()?.to_owned();
            Some(Taken { plugin, id, wanted: wanted.as_str().unwrap_or_default().to_owned() })
        }));
    }
    installed
}

/// Why a plugin does not come along.
fn obstacle(one: &Taken, all: &[Taken], state: &Path, host: &Package, told: &[String]) -> Option<String> {
    let ImportedPlugin { package, project, .. } = &one.plugin;
    if !told.contains(&one.id) {
        return Some("the gateway does not tell that it runs".into());
    }
    let others = || all.iter().filter(|other| *other != one).map(|other| &other.plugin);
    if let Some(other) = others().find(|other| other.package == *package) {
        let other = other.project.display();
        return Some(format!(
            "it lies in {other} too (what an update has left goes with a restart of the gateway)"
        ));
    }
    let has_its_own = *project != state.join(SHARED) && others().all(|other| other.project != *project);
    let is_plain = |name: &str| {
        name.chars().all(|letter| letter.is_ascii_alphanumeric() || matches!(letter, '.' | '-' | '_'))
    };
    if !has_its_own || !project.file_name().is_some_and(|name| name.to_str().is_some_and(is_plain)) {
        return Some(format!("{} is no project of its own", project.display()));
    }
    // A path, an address, another name: the next update would ask the registry for something else under this name.
    if one.wanted.contains([':', '/']) {
        return Some(format!("it was installed as {}, and updates come from the registry", one.wanted));
    }
    let Package { name, version, root } = host.clone();
    let import = Import { package: name, version, root, plugins: vec![one.plugin.clone()] };
    import.check().err().map(|error| format!("{:#}", anyhow::Error::from(error)))
}

impl Plugins {
    /// How they are configured, beside a variable that names the state.
    pub(super) fn configuration(&self, host: &Package, state: &str) -> String {
        let mut text = String::new();
        if self.taken.is_empty() {
            return text;
        }
        text.push_str(
            "# Plugins that it has installed itself: from now on one thing with it.\nplugins = [\n",
        );
        for Taken { plugin: ImportedPlugin { package, version, project }, id, .. } in &self.taken {
            let version = if *version == host.version { "{version}" } else { version };
            let project = project.file_name().unwrap_or_default().display();
            let project = format!("{{env:{state}}}/{PROJECTS}/{project}");
            let (name, version, project) = (quoted(package), quoted(&version), quoted(&project));
            let _ = write!(text, "    {{ npm = {name}, version = {version}, project = {project}");
            if usual_id(package) != id {
                let _ = write!(text, ", id = {}", quoted(id));
            }
            text.push_str(" },\n");
        }
        text.push_str("]\n");
        text
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;

    const VERSION: &str = "2026.9.5";

    /// Lays a plugin as the gateway's installer does.
    fn install(state: &Path, project: &str, package: &str, version: &str, id: &str) {
        let project = state.join(project);
        let directory = project.join("node_modules").join(package);
        fs::create_dir_all(&directory).unwrap();
        let manifest = serde_json::json!({ "name": package, "version": version });
        fs::write(directory.join("package.json"), manifest.to_string()).unwrap();
        fs::write(directory.join(MANIFEST), serde_json::json!({ "id": id }).to_string()).unwrap();
        let mut project_file = json_at(&project.join("package.json"));
        if project_file.is_null() {
            project_file = serde_json::json!({});
        }
        project_file["dependencies"][package] = version.into();
        fs::write(project.join("package.json"), project_file.to_string()).unwrap();
    }

    fn look(state: &Path, told: &[&str]) -> (Vec<String>, Vec<String>, String) {
        let host = Package {
            name: "openclaw".into(),
            version: VERSION.into(),
            root: state.join("app/node_modules/openclaw"),
        };
        let told: Vec<String> = told.iter().map(|id| (*id).to_owned()).collect();
        let plugins = found(state, &host, &told);
        let taken = plugins.taken.iter().map(|taken| taken.plugin.package.clone()).collect();
        let left = plugins.left.iter().map(|(plugin, why)| format!("{}: {why}", plugin.package)).collect();
        (taken, left, plugins.configuration(&host, "STATE"))
    }

    #[test]
    fn what_runs_and_was_installed_by_the_gateway_itself_stays_one_thing_with_it() {
        let state = tempfile::tempdir().unwrap();
        install(state.path(), "npm/projects/discord-1", "@openclaw/discord", VERSION, "discord");
        install(state.path(), "npm/projects/lines-2", "progress-lines", "1.2.3", "lines");
        install(state.path(), "npm/projects/other-3", "other", "1.0.0", "other");
        fs::create_dir_all(state.path().join("npm/projects/none")).unwrap();
        let (taken, left, text) = look(state.path(), &["discord", "lines", "core"]);
        assert_eq!(taken, ["@openclaw/discord", "progress-lines"]);
        assert_eq!(left, ["other: the gateway does not tell that it runs"]);
        let table: toml::Table = text.parse().unwrap();
        let expected: toml::Table = r#"plugins = [
            { npm = "@openclaw/discord", version = "{version}", project = "{env:STATE}/npm/projects/discord-1" },
            { npm = "progress-lines", version = "1.2.3", project = "{env:STATE}/npm/projects/lines-2", id = "lines" },
        ]"#
        .parse()
        .unwrap();
        assert_eq!(table, expected);
        let (taken, left, text) = look(state.path(), &[]);
        assert!(taken.is_empty() && left.len() == 3 && text.is_empty());
    }

    #[test]
    fn what_cannot_be_one_thing_with_it_stays_where_it_lies_for_a_reason() {
        let state = tempfile::tempdir().unwrap();
        for project in ["one", "two"] {
            install(state.path(), &format!("npm/projects/{project}"), "twice", "1.0.0", "twice");
        }
        for package in ["a", "b"] {
            install(state.path(), "npm/projects/shared", package, "1.0.0", package);
        }
        install(state.path(), "npm", "old", "1.0.0", "old");
        install(state.path(), "npm/projects/a {brace}", "brace", "1.0.0", "brace");
        install(state.path(), "npm/projects/alias", "alias", "1.0.0", "alias");
        let manifest = state.path().join("npm/projects/alias/package.json");
        fs::write(manifest, r#"{"dependencies": {"alias": "npm:other@1.0.0"}}"#).unwrap();
        let app = state.path().join("app/node_modules");
        fs::create_dir_all(app.join("beside")).unwrap();
        fs::write(app.join(".package-lock.json"), "{}").unwrap();
        install(state.path(), "npm/projects/beside", "beside", "1.0.0", "beside");
        let (taken, left, text) = look(state.path(), &["twice", "a", "b", "old", "brace", "alias", "beside"]);
        assert!(taken.is_empty() && text.is_empty(), "{taken:?} {text}");
        let place = |of: &str| state.path().join("npm/projects").join(of).display().to_string();
        let no_own = |of: &str| format!("{} is no project of its own", place(of));
        for expected in [
            format!("twice: it lies in {} too", place("two")),
            format!("twice: it lies in {} too", place("one")),
            "alias: it was installed as npm:other@1.0.0".to_owned(),
            format!("a: {}", no_own("shared")),
            format!("b: {}", no_own("shared")),
            format!("old: {} is no project of its own", state.path().join("npm").display()),
            format!("brace: {}", no_own("a {brace}")),
        ] {
            assert!(left.iter().any(|one| one.starts_with(&expected)), "{expected}: {left:?}");
        }
        assert!(left.iter().any(|one| one.starts_with("beside: ") && one.contains("one package twice")));
        assert_eq!(left.len(), 8, "{left:?}");
    }
}
