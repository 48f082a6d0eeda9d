//! A thread of its own for each blocking wait.
//!
//! Threads of the runtime's pool are joined when it ends, and a stop may take minutes: these are not.

use super::error::Error;
use std::io;
use tokio::sync::oneshot;

/// Runs `work` on a thread named `name` and answers what it answers. Dropping the future does not end the work.
pub(super) async fn run<T: Send + 'static>(
    name: &str,
    work: impl FnOnce() -> T + Send + 'static,
) -> Result<T, Error> {
    let (sender, receiver) = oneshot::channel();
    let body = move || {
        // Nobody waiting any more is no fault of the work.
        drop(sender.send(work()));
    };
    std::thread::Builder::new().name(name.to_owned()).spawn(body).map_err(Error::Thread)?;
    receiver.await.map_err(|lost| Error::Thread(io::Error::other(lost)))
}
