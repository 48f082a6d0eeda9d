//! The service's output on its way from the pipe to size-rotated files.
//!
//! The service is never kept waiting for a disk that is full: what cannot be written is dropped and counted.
//! Knows bytes and files. Must not know what the lines mean.

use super::record::LogFile;
use rustix::event::{PollFd, PollFlags};
use rustix::fs::OFlags;
use rustix::io::Errno;
use rustix::pipe::PipeFlags;
use std::fs::{File, OpenOptions, Permissions};
use std::io::{self, Read, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::path::PathBuf;
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

const BLOCK: usize = 64 * 1024;
/// The bit of a log file's mode (sticky, which means nothing of a file) that says: output is missing in it, before or after it. A
/// disk that takes no byte more still takes this; a file system that has become read-only does not.
pub const OUTPUT_LOST: u32 = 0o1000;

/// A pipe that is copied to a log until its last writer has gone.
#[derive(Debug)]
pub(super) struct Output {
    copier: Arc<Mutex<Copier>>,
    ended: Receiver<()>,
}

impl Output {
    /// Starts copying; answers the end of the pipe that is for the service.
    pub(super) fn start(log: &LogFile) -> io::Result<(Self, OwnedFd)> {
        let (reader, writer) = rustix::pipe::pipe_with(PipeFlags::CLOEXEC)?;
        // Only our end: the flag belongs to each end's own description.
        let flags = rustix::fs::fcntl_getfl(&reader)?;
        rustix::fs::fcntl_setfl(&reader, flags | OFlags::NONBLOCK)?;
        let reader = Arc::new(File::from(reader));
        let copier = Copier { reader: Arc::clone(&reader), log: Rotation::new(log.clone()) };
        let copier = Arc::new(Mutex::new(copier));
        let shared = Arc::clone(&copier);
        let (sender, ended) = channel();
        let body = move || {
            copy_all(&reader, &shared);
            drop(sender);
        };
        std::thread::Builder::new().name("output".into()).spawn(body)?;
        Ok((Self { copier, ended }, writer))
    }

    /// Copies what stands in the pipe now, so that what the service said before it ended is in the log.
    pub(super) fn catch_up(&self) {
        let mut copier = self.copier.lock().unwrap_or_else(PoisonError::into_inner);
        let mut left = rustix::io::ioctl_fionread(&copier.reader).unwrap_or(0);
        while left > 0 {
            match copier.copy() {
                Copied::Bytes(count) => left = left.saturating_sub(count),
                Copied::Nothing | Copied::End => break,
            }
        }
    }

    /// Waits until the last writer has closed the pipe, at most for `limit`; answers whether it has. It may not have been
    /// one of the service's: a pipe can be given away.
    pub(super) fn finish(&self, limit: Duration) -> bool {
        let ended = !matches!(self.ended.recv_timeout(limit), Err(RecvTimeoutError::Timeout));
        self.catch_up();
        ended
    }

    /// Bytes that the log could not take so far.
    pub(super) fn dropped(&self) -> u64 {
        self.copier.lock().unwrap_or_else(PoisonError::into_inner).log.dropped
    }
}

fn copy_all(reader: &File, copier: &Mutex<Copier>) {
    loop {
        match rustix::event::poll(&mut [PollFd::from_borrowed_fd(reader.as_fd(), PollFlags::IN)], None) {
            Ok(_) => {}
            Err(Errno::INTR) => continue,
            Err(_) => return,
        }
        if matches!(copier.lock().unwrap_or_else(PoisonError::into_inner).copy(), Copied::End) {
            return;
        }
    }
}

#[derive(Debug)]
struct Copier {
    reader: Arc<File>,
    log: Rotation,
}

enum Copied {
    Bytes(u64),
    Nothing,
    End,
}

impl Copier {
    fn copy(&mut self) -> Copied {
        let mut block = [0; BLOCK];
        match (&*self.reader).read(&mut block) {
            Ok(0) => Copied::End,
            Ok(length) => {
                self.log.take(&block[..length]);
                Copied::Bytes(length as u64)
            }
            Err(error) if matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted) => {
                Copied::Nothing
            }
            Err(_) => Copied::End,
        }
    }
}

/// A log file that makes room for itself.
#[derive(Debug)]
struct Rotation {
    log: LogFile,
    file: Option<File>,
    size: u64,
    dropped: u64,
    /// What was dropped since the log last took something.
    gap: u64,
}

impl Rotation {
    /// The file is there from the beginning: a service that says nothing has an empty log, and not none.
    fn new(log: LogFile) -> Self {
        let file = open(&log.path).ok();
        let size = file.as_ref().and_then(|file| file.metadata().ok()).map_or(0, |found| found.len());
        Self { log, file, size, dropped: 0, gap: 0 }
    }

