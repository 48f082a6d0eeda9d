//! A package that is installed elsewhere becomes a generation, by copy, with the plugins that it has installed itself: what runs
//! from it does not notice.

mod plugin;

pub use plugin::ImportedPlugin;

use super::copy::{Course, copy_file, copy_tree};
use super::lockfile::{self, Lockfile};
use super::manifest::Manifest;
use super::space::{Need, free_bytes, with_overhead};
use super::stage::{CORE, Listener, Meter, Phase, Progress, StopOnDrop, blocking};
use super::workspace::{Workspace, create_dir, create_dir_all};
use super::{Error, GenerationRecord, Result, SourceRecord, Space, Store, Unfit, host_link, seal};
use cutover_core::{Generation, Plugin, Release};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

/// Names of a project that are copied beside its packages.
const OF_A_PROJECT: [&str; 2] = ["package.json", "package-lock.json"];

/// An installed package.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Import {
    /// Its name, with its scope.
    pub package: String,
    /// Its version.
    pub version: String,
    /// Its directory, with every link resolved.
    pub root: PathBuf,
    /// What of its plugins comes with it.
    pub plugins: Vec<ImportedPlugin>,
}

impl Import {
    /// The npm project whose packages it shares, if it is in one. A global installation is none: there every package has its
    /// dependencies below itself, and the others are nobody's business.
    #[must_use]
    pub fn project(&self) -> Option<&Path> {
        let modules = self.root.ancestors().nth(self.package.split('/').count())?;
        let project = modules.parent()?;
        let is_global =
            project.file_name().is_some_and(|name| name == "lib") && !project.join("package.json").exists();
        let is_locked =
            modules.join(".package-lock.json").is_file() || project.join("package-lock.json").is_file();
        let is_project = modules.file_name().is_some_and(|name| name == "node_modules") && is_locked;
        (is_project && !is_global).then_some(project)
    }

    /// What is copied to where in a generation.
    fn pieces(&self) -> Result<Vec<(PathBuf, PathBuf)>> {
        let mut pieces = match self.project() {
            None => vec![(self.root.clone(), modules().join(&self.package))],
            Some(project) => of_project(project, Path::new(CORE)),
        };
        for (number, plugin) in self.numbered() {
            // Below it a link is no more than what it is; here it would be followed.
            for directory in [plugin.project.clone(), plugin.project.join("node_modules")] {
                if directory.is_symlink() {
                    return Err(Error::Unfit { path: directory, why: Unfit::EscapingLink });
                }
            }
            let other = self.project().map(|project| project.join("node_modules").join(&plugin.package));
            if let Some(other) = other.filter(|other| other.exists()) {
                return Err(Error::Doubled { path: plugin.root(), other });
            }
            pieces.extend(of_project(&plugin.project, &Path::new(CORE).join(place(number))));
        }
        Ok(pieces)
    }

    fn numbered(&self) -> impl Iterator<Item = (usize, &ImportedPlugin)> {
        self.plugins.iter().enumerate().map(|(at, plugin)| (at + 1, plugin))
    }

    /// Whether it fits into one tree.
    ///
    /// # Errors
    /// If what is installed does not, or cannot be read.
    pub fn check(&self) -> Result<()> {
        self.pieces().map(drop)
    }

    /// Bytes and files that a copy holds.
    ///
    /// # Errors
    /// If a directory cannot be read, or what is installed does not fit into one tree.
    pub fn size(&self) -> Result<(u64, u64)> {
        let (mut bytes, mut files) = (0, 0);
        for (from, _) in self.pieces()? {
            for entry in walkdir::WalkDir::new(&from) {
                let failed = |error: walkdir::Error| Error::read(&from)(error.into());
                let metadata = entry.map_err(failed)?.metadata().map_err(failed)?;
                files += 1;
                bytes += if metadata.is_file() { metadata.len() } else { 0 };
            }
        }
        Ok((bytes, files))
    }

