//! What the command sees: the whole file system, read-only, with empty directories and copies laid over it.
//!
//! Everything is held by descriptors before the first thing is covered. Knows paths; must not know what lies there.

use super::Sandbox;
use super::mounts::{self, Mount, hold, mount_of, name};
use super::wire::Obstacle;
use rustix::fs::Mode;
use rustix::io::Errno;
use rustix::mount::{
    MountFlags, MountPropagationFlags, mount, mount_bind, mount_bind_recursive, mount_change,
};
use std::collections::BTreeSet;
use std::ffi::{CString, OsString};
use std::fs::{self, File, Metadata, Permissions};
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _, symlink};
use std::path::{Path, PathBuf};

/// Devices that do nothing to the machine.
const DEVICES: [&str; 5] = ["null", "zero", "full", "random", "urandom"];

/// Files of a database beside it: those of the original do not belong to its copy.
const COMPANIONS: [&str; 3] = ["-wal", "-shm", "-journal"];

/// So many entries a directory may have in which single files are covered.
const BESIDE_MAX: usize = 4096;

/// Something that is laid where it is seen.
enum Place {
    /// What lies at a path, as it is.
    Seen { path: PathBuf, held: OwnedFd, is_directory: bool },
    /// The same, and it is written to.
    Written { path: PathBuf, held: OwnedFd, is_directory: bool },
    /// A directory in which single files are covered: a new one, with everything else of the old one in it.
    Beside { path: PathBuf, held: OwnedFd, old: Metadata, names: Vec<OsString> },
}

impl Place {
    fn path(&self) -> &Path {
        match self {
            Self::Seen { path, .. } | Self::Written { path, .. } | Self::Beside { path, .. } => path,
        }
    }
}

struct Private {
    path: PathBuf,
    mode: u32,
}

/// Furnishes the house. Must run in new namespaces, as their first process.
pub(super) fn furnish(sandbox: &Sandbox) -> Result<(), Obstacle> {
    let private = MountPropagationFlags::PRIVATE | MountPropagationFlags::REC;
    mount_change("/", private).map_err(Obstacle::refusal("parting from the machine's mounts"))?;
    let quiet = MountFlags::NOSUID | MountFlags::NODEV;
    mount("proc", "/proc", "proc", quiet | MountFlags::NOEXEC, None)
        .map_err(Obstacle::refusal("mounting /proc"))?;
    let privates = privates(&sandbox.private)?;
    let mut places = places(sandbox, &privates)?;
    devices()?;
    let mounts = mounts::all().map_err(Obstacle::at("reading the table of mounts"))?;
    mounts::seal(&mounts, &DEVICES.map(|device| Path::new("/dev").join(device)))?;
    let owner = sandbox.owner();
    empty(Path::new("/dev/shm"), 0o1777, owner, sandbox.private_max)?;
    for Private { path, mode } in &privates {
        make(path, true)?;
        empty(path, *mode, owner, sandbox.private_max)?;
    }
    // What lies deeper is laid later.
    places.sort_by_key(|place| place.path().components().count());
    places.iter().try_for_each(|place| lay(place, &mounts, sandbox))?;
    places.iter().rev().try_for_each(|place| settle(place, sandbox))
}

fn privates(paths: &[PathBuf]) -> Result<Vec<Private>, Obstacle> {
    let mut found = BTreeSet::new();
    for path in paths {
        let step = || format!("looking for {}", path.display());
        match path.canonicalize() {
            Ok(path) if path == Path::new("/") => return Err(Obstacle::at(step())(Errno::LOOP)),
            Ok(path) => drop(found.insert(path)),
            Err(error) if is_absent(&error) => {}
            Err(error) => return Err(Obstacle::at(step())(error)),
        }
    }
    let mode = |path: PathBuf| {
        let step = format!("looking at {}", path.display());
        let mode = fs::metadata(&path).map_err(Obstacle::at(step))?.mode() & 0o7777;
        Ok(Private { path, mode: mode | Mode::RWXU.bits() })
    };
    // A set of paths has what contains before what is contained.
    found.into_iter().map(mode).collect()
}

