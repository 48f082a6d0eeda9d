//! How deep a text may send a recursive parser, without parsing it.
//!
//! The estimate errs on the high side: what it lets pass fits on the stack that the readers are given. It knows strings,
//! comments, templates and regular expressions as well as one can without a grammar.

/// The deepest text that is read. Each step down was measured to take up to 2 KiB of the stack in the parser and 4 KiB
/// in what reads its tree, both without optimisation.
pub(crate) const DEPTH_MAX: u32 = 50_000;

/// The stack of a thread that reads modules. It is reserved, not used: pages that are not touched cost nothing.
pub(crate) const STACK_BYTES: usize = 512 << 20;

/// A text of this length fits on the stack whatever is in it: each of its bytes was measured to take up to 1 KiB.
const HARMLESS_BYTES: usize = 256 << 10;

/// The line, from 1, at which the text may become deeper than [`DEPTH_MAX`].
pub(crate) fn too_deep(text: &str) -> Option<u32> {
    if text.len() <= HARMLESS_BYTES {
        return None;
    }
    Scan::of(text.as_bytes()).run()
}

/// One bracket that is open.
#[derive(Clone, Copy, Default)]
struct Level {
    /// Steps down that the present statement or element may have made.
    chain: u32,
    /// Steps down that the end of a statement does not undo: `else if` after `else if`.
    branches: u32,
    /// Whether this is the hole of a template, whose end is the template's continuation.
    is_hole: bool,
}

struct Scan<'t> {
    text: &'t [u8],
    at: usize,
    line: u32,
    levels: Vec<Level>,
    depth: u32,
    /// Whether a slash here would divide.
    after_value: bool,
}

impl<'t> Scan<'t> {
    fn of(text: &'t [u8]) -> Scan<'t> {
        Scan { text, at: 0, line: 1, levels: vec![Level::default()], depth: 0, after_value: false }
    }

    fn run(mut self) -> Option<u32> {
        while let Some(&byte) = self.text.get(self.at) {
            self.at += 1;
            match byte {
                b'\n' => self.line += 1,
                b' ' | b'\t' | b'\r' => {}
                b'"' | b'\'' => self.string(byte),
                b'`' => self.template(),
                b'/' => self.slash(),
                b'(' | b'[' | b'{' => self.open(false),
                b')' | b']' => self.close(),
                b'}' if self.top().is_hole => {
                    self.close();
                    self.template();
                }
                b'}' => {
                    self.close();
                    self.after_value = false;
                    if self.a_statement_follows() {
                        self.end();
                        self.branches_end();
                    }
                }
                b';' | b',' => self.end(),
                b'0'..=b'9' | b'a'..=b'z' | b'A'..=b'Z' | b'_' | b'$' | 0x80.. => self.word(),
                _ => self.step(),
            }
            if self.depth > DEPTH_MAX {
                return Some(self.line);
            }
        }
        None
    }

    fn top(&mut self) -> &mut Level {
        self.levels.last_mut().expect("the outermost level is never closed")
    }

    fn open(&mut self, is_hole: bool) {
        self.levels.push(Level { is_hole, ..Level::default() });
        self.depth += 1;
        self.after_value = false;
    }

    fn close(&mut self) {
        self.after_value = true;
        if self.levels.len() > 1 {
            let level = self.levels.pop().expect("there are two at least");
            self.depth -= 1 + level.chain + level.branches;
        }
    }

    fn end(&mut self) {
        let chain = std::mem::take(&mut self.top().chain);
        self.depth -= chain;
        self.after_value = false;
    }

    fn branches_end(&mut self) {
        let branches = std::mem::take(&mut self.top().branches);
        self.depth -= branches;
    }

    /// Whether what was closed ends a statement: nothing but these words can go on behind a brace.
    fn a_statement_follows(&self) -> bool {
        const GOING_ON: [&[u8]; 9] =
            [b"else", b"catch", b"finally", b"while", b"in", b"instanceof", b"of", b"from", b"as"];
        let rest = self.text[self.at..].trim_ascii_start();
        let end = rest.iter().position(|byte| !byte.is_ascii_alphanumeric() && !matches!(byte, b'_' | b'$'));
        let word = &rest[..end.unwrap_or(rest.len())];
        !word.is_empty() && !GOING_ON.contains(&word)
    }

    fn step(&mut self) {
        self.top().chain += 1;
        self.depth += 1;
        self.after_value = false;
    }

    fn word(&mut self) {
        let from = self.at - 1;
        while self
            .text
            .get(self.at)
            .is_some_and(|b| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'$' | 0x80..))
        {
            self.at += 1;
        }
        match &self.text[from..self.at] {
            b"else" => {
                self.top().branches += 1;
                self.depth += 1;
                self.after_value = false;
            }
            b"if" | b"for" | b"while" | b"do" | b"with" | b"new" | b"typeof" | b"void" | b"delete"
            | b"await" | b"yield" | b"return" | b"case" | b"in" | b"of" | b"instanceof" | b"throw"
            | b"extends" => self.step(),
            _ => self.after_value = true,
        }
    }

