//! Plugins that are one thing with the package: how the file names them, and where they lie beside it.

use super::complaint::Complaint;
use super::fragment::{Service, StateFragment, StateKind};
use super::template::located;
use crate::store::{is_package_name, plugin_directory};
use schemars::JsonSchema;
use serde::Deserialize;
use std::path::{Component, Path, PathBuf};

/// A plugin that is installed, switched and taken back together with the package.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct PluginFragment {
    /// Its npm package, from the registry of `source`.
    pub npm: String,
    /// The dist-tag that it follows (default "latest").
    pub channel: Option<String>,
    /// An exact version instead; `{version}` is the package's own.
    pub version: Option<String>,
    /// What an update does about it (default "required").
    pub policy: Option<PluginPolicy>,
    /// How the service calls it when it tells its plugins; default: the last part of the package's name.
    pub id: Option<String>,
    /// An npm project below `state` in which the service looks for it, as if its own installer had laid it down there: before
    /// each start a link in its `node_modules` is led to the plugin of that generation.
    pub project: Option<PathBuf>,
}

/// What an update does about a plugin.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum PluginPolicy {
    /// It must be there and must be told by the service, or there is no update.
    #[default]
    Required,
    /// An update goes without it if the registry does not have it, and does not prove that it runs.
    Wanted,
    /// It stays in the version that is installed, and must be told by the service.
    Keep,
}

/// A plugin, checked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PluginSettings {
    /// Its npm package.
    pub package: String,
    /// Which version of it.
    pub wanted: PluginWanted,
    /// What an update does about it.
    pub policy: PluginPolicy,
    /// How the service calls it.
    pub id: String,
    /// The project in which the service looks for it.
    pub project: Option<PathBuf>,
}

/// Which version of a plugin.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum PluginWanted {
    /// What this dist-tag names.
    Channel(String),
    /// This one; `{version}` is the package's own.
    Version(String),
}

impl PluginWanted {
    /// As the file names it.
    #[must_use]
    pub fn word(&self) -> &str {
        match self {
            Self::Channel(word) | Self::Version(word) => word,
        }
    }
}

/// How a service calls a plugin unless the file says otherwise: by the last part of its package's name.
#[must_use]
pub(crate) fn usual_id(package: &str) -> &str {
    package.rsplit('/').next().unwrap_or_default()
}

/// Checks what the file says of plugins.
pub(super) fn plugins(service: &Service) -> Result<Vec<PluginSettings>, Complaint> {
    let fragments = &service.plugins;
    if service.source.npm.is_none() && !fragments.is_empty() {
        return Err(Complaint::new("plugins", "plugins come from npm: the package must, too (`source.npm`)"));
    }
    let mut settings: Vec<PluginSettings> = Vec::new();
    for fragment in fragments {
        let wanted = match (&fragment.channel, &fragment.version) {
            (Some(_), Some(_)) => {
                let problem = format!("{}: name `channel` or `version`, not both", fragment.npm);
                return Err(Complaint::new("plugins", problem));
            }
            (None, Some(version)) => PluginWanted::Version(version.clone()),
            (channel, None) => PluginWanted::Channel(channel.clone().unwrap_or_else(|| "latest".into())),
        };
        if !is_package_name(&fragment.npm) {
            return Err(Complaint::new("plugins", format!("{} is no name of a package", fragment.npm)));
        }
        if settings.iter().any(|other| other.package == fragment.npm) {
            return Err(Complaint::new("plugins", format!("{} stands there twice", fragment.npm)));
        }
        let project = fragment.project.as_ref().map(|project| located(project, &service.env));
        if let Some(project) = &project {
            seat_is_state(project, fragment, service)?;
            if settings.iter().any(|other| other.project.as_ref() == Some(project)) {
                let problem =
                    format!("{}: another plugin has this `project`; each needs its own", fragment.npm);
                return Err(Complaint::new("plugins", problem));
            }
        }
        settings.push(PluginSettings {
            project,
            package: fragment.npm.clone(),
            wanted,
            policy: fragment.policy.unwrap_or_default(),
            id: fragment.id.clone().unwrap_or_else(|| usual_id(&fragment.npm).to_owned()),
        });
    }
    Ok(settings)
}

