//! A request to be restarted that lies in an OpenClaw gateway's own state. While one names it, 2026.5 takes a TERM for a restart
//! and begins anew in the same process; whoever wrote it may never have signalled.

use cutover_core::Instance;
use rustix::fs::{CWD, Mode, OFlags};
use serde::Deserialize;
use std::fs::File;
use std::io::{self, Read};
use std::path::Path;

const NAME: &str = "gateway-restart-intent.json";
/// The gateway reads no longer one.
const SIZE_MAX: u64 = 1024;

#[derive(Deserialize)]
struct Request {
    pid: u32,
}

/// Takes a request away that names the instance, so that its TERM means an end. Answers whether there was one.
///
/// # Errors
/// It can be neither read nor removed.
pub fn withdraw_request(state: &Path, instance: &Instance) -> io::Result<bool> {
    let path = state.join(NAME);
    let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
    let file = match rustix::fs::openat(CWD, &path, flags, Mode::empty()) {
        Ok(file) => File::from(file),
        Err(rustix::io::Errno::NOENT | rustix::io::Errno::LOOP) => return Ok(false),
        Err(errno) => return Err(errno.into()),
    };
    if !file.metadata()?.is_file() {
        return Ok(false);
    }
    let mut text = Vec::new();
    file.take(SIZE_MAX + 1).read_to_end(&mut text)?;
    let named = serde_json::from_slice::<Request>(&text).ok().map(|request| request.pid);
    if named != Some(instance.pid) {
        return Ok(false);
    }
    match std::fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        Ok(()) | Err(_) => Ok(true),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use cutover_core::BootId;

    #[test]
    fn a_request_that_names_the_process_is_taken_away_and_no_other() {
        let state = tempfile::tempdir().unwrap();
        let path = state.path().join(NAME);
        let instance = Instance { boot_id: BootId("boot".into()), pid: 41, start_time: 7 };
        let withdrawn = || withdraw_request(state.path(), &instance).unwrap();
        assert!(!withdrawn(), "there is none");
        for (text, is_own) in [
            (r#"{"kind":"gateway-restart","pid":41,"createdAt":1,"force":true}"#, true),
            (r#"{"kind":"gateway-restart","pid":42,"createdAt":1}"#, false),
            ("no request", false),
        ] {
            std::fs::write(&path, text).unwrap();
            assert_eq!((withdrawn(), path.exists()), (is_own, !is_own), "{text}");
        }
        // What is elsewhere is nobody's to read, and less to remove.
        let elsewhere = state.path().join("elsewhere");
        std::fs::write(&elsewhere, r#"{"pid":41}"#).unwrap();
        std::fs::remove_file(&path).unwrap();
        std::os::unix::fs::symlink(&elsewhere, &path).unwrap();
        assert!(!withdrawn() && elsewhere.exists());
        std::fs::remove_file(&path).unwrap();
        std::fs::create_dir(&path).unwrap();
        assert!(!withdrawn());
    }
}
