//! The package that a process runs: found from its script, never from PATH.

use super::Error;
use serde::{Deserialize, Serialize};
use std::path::{Path, PathBuf};

/// An installed npm package.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Package {
    /// Its name, with its scope.
    pub name: String,
    /// Its version, as its `package.json` says.
    pub version: String,
    /// Its directory, with every link resolved.
    pub root: PathBuf,
}

#[derive(Deserialize)]
struct Manifest {
    name: Option<String>,
    version: Option<String>,
}

impl Package {
    /// The package named `wanted` that a script lies in.
    pub(super) fn of(entry: &Path, wanted: &str) -> Result<Self, Error> {
        let mut found = Vec::new();
        for directory in entry.ancestors().skip(1) {
            let path = directory.join("package.json");
            let Ok(text) = std::fs::read(&path) else { continue };
            // Parts of a package have such files too, without a name.
            let Ok(Manifest { name: Some(name), version: Some(version) }) = serde_json::from_slice(&text)
            else {
                continue;
            };
            if name == wanted {
                return Ok(Self { name, version, root: directory.to_owned() });
            }
            found.push(format!("{} is {name} {version}", directory.display()));
        }
        let found =
            if found.is_empty() { "there is no package.json above it".into() } else { found.join(", ") };
        Err(Error::NotThePackage { entry: entry.to_owned(), wanted: wanted.to_owned(), found })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_package_is_the_nearest_directory_above_the_script_that_bears_its_name() {
        let ground = tempfile::tempdir().unwrap();
        let root = ground.path().join("node_modules/gate");
        std::fs::create_dir_all(root.join("dist")).unwrap();
        std::fs::write(root.join("package.json"), r#"{"name":"gate","version":"1.2.3"}"#).unwrap();
        std::fs::write(root.join("dist/package.json"), r#"{"type":"module"}"#).unwrap();
        let entry = root.join("dist/index.js");
        let package = Package::of(&entry, "gate").unwrap();
        assert_eq!((package.version.as_str(), package.root.as_path()), ("1.2.3", root.as_path()));
        let other = Package::of(&entry, "other").unwrap_err().to_string();
        assert!(other.contains("is gate 1.2.3"), "{other}");
    }
}
