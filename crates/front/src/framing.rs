//! Where requests begin and end in a client's bytes, read strictly.
//!
//! The parser behind it is lenient in places (bare LF, `Content-Length` beside `Transfer-Encoding`); two readers that
//! disagree about a boundary are request smuggling. This walk only looks and judges; it changes no byte.

/// Longest request head in bytes that is looked at; the parser's own limit is the same.
pub(crate) const HEAD_MAX: usize = 128 * 1024;
/// Longest chunk-size line in bytes, extensions included.
const CHUNK_LINE_MAX: usize = 256;

/// A request body whose framing is not what it must be: the connection is beyond repair.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct BrokenBody;

/// Walks one connection's bytes from client to front.
#[derive(Debug)]
pub(crate) struct RequestWalk {
    at: At,
    line: Vec<u8>,
    head: Head,
    /// Heads completed or found ambiguous so far.
    heads: u64,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum At {
    /// In a head, line by line.
    Head,
    /// In a body of which so many bytes are left.
    Sized(u64),
    ChunkSize,
    /// In a chunk of which so many bytes are left, its closing CRLF included.
    Chunk(u64),
    Trailers,
    /// An ambiguous head was found: nothing after it means anything.
    Lost,
}

#[derive(Debug, Default)]
struct Head {
    bytes: usize,
    lines: usize,
    length: Option<u64>,
    chunked: bool,
    hosts: usize,
}

impl Default for RequestWalk {
    fn default() -> Self {
        Self { at: At::Head, line: Vec::with_capacity(256), head: Head::default(), heads: 0 }
    }
}

impl RequestWalk {
    /// Walks over the next bytes. Returns the number of the ambiguous head (counted from 0), if one was found now.
    pub(crate) fn walk(&mut self, mut bytes: &[u8]) -> Result<Option<u64>, BrokenBody> {
        while !bytes.is_empty() {
            match self.at {
                At::Lost => return Ok(None),
                At::Sized(left) => bytes = self.skip_sized(bytes, left),
                At::Chunk(left) => bytes = self.skip_chunk(bytes, left)?,
                At::Head | At::ChunkSize | At::Trailers => {
                    let end = bytes.iter().position(|byte| *byte == b'\n');
                    let taken = end.map_or(bytes.len(), |end| end + 1);
                    self.line.extend_from_slice(&bytes[..taken]);
                    bytes = &bytes[taken..];
                    if !self.is_line_short_enough() {
                        return self.too_long();
                    }
                    if end.is_none() {
                        return Ok(None);
                    }
                    let verdict = self.end_line()?;
                    self.line.clear();
                    if verdict.is_some() {
                        return Ok(verdict);
                    }
                }
            }
        }
        Ok(None)
    }

