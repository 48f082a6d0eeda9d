//! Facts as bytes: short, and read back faster than the text they were taken from is parsed.
//!
//! Knows the shape of facts; must not know files. What was not written here is read as `None`, never as something else
//! than it was: whoever keeps the bytes must know that they are whole.

use crate::module::{Export, Facts, Format, How, Name, Request, Trouble};

/// Bytes to be kept.
#[derive(Default)]
pub(crate) struct Recorder(pub(crate) Vec<u8>);

/// Bytes that were kept, from where they are not read yet.
pub(crate) struct Record<'b>(pub(crate) &'b [u8]);

impl Recorder {
    /// Seven bits in a byte, the lowest first.
    pub(crate) fn number(&mut self, mut number: u32) {
        while number > 0x7f {
            self.0.push(number.to_le_bytes()[0] | 0x80);
            number >>= 7;
        }
        self.0.push(number.to_le_bytes()[0]);
    }

    fn text(&mut self, text: &str) {
        self.count(text.len());
        self.0.extend_from_slice(text.as_bytes());
    }

    fn count(&mut self, count: usize) {
        self.number(u32::try_from(count).expect("a file has less than 4 GiB"));
    }

    fn texts(&mut self, texts: &[Box<str>]) {
        self.count(texts.len());
        texts.iter().for_each(|text| self.text(text));
    }

    pub(crate) fn facts(&mut self, facts: &Facts) {
        self.number(match facts.format {
            Format::CommonJs => 0,
            Format::Module => 1,
        });
        self.count(facts.requests.len());
        facts.requests.iter().for_each(|request| self.request(request));
        self.count(facts.exports.len());
        facts.exports.iter().for_each(|export| self.export(export));
        self.texts(&facts.names);
        self.texts(&facts.passes_on);
        match &facts.trouble {
            None => self.number(0),
            Some(Trouble::Syntax { line, message }) => {
                self.number(1);
                self.number(*line);
                self.text(message);
            }
            Some(Trouble::Nesting { line }) => {
                self.number(2);
                self.number(*line);
            }
        }
    }

    fn request(&mut self, request: &Request) {
        self.text(&request.specifier);
        self.number(match request.how {
            How::Import => 0,
            How::Await => 1,
            How::Lazy => 2,
            How::Require => 3,
            How::LazyRequire => 4,
            How::Resolve => 5,
        });
        self.number(request.line);
        self.count(request.names.len());
        for Name { name, line } in &request.names {
            self.text(name);
            self.number(*line);
        }
        self.number(request.is_caught.into());
        self.number(request.attribute.is_some().into());
        request.attribute.iter().for_each(|attribute| self.text(attribute));
    }

    fn export(&mut self, export: &Export) {
        match export {
            Export::Local { name, local } => {
                self.number(0);
                self.text(name);
                self.text(local);
            }
            Export::From { name, request, imported } => {
                self.number(1);
                self.text(name);
                self.number(*request);
                self.text(imported);
            }
            Export::Namespace { name, request } => {
                self.number(2);
                self.text(name);
                self.number(*request);
            }
            Export::Star { request } => {
                self.number(3);
                self.number(*request);
            }
        }
    }
}

