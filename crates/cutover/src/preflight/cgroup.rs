//! What the control groups that a process is in leave it of memory.
//!
//! Knows cgroup v2. Must not know who asks; version 1 is on its way out of the kernel, and where it rules nothing is told.

use std::fs;
use std::io;
use std::path::Path;

/// Where the groups lie, and the file that names this process's.
const ROOT: &str = "/sys/fs/cgroup";
const OWN: &str = "/proc/self/cgroup";

/// The least that any group above this process leaves (bytes); `None` where none has a limit.
///
/// # Errors
/// If a group's figures cannot be read.
pub(super) fn available() -> io::Result<Option<u64>> {
    available_in(Path::new(ROOT), &fs::read_to_string(OWN)?)
}

fn available_in(root: &Path, own: &str) -> io::Result<Option<u64>> {
    let Some(path) = own.lines().find_map(|line| line.strip_prefix("0::/")) else { return Ok(None) };
    // A path out of this namespace begins with `..`: what lies there is not to be seen.
    if path.starts_with("..") {
        return Ok(None);
    }
    let mut least: Option<u64> = None;
    for group in root.join(path).ancestors().take_while(|group| group.starts_with(root)) {
        if let Some(left) = left_in(group)? {
            least = Some(least.map_or(left, |least| least.min(left)));
        }
    }
    Ok(least)
}

/// What one group leaves; `None` where it has no limit, or counts no memory.
fn left_in(group: &Path) -> io::Result<Option<u64>> {
    let limit = match fs::read_to_string(group.join("memory.max")) {
        Ok(limit) => limit,
        // The topmost group has none.
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(error),
    };
    if limit.trim() == "max" {
        return Ok(None);
    }
    let limit = number(&limit)?;
    let used = number(&fs::read_to_string(group.join("memory.current"))?)?;
    let stat = fs::read_to_string(group.join("memory.stat"))?;
    // What files left in the cache and nobody uses is given back before anybody is killed.
    let cached = stat.lines().find_map(|line| line.strip_prefix("inactive_file "));
    let cached = cached.map_or(Ok(0), number)?;
    Ok(Some(limit.saturating_sub(used.saturating_sub(cached))))
}

fn number(text: &str) -> io::Result<u64> {
    text.trim().parse().map_err(|_| io::Error::other(format!("`{}` is no number of bytes", text.trim())))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn limited(group: &Path, limit: &str) {
        fs::create_dir_all(group).unwrap();
        fs::write(group.join("memory.max"), limit).unwrap();
        fs::write(group.join("memory.current"), "700\n").unwrap();
        fs::write(group.join("memory.stat"), "anon 500\ninactive_file 200\nactive_file 0\n").unwrap();
    }

    #[test]
    fn the_narrowest_of_all_groups_above_decides_and_unused_cache_counts_as_free() {
        let root = tempfile::tempdir().unwrap();
        let own = "0::/system.slice/claw.service\n";
        limited(&root.path().join("system.slice/claw.service"), "max\n");
        assert_eq!(available_in(root.path(), own).unwrap(), None);
        limited(&root.path().join("system.slice/claw.service"), "2000\n");
        assert_eq!(available_in(root.path(), own).unwrap(), Some(1500));
        limited(&root.path().join("system.slice"), "900\n");
        assert_eq!(available_in(root.path(), own).unwrap(), Some(400));
    }

    #[test]
    fn a_process_of_which_no_group_is_told_has_no_limit_here() {
        let root = tempfile::tempdir().unwrap();
        for own in ["4:memory:/docker/1\n", "0::/../other\n", ""] {
            assert_eq!(available_in(root.path(), own).unwrap(), None, "{own}");
        }
        limited(root.path(), "a few\n");
        assert!(available_in(root.path(), "0::/\n").is_err());
    }
}
