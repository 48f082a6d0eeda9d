//! Bytes of one regular file: digesting, copying, and copying only the blocks that differ. Knows no names and no trees.

use std::fmt;
use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::path::Path;

use rustix::fs::SeekFrom;
use rustix::io::Errno;
use serde::{Deserialize, Deserializer, Serialize, Serializer, de};
use sha2::{Digest as _, Sha256};

use super::Error;

/// Unit of reading, digesting and of finding differences.
const BLOCK: usize = 64 * 1024;

/// SHA-256 over the length and every block of a file that is not all zero, each with its offset. A hole and the zeros
/// that a reader sees in it are the same content, and a sparse file costs only what it holds.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct Digest(pub(super) [u8; 32]);

impl fmt::Display for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&hex::encode(self.0))
    }
}

impl fmt::Debug for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Digest({self})")
    }
}

impl Serialize for Digest {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        to.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Digest {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        let text = String::deserialize(from)?;
        let mut bytes = [0; 32];
        hex::decode_to_slice(&text, &mut bytes).map_err(de::Error::custom)?;
        Ok(Self(bytes))
    }
}

/// An open file and what to call it when it fails.
#[derive(Clone, Copy)]
pub(super) struct Named<'a> {
    pub(super) file: &'a File,
    pub(super) path: &'a Path,
}

/// What a copy came to.
pub(super) struct Copied {
    pub(super) size: u64,
    pub(super) digest: Digest,
    pub(super) written: u64,
}

/// Digests an open file.
pub(super) fn digest(from: Named<'_>) -> Result<Copied, Error> {
    let mut hash = Hash::default();
    let size = each_block(from, |offset, block| {
        hash.add(offset, block);
        Ok(())
    })?;
    Ok(Copied { size, digest: hash.finish(size), written: 0 })
}

/// Copies into an empty file: a clone where the file system can, else the blocks that are not zero.
pub(super) fn copy_into_empty(from: Named<'_>, to: Named<'_>) -> Result<Copied, Error> {
    if rustix::fs::ioctl_ficlone(to.file, from.file).is_ok() {
        return digest(to);
    }
    let mut hash = Hash::default();
    let mut written = 0;
    let size = each_block(from, |offset, block| {
        if hash.add(offset, block) == Block::Held {
            to.file.write_all_at(block, offset).map_err(Error::io("write", to.path))?;
            written += block.len() as u64;
        }
        Ok(())
    })?;
    to.file.set_len(size).map_err(Error::io("write", to.path))?;
    Ok(Copied { size, digest: hash.finish(size), written })
}

/// Makes `to` byte-equal to `from` by writing only the blocks that differ: an older copy of a large file costs reads, and
/// the writes (which must reach the disk while the service waits) only for what changed.
pub(super) fn copy_difference(from: Named<'_>, to: Named<'_>) -> Result<Copied, Error> {
    let mut hash = Hash::default();
    let mut written = 0;
    let mut old = vec![0; BLOCK];
    let mut offset = 0;
    let mut buffer = vec![0; BLOCK];
    loop {
        let length = read_block(from.file, &mut buffer, offset).map_err(Error::io("read", from.path))?;
        let block = &buffer[..length];
        hash.add(offset, block);
        let old_length =
            read_block(to.file, &mut old[..length], offset).map_err(Error::io("read", to.path))?;
        if old[..old_length] != *block {
            to.file.write_all_at(block, offset).map_err(Error::io("write", to.path))?;
            written += length as u64;
        }
        offset += length as u64;
        if length < BLOCK {
            break;
        }
    }
    to.file.set_len(offset).map_err(Error::io("write", to.path))?;
    Ok(Copied { size: offset, digest: hash.finish(offset), written })
}

#[derive(PartialEq, Eq)]
enum Block {
    Held,
    Zero,
}

#[derive(Default)]
struct Hash(Sha256);

impl Hash {
    fn add(&mut self, offset: u64, block: &[u8]) -> Block {
        if block.iter().all(|byte| *byte == 0) {
            return Block::Zero;
        }
        self.0.update(offset.to_le_bytes());
        self.0.update((block.len() as u64).to_le_bytes());
        self.0.update(block);
        Block::Held
    }

    fn finish(mut self, size: u64) -> Digest {
        self.0.update(size.to_le_bytes());
        Digest(self.0.finalize().into())
    }
}

/// Calls `each` with every block that may hold data, in order; returns the length that was read. Holes are skipped where
/// the file system tells of them.
fn each_block(from: Named<'_>, mut each: impl FnMut(u64, &[u8]) -> Result<(), Error>) -> Result<u64, Error> {
    let failed = || Error::io("read", from.path);
    let mut buffer = vec![0; BLOCK];
    let mut offset = 0;
    loop {
        let Some(data) = next_data(from.file, offset).map_err(failed())? else {
            return from.file.metadata().map(|found| found.len().max(offset)).map_err(failed());
        };
        // Blocks are aligned, so that where a hole ends has no part in the digest.
        offset = offset.max(data - data % BLOCK as u64);
        let length = read_block(from.file, &mut buffer, offset).map_err(failed())?;
        each(offset, &buffer[..length])?;
        offset += length as u64;
        if length < BLOCK {
            return Ok(offset);
        }
    }
}

