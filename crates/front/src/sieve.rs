//! Takes whole messages out of a stream of WebSocket frames, one at a time. What passes is again a stream of whole frames,
//! byte for byte as it came; a message is kept back until it is known whether it passes.

use crate::calls::Envelope;
use crate::frames::{CONTROL_MAX, Ear, FrameWalk, begins_control};

/// Who decides, and what becomes of what does not pass.
pub(crate) trait Sorter: Send {
    /// Asked again as a message grows, until it is decided. `bytes` is how long it is so far.
    fn judge(&mut self, envelope: &Envelope, bytes: usize, is_whole: bool) -> Judgement;
    /// Whether the rest of a message that is watched must not pass after all.
    fn regrets(&mut self, _: &Envelope) -> bool {
        false
    }
    /// How many bytes of frames may be kept back of one message. Fragments may be empty, so its text is no measure.
    fn kept_max(&self) -> usize;
    /// What becomes of a message of which more had to be kept back.
    fn overflows(&mut self) -> Judgement;
    /// A control frame is longer than any may be; it does not pass.
    fn violated(&mut self);
    /// A message that was taken: its text, and its frames. What is answered passes in its place.
    fn take(&mut self, text: Vec<u8>, frames: Vec<u8>) -> Vec<u8>;
    /// Whether a control frame passes. It is whole.
    fn passes(&mut self, control: &[u8]) -> bool;
}

/// What is decided about a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Judgement {
    /// More of it has to be seen.
    Later,
    /// It passes as it comes, and is read no more.
    Pass,
    /// It passes as it comes, and is read on.
    Watch,
    /// It is taken.
    Take,
    /// It is dropped as it comes.
    Drop,
}

/// One direction's sieve.
pub(crate) struct Sieve {
    sorter: Box<dyn Sorter>,
    /// What has come, and how much of it is sifted.
    input: Vec<u8>,
    sifted: usize,
    /// Whether something did not pass since it was last sifted.
    has_stopped: bool,
    walk: FrameWalk,
    scan: Scan,
    judgement: Judgement,
    /// The frames of a message that is not decided, or is taken.
    frames: Vec<u8>,
    /// Whether the frame that has begun is a control frame, and what of it has come.
    is_in_control: bool,
    control: Vec<u8>,
}

/// The message that is being read.
#[derive(Default)]
struct Scan {
    envelope: Envelope,
    text: Vec<u8>,
    bytes: usize,
    has_begun: bool,
    is_read: bool,
    keeps_text: bool,
    is_whole: bool,
}

impl Ear for Scan {
    fn begin(&mut self) {
        *self = Self { has_begun: true, is_read: true, keeps_text: true, ..Self::default() };
    }

    fn hear(&mut self, byte: u8) {
        self.bytes += 1;
        if self.is_read {
            self.envelope.read(byte);
        }
        if self.keeps_text {
            self.text.push(byte);
        }
    }

    fn end(&mut self) {
        self.is_whole = true;
    }
}

impl Sieve {
    pub(crate) fn new(sorter: impl Sorter + 'static) -> Self {
        Self {
            sorter: Box::new(sorter),
            input: Vec::new(),
            sifted: 0,
            has_stopped: false,
            walk: FrameWalk::default(),
            scan: Scan::default(),
            judgement: Judgement::Later,
            frames: Vec::new(),
            is_in_control: false,
            control: Vec::new(),
        }
    }

    /// Where the next bytes are put. It must be asked for only when all that came is sifted.
    pub(crate) fn input(&mut self) -> &mut Vec<u8> {
        self.input.clear();
        self.sifted = 0;
        &mut self.input
    }

    /// What has come and is not sifted yet.
    pub(crate) fn unsifted(&self) -> &[u8] {
        &self.input[self.sifted..]
    }

    /// How far the frames that were sifted have been read.
    pub(crate) fn walk(&self) -> &FrameWalk {
        &self.walk
    }

    /// Sifts what has come, as far as the first thing that does not pass: what follows from it is done before the next,
    /// however many come at once. Answers what passes.
    pub(crate) fn sift(&mut self) -> Vec<u8> {
        let input = std::mem::take(&mut self.input);
        let mut bytes = &input[self.sifted..];
        let mut passed = Vec::with_capacity(bytes.len());
        self.has_stopped = false;
        while let Some(first) = bytes.first().filter(|_| !self.has_stopped) {
            if self.walk.is_at_boundary() {
                self.is_in_control = begins_control(*first);
            }
            let (piece, rest) = bytes.split_at(self.walk.advance(bytes, &mut self.scan));
            bytes = rest;
            if self.is_in_control {
                self.take_control(piece, &mut passed);
            } else {
                self.sort(piece, &mut passed);
            }
        }
        self.sifted = input.len() - bytes.len();
        self.input = input;
        passed
    }

