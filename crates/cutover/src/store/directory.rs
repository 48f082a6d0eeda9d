//! A directory as a source: one subdirectory per version, links as channels.

use super::manifest::Manifest;
use super::source::{Directory, Resolved, Wanted};
use super::{Error, Result, changelog};
use cutover_core::Release;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::atomic::AtomicBool;

pub(super) fn resolve(source: &Directory, wanted: &Wanted) -> Result<Resolved> {
    let version = match wanted {
        Wanted::Version(version) => named(source, version)?,
        Wanted::Channel(channel) => followed(source, channel)?,
    };
    let path = source.dir.join(&version);
    let manifest = Manifest::of_tree(&path, &[], &AtomicBool::new(false), &|_| ())?;
    let (files, bytes) = manifest.size();
    let published =
        fs::metadata(&path).and_then(|metadata| metadata.modified()).map_err(Error::read(&path))?;
    let notes = changelog::notes(&path, &version);
    Ok(Resolved {
        release: Release {
            package: source.dir.display().to_string(),
            version,
            digest: manifest.tree_digest(),
            plugins: Vec::new(),
        },
        homepage: None,
        notes,
        published: jiff::Timestamp::try_from(published).ok().map(|at| at.to_string()),
        unpacked_bytes: Some(bytes),
        files: Some(files),
    })
}

/// Where a resolved release lies.
pub(super) fn place(source: &Directory, release: &Release) -> PathBuf {
    source.dir.join(&release.version)
}

fn is_name(word: &str) -> bool {
    !word.is_empty() && !word.starts_with('.') && !word.contains(['/', '\0'])
}

fn named(source: &Directory, version: &str) -> Result<String> {
    let metadata = entry(source, version)?;
    if metadata.is_dir() {
        return Ok(version.to_owned());
    }
    let said = if metadata.is_symlink() { "it is a channel" } else { "it is no directory" };
    Err(not_found(source, version, said))
}

fn followed(source: &Directory, channel: &str) -> Result<String> {
    if !entry(source, channel)?.is_symlink() {
        return Err(not_found(source, channel, "a channel is a link to a version"));
    }
    let link = source.dir.join(channel);
    let target = fs::canonicalize(&link).map_err(|_| not_found(source, channel, "the link leads nowhere"))?;
    let dir = fs::canonicalize(&source.dir).map_err(Error::read(&source.dir))?;
    let version = (target.parent() == Some(dir.as_path())).then(|| target.file_name()).flatten();
    match version.and_then(std::ffi::OsStr::to_str) {
        Some(version) if is_name(version) => named(source, version),
        _ => Err(not_found(source, channel, "the link leads to no version of this directory")),
    }
}

fn entry(source: &Directory, word: &str) -> Result<fs::Metadata> {
    if !is_name(word) {
        let expected = "the name of a version or channel in the directory";
        return Err(Error::NotExact { wanted: word.to_owned(), expected });
    }
    let path: &Path = &source.dir.join(word);
    fs::symlink_metadata(path).map_err(|error| match error.kind() {
        std::io::ErrorKind::NotFound if source.dir.is_dir() => not_found(source, word, "no such entry"),
        std::io::ErrorKind::NotFound => not_found(source, word, "the directory is not there"),
        _ => Error::read(path)(error),
    })
}

fn not_found(source: &Directory, wanted: &str, said: &str) -> Error {
    let package = source.dir.display().to_string();
    Error::NotFound { package, wanted: wanted.to_owned(), said: said.to_owned() }
}