/// The next offset at or after `offset` that may hold data; `None` if only a hole (or nothing) follows.
fn next_data(file: &File, offset: u64) -> io::Result<Option<u64>> {
    match rustix::fs::seek(file, SeekFrom::Data(offset)) {
        Ok(data) => Ok(Some(data)),
        Err(Errno::NXIO) => Ok(None),
        Err(Errno::INVAL | Errno::OPNOTSUPP | Errno::NOSYS) => Ok(Some(offset)),
        Err(error) => Err(error.into()),
    }
}

/// Reads until the buffer is full or the file ends.
fn read_block(file: &File, buffer: &mut [u8], offset: u64) -> io::Result<usize> {
    let mut length = 0;
    while length < buffer.len() {
        match file.read_at(&mut buffer[length..], offset + length as u64) {
            Ok(0) => break,
            Ok(read) => length += read,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(length)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;

    fn named<'a>(file: &'a File, path: &'a Path) -> Named<'a> {
        Named { file, path }
    }

    fn open(path: &Path) -> File {
        File::options().read(true).write(true).create(true).truncate(false).open(path).unwrap()
    }

    #[test]
    fn a_hole_and_written_zeros_are_the_same_content() {
        let dir = tempfile::tempdir().unwrap();
        let (sparse, full) = (dir.path().join("sparse"), dir.path().join("full"));
        let holes = open(&sparse);
        holes.set_len(1_000_003).unwrap();
        holes.write_all_at(b"late", 700_001).unwrap();
        let mut bytes = vec![0; 1_000_003];
        bytes[700_001..700_005].copy_from_slice(b"late");
        fs::write(&full, &bytes).unwrap();
        let zeros = open(&full);
        assert_eq!(
            digest(named(&holes, &sparse)).unwrap().digest,
            digest(named(&zeros, &full)).unwrap().digest
        );
        bytes[0] = 1;
        fs::write(&full, &bytes).unwrap();
        assert_ne!(
            digest(named(&holes, &sparse)).unwrap().digest,
            digest(named(&zeros, &full)).unwrap().digest
        );
    }

    #[test]
    fn a_difference_copy_ends_byte_equal_whatever_was_there_before() {
        let dir = tempfile::tempdir().unwrap();
        let base: Vec<u8> = (0..300_000_u32).map(|at| (at / 7) as u8).collect();
        let mut edited = base.clone();
        edited[200_000] ^= 1;
        let cases = [
            (base.clone(), base.clone(), 0),
            (edited, base.clone(), BLOCK as u64),
            (base[..100_000].to_vec(), base.clone(), 0),
            (base.clone(), base[..BLOCK].to_vec(), 300_000 - BLOCK as u64),
            (Vec::new(), base.clone(), 0),
            (vec![0; 200_000], base.clone(), 200_000),
            (base.clone(), Vec::new(), 300_000),
        ];
        for (number, (from, to, written)) in cases.into_iter().enumerate() {
            let (source, target) = (dir.path().join("from"), dir.path().join("to"));
            fs::write(&source, &from).unwrap();
            fs::write(&target, &to).unwrap();
            let (source_file, target_file) = (open(&source), open(&target));
            let copied = copy_difference(named(&source_file, &source), named(&target_file, &target)).unwrap();
            assert_eq!(fs::read(&target).unwrap(), from, "case {number}");
            assert_eq!(copied.written, written, "case {number}");
            assert_eq!(copied.digest, digest(named(&source_file, &source)).unwrap().digest, "case {number}");
        }
    }

    #[test]
    fn written_zeros_are_copied_as_a_hole() {
        let dir = tempfile::tempdir().unwrap();
        let (source, target) = (dir.path().join("from"), dir.path().join("to"));
        let mut bytes = vec![0; 4 * BLOCK + 5];
        bytes[BLOCK] = 1;
        fs::write(&source, &bytes).unwrap();
        let (from, to) = (open(&source), open(&target));
        let copied = copy_into_empty(named(&from, &source), named(&to, &target)).unwrap();
        assert_eq!(fs::read(&target).unwrap(), bytes);
        // A file system that clones writes nothing at all.
        assert!(copied.written <= BLOCK as u64, "{}", copied.written);
    }

    #[test]
    fn a_terabyte_of_hole_is_copied_as_a_hole() {
        let dir = tempfile::tempdir().unwrap();
        let (source, target) = (dir.path().join("from"), dir.path().join("to"));
        let (from, to) = (open(&source), open(&target));
        if from.set_len(1 << 40).is_err() {
            println!("skipped: the file system has no files of a terabyte");
            return;
        }
        from.write_all_at(b"island", 1 << 39).unwrap();
        let copied = copy_into_empty(named(&from, &source), named(&to, &target)).unwrap();
        assert_eq!(copied.size, 1 << 40);
        assert!(copied.written <= BLOCK as u64, "{}", copied.written);
        let mut island = [0; 6];
        to.read_exact_at(&mut island, 1 << 39).unwrap();
        assert_eq!(&island, b"island");
        assert_eq!(digest(named(&to, &target)).unwrap().digest, copied.digest);
    }
}