fn is_absent(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::NotFound | io::ErrorKind::NotADirectory | io::ErrorKind::PermissionDenied
    )
}

fn places(sandbox: &Sandbox, privates: &[Private]) -> Result<Vec<Place>, Obstacle> {
    let held = |path: &Path| -> Result<(OwnedFd, bool), Obstacle> {
        let step = || format!("looking at {}", path.display());
        let held = hold(path).map_err(Obstacle::at(step()))?;
        let is_directory = fs::metadata(path).map_err(Obstacle::at(step()))?.is_dir();
        Ok((held, is_directory))
    };
    let mut places = Vec::new();
    for path in &sandbox.visible {
        let (held, is_directory) = held(path)?;
        places.push(Place::Seen { path: path.clone(), held, is_directory });
    }
    for path in &sandbox.writable {
        let (held, is_directory) = held(path)?;
        places.push(Place::Written { path: path.clone(), held, is_directory });
    }
    let mut beside: BTreeSet<PathBuf> = BTreeSet::new();
    for cover in &sandbox.covers {
        let (held, is_directory) = held(&cover.copy)?;
        let path = cover.live.canonicalize().unwrap_or_else(|_| cover.live.clone());
        if !is_directory {
            beside.extend(path.parent().map(Path::to_owned));
        }
        places.push(Place::Written { path, held, is_directory });
    }
    for path in beside.into_iter().filter(|path| !privates.iter().any(|private| private.path == *path)) {
        let names = others(&path, sandbox).map_err(Obstacle::at(format!("listing {}", path.display())))?;
        let old = fs::metadata(&path).map_err(Obstacle::at(format!("looking at {}", path.display())))?;
        let (held, _) = held(&path)?;
        places.push(Place::Beside { path, held, old, names });
    }
    Ok(places)
}

/// What lies in a directory beside the covered files and their companions.
fn others(directory: &Path, sandbox: &Sandbox) -> io::Result<Vec<OsString>> {
    let mut covered: BTreeSet<OsString> = BTreeSet::new();
    for live in sandbox.covers.iter().map(|cover| &cover.live) {
        let live = live.canonicalize().unwrap_or_else(|_| live.clone());
        if let (Some(parent), Some(name)) = (live.parent(), live.file_name())
            && parent == directory
        {
            covered.insert(name.to_owned());
            covered.extend(COMPANIONS.map(|suffix| {
                let mut name = name.to_owned();
                name.push(suffix);
                name
            }));
        }
    }
    let mut names = Vec::new();
    for entry in fs::read_dir(directory)? {
        let name = entry?.file_name();
        if !covered.contains(&name) {
            names.push(name);
        }
        if names.len() > BESIDE_MAX {
            return Err(io::Error::other(format!("more than {BESIDE_MAX} entries beside a covered file")));
        }
    }
    Ok(names)
}

/// A `/dev` of its own: a read-only mount does not keep anybody from writing to a device.
fn devices() -> Result<(), Obstacle> {
    let failed = |errno: Errno| Obstacle::at("making /dev")(errno);
    let mut held = Vec::new();
    for device in DEVICES {
        held.push((device, hold(&Path::new("/dev").join(device)).map_err(failed)?));
    }
    let flags = MountFlags::NOSUID | MountFlags::NOEXEC;
    mount("tmpfs", "/dev", "tmpfs", flags, c"mode=755,size=65536").map_err(failed)?;
    let furnished = || {
        for (device, held) in &held {
            let path = Path::new("/dev").join(device);
            File::create(&path)?;
            mount_bind(name(held), &path)?;
        }
        for (link, to) in [("fd", ""), ("stdin", "/0"), ("stdout", "/1"), ("stderr", "/2")] {
            symlink(format!("/proc/self/fd{to}"), Path::new("/dev").join(link))?;
        }
        fs::create_dir("/dev/shm")
    };
    furnished().map_err(|error: io::Error| Obstacle::at("making /dev")(error))
}

