//! What the command line says, and whether anybody still reads it. A reader that has gone (`… | head`) is no trouble: what is
//! said to it is dropped, and what was asked for is done to its end. Must not know what is said.

use std::fmt::{Arguments, Display};
use std::io::{self, ErrorKind, Write};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, PoisonError};
use tokio::sync::Notify;

/// Whether the reader of the results has gone.
static GONE: AtomicBool = AtomicBool::new(false);
static LEFT: Notify = Notify::const_new();
/// Why a result could not be written to a reader that is there.
static UNWRITTEN: Mutex<Option<io::Error>> = Mutex::new(None);

/// Prints a result, or a line of one.
pub(crate) fn result(text: impl Display) {
    print(format_args!("{text}\n"));
}

/// Prints a result as it is, without an end of line.
pub(crate) fn raw(text: impl Display) {
    print(format_args!("{text}"));
}

/// Tells something beside the result, on standard error. Nothing better can be done where that cannot be written.
pub(crate) fn aside(text: impl Display) {
    let _ = writeln!(io::stderr(), "{text}");
}

/// Waits until nobody reads the results any more: what has no end of its own ends then.
pub(crate) async fn unread() {
    loop {
        let left = LEFT.notified();
        if GONE.load(Ordering::Acquire) {
            return;
        }
        left.await;
    }
}

/// Why a result was not written, if one was not: on a full disk, say. Told once.
pub(super) fn trouble() -> Option<io::Error> {
    UNWRITTEN.lock().unwrap_or_else(PoisonError::into_inner).take()
}

fn print(text: Arguments<'_>) {
    let mut out = io::stdout().lock();
    match out.write_fmt(text).and_then(|()| out.flush()) {
        Ok(()) => {}
        Err(error) if error.kind() == ErrorKind::BrokenPipe => {
            GONE.store(true, Ordering::Release);
            LEFT.notify_waiters();
        }
        Err(error) => {
            UNWRITTEN.lock().unwrap_or_else(PoisonError::into_inner).get_or_insert(error);
        }
    }
}