    fn take(&mut self, mut bytes: &[u8]) {
        while !bytes.is_empty() {
            let (now, later) = bytes.split_at(self.fitting(bytes));
            match self.write(now) {
                Ok(()) => {}
                Err(error) => self.lose(now.len(), &error),
            }
            bytes = later;
        }
    }

    /// How many of the bytes go before the next rotation: whole lines, if one ends in what fits.
    fn fitting(&self, bytes: &[u8]) -> usize {
        let full = self.log.size_max.max(1);
        // A full file is left on the next write, so a whole new one is at hand.
        let room = if self.size >= full { full } else { full - self.size };
        let room = usize::try_from(room).unwrap_or(usize::MAX);
        if bytes.len() <= room {
            return bytes.len();
        }
        match bytes[..room].iter().rposition(|byte| *byte == b'\n') {
            Some(end) => end + 1,
            None => room,
        }
    }

    fn write(&mut self, bytes: &[u8]) -> io::Result<()> {
        if self.size > 0 && self.size + bytes.len() as u64 > self.log.size_max {
            self.rotate()?;
        }
        let file = match &mut self.file {
            Some(file) => file,
            None => {
                let file = open(&self.log.path)?;
                self.size = file.metadata()?.len();
                self.file.insert(file)
            }
        };
        if self.gap > 0 {
            let gap = format!("\n[{} bytes of output were dropped here]\n", self.gap);
            mark(file)?;
            file.write_all(gap.as_bytes())?;
            self.size += gap.len() as u64;
            self.gap = 0;
        }
        file.write_all(bytes)?;
        self.size += bytes.len() as u64;
        Ok(())
    }

    fn rotate(&mut self) -> io::Result<()> {
        for number in (0..self.log.files_max.saturating_sub(1)).rev() {
            match std::fs::rename(self.name(number), self.name(number + 1)) {
                Ok(()) => {}
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                Err(error) => return Err(error),
            }
        }
        if self.log.files_max <= 1 {
            std::fs::remove_file(&self.log.path)?;
        }
        self.file = None;
        self.size = 0;
        Ok(())
    }

    fn lose(&mut self, count: usize, why: &io::Error) {
        if self.gap == 0 {
            // The keeper's own log is the only place left to say so; if that is full too, the count remains.
            drop(writeln!(io::stderr(), "output is dropped: {}: {why}", self.log.path.display()));
        }
        self.mark_lost();
        self.dropped += count as u64;
        self.gap += count as u64;
        // Opened anew next time: the file may have been removed, its disk remounted.
        self.file = None;
    }
}

impl Rotation {
    /// The file that is written to, or one that was rotated so many times.
    fn name(&self, number: u32) -> PathBuf {
        let mut name = self.log.path.clone().into_os_string();
        if number > 0 {
            name.push(format!(".{number}"));
        }
        name.into()
    }

    /// Whoever looks for something in the log must not take its absence for evidence. Right after a rotation there may be no
    /// file but the one before; what takes the next output is marked with it.
    fn mark_lost(&self) {
        let is_file = |name: &PathBuf| std::fs::metadata(name).is_ok_and(|found| found.is_file());
        let Some(name) = [self.name(0), self.name(1)].into_iter().find(is_file) else { return };
        // What cannot even be marked is told on the keeper's own log.
        let _ = File::open(name).and_then(|file| mark(&file));
    }
}

fn mark(file: &File) -> io::Result<()> {
    let mode = file.metadata()?.permissions().mode();
    file.set_permissions(Permissions::from_mode(mode | OUTPUT_LOST))
}

