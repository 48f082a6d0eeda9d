//! Waiting for descriptors, at most so long.

use rustix::event::{PollFd, Timespec};
use rustix::io::Errno;
use std::time::{Duration, Instant};

/// Polls until one descriptor is ready or the limit is over; answers whether one is.
pub(crate) fn poll_until(fds: &mut [PollFd<'_>], limit: Duration) -> Result<bool, Errno> {
    let begun = Instant::now();
    loop {
        let left = limit.saturating_sub(begun.elapsed());
        // A limit beyond what the kernel takes is as good as the longest that it takes.
        let timeout = Timespec::try_from(left).unwrap_or(Timespec { tv_sec: i64::MAX, tv_nsec: 0 });
        match rustix::event::poll(fds, Some(&timeout)) {
            Ok(0) if begun.elapsed() >= limit => return Ok(false),
            Ok(0) | Err(Errno::INTR) => {}
            Ok(_) => return Ok(true),
            Err(errno) => return Err(errno),
        }
    }
}
