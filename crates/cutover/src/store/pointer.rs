//! Taking the pointer away: what going back from a first installation means.

use super::workspace::sync_dir;
use super::{Error, Result, Store};
use std::io;

impl Store {
    /// Removes the pointer, durably. Must be idempotent.
    ///
    /// # Errors
    /// If it cannot be removed; then it names what it named.
    pub fn unlink(&self) -> Result<()> {
        let pointer = self.pointer();
        match std::fs::remove_file(&pointer) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                return Err(Error::write(&pointer)(error));
            }
            Ok(()) | Err(_) => {}
        }
        sync_dir(self.dir())
    }
}
