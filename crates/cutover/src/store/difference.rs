//! In what two sealed generations differ, for a person who compares them: packages and size.

use super::{GenerationRecord, Result, Store, lockfile};
use cutover_core::Generation;
use serde::Serialize;
use std::collections::BTreeMap;

/// In what one generation differs from another.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Difference {
    /// The one that is compared with.
    pub from: Generation,
    /// The one that is compared.
    pub to: Generation,
    /// Packages that only the latter has, with their versions.
    pub added: Vec<String>,
    /// Packages that only the former has, with their versions.
    pub removed: Vec<String>,
    /// Packages that both have, in two versions.
    pub changed: Vec<Moved>,
    /// How many more files the latter has.
    pub files: i64,
    /// How many more bytes.
    pub bytes: i64,
}

/// A package in two versions.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Moved {
    /// Its name; inside another package, that one's name before it.
    pub package: String,
    /// The version that it had.
    pub from: String,
    /// The version that it has.
    pub to: String,
}

impl Store {
    /// Compares two generations by what was recorded when they were sealed; no file of a release is read.
    ///
    /// # Errors
    /// As [`Store::record`], for either; [`super::Error::Damaged`] if what npm recorded makes no sense.
    pub fn difference(&self, from: Generation, to: Generation) -> Result<Difference> {
        let (old, new) = (self.record(from)?, self.record(to)?);
        let (before, after) = (self.packages(&old)?, self.packages(&new)?);
        let only = |these: &BTreeMap<String, String>, those: &BTreeMap<String, String>| {
            let missing = these.iter().filter(|(package, _)| !those.contains_key(*package));
            missing.map(|(package, version)| format!("{package} {version}")).collect()
        };
        let moved = |(package, from): (&String, &String)| {
            let to = after.get(package).filter(|to| *to != from)?;
            Some(Moved { package: package.clone(), from: from.clone(), to: to.clone() })
        };
        let more = |new: u64, old: u64| i64::try_from(i128::from(new) - i128::from(old)).unwrap_or(i64::MAX);
        Ok(Difference {
            from,
            to,
            added: only(&after, &before),
            removed: only(&before, &after),
            changed: before.iter().filter_map(moved).collect(),
            files: more(new.files, old.files),
            bytes: more(new.bytes, old.bytes),
        })
    }

    /// The packages of a generation and their versions: all that npm installed, else the release; and its plugins, which may
    /// lie elsewhere in it.
    fn packages(&self, record: &GenerationRecord) -> Result<BTreeMap<String, String>> {
        let core = self.generation_dir(record.generation).join(&record.root);
        let release = &record.release;
        let plugins = release.plugins.iter().map(|plugin| (plugin.package.clone(), plugin.version.clone()));
        let mut packages: BTreeMap<String, String> = plugins.collect();
        match lockfile::installed(&core)? {
            Some(installed) => packages.extend(installed),
            None => packages.extend([(release.package.clone(), release.version.clone())]),
        }
        Ok(packages)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;
    use std::path::Path;

    fn sealed(store: &Path, generation: u32, version: &str, files: u64, packages: &serde_json::Value) {
        let directory = store.join(format!("generations/{generation:04}"));
        let record = json!({
            "generation": generation, "published": null, "createdAt": "2026-01-01T00:00:00Z", "files": files,
            "release": { "package": "web", "version": version, "digest": "sha512-x" },
            "source": { "kind": "directory", "dir": "/srv/releases" }, "root": "core", "packageRoot": "core",
            "bytes": files * 1000, "manifestDigest": "", "withoutIntegrity": [],
        });
        std::fs::create_dir_all(directory.join("core/node_modules")).unwrap();
        std::fs::write(directory.join("generation.json"), record.to_string()).unwrap();
        if !packages.is_null() {
            let lock = json!({ "packages": packages }).to_string();
            std::fs::write(directory.join("core/node_modules/.package-lock.json"), lock).unwrap();
        }
    }

    #[test]
    fn what_npm_installed_is_compared_by_package_and_a_directory_by_its_version() {
        let ground = tempfile::tempdir().unwrap();
        let at = |version: &str| json!({ "version": version });
        let old = json!({ "node_modules/a": at("1.0.0"), "node_modules/a/node_modules/b": at("2.0.0"), "node_modules/c": at("1.0.0") });
        let new = json!({ "node_modules/a": at("1.1.0"), "node_modules/a/node_modules/b": at("2.0.0"), "node_modules/@d/e": at("3.0.0") });
        sealed(ground.path(), 1, "1.0.0", 5, &old);
        sealed(ground.path(), 2, "2.0.0", 3, &new);
        let store = Store::open(ground.path());
        let told = store.difference(Generation(1), Generation(2)).unwrap();
        assert_eq!((told.added, told.removed), (vec!["@d/e 3.0.0".to_owned()], vec!["c 1.0.0".to_owned()]));
        let moved = |package: &str, from: &str, to: &str| {
            vec![Moved { package: package.into(), from: from.into(), to: to.into() }]
        };
        assert_eq!((told.changed, told.files, told.bytes), (moved("a", "1.0.0", "1.1.0"), -2, -2000));
        sealed(ground.path(), 3, "3.0.0", 3, &json!(null));
        sealed(ground.path(), 4, "4.0.0", 3, &json!(null));
        let told = store.difference(Generation(3), Generation(4)).unwrap();
        assert_eq!(told.changed, moved("web", "3.0.0", "4.0.0"));
        assert!(store.difference(Generation(3), Generation(9)).is_err());
    }
}
