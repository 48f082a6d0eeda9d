//! The text form of a manifest and of its marks.

use super::{Content, Entry, Manifest, Mark};
use std::collections::BTreeMap;

/// `kind mode size content path`, separated by single spaces, content `-` for a directory.
pub(super) fn of_entry(path: &[u8], entry: &Entry) -> String {
    let mode = entry.mode;
    let path = escaped(path);
    match &entry.content {
        Content::Directory => format!("d {mode:04o} 0 - {path}\n"),
        Content::File { size, sha256 } => format!("f {mode:04o} {size} {sha256} {path}\n"),
        Content::Link { target } => format!("l {mode:04o} {} {} {path}\n", target.len(), escaped(target)),
    }
}

impl Manifest {
    /// The entries as text, one line each, sorted by path.
    pub(in crate::store) fn entries_text(&self) -> String {
        self.entries.iter().map(|(path, entry)| of_entry(path, entry)).collect()
    }

    /// The marks as text, `inode modified changed` with times in nanoseconds, in the order of the entries.
    pub(in crate::store) fn marks_text(&self) -> String {
        let line = |mark: &Mark| format!("{} {} {}\n", mark.inode, mark.modified_ns, mark.changed_ns);
        self.marks.values().map(line).collect()
    }

    /// Reads both texts back; the first line that makes no sense is the error.
    pub(in crate::store) fn parse(entries: &str, marks: &str) -> Result<Manifest, String> {
        let entries = entries
            .lines()
            .map(|line| entry(line).ok_or_else(|| format!("no entry: {line:?}")))
            .collect::<Result<BTreeMap<_, _>, _>>()?;
        let marks = marks
            .lines()
            .map(|line| mark(line).ok_or_else(|| format!("no mark: {line:?}")))
            .collect::<Result<Vec<_>, _>>()?;
        if entries.len() != marks.len() {
            return Err(format!("{} entries, but {} marks", entries.len(), marks.len()));
        }
        let marks = entries.keys().cloned().zip(marks).collect();
        Ok(Manifest { entries, marks })
    }
}

fn entry(line: &str) -> Option<(Vec<u8>, Entry)> {
    let mut words = line.split(' ');
    let mut word = || words.next();
    let (kind, mode, size, content, path) = (word()?, word()?, word()?, word()?, word()?);
    let mode = u32::from_str_radix(mode, 8).ok()?;
    let size = size.parse().ok()?;
    let content = match kind {
        "d" => Content::Directory,
        "f" => Content::File { size, sha256: content.to_owned() },
        "l" => Content::Link { target: unescaped(content)? },
        _ => return None,
    };
    Some((unescaped(path)?, Entry { mode, content }))
}

fn mark(line: &str) -> Option<Mark> {
    let (inode, times) = line.split_once(' ')?;
    let (modified, changed) = times.split_once(' ')?;
    Some(Mark {
        inode: inode.parse().ok()?,
        modified_ns: modified.parse().ok()?,
        changed_ns: changed.parse().ok()?,
    })
}

/// Names are bytes: whatever would end a word or a line, or is no printable ASCII, becomes `\xNN`.
fn escaped(bytes: &[u8]) -> String {
    let mut text = String::with_capacity(bytes.len());
    for &byte in bytes {
        if byte.is_ascii_graphic() && byte != b'\\' {
            text.push(char::from(byte));
        } else {
            text.push_str(&format!("\\x{byte:02x}"));
        }
    }
    text
}

fn unescaped(text: &str) -> Option<Vec<u8>> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let [first, tail @ ..] = rest {
        rest = if *first == b'\\' {
            let [b'x', high, low, tail @ ..] = tail else { return None };
            bytes.push(u8::from_str_radix(std::str::from_utf8(&[*high, *low]).ok()?, 16).ok()?);
            tail
        } else {
            bytes.push(*first);
            tail
        };
    }
    Some(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_any_bytes_come_back_from_the_text() {
        let mut manifest = Manifest::default();
        let names: [&[u8]; 5] = [b"plain", b"with space", b"line\nbreak", b"back\\slash", b"\xff\xfe"];
        for (number, name) in names.iter().enumerate() {
            let content = match number % 3 {
                0 => Content::Directory,
                1 => Content::File { size: 7, sha256: "ab".repeat(32) },
                _ => Content::Link { target: b"../a b\n".to_vec() },
            };
            manifest.entries.insert(name.to_vec(), Entry { mode: 0o755, content });
            let mark = Mark { inode: number as u64, modified_ns: -5, changed_ns: 6 };
            manifest.marks.insert(name.to_vec(), mark);
        }
        let back = Manifest::parse(&manifest.entries_text(), &manifest.marks_text()).unwrap();
        assert_eq!(back, manifest);
    }

    #[test]
    fn a_cut_text_is_refused() {
        assert!(Manifest::parse("f 0644 3\n", "1 2\n").is_err());
        assert!(Manifest::parse("d 0755 0 - a\n", "").is_err());
        assert!(Manifest::parse("d 0755 0 - a\\x4\n", "1 2\n").is_err());
        assert!(Manifest::parse("q 0755 0 - a\n", "1 2\n").is_err());
    }
}
