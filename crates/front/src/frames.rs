//! Where WebSocket frames begin and end in a stream of bytes (RFC 6455). It reads headers and changes no byte.

/// Opcode of a text message's first frame.
const TEXT: u8 = 0x1;
/// Opcode of a close frame.
const CLOSE: u8 = 0x8;
const PING: u8 = 0x9;
const PONG: u8 = 0xa;

/// Who hears what messages say while the walk goes over them; control frames are not heard.
pub(crate) trait Ear {
    /// A message begins, of text or of bytes: there are services that read both alike.
    fn begin(&mut self);
    /// Its next byte.
    fn hear(&mut self, byte: u8);
    /// It has ended.
    fn end(&mut self);
}

/// Who hears nothing.
pub(crate) struct Deaf;

impl Ear for Deaf {
    fn begin(&mut self) {}
    fn hear(&mut self, _: u8) {}
    fn end(&mut self) {}
}

/// Walks one direction of a WebSocket.
#[derive(Clone, Debug, Default)]
pub(crate) struct FrameWalk {
    head: [u8; 14],
    have: usize,
    /// The frame whose payload is being walked, and the bytes of it still to come.
    body: Option<(FrameHead, u64)>,
    /// Whether a message in fragments has begun and not ended.
    is_in_message: bool,
    messages: u64,
    closed: bool,
}

impl FrameWalk {
    /// Walks over the next bytes.
    pub(crate) fn walk(&mut self, mut bytes: &[u8], ear: &mut impl Ear) {
        while !bytes.is_empty() {
            bytes = &bytes[self.advance(bytes, ear)..];
        }
    }

    /// Walks to the end of the current frame, or of the bytes if they end before. Answers how many were walked.
    pub(crate) fn advance(&mut self, bytes: &[u8], ear: &mut impl Ear) -> usize {
        let mut at = 0;
        while at < bytes.len() {
            if let Some((frame, left)) = self.body {
                let step = usize::try_from(left).unwrap_or(usize::MAX).min(bytes.len() - at);
                frame.tell(frame.payload - left, &bytes[at..at + step], ear);
                at += step;
                self.body = Some((frame, left - step as u64)).filter(|(_, left)| *left > 0);
                if self.body.is_none() {
                    self.end(frame, ear);
                    return at;
                }
                continue;
            }
            self.head[self.have] = bytes[at];
            self.have += 1;
            at += 1;
            if let Some(frame) = parse(&self.head[..self.have]) {
                self.begin(frame, ear);
                if frame.payload == 0 {
                    self.end(frame, ear);
                    return at;
                }
                self.body = Some((frame, frame.payload));
            }
        }
        at
    }

    fn begin(&mut self, frame: FrameHead, ear: &mut impl Ear) {
        self.have = 0;
        self.closed |= frame.opcode == CLOSE;
        if !is_control(frame.opcode) && !self.is_in_message {
            ear.begin();
        }
    }

    fn end(&mut self, frame: FrameHead, ear: &mut impl Ear) {
        if !is_control(frame.opcode) {
            self.is_in_message = !frame.is_final;
            self.messages += u64::from(frame.is_final);
            if frame.is_final {
                ear.end();
            }
        }
    }

    /// Whether the bytes so far end with a whole frame, so that another frame may follow.
    pub(crate) fn is_at_boundary(&self) -> bool {
        self.have == 0 && self.body.is_none()
    }

    /// Whether the bytes so far end with a whole message, so that another message may follow.
    pub(crate) fn is_between_messages(&self) -> bool {
        self.is_at_boundary() && !self.is_in_message
    }

    /// How many messages have passed whole; control frames are none.
    pub(crate) fn messages(&self) -> u64 {
        self.messages
    }

    /// Whether a close frame has passed.
    pub(crate) fn has_closed(&self) -> bool {
        self.closed
    }
}

/// Whether the frame that begins with this byte is a control frame, which may stand between any two others.
pub(crate) fn begins_control(first: u8) -> bool {
    is_control(first & 0x0f)
}

fn is_control(opcode: u8) -> bool {
    opcode & 0x8 != 0
}

/// What the walk needs of a frame's header.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct FrameHead {
    opcode: u8,
    is_final: bool,
    payload: u64,
    /// All zero where there is none.
    mask: [u8; 4],
}

impl FrameHead {
    /// Tells a piece of the frame's payload that begins so many bytes after the payload's start.
    fn tell(&self, from: u64, piece: &[u8], ear: &mut impl Ear) {
        if is_control(self.opcode) {
            return;
        }
        // The remainder is below four.
        let shift = (from % 4) as usize;
        let mask = self.mask.iter().cycle().skip(shift);
        piece.iter().zip(mask).for_each(|(byte, mask)| ear.hear(byte ^ mask));
    }
}

/// Reads a frame's header from the start of `bytes`; `None` while it is not complete.
fn parse(bytes: &[u8]) -> Option<FrameHead> {
    let (first, second) = (*bytes.first()?, *bytes.get(1)?);
    let (payload, after) = match second & 0x7f {
        126 => (u64::from(u16::from_be_bytes(bytes.get(2..4)?.try_into().ok()?)), 4),
        127 => (u64::from_be_bytes(bytes.get(2..10)?.try_into().ok()?), 10),
        short => (u64::from(short), 2),
    };
    let mask = match second & 0x80 {
        0 => [0; 4],
        _ => bytes.get(after..after + 4)?.try_into().ok()?,
    };
    let is_complete = bytes.len() >= after;
    is_complete.then_some(FrameHead { opcode: first & 0x0f, is_final: first & 0x80 != 0, payload, mask })
}