    fn take_control(&mut self, piece: &[u8], passed: &mut Vec<u8>) {
        let is_known_as_too_long = self.control.len() > CONTROL_MAX;
        if !is_known_as_too_long {
            let room = CONTROL_MAX + 1 - self.control.len();
            self.control.extend_from_slice(&piece[..piece.len().min(room)]);
            if self.control.len() > CONTROL_MAX {
                self.sorter.violated();
            }
        }
        if self.walk.is_at_boundary() {
            let frame = std::mem::take(&mut self.control);
            if frame.len() <= CONTROL_MAX && self.sorter.passes(&frame) {
                passed.extend(frame);
            } else {
                self.has_stopped = true;
            }
        }
    }

    fn sort(&mut self, piece: &[u8], passed: &mut Vec<u8>) {
        // A header that has not come whole belongs to a message that has not begun.
        let has_begun = self.scan.has_begun;
        if self.judgement == Judgement::Watch && self.sorter.regrets(&self.scan.envelope) {
            self.judgement = Judgement::Drop;
            self.has_stopped = true;
        }
        match self.judgement {
            Judgement::Pass | Judgement::Watch => passed.extend_from_slice(piece),
            Judgement::Drop => {}
            Judgement::Later | Judgement::Take => self.frames.extend_from_slice(piece),
        }
        if self.judgement == Judgement::Later && has_begun {
            let judgement = self.sorter.judge(&self.scan.envelope, self.scan.bytes, self.scan.is_whole);
            self.decide(judgement, passed);
        }
        if self.frames.len() > self.sorter.kept_max() {
            let judgement = self.sorter.overflows();
            self.decide(judgement, passed);
        }
        if self.scan.is_whole {
            let scan = std::mem::take(&mut self.scan);
            if self.judgement == Judgement::Take {
                self.has_stopped = true;
                passed.extend(self.sorter.take(scan.text, std::mem::take(&mut self.frames)));
            }
            self.judgement = Judgement::Later;
        }
    }

