//! Parsing alone: the least that any check of a tree must pay, for measurements to compare with.
//!
//! Knows the parser; must not know imports.

use crate::module::Goal;
use crate::nesting::STACK_BYTES;
use crate::syntax;
use oxc_allocator::Allocator;
use std::fs;
use std::path::PathBuf;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;

/// What [`parse_only`] went through.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Parsed {
    /// Files that were read.
    pub files: usize,
    /// Their length together.
    pub bytes: usize,
    /// Those that are programs.
    pub programs: usize,
}

/// Reads and parses the files, and does nothing else. They must be programs ([`crate::Checked::files`]): nothing protects
/// the stack here.
///
/// # Panics
/// If the machine gives no thread to read with.
#[must_use]
pub fn parse_only(files: &[PathBuf], threads: usize) -> Parsed {
    let next = AtomicUsize::new(0);
    thread::scope(|scope| {
        let start = || {
            let thread = thread::Builder::new().stack_size(STACK_BYTES);
            thread.spawn_scoped(scope, || parse_some(files, &next)).expect("the machine gives a thread")
        };
        let threads: Vec<_> = (0..threads.max(1)).map(|_| start()).collect();
        let parsed = threads.into_iter().map(|thread| thread.join().expect("parsing does not panic"));
        parsed.fold(Parsed::default(), |sum, one| Parsed {
            files: sum.files + one.files,
            bytes: sum.bytes + one.bytes,
            programs: sum.programs + one.programs,
        })
    })
}

fn parse_some(files: &[PathBuf], next: &AtomicUsize) -> Parsed {
    let mut arena = Allocator::default();
    let mut parsed = Parsed::default();
    while let Some(path) = files.get(next.fetch_add(1, Ordering::Relaxed)) {
        let Ok(bytes) = fs::read(path) else { continue };
        let goal = match path.extension().and_then(|ending| ending.to_str()) {
            Some("mjs") => Goal::Module,
            Some("cjs") => Goal::Script,
            _ => Goal::Either,
        };
        parsed.files += 1;
        parsed.bytes += bytes.len();
        parsed.programs += usize::from(syntax::parses(&mut arena, &String::from_utf8_lossy(&bytes), goal));
    }
    parsed
}