fn open(path: &PathBuf) -> io::Result<File> {
    OpenOptions::new().append(true).create(true).mode(0o600).open(path)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn log(directory: &tempfile::TempDir, size_max: u64, files_max: u32) -> LogFile {
        LogFile { path: directory.path().join("log"), size_max, files_max }
    }

    fn content(log: &LogFile, number: u32) -> Option<String> {
        let suffix = if number == 0 { String::new() } else { format!(".{number}") };
        std::fs::read_to_string(format!("{}{suffix}", log.path.display())).ok()
    }

    #[test]
    fn files_rotate_at_line_ends_and_only_so_many_are_kept() {
        let directory = tempfile::tempdir().unwrap();
        let log = log(&directory, 12, 3);
        let mut rotation = Rotation::new(log.clone());
        for number in 0..9 {
            rotation.take(format!("line{number}\n").as_bytes());
        }
        assert_eq!(content(&log, 0).unwrap(), "line8\n");
        assert_eq!(content(&log, 1).unwrap(), "line6\nline7\n");
        assert_eq!(content(&log, 2).unwrap(), "line4\nline5\n");
        assert_eq!(content(&log, 3), None);
        assert_eq!(rotation.dropped, 0);
    }

    #[test]
    fn a_block_larger_than_a_file_is_spread_and_no_byte_is_lost() {
        let directory = tempfile::tempdir().unwrap();
        let log = log(&directory, 10, 100);
        let mut rotation = Rotation::new(log.clone());
        let text: String = (0..57).map(|number| char::from(b'a' + number % 26)).collect();
        rotation.take(text.as_bytes());
        let whole: String = (0..100).rev().filter_map(|number| content(&log, number)).collect();
        assert_eq!(whole, text);
        assert!((0..100).filter_map(|number| content(&log, number)).all(|part| part.len() <= 10));
    }

    #[test]
    fn a_single_file_starts_over() {
        let directory = tempfile::tempdir().unwrap();
        let log = log(&directory, 6, 1);
        let mut rotation = Rotation::new(log.clone());
        rotation.take(b"first\nother\n");
        assert_eq!((content(&log, 0).as_deref(), content(&log, 1)), (Some("other\n"), None));
    }

    #[test]
    fn what_the_disk_does_not_take_is_dropped_counted_and_marked() {
        let directory = tempfile::tempdir().unwrap();
        let log = log(&directory, 1000, 2);
        // A full disk that can be had anywhere: /dev/full refuses every write.
        std::os::unix::fs::symlink("/dev/full", &log.path).unwrap();
        let mut rotation = Rotation::new(log.clone());
        rotation.take(b"lost\n");
        rotation.take(b"lost too\n");
        assert_eq!(rotation.dropped, 14);
        std::fs::remove_file(&log.path).unwrap();
        rotation.take(b"kept\n");
        assert_eq!(content(&log, 0).unwrap(), "\n[14 bytes of output were dropped here]\nkept\n");
        assert_eq!(rotation.dropped, 14);
    }

    #[test]
    fn a_log_that_lacks_output_says_so_by_its_mode() {
        let directory = tempfile::tempdir().unwrap();
        let log = log(&directory, 1000, 2);
        let mut rotation = Rotation::new(log.clone());
        let mode = || std::fs::metadata(&log.path).unwrap().permissions().mode() & 0o7777;
        assert_eq!(mode(), 0o600);
        rotation.lose(5, &io::Error::from(io::ErrorKind::StorageFull));
        assert_eq!(mode(), 0o600 | OUTPUT_LOST);
        rotation.take(b"kept\n");
        assert_eq!(content(&log, 0).unwrap(), "\n[5 bytes of output were dropped here]\nkept\n");
        assert_eq!(mode(), 0o600 | OUTPUT_LOST, "what was lost stays lost");
    }

    #[test]
    fn a_log_that_cannot_be_begun_anew_says_so_by_the_file_before_and_by_the_next() {
        let directory = tempfile::tempdir().unwrap();
        let log = log(&directory, 1000, 2);
        let mut rotation = Rotation::new(log.clone());
        rotation.take(b"first\n");
        rotation.rotate().unwrap();
        // No file can be made under a name that is taken.
        std::fs::create_dir(&log.path).unwrap();
        rotation.take(b"lost\n");
        let mode = |number| std::fs::metadata(rotation.name(number)).unwrap().permissions().mode() & 0o7777;
        assert_eq!(mode(1), 0o600 | OUTPUT_LOST);
        std::fs::remove_dir(&log.path).unwrap();
        let mut rotation = rotation;
        rotation.take(b"kept\n");
        let mode = std::fs::metadata(&log.path).unwrap().permissions().mode() & 0o7777;
        assert_eq!(mode, 0o600 | OUTPUT_LOST);
        assert_eq!(content(&log, 0).unwrap(), "\n[5 bytes of output were dropped here]\nkept\n");
    }

    #[test]
    fn catching_up_copies_what_was_said_and_does_not_wait_for_more() {
        let directory = tempfile::tempdir().unwrap();
        let log = log(&directory, 1000, 2);
        let (output, writer) = Output::start(&log).unwrap();
        let mut writer = File::from(writer);
        writer.write_all(b"last words\n").unwrap();
        output.catch_up();
        assert_eq!(content(&log, 0).unwrap(), "last words\n");
        drop(writer);
        assert!(output.finish(Duration::from_secs(10)), "the last writer is gone");
        assert_eq!(output.dropped(), 0);
    }
}
