//! The table of mounts, as the kernel tells it, and making what it names read-only.

use super::wire::Obstacle;
use rustix::fs::{Mode, OFlags};
use rustix::io::Errno;
use rustix::mount::MountFlags;
use std::fs;
use std::io;
use std::os::fd::{AsFd, AsRawFd as _, OwnedFd};
use std::os::unix::ffi::OsStringExt as _;
use std::path::{Path, PathBuf};

/// `MS_NOSYMFOLLOW`: links on it are not followed.
const NO_SYMLINKS: u32 = 256;

/// One mount of the caller's own namespace.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Mount {
    pub id: u64,
    pub point: PathBuf,
    /// Those that a change of it must repeat: leaving one out is refused, or gives more than there was.
    pub flags: MountFlags,
    /// Whether it tells of processes.
    pub is_proc: bool,
}

/// All of them, oldest first.
pub(super) fn all() -> io::Result<Vec<Mount>> {
    let table = fs::read("/proc/self/mountinfo")?;
    Ok(table.split(|byte| *byte == b'\n').filter_map(parsed).collect())
}

/// `id parent major:minor root point options … - type …`
fn parsed(line: &[u8]) -> Option<Mount> {
    let mut fields = line.split(|byte| *byte == b' ');
    let id = std::str::from_utf8(fields.next()?).ok()?.parse().ok()?;
    let point = unescaped(fields.nth(3)?);
    let options = std::str::from_utf8(fields.next()?).ok()?;
    let flag = |option| match option {
        "ro" => MountFlags::RDONLY,
        "nosuid" => MountFlags::NOSUID,
        "nodev" => MountFlags::NODEV,
        "noexec" => MountFlags::NOEXEC,
        "nosymfollow" => MountFlags::from_bits_retain(NO_SYMLINKS),
        _ => MountFlags::empty(),
    };
    // As many fields as there are follow, until one says that there are no more.
    let is_proc = fields.skip_while(|field| *field != b"-").nth(1) == Some(b"proc");
    Some(Mount { id, point, flags: options.split(',').map(flag).collect(), is_proc })
}

/// Blanks and the like are written as three octal digits.
fn unescaped(field: &[u8]) -> PathBuf {
    let mut path = Vec::new();
    let mut rest = field;
    while let Some((first, more)) = rest.split_first() {
        let digits =
            more.get(..3).filter(|_| *first == b'\\').and_then(|digits| std::str::from_utf8(digits).ok());
        match digits.and_then(|digits| u8::from_str_radix(digits, 8).ok()) {
            Some(byte) => {
                path.push(byte);
                rest = &more[3..];
            }
            None => {
                path.push(*first);
                rest = more;
            }
        }
    }
    std::ffi::OsString::from_vec(path).into()
}

/// A place held by what it is and not by its name.
pub(super) fn hold(path: &Path) -> Result<OwnedFd, Errno> {
    rustix::fs::open(path, OFlags::PATH | OFlags::CLOEXEC, Mode::empty())
}

/// The name under which the kernel finds a held place.
pub(super) fn name(held: impl AsFd) -> PathBuf {
    format!("/proc/self/fd/{}", held.as_fd().as_raw_fd()).into()
}

/// On which mount a held place lies.
pub(super) fn mount_of(held: impl AsFd) -> io::Result<u64> {
    let told = fs::read_to_string(format!("/proc/self/fdinfo/{}", held.as_fd().as_raw_fd()))?;
    let id = told.lines().find_map(|line| line.strip_prefix("mnt_id:")).and_then(|id| id.trim().parse().ok());
    id.ok_or_else(|| io::Error::from(io::ErrorKind::InvalidData))
}

/// Makes every mount read-only that a path leads to, and what lies on it no device, but for the given ones, and nobody's
/// privilege. Those under others are not reached by any. What tells of processes elsewhere than at `/proc` tells of the
/// machine's, and is covered.
pub(super) fn seal(mounts: &[Mount], devices: &[PathBuf]) -> Result<(), Obstacle> {
    let mut is_root_sealed = false;
    for mount in mounts {
        let step = || format!("making {} read-only", mount.point.display());
        let held = match hold(&mount.point) {
            Ok(held) => held,
            // Whoever cannot get there as this user, or by that name, cannot inside either.
            Err(Errno::ACCESS | Errno::NOENT | Errno::NOTDIR) => continue,
            Err(errno) => return Err(Obstacle::at(step())(errno)),
        };
        if mount_of(&held).map_err(Obstacle::at(step()))? != mount.id {
            continue;
        }
        let mut flags = mount.flags | MountFlags::BIND | MountFlags::RDONLY | MountFlags::NOSUID;
        if !devices.contains(&mount.point) {
            flags |= MountFlags::NODEV;
        }
        rustix::mount::mount_remount(&mount.point, flags, c"").map_err(Obstacle::at(step()))?;
        if mount.is_proc && mount.point != Path::new("/proc") {
            cover(&mount.point).map_err(Obstacle::at(format!("covering {}", mount.point.display())))?;
        }
        is_root_sealed |= mount.point == Path::new("/");
    }
    if is_root_sealed {
        return Ok(());
    }
    // In a changed root the mount below it has another name.
    Err(Obstacle::at("making / read-only: it is no mount")(Errno::PERM))
}

fn cover(point: &Path) -> io::Result<()> {
    let flags = MountFlags::RDONLY | MountFlags::NOSUID | MountFlags::NODEV | MountFlags::NOEXEC;
    if fs::metadata(point)?.is_dir() {
        return Ok(rustix::mount::mount("tmpfs", point, "tmpfs", flags, c"mode=555,size=4096")?);
    }
    rustix::mount::mount_bind("/dev/null", point)?;
    Ok(rustix::mount::mount_remount(point, flags | MountFlags::BIND, c"")?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mount_is_read_with_its_flags_and_the_blanks_in_its_name() {
        let line =
            b"36 35 98:0 /mnt1 /mnt\\040two\\134x ro,nosuid,noexec,relatime master:1 - ext3 /dev/root rw";
        let flags = MountFlags::RDONLY | MountFlags::NOSUID | MountFlags::NOEXEC;
        let mount = Mount { id: 36, point: "/mnt two\\x".into(), flags, is_proc: false };
        assert_eq!(parsed(line), Some(mount));
        let process = parsed(b"37 35 0:5 / /p rw shared:2 master:1 - proc proc rw").unwrap();
        assert!(process.is_proc);
        assert_eq!(parsed(b""), None);
    }

    #[test]
    fn the_root_of_this_machine_is_among_its_mounts() {
        let root = mount_of(hold(Path::new("/")).unwrap()).unwrap();
        assert!(all().unwrap().iter().any(|mount| mount.id == root));
    }
}