    fn string(&mut self, quote: u8) {
        while let Some(&byte) = self.text.get(self.at) {
            self.at += 1;
            match byte {
                b'\\' => self.escape(),
                b'\n' => {
                    self.line += 1;
                    break;
                }
                _ if byte == quote => break,
                _ => {}
            }
        }
        self.after_value = true;
    }

    fn escape(&mut self) {
        self.line += u32::from(self.text.get(self.at) == Some(&b'\n'));
        self.at += 1;
    }

    /// Goes on behind a template's opening quote or behind one of its holes.
    fn template(&mut self) {
        while let Some(&byte) = self.text.get(self.at) {
            self.at += 1;
            match byte {
                b'\\' => self.escape(),
                b'\n' => self.line += 1,
                b'`' => break,
                b'$' if self.text.get(self.at) == Some(&b'{') => {
                    self.at += 1;
                    self.open(true);
                    return;
                }
                _ => {}
            }
        }
        self.after_value = true;
    }

    fn slash(&mut self) {
        match self.text.get(self.at) {
            Some(b'/') => {
                while self.text.get(self.at).is_some_and(|byte| *byte != b'\n') {
                    self.at += 1;
                }
            }
            Some(b'*') => {
                self.at += 1;
                while self.at < self.text.len() && !self.text[self.at..].starts_with(b"*/") {
                    self.line += u32::from(self.text[self.at] == b'\n');
                    self.at += 1;
                }
                self.at += 2;
            }
            _ if self.after_value => self.step(),
            _ => self.regular_expression(),
        }
    }

    fn regular_expression(&mut self) {
        let mut in_class = false;
        while let Some(&byte) = self.text.get(self.at) {
            match byte {
                b'\n' => break,
                b'\\' => self.at += 1,
                b'[' => in_class = true,
                b']' => in_class = false,
                b'/' if !in_class => {
                    self.at += 1;
                    break;
                }
                _ => {}
            }
            self.at += 1;
        }
        self.after_value = true;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn many(what: &str) -> String {
        what.repeat(2 * HARMLESS_BYTES / what.len().min(2))
    }

    #[test]
    fn what_sends_a_parser_down_is_too_deep() {
        for step in [
            "(",
            "[",
            "{",
            "!",
            "a=>",
            "a?b:",
            "a=",
            "new ",
            "if(a)",
            "if(a);else ",
            "`${",
            "[a,",
            "-",
            "a**",
        ] {
            assert_eq!(too_deep(&many(step)), Some(1), "{step}");
        }
    }

    #[test]
    fn what_is_long_and_flat_is_not() {
        for flat in [
            "a(b);",
            "[1],",
            "a,",
            "'(((',",
            "/* ((( */",
            "`((((`,",
            "x = /[(/]((/;",
            "// ((((\n",
            "{}",
            "if(a){b}",
        ] {
            assert_eq!(too_deep(&many(flat)), None, "{flat}");
        }
    }

    #[test]
    fn the_line_is_told() {
        assert_eq!(too_deep(&format!("a;\n\n{}", many("("))), Some(3));
    }
}