    /// What its copy in `core` is as a release.
    fn release(&self, core: &Path, manifest: &Manifest) -> Release {
        let mut plugins: Vec<Plugin> = Vec::new();
        for (number, ImportedPlugin { package, version, .. }) in self.numbered() {
            let digest = integrity(&core.join(place(number)), package, version).unwrap_or_else(|| {
                manifest.below(&Path::new(CORE).join(way(number, package)).to_string_lossy()).tree_digest()
            });
            plugins.push(Plugin { package: package.clone(), version: version.clone(), digest });
        }
        plugins.sort();
        let digest = integrity(core, &self.package, &self.version);
        Release {
            package: self.package.clone(),
            version: self.version.clone(),
            digest: digest.unwrap_or_else(|| manifest.below(CORE).tree_digest()),
            plugins,
        }
    }

    /// Holds a copy in `core` against what was found: whoever owns the tree may have exchanged it meanwhile.
    fn check_copy(&self, core: &Path) -> Result<()> {
        let host = (Path::new("node_modules").join(&self.package), &self.package, &self.version);
        let plugins =
            self.numbered().map(|(number, one)| (way(number, &one.package), &one.package, &one.version));
        for (way, package, found) in std::iter::once(host).chain(plugins) {
            let now = plugin::version(&core.join(way), package);
            if now.as_ref() != Some(found) {
                let now = now.map_or_else(|| "gone".to_owned(), |now| format!("version {now}"));
                let said = format!("it was found as {found}, and is {now} since");
                return Err(Error::BadIntegrity { package: package.clone(), said });
            }
        }
        Ok(())
    }

    fn packages(&self) -> Vec<String> {
        std::iter::once(&self.package)
            .chain(self.plugins.iter().map(|plugin| &plugin.package))
            .cloned()
            .collect()
    }
}

/// What is copied of an npm project.
fn of_project(project: &Path, to: &Path) -> Vec<(PathBuf, PathBuf)> {
    let names = std::iter::once("node_modules").chain(OF_A_PROJECT);
    names.map(|name| (project.join(name), to.join(name))).filter(|(from, _)| from.exists()).collect()
}

/// Where a plugin's project lies below a generation's root. A link beside the host leads to the plugin in it: whoever follows it
/// finds what lay beside the plugin beside it still.
fn place(number: usize) -> PathBuf {
    Path::new("plugins").join(number.to_string())
}

/// The plugin in it.
fn way(number: usize, package: &str) -> PathBuf {
    place(number).join("node_modules").join(package)
}

/// Where packages lie in a generation.
fn modules() -> PathBuf {
    Path::new(CORE).join("node_modules")
}

/// The integrity that npm noted when it installed a package into a project.
fn integrity(project: &Path, package: &str, version: &str) -> Option<String> {
    let read = |path: &str| {
        let lock: Lockfile = lockfile::read(&project.join(path)).ok()?;
        let locked = lock.packages.get(&format!("node_modules/{package}"))?;
        let is_it = locked.version.as_deref() == Some(version);
        let integrity = locked.integrity.as_deref().filter(|_| is_it)?;
        integrity.split_whitespace().find(|one| one.starts_with("sha512-")).map(ToOwned::to_owned)
    };
    // The hidden one is what npm installed last; the other is what it was asked for.
    ["node_modules/.package-lock.json", "package-lock.json"].into_iter().find_map(read)
}

/// A link beside the host that leads to a package elsewhere in its tree.
fn link_beside(core: &Path, package: &str, way: &Path) -> Result<()> {
    let place = Path::new("node_modules").join(package);
    make_parent(core, &place)?;
    let link = core.join(&place);
    std::os::unix::fs::symlink(host_link::up_from(&place).join(way), &link).map_err(Error::write(&link))
}

/// Makes the directories above a path below `core` where they are missing, for everybody to enter.
fn make_parent(core: &Path, path: &Path) -> Result<()> {
    let mut above: Vec<&Path> = path.ancestors().skip(1).collect();
    above.reverse();
    let missing =
        above.into_iter().map(|directory| core.join(directory)).filter(|directory| !directory.exists());
    missing.into_iter().try_for_each(|directory| create_dir(&directory, 0o755))
}

