//! Where a site's releases come from, as the store takes it.

use super::Site;
use crate::config::{PluginPolicy, PluginWanted, Scripts, SourceSettings};
use crate::store;
use cutover_core::{Plugin, Release};
use std::ffi::OsString;

impl Site {
    /// The source as the store takes it, with the plugins that the settings want now.
    ///
    /// # Errors
    /// If a plugin is kept and it cannot be told in which version: nobody would know that it is updated.
    pub(in crate::conductor) fn source(&self) -> Result<store::Source, store::Error> {
        let plugins = &self.settings.plugins;
        let keeps = plugins.iter().any(|plugin| plugin.policy == PluginPolicy::Keep);
        let current = if keeps { self.store.current()? } else { None };
        let kept = match current {
            Some(current) => self.store.record(current)?.release.plugins,
            None => Vec::new(),
        };
        let plugins = plugins.iter().map(|plugin| {
            let kept = kept.iter().find(|kept| kept.package == plugin.package);
            let wanted = match (plugin.policy, kept, &plugin.wanted) {
                (PluginPolicy::Keep, Some(kept), _) => store::Wanted::Version(kept.version.clone()),
                (_, _, PluginWanted::Channel(channel)) => store::Wanted::Channel(channel.clone()),
                (_, _, PluginWanted::Version(version)) => store::Wanted::Version(version.clone()),
            };
            let may_lack = plugin.policy == PluginPolicy::Wanted;
            store::PluginSource { package: plugin.package.clone(), wanted, may_lack }
        });
        Ok(self.source_with(plugins.collect()))
    }

    /// The same with the plugins that a release was frozen with.
    pub(in crate::conductor) fn source_of(&self, release: &Release) -> store::Source {
        let exact = |plugin: &Plugin| store::PluginSource {
            package: plugin.package.clone(),
            wanted: store::Wanted::Version(plugin.version.clone()),
            may_lack: false,
        };
        self.source_with(release.plugins.iter().map(exact).collect())
    }

    fn source_with(&self, plugins: Vec<store::PluginSource>) -> store::Source {
        match &self.settings.source {
            SourceSettings::Directory { directory, .. } => {
                store::Source::Directory(store::Directory { dir: directory.clone() })
            }
            SourceSettings::Npm { package, registry, npm, scripts, .. } => store::Source::Npm(store::Npm {
                package: package.clone(),
                plugins,
                linked: self.linked(),
                registry: registry.clone(),
                npm: self.npm_command(npm.as_deref()),
                node: self.settings.node.clone(),
                env: self.npm_env.clone(),
                identity: self.identity.as_ref().map(store::Identity::from),
                scripts: match scripts {
                    Scripts::Off => store::Scripts::Off,
                    Scripts::Own => store::Scripts::Own,
                    Scripts::On => store::Scripts::On,
                },
                cache: self.layout.npm_cache(),
                limits: store::Limits::default(),
            }),
        }
    }

    /// Plugins that their service takes from its state, as if its own installer had laid them down.
    fn linked(&self) -> Vec<String> {
        let seated = self.settings.plugins.iter().filter(|plugin| plugin.project.is_some());
        seated.map(|plugin| plugin.package.clone()).collect()
    }

    fn npm_command(&self, given: Option<&[String]>) -> Vec<OsString> {
        match given {
            Some(words) => words.iter().map(OsString::from).collect(),
            None => vec!["npm".into()],
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::keeping;
    use super::*;

    fn wanted(site: &Site) -> Vec<(String, store::Wanted)> {
        let store::Source::Npm(npm) = site.source().unwrap() else { panic!("not npm") };
        npm.plugins.into_iter().map(|plugin| (plugin.package, plugin.wanted)).collect()
    }

    #[test]
    fn a_kept_plugin_stays_in_its_version_and_is_never_updated_because_nobody_can_tell_it() {
        let ground = tempfile::tempdir().unwrap();
        let site = keeping(ground.path(), "{ http = \"/version\" }");
        let latest = || store::Wanted::Channel("latest".into());
        let free = [("@toy/kept".to_owned(), latest()), ("@toy/new".to_owned(), latest())];
        assert_eq!(wanted(&site), free, "nothing is current");

        let directory = site.directory().join("generations/0001");
        let record = directory.join("generation.json");
        std::fs::create_dir_all(&directory).unwrap();
        std::os::unix::fs::symlink("generations/0001", site.directory().join("current")).unwrap();
        let write = |plugins: serde_json::Value| {
            let release = serde_json::json!({
                "package": "app", "version": "1.0.0", "digest": "sha512-x", "plugins": plugins
            });
            let told = serde_json::json!({
                "generation": 1, "release": release, "published": null,
                "source": {"kind": "npm", "package": "app", "registry": null}, "createdAt": "",
                "root": "core", "packageRoot": "core/node_modules/app", "files": 0, "bytes": 0,
                "manifestDigest": "", "withoutIntegrity": []
            });
            std::fs::write(&record, told.to_string()).unwrap();
        };
        let plugin =
            |package: &str| serde_json::json!({"package": package, "version": "1.1.0", "digest": "sha512-x"});
        write(serde_json::json!([plugin("@toy/kept"), plugin("@toy/new")]));
        let kept = store::Wanted::Version("1.1.0".into());
        assert_eq!(wanted(&site), [("@toy/kept".to_owned(), kept), ("@toy/new".to_owned(), latest())]);
        write(serde_json::json!([plugin("@toy/new")]));
        assert_eq!(wanted(&site), free, "the current release has no such plugin");

        std::fs::write(&record, "{").unwrap();
        assert!(matches!(site.source(), Err(store::Error::Damaged { .. })));
        std::fs::remove_file(&record).unwrap();
        assert!(matches!(site.source(), Err(store::Error::Unsealed { .. })));
    }
}
