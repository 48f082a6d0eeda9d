//! Which file, and with what bytes in it.

use super::error::Error;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use std::fs::File;
use std::io::Read;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

/// One file, told apart from a copy by device and inode and from a rewrite by its hash.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct FileIdentity {
    /// Device number.
    pub dev: u64,
    /// Inode number.
    pub inode: u64,
    /// SHA-256 of the content, lower-case hexadecimal.
    pub sha256: String,
}

impl FileIdentity {
    /// Reads the identity of the file that a path leads to.
    ///
    /// # Errors
    /// [`Error::Read`] if it is no readable file.
    pub fn read(path: &Path) -> Result<Self, Error> {
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
        Ok(Self { dev: status.dev(), inode: status.ino(), sha256: hex::encode(hash.finalize()) })
    }
}