    fn decide(&mut self, judgement: Judgement, passed: &mut Vec<u8>) {
        self.judgement = judgement;
        match judgement {
            Judgement::Pass | Judgement::Watch => passed.append(&mut self.frames),
            Judgement::Drop => {
                self.frames.clear();
                self.has_stopped = true;
            }
            Judgement::Later | Judgement::Take => return,
        }
        self.scan.is_read = judgement == Judgement::Watch;
        self.scan.keeps_text = false;
        self.scan.text = Vec::new();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::frames::frame;
    use std::sync::{Arc, Mutex};

    /// Takes calls of `x`, drops calls of `y`, passes all else.
    #[derive(Default)]
    struct Xs(Arc<Mutex<Vec<String>>>);

    impl Sorter for Xs {
        fn judge(&mut self, envelope: &Envelope, _: usize, is_whole: bool) -> Judgement {
            match envelope.method().as_deref() {
                Some("x") => Judgement::Take,
                Some("y") => Judgement::Drop,
                None if !is_whole => Judgement::Later,
                _ => Judgement::Watch,
            }
        }

        fn regrets(&mut self, envelope: &Envelope) -> bool {
            envelope.method().as_deref() == Some("x")
        }

        fn kept_max(&self) -> usize {
            KEPT_MAX
        }

        fn overflows(&mut self) -> Judgement {
            Judgement::Drop
        }

        fn violated(&mut self) {
            self.0.lock().unwrap().push("violated".into());
        }

        fn take(&mut self, text: Vec<u8>, _: Vec<u8>) -> Vec<u8> {
            self.0.lock().unwrap().push(String::from_utf8(text).unwrap());
            Vec::new()
        }

        fn passes(&mut self, control: &[u8]) -> bool {
            control[0] != 0x88
        }
    }

    const KEPT_MAX: usize = 1 << 20;
    const MASK: Option<[u8; 4]> = Some([9, 8, 7, 6]);

    /// What of the bytes passes.
    fn sifted(sieve: &mut Sieve, bytes: &[u8]) -> Vec<u8> {
        sieve.input().extend_from_slice(bytes);
        let mut passed = Vec::new();
        while !sieve.unsifted().is_empty() {
            passed.extend(sieve.sift());
        }
        passed
    }

    /// A stream in which every kind of frame stands, with whether it passes.
    fn stream() -> Vec<(Vec<u8>, bool)> {
        let long = format!(r#"{{"method":"other","params":"{}"}}"#, "z".repeat(70_000));
        let late = format!(r#"{{"params":"{}","method":"x"}}"#, "z".repeat(300));
        vec![
            (frame(0x81, br#"{"id":1,"method":"x"}"#, MASK), false),
            (frame(0x81, br#"{"id":2,"method":"other"}"#, MASK), true),
            (frame(0x01, br#"{"id":3,"me"#, MASK), false),
            (frame(0x89, b"ping", MASK), true),
            (frame(0x00, br#"thod":"#, MASK), false),
            (frame(0x80, br#""x"}"#, MASK), false),
            (frame(0x01, br#"{"id":4,"met"#, MASK), true),
            (frame(0x80, br#"hod":"ok"}"#, MASK), true),
            (frame(0x82, br#"{"id":5,"method":"x"}"#, MASK), false),
            (frame(0x81, long.as_bytes(), MASK), true),
            (frame(0x81, late.as_bytes(), MASK), false),
            (frame(0x81, br#"{"method":"y"}"#, MASK), false),
            (frame(0x81, b"", MASK), true),
            (frame(0x81, b"no call", MASK), true),
            (frame(0x88, b"", MASK), false),
            (frame(0x8a, b"", MASK), true),
        ]
    }

    #[test]
    fn what_is_taken_is_missing_and_all_else_passes_byte_for_byte_however_it_arrives() {
        let all: Vec<u8> = stream().into_iter().flat_map(|(frame, _)| frame).collect();
        let passing: Vec<u8> =
            stream().into_iter().filter(|(_, passes)| *passes).flat_map(|(frame, _)| frame).collect();
        for step in [1, 2, 3, 7, 100, 4096, usize::MAX] {
            let taken = Arc::default();
            let mut sieve = Sieve::new(Xs(Arc::clone(&taken)));
            let passed: Vec<u8> =
                all.chunks(step.min(all.len())).flat_map(|chunk| sifted(&mut sieve, chunk)).collect();
            assert!(passed == passing, "in steps of {step}");
            let taken = taken.lock().unwrap();
            assert_eq!(taken[..2], [r#"{"id":1,"method":"x"}"#, r#"{"id":3,"method":"x"}"#]);
            assert_eq!(taken.len(), 4);
        }
    }

    #[test]
    fn a_long_message_passes_as_it_comes_once_it_is_decided() {
        let mut sieve = Sieve::new(Xs::default());
        let text = format!(r#"{{"method":"other","params":"{}"}}"#, "z".repeat(70_000));
        let bytes = frame(0x81, text.as_bytes(), MASK);
        assert_eq!(sifted(&mut sieve, &bytes[..1000]).len(), 1000);
        assert_eq!(sifted(&mut sieve, &bytes[1000..1010]), &bytes[1000..1010]);
    }

    #[test]
    fn a_message_that_turns_out_to_be_another_never_comes_to_its_end() {
        let mut sieve = Sieve::new(Xs::default());
        let bytes = frame(0x81, br#"{"id":1,"method":"other","method":"x"}"#, MASK);
        let passed: Vec<u8> = bytes.chunks(1).flat_map(|byte| sifted(&mut sieve, byte)).collect();
        assert!(!passed.is_empty() && passed.len() < bytes.len());
        assert!(bytes.starts_with(&passed));
    }

    #[test]
    fn what_is_kept_back_is_bounded_whatever_it_is_made_of() {
        let taken = Arc::default();
        let mut sieve = Sieve::new(Xs(Arc::clone(&taken)));
        assert!(sifted(&mut sieve, &frame(0x01, b"{", MASK)).is_empty());
        let empty = frame(0x00, b"", MASK).repeat(100_000);
        for _ in 0..20 {
            assert!(sifted(&mut sieve, &empty).is_empty());
            assert!(sieve.frames.len() <= KEPT_MAX + empty.len());
        }
        assert_eq!(sieve.judgement, Judgement::Drop);
        let mut sieve = Sieve::new(Xs(Arc::clone(&taken)));
        let ping = frame(0x89, &vec![0; 70_000], MASK);
        assert!(sifted(&mut sieve, &ping[..60_000]).is_empty());
        assert!(sieve.control.len() <= CONTROL_MAX + 1);
        assert!(sifted(&mut sieve, &ping[60_000..]).is_empty());
        assert_eq!(*taken.lock().unwrap(), ["violated"]);
        assert_eq!(sifted(&mut sieve, &frame(0x89, b"ok", MASK)), frame(0x89, b"ok", MASK));
    }
}