    fn skip_sized<'b>(&mut self, bytes: &'b [u8], left: u64) -> &'b [u8] {
        let step = usize::try_from(left).unwrap_or(usize::MAX).min(bytes.len());
        let left = left - step as u64;
        self.at = if left == 0 { At::Head } else { At::Sized(left) };
        &bytes[step..]
    }

    fn skip_chunk<'b>(&mut self, bytes: &'b [u8], left: u64) -> Result<&'b [u8], BrokenBody> {
        let step = usize::try_from(left).unwrap_or(usize::MAX).min(bytes.len());
        let after = left - step as u64;
        // The last two bytes must be CRLF, however the reads split them.
        for (offset, byte) in bytes[..step].iter().enumerate().rev().take(2) {
            match left - offset as u64 {
                2 if *byte != b'\r' => return Err(BrokenBody),
                1 if *byte != b'\n' => return Err(BrokenBody),
                _ => {}
            }
        }
        self.at = if after == 0 { At::ChunkSize } else { At::Chunk(after) };
        Ok(&bytes[step..])
    }

    fn is_line_short_enough(&self) -> bool {
        match self.at {
            At::ChunkSize => self.line.len() <= CHUNK_LINE_MAX,
            _ => self.head.bytes + self.line.len() <= HEAD_MAX,
        }
    }

    fn too_long(&mut self) -> Result<Option<u64>, BrokenBody> {
        if self.at == At::Head { Ok(Some(self.lose())) } else { Err(BrokenBody) }
    }

    fn lose(&mut self) -> u64 {
        self.at = At::Lost;
        self.line = Vec::new();
        self.heads
    }

    /// Judges a complete line, its LF included.
    fn end_line(&mut self) -> Result<Option<u64>, BrokenBody> {
        let line = self.line.strip_suffix(b"\r\n").filter(|line| !line.contains(&b'\r'));
        match (self.at, line) {
            (At::Head, None) => Ok(Some(self.lose())),
            (At::Head, Some(line)) => {
                self.head.bytes += line.len() + 2;
                match end_head_line(&mut self.head, line) {
                    HeadLine::Fine => Ok(None),
                    HeadLine::Ambiguous => Ok(Some(self.lose())),
                    HeadLine::Last => {
                        let head = std::mem::take(&mut self.head);
                        self.heads += 1;
                        self.at = match (head.chunked, head.length) {
                            (true, _) => At::ChunkSize,
                            (false, Some(length)) if length > 0 => At::Sized(length),
                            (false, _) => At::Head,
                        };
                        Ok(None)
                    }
                }
            }
            (At::ChunkSize, Some(line)) => {
                self.at = match chunk_size(line).ok_or(BrokenBody)? {
                    0 => At::Trailers,
                    size => At::Chunk(size.checked_add(2).ok_or(BrokenBody)?),
                };
                Ok(None)
            }
            (At::Trailers, Some(line)) => {
                self.head.bytes += line.len() + 2;
                if line.is_empty() {
                    self.head = Head::default();
                    self.at = At::Head;
                }
                Ok(None)
            }
            _ => Err(BrokenBody),
        }
    }
}

enum HeadLine {
    Fine,
    Ambiguous,
    Last,
}

fn end_head_line(head: &mut Head, line: &[u8]) -> HeadLine {
    if line.is_empty() {
        return match head {
            Head { lines: 0, .. } => HeadLine::Fine,
            Head { length: Some(_), chunked: true, .. } => HeadLine::Ambiguous,
            _ => HeadLine::Last,
        };
    }
    head.lines += 1;
    if head.lines == 1 {
        return HeadLine::Fine;
    }
    if line[0] == b' ' || line[0] == b'\t' {
        return HeadLine::Ambiguous;
    }
    let Some(colon) = line.iter().position(|byte| *byte == b':') else { return HeadLine::Ambiguous };
    let (name, value) = (&line[..colon], line[colon + 1..].trim_ascii());
    if name.eq_ignore_ascii_case(b"content-length") {
        let length = decimal(value);
        if length.is_none() || head.length.is_some() {
            return HeadLine::Ambiguous;
        }
        head.length = length;
    } else if name.eq_ignore_ascii_case(b"transfer-encoding") {
        // Only plain `chunked` survives re-framing; any other coding would lose its label on the way up.
        if head.chunked || !value.eq_ignore_ascii_case(b"chunked") {
            return HeadLine::Ambiguous;
        }
        head.chunked = true;
    } else if name.eq_ignore_ascii_case(b"host") {
        head.hosts += 1;
        if head.hosts > 1 {
            return HeadLine::Ambiguous;
        }
    }
    HeadLine::Fine
}

fn decimal(value: &[u8]) -> Option<u64> {
    if value.is_empty() || !value.iter().all(u8::is_ascii_digit) {
        return None;
    }
    std::str::from_utf8(value).ok()?.parse().ok()
}