impl Store {
    /// Copies an installed package with everything that it shares, and its plugins, into a generation and seals it. One that
    /// was sealed `since` is taken: a take-over that was killed does not copy twice. One from before, which nothing was ever
    /// switched to, is removed. The pointer stays.
    ///
    /// # Errors
    /// What does not fit, cannot be read, or may not be part of a generation (a link that leads out of the tree).
    pub async fn import(
        &self,
        import: &Import,
        since: jiff::Timestamp,
        progress: impl Fn(Progress) + Send + Sync + 'static,
    ) -> Result<Generation> {
        let stop = Arc::new(AtomicBool::new(false));
        let _stop_on_drop = StopOnDrop(Arc::clone(&stop));
        let (store, import) = (self.clone(), import.clone());
        let listener: Listener = Arc::new(progress);
        blocking(move || match store.imported(&import.package, &import.version)? {
            Some(record) if record.is_of(since) && store.verify(record.generation).is_ok() => {
                Ok(record.generation)
            }
            stale => {
                stale.map_or(Ok(()), |record| store.remove_generation(record.generation))?;
                Copying { store, import, listener, stop }.run()
            }
        })
        .await
    }

    /// The generation that a version was imported to, as long as nothing was ever switched to.
    ///
    /// # Errors
    /// If the store cannot be read.
    pub fn imported(&self, package: &str, version: &str) -> Result<Option<GenerationRecord>> {
        if self.current()?.is_some() {
            return Ok(None);
        }
        let fits = |record: &GenerationRecord| {
            matches!(record.source, SourceRecord::Imported { .. })
                && record.release.package == package
                && record.release.version == version
        };
        Ok(self.generations()?.into_iter().rev().find(fits))
    }

    /// The generation that a version was imported to, whatever became current since.
    ///
    /// # Errors
    /// If the store cannot be read.
    pub fn imported_as(&self, version: &str) -> Result<Option<Generation>> {
        let records = self.generations()?.into_iter();
        let mut imported = records.filter(|record| matches!(record.source, SourceRecord::Imported { .. }));
        Ok(imported.find(|record| record.release.version == version).map(|record| record.generation))
    }
}

impl GenerationRecord {
    /// Whether it was sealed at a time or later; no time that makes no sense is later.
    fn is_of(&self, since: jiff::Timestamp) -> bool {
        self.created_at.parse::<jiff::Timestamp>().is_ok_and(|sealed| sealed >= since)
    }
}

struct Copying {
    store: Store,
    import: Import,
    listener: Listener,
    stop: Arc<AtomicBool>,
}

impl Copying {
    fn run(&self) -> Result<Generation> {
        create_dir_all(&self.store.dir)?;
        let (bytes, files) = self.import.size()?;
        let path = self.store.staging_dir();
        let free = free_bytes(&path).map_err(Error::read(&path))?;
        Space { need: Need::Measured(with_overhead(bytes, files)), free, path }.check()?;
        let workspace = Workspace::begin(&self.store)?;
        let sealed = self.fill_and_seal(&workspace, bytes);
        if sealed.is_err() {
            workspace.discard();
        }
        sealed
    }

