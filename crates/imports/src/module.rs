//! What one module asks of others and offers to them, read from its text alone.
//!
//! Knows no file system and no other module: the same text in the same goal has the same facts wherever it lies, which
//! is what makes them worth remembering.

/// How a text is to be read.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) enum Goal {
    /// As an ECMAScript module.
    Module,
    /// As a CommonJS module.
    Script,
    /// As an ECMAScript module if it says `import` or `export`, else as a CommonJS module.
    Either,
}

/// What a module's text says.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Facts {
    pub(crate) format: Format,
    /// In the order of the text.
    pub(crate) requests: Vec<Request>,
    pub(crate) exports: Vec<Export>,
    /// For CommonJS: every name that node's lexer could find, and more. A name that is not here is not exported.
    pub(crate) names: Vec<Box<str>>,
    /// For CommonJS: the specifiers whose names may be passed on.
    pub(crate) passes_on: Vec<Box<str>>,
    /// Why there is nothing else: the text is not a program.
    pub(crate) trouble: Option<Trouble>,
}

/// Which of node's two kinds of module a text is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Format {
    #[default]
    CommonJs,
    Module,
}

/// One place that names another module.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Request {
    pub(crate) specifier: Box<str>,
    pub(crate) how: How,
    /// From 1.
    pub(crate) line: u32,
    /// The names taken from the other module, `default` among them. A namespace takes none.
    pub(crate) names: Vec<Name>,
    /// Whether it stands in a `try`, so that its failure is expected.
    pub(crate) is_caught: bool,
    /// The value of the attribute `type`, if there is one.
    pub(crate) attribute: Option<Box<str>>,
}

/// A name taken from another module.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Name {
    pub(crate) name: Box<str>,
    /// From 1.
    pub(crate) line: u32,
}

/// What kind of request, and whether the module can be evaluated without it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum How {
    /// `import … from`, `export … from`: without it nothing is even linked.
    Import,
    /// `await import('…')` in the module's own body.
    Await,
    /// `import('…')` that may never run, or whose failure somebody may catch.
    Lazy,
    /// `require('…')` in the module's own body.
    Require,
    /// `require('…')` in a function, a condition or a `try`.
    LazyRequire,
    /// `require.resolve('…')`: found, but not loaded.
    Resolve,
}

impl How {
    /// Whether node looks the specifier up as `require` does.
    pub(crate) fn is_require(self) -> bool {
        matches!(self, How::Require | How::LazyRequire | How::Resolve)
    }

    /// Whether the module's own evaluation fails with it.
    pub(crate) fn is_needed(self) -> bool {
        matches!(self, How::Import | How::Await | How::Require)
    }
}

/// An entry of an ECMAScript module's export table.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Export {
    /// A binding of its own.
    Local { name: Box<str>, local: Box<str> },
    /// `export { imported as name } from`: `request` counts the module's requests.
    From { name: Box<str>, request: u32, imported: Box<str> },
    /// `export * as name from`.
    Namespace { name: Box<str>, request: u32 },
    /// `export * from`.
    Star { request: u32 },
}

/// Why a text could not be read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Trouble {
    Syntax {
        line: u32,
        message: String,
    },
    /// Deeper than it can be read without running out of stack.
    Nesting {
        line: u32,
    },
}
