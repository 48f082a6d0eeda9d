//! Files of declared state that a command mended on a copy: kept with the run's snapshot, and exchanged where they lie.
//!
//! Knows two contents of a file and where its root lies. Must not know who mended what, or why.

use std::fs::{self, File};
use std::io::{Read, Write};
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};

use rustix::fs::{FileType, Gid, Mode, Uid};
use serde::{Deserialize, Serialize};

use super::layout::{self, StatePath};
use super::place::{self, Place, hidden};
use super::{Error, record};

const MENDED: &str = "mended.json";
/// Where the new content of a file lies until it takes the old one's place.
const BESIDE: &str = "cutover-mended";
/// Bytes of a file that may be mended.
const FILE_MAX: u64 = 4 << 20;

/// One file, before and after.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Mended {
    /// Its live path: a real parent and a name.
    pub path: PathBuf,
    /// What it was mended from.
    pub before: String,
    /// What became of it.
    pub after: String,
}

/// Which of the two contents is wanted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Content {
    /// The one before.
    Before,
    /// The one after.
    After,
}

/// Where a root of declared state lies: at home, or as a copy.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Lying {
    /// Its live path.
    pub live: PathBuf,
    /// Where it is looked at.
    pub at: PathBuf,
}

/// The roots of declared state, at home.
///
/// # Errors
/// If they cannot be covered by a snapshot.
pub fn at_home(state: &[StatePath]) -> Result<Vec<Lying>, Error> {
    let roots = layout::roots(state).map_err(Error::Refused)?;
    Ok(roots.into_iter().map(|root| Lying { live: root.path.clone(), at: root.path }).collect())
}

/// Keeps what was mended for the run whose snapshot lies in `dir`, or will. Durable on return. Nothing is kept of nothing.
///
/// # Errors
/// If it cannot be written.
pub fn keep_mended(dir: &Path, files: &[Mended]) -> Result<(), Error> {
    if files.is_empty() {
        return if dir.exists() { record::remove_durably(dir, MENDED) } else { Ok(()) };
    }
    fs::DirBuilder::new().mode(0o700).recursive(true).create(dir).map_err(Error::io("create", dir))?;
    record::write_durably(dir, MENDED, &files)
}

/// What is kept; empty if nothing is.
///
/// # Errors
/// If it cannot be read or understood.
pub fn mended(dir: &Path) -> Result<Vec<Mended>, Error> {
    Ok(record::read(dir, MENDED)?.unwrap_or_default())
}

/// The text of a file of declared state, wherever its root lies. `None` if there is no such file.
///
/// # Errors
/// If it lies in no root, is no plain file of text, is too large, or cannot be read.
pub fn text_of(path: &Path, roots: &[Lying]) -> Result<Option<String>, Error> {
    let Some((place, name)) = placed(path, roots)? else { return Ok(None) };
    let Some(stat) = place.stat(&name)? else { return Ok(None) };
    if place::kind(&stat) != FileType::RegularFile || u64::try_from(stat.st_size).unwrap_or(0) > FILE_MAX {
        return Err(Error::Unmendable { path: path.to_owned() });
    }
    let mut text = String::new();
    let read = place.read_file(&name)?.take(FILE_MAX).read_to_string(&mut text);
    match read {
        Ok(_) => Ok(Some(text)),
        Err(error) if error.kind() == std::io::ErrorKind::InvalidData => {
            Err(Error::Unmendable { path: path.to_owned() })
        }
        Err(error) => Err(Error::io("read", path)(error)),
    }
}

/// Gives every file the wanted content, durably, with the mode and the owner that it has. One that has it already is left
/// alone; may be run again after a crash at any line.
///
/// # Errors
/// If a file has neither content, or cannot be written. Those before it are exchanged.
pub fn exchange(files: &[Mended], roots: &[Lying], wanted: Content) -> Result<(), Error> {
    for file in files {
        let (from, to) = match wanted {
            Content::Before => (&file.after, &file.before),
            Content::After => (&file.before, &file.after),
        };
        let found = text_of(&file.path, roots)?;
        if found.as_ref() == Some(to) {
            sweep(&file.path, roots)?;
            continue;
        }
        if found.as_ref() != Some(from) {
            return Err(Error::NotAsMended { path: file.path.clone() });
        }
        write(&file.path, roots, to)?;
    }
    Ok(())
}

/// Removes what a killed exchange left beside a file.
fn sweep(path: &Path, roots: &[Lying]) -> Result<(), Error> {
    let Some((place, name)) = placed(path, roots)? else { return Ok(()) };
    place.remove(&hidden(&name, BESIDE))
}