impl<'b> Record<'b> {
    /// That many bytes as they were written.
    pub(crate) fn bytes(&mut self, count: usize) -> Option<&'b [u8]> {
        let (bytes, rest) = self.0.split_at_checked(count)?;
        self.0 = rest;
        Some(bytes)
    }

    pub(crate) fn number(&mut self) -> Option<u32> {
        let mut number = 0;
        for shift in (0..32).step_by(7) {
            let byte = self.bytes(1)?[0];
            number |= u32::from(byte & 0x7f) << shift;
            if byte & 0x80 == 0 {
                return Some(number);
            }
        }
        None
    }

    fn text(&mut self) -> Option<Box<str>> {
        let count = self.number()? as usize;
        Some(std::str::from_utf8(self.bytes(count)?).ok()?.into())
    }

    fn is_so(&mut self) -> Option<bool> {
        Some(self.number()? != 0)
    }

    fn list<T>(&mut self, read: fn(&mut Record<'b>) -> Option<T>) -> Option<Vec<T>> {
        let count = self.number()? as usize;
        let mut list = Vec::with_capacity(room::<T>(count, self.0.len()));
        for _ in 0..count {
            list.push(read(self)?);
        }
        Some(list)
    }

    pub(crate) fn facts(&mut self) -> Option<Facts> {
        let facts = Facts {
            format: match self.number()? {
                0 => Format::CommonJs,
                1 => Format::Module,
                _ => return None,
            },
            requests: self.list(Record::request)?,
            exports: self.list(Record::export)?,
            names: self.list(Record::text)?,
            passes_on: self.list(Record::text)?,
            trouble: match self.number()? {
                0 => None,
                1 => Some(Trouble::Syntax { line: self.number()?, message: self.text()?.into() }),
                2 => Some(Trouble::Nesting { line: self.number()? }),
                _ => return None,
            },
        };
        let is_asked = |export: &Export| match export {
            Export::Local { .. } => true,
            Export::From { request, .. } | Export::Namespace { request, .. } | Export::Star { request } => {
                (*request as usize) < facts.requests.len()
            }
        };
        facts.exports.iter().all(is_asked).then_some(facts)
    }

    fn request(&mut self) -> Option<Request> {
        Some(Request {
            specifier: self.text()?,
            how: match self.number()? {
                0 => How::Import,
                1 => How::Await,
                2 => How::Lazy,
                3 => How::Require,
                4 => How::LazyRequire,
                5 => How::Resolve,
                _ => return None,
            },
            line: self.number()?,
            names: self.list(|it| Some(Name { name: it.text()?, line: it.number()? }))?,
            is_caught: self.is_so()?,
            attribute: if self.is_so()? { Some(self.text()?) } else { None },
        })
    }

    fn export(&mut self) -> Option<Export> {
        Some(match self.number()? {
            0 => Export::Local { name: self.text()?, local: self.text()? },
            1 => Export::From { name: self.text()?, request: self.number()?, imported: self.text()? },
            2 => Export::Namespace { name: self.text()?, request: self.number()? },
            3 => Export::Star { request: self.number()? },
            _ => return None,
        })
    }
}

/// For how many room is made beforehand: a count that is wrong asks for no more memory than the bytes that are left already
/// take. What is really there may take more, and gets it as it is read.
fn room<T>(count: usize, bytes_left: usize) -> usize {
    count.min(bytes_left / size_of::<T>().max(1))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::module::Goal;
    use oxc_allocator::Allocator;

    const TEXTS: [(&str, Goal); 5] = [
        (
            "import a, { b as c } from './a.js' with { type: 'json' };\nexport * from 'd';\nexport * as e from 'f';\n\
             export { g as h } from './i.js';\nexport const j = 1;\nawait import('k');\nconst l = () => import('m');",
            Goal::Module,
        ),
        (
            "try { require('a') } catch {}\nexports.b = 1;\nmodule.exports = require('c');\nrequire.resolve('d');",
            Goal::Script,
        ),
        ("export default 'ü';", Goal::Either),
        ("import {", Goal::Module),
        ("", Goal::Either),
    ];

    #[test]
    fn facts_are_read_as_they_were_written_and_never_from_fewer_bytes() {
        let mut arena = Allocator::default();
        for (text, goal) in TEXTS {
            let facts = crate::syntax::facts(&mut arena, text, goal);
            let mut recorder = Recorder::default();
            recorder.facts(&facts);
            let mut record = Record(&recorder.0);
            assert_eq!(record.facts().as_ref(), Some(&facts), "{text}");
            assert!(record.0.is_empty());
            for cut in 0..recorder.0.len() {
                assert_eq!(Record(&recorder.0[..cut]).facts(), None, "{text} cut at {cut}");
            }
        }
        let nesting = Facts { trouble: Some(Trouble::Nesting { line: u32::MAX }), ..Facts::default() };
        let mut recorder = Recorder::default();
        recorder.facts(&nesting);
        assert_eq!(Record(&recorder.0).facts(), Some(nesting));
    }

    #[test]
    fn a_count_that_is_wrong_asks_for_no_more_memory_than_the_bytes_that_are_left() {
        for left in [0, 1, 95, 4096] {
            assert!(room::<Request>(u32::MAX as usize, left) * size_of::<Request>() <= left, "{left}");
            assert!(room::<Box<str>>(u32::MAX as usize, left) * size_of::<Box<str>>() <= left, "{left}");
        }
        assert_eq!(room::<Box<str>>(2, 4096), 2);
        assert_eq!(Record(&[0xff, 0xff, 0xff, 0xff, 0x0f, 0, 0]).list(Record::text), None);
        assert_eq!(Record(&[2, 0, 0]).list(Record::text).map(|texts| texts.len()), Some(2), "small ones fit");
    }
}
