//! What a command says, bounded: its beginning and its end are kept, and it may go on talking.

use std::collections::VecDeque;
use std::fmt;
use std::io::Read;

/// One output of a command.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Said {
    head: Vec<u8>,
    tail: Vec<u8>,
    /// Bytes between the two that were not kept.
    pub dropped: u64,
}

impl Said {
    /// Text with what was left out told in its middle.
    #[must_use]
    pub fn text(&self) -> String {
        self.to_string()
    }
}

impl fmt::Display for Said {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.dropped == 0 {
            let whole = [self.head.as_slice(), self.tail.as_slice()].concat();
            return f.write_str(&String::from_utf8_lossy(&whole));
        }
        let (head, tail) = (String::from_utf8_lossy(&self.head), String::from_utf8_lossy(&self.tail));
        write!(f, "{head}\n[{} bytes left out]\n{tail}", self.dropped)
    }
}

/// Reads to the end and keeps at most `max` bytes. A pipe that fails has said all that it will.
pub(super) fn listen(mut from: impl Read, max: usize) -> Said {
    let (head_max, tail_max) = (max - max / 2, max / 2);
    let (mut head, mut tail) = (Vec::new(), VecDeque::new());
    let mut dropped = 0;
    let mut buffer = [0; 8192];
    loop {
        let read = match from.read(&mut buffer) {
            Ok(0) => break,
            Ok(read) => read,
            Err(error) if error.kind() == std::io::ErrorKind::Interrupted => continue,
            Err(_) => break,
        };
        let (first, rest) = buffer[..read].split_at(read.min(head_max - head.len()));
        head.extend_from_slice(first);
        tail.extend(rest);
        let excess = tail.len().saturating_sub(tail_max);
        tail.drain(..excess);
        dropped += excess as u64;
    }
    Said { head, tail: tail.into(), dropped }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn of_much_the_beginning_and_the_end_are_kept_and_the_rest_is_counted() {
        assert_eq!(listen(&b"short"[..], 10).text(), "short");
        assert_eq!(listen(&b"0123456789"[..], 10).text(), "0123456789");
        assert_eq!(listen(&b"0123456789abc"[..], 10).text(), "01234\n[3 bytes left out]\n89abc");
        let many = vec![b'x'; 1 << 20];
        let said = listen(&many[..], 100);
        assert_eq!(
            (said.dropped, said.text().len()),
            ((1 << 20) - 100, 100 + "\n[1048476 bytes left out]\n".len())
        );
    }
}