/// What is led to another generation with each start must be copied and taken back with the state.
fn seat_is_state(project: &Path, fragment: &PluginFragment, service: &Service) -> Result<(), Complaint> {
    let is_below = |state: &StateFragment| {
        let state = (matches!(state.kind, StateKind::Files)).then(|| located(&state.path, &service.env));
        state.is_some_and(|state| project.starts_with(&state) && project != state)
    };
    let is_plain = project.components().all(|part| !matches!(part, Component::ParentDir | Component::CurDir));
    match is_plain && service.state.iter().any(is_below) {
        true => Ok(()),
        false => {
            let (name, project) = (&fragment.npm, project.display());
            let problem = format!(
                "{name}: `project` is {project}, which does not lie below a `state` of the kind `files`"
            );
            Err(Complaint::new("plugins", problem))
        }
    }
}

/// Fills `{plugin:NAME}` with the directory of that plugin beside the package at `root`.
#[must_use]
pub(crate) fn fill_plugins(template: &str, root: &Path, package: &str) -> String {
    let mut text = template.to_owned();
    while let Some(start) = text.find("{plugin:") {
        let Some(end) = text[start..].find('}') else { break };
        let name = text[start + "{plugin:".len()..start + end].to_owned();
        text.replace_range(start..=start + end, &plugin_directory(root, package, &name).to_string_lossy());
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::parse;

    #[test]
    fn a_seat_lies_in_state_and_is_one_plugin_s() {
        let told = |plugins: &str| {
            let text = format!(
                "[service.web]\nsource = {{ npm = \"app\" }}\ncommand = [\"node\", \"{{root}}/app.mjs\", \"{{port}}\"]\n\
                 probe = {{ live = \"/\", version = {{ http = \"/version\" }} }}\n\
                 env = {{ DATA = \"/var/lib/web\" }}\nstate = [{{ path = \"{{env:DATA}}\", kind = \"files\" }}]\n\
                 port = 8080\nplugins = [{plugins}]\n"
            );
            parse(Path::new("cutover.toml"), &text)
        };
        let plugin = |name: &str, project: &str| format!("{{ npm = \"{name}\", project = \"{project}\" }}");
        let settings = told(&plugin("@toy/extra", "{env:DATA}/npm/extra")).unwrap();
        let seat = settings.services["web"].plugins[0].project.clone();
        assert_eq!(seat.as_deref(), Some(Path::new("/var/lib/web/npm/extra")));
        for (plugins, why) in [
            (plugin("x", "/var/lib/webs/npm"), "does not lie below a `state`"),
            (plugin("x", "{env:DATA}"), "does not lie below a `state`"),
            (plugin("x", "{env:DATA}/../other"), "does not lie below a `state`"),
            (
                format!("{}, {}", plugin("x", "{env:DATA}/a"), plugin("y", "{env:DATA}/a")),
                "each needs its own",
            ),
            (plugin("../x", "{env:DATA}/a"), "is no name of a package"),
        ] {
            let complaint = told(&plugins).unwrap_err().to_string();
            assert!(complaint.contains(why), "{complaint}");
        }
    }

    #[test]
    fn a_plugin_lies_beside_the_package_whatever_their_scopes() {
        let plain = Path::new("/s/generations/0001/core/node_modules/openclaw");
        let scoped = Path::new("/s/generations/0001/core/node_modules/@acme/web");
        let modules = "/s/generations/0001/core/node_modules";
        for (root, package) in [(plain, "openclaw"), (scoped, "@acme/web")] {
            assert_eq!(
                plugin_directory(root, package, "@openclaw/discord"),
                Path::new(modules).join("@openclaw/discord")
            );
            assert_eq!(
                fill_plugins("a={plugin:x}:{plugin:@y/z}", root, package),
                format!("a={modules}/x:{modules}/@y/z")
            );
        }
        assert_eq!(fill_plugins("{plugin:open", plain, "openclaw"), "{plugin:open", "not closed");
    }
}