fn chunk_size(line: &[u8]) -> Option<u64> {
    let size = line.split(|byte| *byte == b';').next()?.trim_ascii_end();
    if size.is_empty() || size.len() > 16 || !size.iter().all(u8::is_ascii_hexdigit) {
        return None;
    }
    u64::from_str_radix(std::str::from_utf8(size).ok()?, 16).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn verdict(text: &str) -> Result<Option<u64>, BrokenBody> {
        let whole = RequestWalk::default().walk(text.as_bytes());
        let mut slow = RequestWalk::default();
        let mut bytewise = Ok(None);
        for byte in text.as_bytes() {
            bytewise = slow.walk(&[*byte]);
            if bytewise != Ok(None) {
                break;
            }
        }
        assert_eq!(whole, bytewise, "the same however the bytes arrive: {text:?}");
        whole
    }

    #[test]
    fn plain_requests_pass() {
        let twice = "GET / HTTP/1.1\r\nHost: a\r\n\r\nPOST /x HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\na\nb\rcGET / HTTP/1.1\r\n\r\n";
        assert_eq!(verdict(twice), Ok(None));
        let chunked = "POST / HTTP/1.1\r\nTransfer-Encoding: Chunked\r\n\r\n3;x=y\r\na\nb\r\nA\r\n0123456789\r\n0\r\nTrailer: 1\r\n\r\nGET / HTTP/1.1\r\nX: 1\r\n\r\n";
        assert_eq!(verdict(chunked), Ok(None));
    }

    #[test]
    fn the_ambiguous_head_is_named_by_its_number() {
        assert_eq!(verdict("GET / HTTP/1.1\nHost: a\r\n\r\n"), Ok(Some(0)));
        let second = "POST / HTTP/1.1\r\nContent-Length: 2\r\n\r\nhiGET / HTTP/1.1\r\nHost: a\n\r\n";
        assert_eq!(verdict(second), Ok(Some(1)));
        for bad in [
            "Content-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n",
            "Transfer-Encoding: chunked\r\nContent-Length: 1\r\n\r\n",
            "Content-Length: 1\r\nContent-Length: 2\r\n\r\n",
            "Content-Length: 1\r\nContent-Length: 1\r\n\r\n",
            "Content-Length: 1, 1\r\n\r\n",
            "Content-Length: +1\r\n\r\n",
            "Content-Length: \r\n\r\n",
            "Transfer-Encoding: gzip, chunked\r\n\r\n",
            "Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n\r\n",
            "X: 1\r\n folded\r\n\r\n",
            "X: a\rb\r\n\r\n",
            "X: a\n\r\n",
            "Host: a\r\nHost: b\r\n\r\n",
            "no colon\r\n\r\n",
        ] {
            assert_eq!(verdict(&format!("POST / HTTP/1.1\r\n{bad}")), Ok(Some(0)), "{bad:?}");
        }
    }

    #[test]
    fn a_broken_chunk_ends_the_connection() {
        for bad in ["zz\r\n", "\r\n", "2\nhi\r\n", "2\r\nhiX\n", "2\r\nhi\rX", "11111111111111111\r\n"] {
            let text = format!("POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n{bad}");
            assert_eq!(verdict(&text), Err(BrokenBody), "{bad:?}");
        }
    }

    #[test]
    fn damaged_requests_are_judged_alike_however_they_arrive() {
        let healthy = "POST /a HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\n\r\nabc\
                       POST /b HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\nT: 1\r\n\r\n\
                       GET /c HTTP/1.1\r\nHost: a\r\n\r\n";
        let mut random = 0x9e37_79b9_7f4a_7c15_u64;
        let mut next = move |below: usize| {
            random ^= random << 13;
            random ^= random >> 7;
            random ^= random << 17;
            usize::try_from(random % below as u64).unwrap()
        };
        let damage = b"\r\n :;,0159afzACT\0\x7f";
        let mut seen = [0; 3];
        for _ in 0..20_000 {
            let mut bytes = healthy.as_bytes().to_vec();
            for _ in 0..=next(3) {
                let (place, byte) = (next(bytes.len()), damage[next(damage.len())]);
                match next(3) {
                    0 => bytes[place] = byte,
                    1 => bytes.insert(place, byte),
                    _ => drop(bytes.remove(place)),
                }
            }
            let text = String::from_utf8(bytes).unwrap();
            match verdict(&text) {
                Ok(None) => seen[0] += 1,
                Ok(Some(_)) => seen[1] += 1,
                Err(BrokenBody) => seen[2] += 1,
            }
        }
        assert!(seen.iter().all(|count| *count > 100), "{seen:?}");
    }
}
