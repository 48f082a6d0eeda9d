//! A package in memory, and how it is packed the way `npm pack` does it.

use super::Published;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use flate2::{Compression, write::GzEncoder};
use serde_json::{Map, Value, json};
use sha2::Digest as _;
use std::io;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;

/// One file of a package.
#[derive(Clone, Debug)]
pub struct PackageFile {
    /// Path inside the package, `/`-separated.
    pub path: String,
    /// Unix permission bits.
    pub mode: u32,
    /// The bytes.
    pub content: Vec<u8>,
}

/// A version of a package before it is published.
#[derive(Clone, Debug)]
pub struct Package {
    /// Name, with its scope.
    pub name: String,
    /// Exact version.
    pub version: String,
    /// When it says it was published, RFC 3339.
    pub published: String,
    /// `package.json`, including name and version.
    pub manifest: Map<String, Value>,
    /// The files, without `package.json`.
    pub files: Vec<PackageFile>,
}

impl Package {
    /// A package with nothing but its `package.json`.
    #[must_use]
    pub fn new(name: &str, version: &str) -> Package {
        let mut manifest = Map::new();
        manifest.insert("name".into(), json!(name));
        manifest.insert("version".into(), json!(version));
        Package {
            name: name.to_owned(),
            version: version.to_owned(),
            published: "2026-01-01T00:00:00.000Z".to_owned(),
            manifest,
            files: Vec::new(),
        }
    }

    /// Reads a package from a directory: its `package.json` and every regular file, except its `node_modules`.
    ///
    /// # Errors
    /// If something cannot be read, or `package.json` is not an object with a name and a version.
    pub fn from_directory(dir: &Path) -> io::Result<Package> {
        let text = std::fs::read(dir.join("package.json"))?;
        let manifest: Map<String, Value> = serde_json::from_slice(&text)?;
        let field = |name: &str| {
            let value = manifest.get(name).and_then(Value::as_str).map(str::to_owned);
            value.ok_or_else(|| io::Error::other(format!("package.json has no {name}")))
        };
        let mut package = Package::new(&field("name")?, &field("version")?);
        package.manifest = manifest;
        package.collect(dir, "")?;
        Ok(package)
    }

    fn collect(&mut self, dir: &Path, prefix: &str) -> io::Result<()> {
        let mut entries = std::fs::read_dir(dir)?.collect::<io::Result<Vec<_>>>()?;
        entries.sort_by_key(std::fs::DirEntry::file_name);
        for entry in entries {
            let name = entry.file_name().into_string().map_err(|name| {
                io::Error::other(format!("a package cannot hold the file name {}", name.display()))
            })?;
            let path = format!("{prefix}{name}");
            let kind = entry.file_type()?;
            if kind.is_dir() && path != "node_modules" {
                self.collect(&entry.path(), &format!("{path}/"))?;
            } else if kind.is_file() && path != "package.json" {
                let mode = entry.metadata()?.permissions().mode() & 0o777;
                self.files.push(PackageFile { path, mode, content: std::fs::read(entry.path())? });
            }
        }
        Ok(())
    }

    /// Adds or replaces a plain file.
    #[must_use]
    pub fn file(self, path: &str, content: impl Into<Vec<u8>>) -> Package {
        self.with(path, 0o644, content.into())
    }

    /// Adds or replaces an executable file.
    #[must_use]
    pub fn executable(self, path: &str, content: impl Into<Vec<u8>>) -> Package {
        self.with(path, 0o755, content.into())
    }

    fn with(mut self, path: &str, mode: u32, content: Vec<u8>) -> Package {
        self.files.retain(|file| file.path != path);
        self.files.push(PackageFile { path: path.to_owned(), mode, content });
        self
    }

    /// Leaves a file out, as a broken build does.
    #[must_use]
    pub fn without(mut self, path: &str) -> Package {
        self.files.retain(|file| file.path != path);
        self
    }

    /// Adds a dependency.
    #[must_use]
    pub fn dependency(mut self, name: &str, range: &str) -> Package {
        let all = self.manifest.entry("dependencies").or_insert_with(|| json!({}));
        all[name] = json!(range);
        self
    }

    /// Sets a field of `package.json`.
    #[must_use]
    pub fn field(mut self, name: &str, value: Value) -> Package {
        self.manifest.insert(name.to_owned(), value);
        self
    }

    /// Gives the package another version, leaving its files alone.
    #[must_use]
    pub fn as_version(mut self, version: &str) -> Package {
        version.clone_into(&mut self.version);
        self.field("version", json!(version))
    }

    /// Sets the publish time, RFC 3339.
    #[must_use]
    pub fn published_at(mut self, at: &str) -> Package {
        at.clone_into(&mut self.published);
        self
    }

    pub(super) fn pack(&self) -> Published {
        let manifest = serde_json::to_vec_pretty(&self.manifest).expect("JSON values always serialise");
        let mut archive = tar::Builder::new(GzEncoder::new(Vec::new(), Compression::fast()));
        append(&mut archive, "package.json", 0o644, &manifest);
        for file in &self.files {
            append(&mut archive, &file.path, file.mode, &file.content);
        }
        let tarball = archive.into_inner().and_then(GzEncoder::finish).expect("writing to memory succeeds");
        Published {
            manifest: self.manifest.clone(),
            integrity: format!("sha512-{}", BASE64.encode(sha2::Sha512::digest(&tarball))),
            shasum: hex::encode(<sha1::Sha1 as sha1::Digest>::digest(&tarball)),
            tarball: tarball.into(),
            at: self.published.clone(),
            unpacked_bytes: self.files.iter().map(|file| file.content.len() as u64).sum::<u64>()
                + manifest.len() as u64,
            files: self.files.len() + 1,
        }
    }
}

fn append(archive: &mut tar::Builder<GzEncoder<Vec<u8>>>, path: &str, mode: u32, content: &[u8]) {
    let mut header = tar::Header::new_gnu();
    header.set_size(content.len() as u64);
    header.set_mode(mode);
    header.set_mtime(499_162_500);
    archive
        .append_data(&mut header, format!("package/{path}"), content)
        .expect("writing to memory succeeds and the paths are relative");
}