/// An empty directory in memory.
fn empty(path: &Path, mode: u32, (uid, gid): (u32, u32), max: u64) -> Result<(), Obstacle> {
    let options = format!("mode={mode:o},uid={uid},gid={gid},size={max}");
    let options = CString::new(options).expect("numbers have no NUL");
    let flags = MountFlags::NOSUID | MountFlags::NODEV;
    let mounted = mount("tmpfs", path, "tmpfs", flags, options.as_c_str());
    mounted.map_err(Obstacle::at(format!("emptying {}", path.display())))
}

/// Makes what something can be laid on; in a directory that is not private it must be there.
fn make(path: &Path, is_directory: bool) -> Result<(), Obstacle> {
    if fs::symlink_metadata(path).is_ok() {
        return Ok(());
    }
    let made = || {
        if is_directory {
            return fs::create_dir_all(path);
        }
        path.parent().map_or(Ok(()), fs::create_dir_all)?;
        File::create(path).map(drop)
    };
    made().map_err(Obstacle::at(format!("making a place at {}", path.display())))
}

fn lay(place: &Place, mounts: &[Mount], sandbox: &Sandbox) -> Result<(), Obstacle> {
    let step = || format!("laying {}", place.path().display());
    match place {
        Place::Seen { path, held, is_directory } => {
            make(path, *is_directory)?;
            mount_bind_recursive(name(held), path).map_err(Obstacle::at(step()))
        }
        Place::Written { path, held, is_directory } => {
            make(path, *is_directory)?;
            mount_bind_recursive(name(held), path).map_err(Obstacle::at(step()))?;
            let id = mount_of(held).map_err(Obstacle::at(step()))?;
            let known = mounts.iter().find(|mount| mount.id == id).map(|mount| mount.flags);
            let kept = known.unwrap_or(MountFlags::empty()) | MountFlags::NOSUID | MountFlags::NODEV;
            let opened =
                rustix::mount::mount_remount(path, (kept - MountFlags::RDONLY) | MountFlags::BIND, c"");
            opened.map_err(Obstacle::at(step()))
        }
        Place::Beside { path, held, old, names } => {
            make(path, true)?;
            let (owner, mode) = ownership(old, sandbox.owner());
            // Whoever furnishes it is bound by its mode as well.
            empty(path, mode | Mode::RWXU.bits(), owner, sandbox.private_max)?;
            let names = names.iter().map(|one| (name(held).join(one), path.join(one)));
            names.into_iter().try_for_each(|(from, to)| beside(&from, &to)).map_err(Obstacle::at(step()))
        }
    }
}

/// What was open to be furnished is so no more.
fn settle(place: &Place, sandbox: &Sandbox) -> Result<(), Obstacle> {
    let Place::Beside { path, old, .. } = place else { return Ok(()) };
    let (_, mode) = ownership(old, sandbox.owner());
    let settled = fs::set_permissions(path, Permissions::from_mode(mode));
    settled.map_err(Obstacle::at(format!("giving {} its mode", path.display())))
}

/// As whose, and how, the old directory is made anew. An ordinary user can make none for others: then nobody writes to it
/// who could not before.
fn ownership(old: &Metadata, own: (u32, u32)) -> ((u32, u32), u32) {
    let mode = old.mode() & 0o7777;
    if rustix::process::geteuid().is_root() || old.uid() == own.0 {
        let gid = if rustix::process::geteuid().is_root() { old.gid() } else { own.1 };
        return ((old.uid(), gid), mode);
    }
    (own, mode & !0o222)
}

/// Shows one entry of the old directory in the new one. Sockets and pipes lead out of the house and are not shown.
fn beside(from: &Path, to: &Path) -> io::Result<()> {
    let kind = match fs::symlink_metadata(from) {
        Ok(found) => found.file_type(),
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(error),
    };
    if kind.is_symlink() {
        return symlink(fs::read_link(from)?, to);
    }
    if kind.is_dir() {
        fs::create_dir(to)?;
    } else if kind.is_file() {
        File::create(to)?;
    } else {
        return Ok(());
    }
    fs::set_permissions(to, Permissions::from_mode(Mode::RWXU.bits()))?;
    Ok(mount_bind_recursive(from, to)?)
}