fn write(path: &Path, roots: &[Lying], text: &str) -> Result<(), Error> {
    let gone = || Error::NotAsMended { path: path.to_owned() };
    let (place, name) = placed(path, roots)?.ok_or_else(gone)?;
    let stat = place.stat(&name)?.ok_or_else(gone)?;
    let new = hidden(&name, BESIDE);
    place.remove(&new)?;
    let mut file: File = place.create_file(&new)?;
    file.write_all(text.as_bytes()).map_err(Error::io("write", path))?;
    let (uid, gid) = (Uid::from_raw(stat.st_uid), Gid::from_raw(stat.st_gid));
    rustix::fs::fchown(&file, Some(uid), Some(gid)).map_err(Error::io("change the owner of", path))?;
    rustix::fs::fchmod(&file, Mode::from_raw_mode(stat.st_mode & 0o7777))
        .map_err(Error::io("change the mode of", path))?;
    file.sync_all().map_err(Error::io("sync", path))?;
    crate::crash_point!("mended written");
    rustix::fs::renameat(&place.fd, &new, &place.fd, &name).map_err(Error::io("rename", path))?;
    place.sync()
}

/// The open directory that holds a file, and its name there. `None` if the directory is not there.
pub(super) fn placed(path: &Path, roots: &[Lying]) -> Result<Option<(Place, std::ffi::OsString)>, Error> {
    let outside = || Error::Unmendable { path: path.to_owned() };
    let root = roots.iter().find(|root| path.starts_with(&root.live)).ok_or_else(outside)?;
    let below = path.strip_prefix(&root.live).expect("found by its prefix");
    let (Some(parent), Some(name)) = (root.at.parent(), root.at.file_name()) else { return Err(outside()) };
    let relative = Path::new(name).join(below);
    // Joined with nothing, a path would end in a slash.
    let relative: PathBuf = relative.components().collect();
    let file = relative.file_name().ok_or_else(outside)?.to_owned();
    Ok(Place::open(parent)?.enter_parent_of(&relative)?.map(|place| (place, file)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt;

    fn ground() -> (tempfile::TempDir, Vec<Lying>, PathBuf) {
        let ground = tempfile::tempdir().unwrap();
        let root = ground.path().canonicalize().unwrap().join("data");
        fs::create_dir_all(root.join("conf")).unwrap();
        let path = root.join("conf/service.json");
        fs::write(&path, "old").unwrap();
        (ground, vec![Lying { live: root.clone(), at: root }], path)
    }

    #[test]
    fn what_was_mended_is_kept_and_exchanged_there_and_back_with_its_mode() {
        let (ground, roots, path) = ground();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o640)).unwrap();
        let files = [Mended { path: path.clone(), before: "old".into(), after: "new".into() }];
        let dir = ground.path().join("snapshots/1");
        assert_eq!(mended(&dir).unwrap(), []);
        keep_mended(&dir, &files).unwrap();
        let kept = mended(&dir).unwrap();
        assert_eq!(kept, files);
        for (wanted, text) in [(Content::After, "new"), (Content::After, "new"), (Content::Before, "old")] {
            exchange(&kept, &roots, wanted).unwrap();
            assert_eq!(fs::read_to_string(&path).unwrap(), text);
            assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o7777, 0o640);
        }
        assert_eq!(fs::read_dir(path.parent().unwrap()).unwrap().count(), 1, "nothing lies beside it");
        keep_mended(&dir, &[]).unwrap();
        assert_eq!(mended(&dir).unwrap(), []);
    }

    #[test]
    fn a_file_that_a_person_changed_meanwhile_is_not_overwritten() {
        let (_ground, roots, path) = ground();
        let files = [Mended { path: path.clone(), before: "older".into(), after: "new".into() }];
        let refused = exchange(&files, &roots, Content::After).unwrap_err();
        assert!(matches!(refused, Error::NotAsMended { .. }), "{refused}");
        assert_eq!(fs::read_to_string(&path).unwrap(), "old");
    }

    #[test]
    fn a_link_in_the_place_of_a_file_and_what_is_no_state_are_refused() {
        let (ground, roots, path) = ground();
        let secret = ground.path().join("secret");
        fs::write(&secret, "old").unwrap();
        fs::remove_file(&path).unwrap();
        std::os::unix::fs::symlink(&secret, &path).unwrap();
        for path in [path, secret.clone()] {
            let files = [Mended { path, before: "old".into(), after: "new".into() }];
            let refused = exchange(&files, &roots, Content::After).unwrap_err();
            assert!(matches!(refused, Error::Unmendable { .. }), "{refused}");
        }
        assert_eq!(fs::read_to_string(secret).unwrap(), "old");
    }
}