    fn fill_and_seal(&self, workspace: &Workspace, bytes: u64) -> Result<Generation> {
        let import = &self.import;
        let mut without = Vec::new();
        for plugin in &import.plugins {
            without.extend(plugin.host_links(&import.package)?);
        }
        let meter = Meter::new(&self.listener, Phase::Copy, Some(bytes));
        let course = Course { stop: &self.stop, advance: &|bytes| meter.advance(bytes), without: &without };
        let core = workspace.dir.join(CORE);
        create_dir(&core, 0o755)?;
        for (from, to) in import.pieces()? {
            make_parent(&workspace.dir, &to)?;
            let to = workspace.dir.join(to);
            if from.is_dir() {
                copy_tree(&from, &to, &course)?;
            } else {
                copy_file(&from, &to, &course)?;
            }
        }
        import.check_copy(&core)?;
        for (number, plugin) in import.numbered() {
            let way = way(number, &plugin.package);
            host_link::lay(&core, &import.package, &way)?;
            link_beside(&core, &plugin.package, &way)?;
        }
        seal::take_over(&core)?;
        let meter = Meter::new(&self.listener, Phase::Hash, None);
        let course = Course { stop: &self.stop, advance: &|bytes| meter.advance(bytes), without: &[] };
        let manifest = seal::hash(workspace, &course)?;
        (self.listener)(Progress { phase: Phase::Seal, done: 0, total: None });
        let (files, bytes) = manifest.size();
        seal::publish(&self.store, workspace, &manifest, &course, |sealed| GenerationRecord {
            generation: sealed.generation,
            release: import.release(&core, &manifest),
            published: None,
            source: SourceRecord::Imported { package: import.package.clone(), from: import.root.clone() },
            created_at: sealed.created_at,
            root: CORE.into(),
            package_root: modules().join(&import.package),
            files,
            bytes,
            manifest_digest: sealed.manifest_digest,
            // Its bytes are what ran; that they once were what was published is nobody's word.
            without_integrity: import.packages(),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn installed(ground: &Path, project: &str) -> Import {
        let root = ground.join(project).join("node_modules/@claw/gate");
        std::fs::create_dir_all(root.join("dist")).unwrap();
        std::fs::create_dir_all(ground.join(project).join("node_modules/dep")).unwrap();
        std::fs::write(root.join("dist/index.js"), "1").unwrap();
        std::fs::write(root.join("package.json"), r#"{"name":"@claw/gate","version":"1.0.0"}"#).unwrap();
        std::fs::write(ground.join(project).join("node_modules/dep/index.js"), "2").unwrap();
        Import { package: "@claw/gate".into(), version: "1.0.0".into(), root, plugins: Vec::new() }
    }

    async fn files(import: &Import, ground: &Path) -> (Vec<String>, GenerationRecord) {
        let store = Store::open(&ground.join("store"));
        let begun = jiff::Timestamp::now();
        let generation = store.import(import, begun, |_| ()).await.unwrap();
        assert_eq!(store.import(import, begun, |_| ()).await.unwrap(), generation, "not copied twice");
        let dir = store.generation_dir(generation).join(CORE);
        let entries = walkdir::WalkDir::new(&dir).sort_by_file_name().into_iter().flatten();
        let files = entries.filter(|entry| entry.file_type().is_file());
        let files =
            files.map(|entry| entry.path().strip_prefix(&dir).unwrap().display().to_string()).collect();
        (files, store.record(generation).unwrap())
    }

    #[tokio::test]
    async fn a_package_of_a_project_brings_what_it_shares_and_its_integrity() {
        let ground = tempfile::tempdir().unwrap();
        let import = installed(ground.path(), "app");
        let lock = r#"{"packages":{"node_modules/@claw/gate":{"version":"1.0.0","integrity":"sha512-abc"}}}"#;
        std::fs::write(ground.path().join("app/package-lock.json"), lock).unwrap();
        std::fs::write(ground.path().join("app/private"), "not copied").unwrap();
        let (files, record) = files(&import, ground.path()).await;
        assert_eq!(
            files,
            [
                "node_modules/@claw/gate/dist/index.js",
                "node_modules/@claw/gate/package.json",
                "node_modules/dep/index.js",
                "package-lock.json",
            ]
        );
        assert_eq!(record.release.digest, "sha512-abc");
        assert!(matches!(record.source, SourceRecord::Imported { from, .. } if from == import.root));
    }

    #[tokio::test]
    async fn a_global_package_comes_alone_and_is_known_by_its_bytes() {
        let mut digests = Vec::new();
        for content in ["1", "1", "2"] {
            let ground = tempfile::tempdir().unwrap();
            let import = installed(ground.path(), "lib");
            std::fs::write(import.root.join("dist/index.js"), content).unwrap();
            let lock = ground.path().join("lib/node_modules/.package-lock.json");
            std::fs::write(lock, r#"{"packages":{}}"#).unwrap();
            let (files, record) = files(&import, ground.path()).await;
            assert_eq!(
                files,
                ["node_modules/@claw/gate/dist/index.js", "node_modules/@claw/gate/package.json"]
            );
            digests.push(record.release.digest);
        }
        assert!(digests[0] == digests[1] && digests[1] != digests[2], "{digests:?}");
    }

    /// A plugin as a host installs it, with something beside it and links to where the host lies.
    fn with_plugin(mut import: Import, ground: &Path) -> Import {
        let project = ground.join("state/npm/projects/extra");
        let modules = project.join("node_modules");
        for package in ["@toy/extra", "beside"] {
            let own = modules.join(package).join("node_modules");
            std::fs::create_dir_all(own.join("@claw")).unwrap();
            let manifest = format!(
                r#"{{"name":"{package}","version":"0.1.0","peerDependencies":{{"@claw/gate":"*"}}}}"#
            );
            std::fs::write(modules.join(package).join("package.json"), manifest).unwrap();
            std::os::unix::fs::symlink(&import.root, own.join("@claw/gate")).unwrap();
        }
        std::fs::write(modules.join(".package-lock.json"), "{}").unwrap();
        import.plugins = vec![ImportedPlugin::installed(&project, "@toy/extra").unwrap()];
        import
    }

    #[tokio::test]
    async fn a_plugin_comes_with_what_lies_beside_it_and_with_its_host_in_the_copy() {
        let ground = tempfile::tempdir().unwrap();
        let import = with_plugin(installed(ground.path(), "lib"), ground.path());
        let lock = r#"{"packages":{"node_modules/@toy/extra":{"version":"0.1.0","integrity":"sha512-abc"}}}"#;
        std::fs::write(import.plugins[0].project.join("package-lock.json"), lock).unwrap();
        let (files, record) = files(&import, ground.path()).await;
        assert_eq!(
            files,
            [
                "node_modules/@claw/gate/dist/index.js",
                "node_modules/@claw/gate/package.json",
                "plugins/1/node_modules/.package-lock.json",
                "plugins/1/node_modules/@toy/extra/package.json",
                "plugins/1/node_modules/beside/package.json",
                "plugins/1/package-lock.json",
            ]
        );
        let plugin =
            Plugin { package: "@toy/extra".into(), version: "0.1.0".into(), digest: "sha512-abc".into() };
        assert_eq!(record.release.plugins, [plugin]);
        let generation = Store::open(&ground.path().join("store")).generation_dir(record.generation);
        let modules = generation.join(modules());
        let beside = modules.join("@toy/extra").canonicalize().unwrap().join("../../beside/package.json");
        assert!(beside.exists(), "where node looks for it");
        let host = modules.join("@toy/extra/node_modules/@claw/gate");
        assert_eq!(host.canonicalize().unwrap(), modules.join("@claw/gate").canonicalize().unwrap());
        assert_eq!(record.without_integrity, ["@claw/gate", "@toy/extra"]);
    }

    #[tokio::test]
    async fn another_take_over_copies_anew_and_what_was_exchanged_since_it_was_found_is_not_copied() {
        let ground = tempfile::tempdir().unwrap();
        let import = with_plugin(installed(ground.path(), "lib"), ground.path());
        let (_, first) = files(&import, ground.path()).await;
        let (_, second) = files(&import, ground.path()).await;
        assert_ne!(first.generation, second.generation);
        let store = Store::open(&ground.path().join("store"));
        assert_eq!(store.generations().unwrap().len(), 1, "what was never used is gone");
        let manifest = import.plugins[0].root().join("package.json");
        for text in [Some(r#"{"name":"@toy/extra","version":"0.2.0"}"#), None] {
            match text {
                Some(text) => std::fs::write(&manifest, text).unwrap(),
                None => std::fs::remove_file(&manifest).unwrap(),
            }
            let refused = store.import(&import, jiff::Timestamp::now(), |_| ()).await.unwrap_err();
            assert!(refused.to_string().contains("it was found as 0.1.0"), "{refused}");
        }
    }

    #[tokio::test]
    async fn a_project_that_is_a_link_is_not_followed() {
        let ground = tempfile::tempdir().unwrap();
        let mut import = with_plugin(installed(ground.path(), "lib"), ground.path());
        let link = ground.path().join("link");
        std::os::unix::fs::symlink(&import.plugins[0].project, &link).unwrap();
        import.plugins[0].project = link;
        assert!(matches!(import.check(), Err(Error::Unfit { .. })));
    }

    #[tokio::test]
    async fn a_plugin_that_lies_beside_its_host_too_does_not_fit_into_one_tree() {
        let ground = tempfile::tempdir().unwrap();
        let import = with_plugin(installed(ground.path(), "app"), ground.path());
        std::fs::write(ground.path().join("app/package-lock.json"), "{}").unwrap();
        import.check().unwrap();
        std::fs::create_dir_all(ground.path().join("app/node_modules/@toy/extra")).unwrap();
        let refused = Store::open(&ground.path().join("store"))
            .import(&import, jiff::Timestamp::now(), |_| ())
            .await
            .unwrap_err();
        assert!(matches!(refused, Error::Doubled { .. }), "{refused}");
    }
}
