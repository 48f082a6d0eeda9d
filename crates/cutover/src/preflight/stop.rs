//! Giving up: whoever asked for a look ends it by letting go, and the look sees that at once.
//!
//! Knows one pipe. Must not know who looks, nor at what.

use rustix::event::{PollFd, PollFlags, Timespec};
use rustix::io::Errno;
use std::io::{self, PipeReader, PipeWriter};
use std::sync::Arc;

/// The interest in a look. Dropped, however that happens, it ends the look.
#[derive(Debug)]
#[must_use = "dropped, it ends the look"]
pub struct Interest {
    _end: PipeWriter,
}

/// The looking side: tells whether anybody still wants to know. Once nobody does, that stays so.
#[derive(Clone, Debug)]
pub struct Stop {
    end: Option<Arc<PipeReader>>,
}

impl Stop {
    /// Both sides of one look.
    ///
    /// # Errors
    /// If the process may open no more files.
    pub fn pair() -> io::Result<(Interest, Stop)> {
        let named = |error: io::Error| io::Error::new(error.kind(), format!("opening a pipe: {error}"));
        let (reader, writer) = io::pipe().map_err(named)?;
        Ok((Interest { _end: writer }, Stop { end: Some(Arc::new(reader)) }))
    }

    /// For a look that ends with the process.
    #[must_use]
    pub fn never() -> Stop {
        Stop { end: None }
    }

    /// Whether nobody wants to know any more.
    #[must_use]
    pub fn is_asked(&self) -> bool {
        let Some(end) = self.poll() else { return false };
        loop {
            let now = Timespec { tv_sec: 0, tv_nsec: 0 };
            match rustix::event::poll(&mut [end.clone()], Some(&now)) {
                Ok(0) => return false,
                Err(Errno::INTR) => {}
                // What cannot be asked is not gone on with.
                Ok(_) | Err(_) => return true,
            }
        }
    }

    /// What becomes ready once nobody wants to know any more.
    pub(crate) fn poll(&self) -> Option<PollFd<'_>> {
        self.end.as_ref().map(|end| PollFd::new(&**end, PollFlags::IN))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_look_is_wanted_as_long_as_somebody_holds_it() {
        let (interest, stop) = Stop::pair().unwrap();
        let other = stop.clone();
        assert!(!stop.is_asked() && !other.is_asked() && !Stop::never().is_asked());
        drop(interest);
        assert!(stop.is_asked() && other.is_asked() && !Stop::never().is_asked());
    }
}
