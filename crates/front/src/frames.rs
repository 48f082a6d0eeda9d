//! Where WebSocket frames begin and end in a stream of bytes (RFC 6455). It reads headers and changes no byte.

/// Opcode of a close frame.
const CLOSE: u8 = 0x8;

/// Walks one direction of a WebSocket.
#[derive(Debug, Default)]
pub(crate) struct FrameWalk {
    head: [u8; 14],
    have: usize,
    /// Payload bytes of the current frame still to come.
    left: u64,
    closed: bool,
}

impl FrameWalk {
    /// Walks over the next bytes.
    pub(crate) fn walk(&mut self, mut bytes: &[u8]) {
        while !bytes.is_empty() {
            if self.left > 0 {
                let step = usize::try_from(self.left).unwrap_or(usize::MAX).min(bytes.len());
                self.left -= step as u64;
                bytes = &bytes[step..];
                continue;
            }
            self.head[self.have] = bytes[0];
            self.have += 1;
            bytes = &bytes[1..];
            if let Some(frame) = parse(&self.head[..self.have]) {
                self.closed |= frame.opcode == CLOSE;
                self.left = frame.payload;
                self.have = 0;
            }
        }
    }

    /// Whether the bytes so far end with a whole frame, so that another frame may follow.
    pub(crate) fn is_at_boundary(&self) -> bool {
        self.have == 0 && self.left == 0
    }

    /// Whether a close frame has passed.
    pub(crate) fn has_closed(&self) -> bool {
        self.closed
    }
}

/// What the walk needs of a frame's header.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct FrameHead {
    opcode: u8,
    payload: u64,
}

/// Reads a frame's header from the start of `bytes`; `None` while it is not complete.
fn parse(bytes: &[u8]) -> Option<FrameHead> {
    let (first, second) = (*bytes.first()?, *bytes.get(1)?);
    let (payload, after) = match second & 0x7f {
        126 => (u64::from(u16::from_be_bytes(bytes.get(2..4)?.try_into().ok()?)), 4),
        127 => (u64::from_be_bytes(bytes.get(2..10)?.try_into().ok()?), 10),
        short => (u64::from(short), 2),
    };
    let mask = if second & 0x80 == 0 { 0 } else { 4 };
    (bytes.len() >= after + mask).then_some(FrameHead { opcode: first & 0x0f, payload })
}

/// A close frame as a server sends it: unmasked, with a code and at most 123 bytes of reason.
pub(crate) fn close_frame(code: u16, reason: &str) -> Vec<u8> {
    let reason = &reason.as_bytes()[..reason.len().min(123)];
    let length = u8::try_from(reason.len() + 2).expect("a reason is cut to 123 bytes");
    let mut frame = vec![0x80 | CLOSE, length];
    frame.extend_from_slice(&code.to_be_bytes());
    frame.extend_from_slice(reason);
    frame
}

#[cfg(test)]
pub(crate) fn frame(first: u8, payload: &[u8], mask: Option<[u8; 4]>) -> Vec<u8> {
    let masked = if mask.is_some() { 0x80 } else { 0 };
    let mut bytes = vec![first];
    match payload.len() {
        short @ 0..=125 => bytes.push(masked | u8::try_from(short).unwrap()),
        long @ 126..=65535 => {
            bytes.push(masked | 126);
            bytes.extend_from_slice(&u16::try_from(long).unwrap().to_be_bytes());
        }
        huge => {
            bytes.push(masked | 127);
            bytes.extend_from_slice(&(huge as u64).to_be_bytes());
        }
    }
    let key = mask.unwrap_or_default();
    bytes.extend_from_slice(mask.as_ref().map_or(&[][..], |mask| &mask[..]));
    bytes.extend(payload.iter().zip(key.iter().cycle()).map(|(byte, key)| byte ^ key));
    bytes
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn boundaries_are_found_however_the_bytes_arrive() {
        let mut bytes = Vec::new();
        let mut ends = vec![0];
        for (first, size, mask) in [
            (0x81, 0, None),
            (0x01, 125, Some([1, 2, 3, 4])),
            (0x00, 126, None),
            (0x82, 70_000, Some([9; 4])),
            (0x8a, 3, None),
        ] {
            bytes.extend(frame(first, &vec![7; size], mask));
            ends.push(bytes.len());
        }
        for step in [1, 2, 3, 7, 4096, bytes.len()] {
            let mut walk = FrameWalk::default();
            let mut at = 0;
            for chunk in bytes.chunks(step) {
                walk.walk(chunk);
                at += chunk.len();
                assert_eq!(walk.is_at_boundary(), ends.contains(&at), "{at} in steps of {step}");
            }
            assert!(!walk.has_closed());
        }
    }

    #[test]
    fn a_close_frame_is_noticed_and_written_as_the_standard_says() {
        let frame = close_frame(1012, "service restart");
        assert_eq!(&frame[..4], &[0x88, 17, 0x03, 0xf4]);
        let mut walk = FrameWalk::default();
        walk.walk(&frame);
        assert!(walk.has_closed() && walk.is_at_boundary());
    }
}
