//! Which file, and with what bytes in it.

use super::error::Error;
use cutover_core::FileIdentity;
use sha2::{Digest, Sha256};
use std::fs::File;
use std::io::Read;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

/// Reads the identity of the file that a path leads to: told apart from a copy by device and inode and from a rewrite by
/// its hash.
///
/// # Errors
/// [`Error::Read`] if it is no readable file.
pub fn identify(path: &Path) -> Result<FileIdentity, Error> {
    let failed = |source| Error::Read { path: path.to_owned(), source };
    let mut file = File::open(path).map_err(failed)?;
    let status = file.metadata().map_err(failed)?;
    let mut hash = Sha256::new();
    let mut block = vec![0; 64 * 1024];
    loop {
        let length = file.read(&mut block).map_err(failed)?;
        if length == 0 {
            break;
        }
        hash.update(&block[..length]);
    }
    Ok(FileIdentity { device: status.dev(), inode: status.ino(), sha256: hex::encode(hash.finalize()) })
}