/// The most that a control frame may be long (RFC 6455 section 5.5), its header included.
pub(crate) const CONTROL_MAX: usize = 2 + 4 + 125;

/// A control frame that is whole.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Control {
    Ping(Vec<u8>),
    Pong,
    Close,
}

impl Control {
    pub(crate) fn read(frame: &[u8]) -> Option<Self> {
        let head = (2..=frame.len()).find_map(|end| parse(&frame[..end]).map(|head| (head, end)));
        let (head, end) = head?;
        Some(match head.opcode {
            PING => {
                let masked = frame[end..].iter().zip(head.mask.iter().cycle());
                Self::Ping(masked.map(|(byte, mask)| byte ^ mask).collect())
            }
            CLOSE => Self::Close,
            _ => Self::Pong,
        })
    }
}

/// A text frame as a server sends it: unmasked, in one piece.
pub(crate) fn text_frame(text: &[u8]) -> Vec<u8> {
    server_frame(TEXT, text)
}

/// The answer to a ping.
pub(crate) fn pong_frame(payload: &[u8]) -> Vec<u8> {
    server_frame(PONG, payload)
}

fn server_frame(opcode: u8, payload: &[u8]) -> Vec<u8> {
    let mut frame = Vec::with_capacity(payload.len() + 10);
    frame.push(0x80 | opcode);
    match (u8::try_from(payload.len()), u16::try_from(payload.len())) {
        (Ok(short @ 0..=125), _) => frame.push(short),
        (_, Ok(long)) => {
            frame.push(126);
            frame.extend_from_slice(&long.to_be_bytes());
        }
        _ => {
            frame.push(127);
            frame.extend_from_slice(&(payload.len() as u64).to_be_bytes());
        }
    }
    frame.extend_from_slice(payload);
    frame
}

/// A close frame as a server sends it: unmasked, with a code and at most 123 bytes of reason.
pub(crate) fn close_frame(code: u16, reason: &str) -> Vec<u8> {
    let reason = &reason.as_bytes()[..reason.len().min(123)];
    server_frame(CLOSE, &[&code.to_be_bytes(), reason].concat())
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
                walk.walk(chunk, &mut Deaf);
                at += chunk.len();
                assert_eq!(walk.is_at_boundary(), ends.contains(&at), "{at} in steps of {step}");
            }
            assert!(!walk.has_closed());
        }
    }

    #[test]
    fn a_message_ends_with_its_last_fragment_and_control_frames_are_none() {
        let frames = [
            (0x81, 5, 1, true),
            (0x01, 5, 1, false),
            (0x89, 4, 1, false),
            (0x00, 0, 1, false),
            (0x80, 9, 2, true),
            (0x8a, 0, 2, true),
            (0x82, 0, 3, true),
        ];
        for step in [1, 3, usize::MAX] {
            let mut walk = FrameWalk::default();
            for (first, size, messages, is_between) in frames {
                let bytes = frame(first, &vec![0; size], Some([1, 2, 3, 4]));
                for chunk in bytes.chunks(step.min(bytes.len())) {
                    walk.walk(chunk, &mut Deaf);
                }
                assert_eq!(
                    (walk.messages(), walk.is_between_messages()),
                    (messages, is_between),
                    "{first:x}"
                );
            }
        }
    }

    #[test]
    fn messages_are_heard_unmasked_and_whole_however_the_bytes_arrive() {
        #[derive(Default)]
        struct Heard(Vec<(Vec<u8>, bool)>);
        impl Ear for Heard {
            fn begin(&mut self) {
                self.0.push((Vec::new(), false));
            }
            fn hear(&mut self, byte: u8) {
                self.0.last_mut().unwrap().0.push(byte);
            }
            fn end(&mut self) {
                self.0.last_mut().unwrap().1 = true;
            }
        }
        let frames = [
            frame(0x01, b"one ", Some([1, 2, 3, 4])),
            frame(0x89, b"ping", Some([5; 4])),
            frame(0x00, b"", None),
            frame(0x80, &[b'x'; 300], Some([7, 8, 9, 10])),
            frame(0x82, b"\x00\x01", None),
            frame(0x81, b"", Some([1; 4])),
        ];
        for step in [1, 3, 5, usize::MAX] {
            let (mut walk, mut heard) = (FrameWalk::default(), Heard::default());
            let bytes = frames.concat();
            bytes.chunks(step.min(bytes.len())).for_each(|chunk| walk.walk(chunk, &mut heard));
            let first = [b"one ".as_slice(), &[b'x'; 300]].concat();
            assert_eq!(heard.0, [(first, true), (vec![0, 1], true), (Vec::new(), true)]);
        }
    }

    #[test]
    fn an_advance_stops_where_a_frame_ends() {
        let (first, second) = (frame(0x82, &[7; 300], None), frame(0x89, &[], Some([0; 4])));
        let both = [first.clone(), second.clone()].concat();
        let mut walk = FrameWalk::default();
        assert_eq!(walk.advance(&both[..2], &mut Deaf), 2);
        assert_eq!(walk.advance(&both[2..], &mut Deaf), first.len() - 2);
        assert_eq!(walk.advance(&both[first.len()..], &mut Deaf), second.len());
        assert!(walk.is_between_messages());
    }

    #[test]
    fn a_close_frame_is_noticed_and_written_as_the_standard_says() {
        let frame = close_frame(1012, "service restart");
        assert_eq!(&frame[..4], &[0x88, 17, 0x03, 0xf4]);
        let mut walk = FrameWalk::default();
        walk.walk(&frame, &mut Deaf);
        assert!(walk.has_closed() && walk.is_at_boundary());
    }
}
