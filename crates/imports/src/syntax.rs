//! The façade over the parser: a text in, [`Facts`] out. No other file names the parser's entry points.
//!
//! Knows ECMAScript's import and export statements. What happens inside of bodies is read by `body.rs`.

use crate::body;
use crate::declared;
use crate::module::{Export, Facts, Format, Goal, How, Name, Request, Trouble};
use crate::nesting;
use oxc_allocator::Allocator;
use oxc_ast::ast::{
    ExportDefaultDeclarationKind, ExportSpecifier, ImportDeclaration, ImportDeclarationSpecifier,
    ModuleDeclaration, ModuleExportName, Program, Statement, StringLiteral, WithClause,
};
use oxc_ecmascript::BoundNames as _;
use oxc_parser::{ParseOptions, Parser, ParserReturn};
use oxc_span::{GetSpan as _, SourceType};
use std::collections::{HashMap, HashSet};

/// Reads a module's text. `arena` is emptied first; its memory is kept for the next text.
pub(crate) fn facts(arena: &mut Allocator, text: &str, goal: Goal) -> Facts {
    arena.reset();
    if let Some(line) = nesting::too_deep(text) {
        return Facts { trouble: Some(Trouble::Nesting { line }), ..Facts::default() };
    }
    let text = text.strip_prefix('\u{feff}').unwrap_or(text);
    let parsed = parse(arena, text, goal);
    let format = format(&parsed, goal);
    if let Some(trouble) = trouble(text, &parsed).or_else(|| misplaced(text, &parsed, goal)) {
        return Facts { format, trouble: Some(trouble), ..Facts::default() };
    }
    let mut facts = Facts { format, ..Facts::default() };
    let mut lines = Lines::of(text);
    if format == Format::Module {
        Table { facts: &mut facts, lines: &mut lines, imported: HashMap::new() }.fill(&parsed.program);
        if let Some(name) = undeclared(&parsed.program, &facts.exports) {
            let message = format!("Export '{name}' is not defined in module");
            return Facts { format, trouble: Some(Trouble::Syntax { line: 1, message }), ..Facts::default() };
        }
    }
    let is_plain = parsed.module_record.dynamic_imports.is_empty() && !mentions(text, "equire");
    if !(is_plain && (format == Format::Module || !mentions(text, "exports")))
        && !body::read(&parsed.program, text, &mut facts)
    {
        return Facts { format, trouble: Some(Trouble::Nesting { line: 1 }), ..Facts::default() };
    }
    facts
}

/// Parses and throws the result away: the least that any check of a tree must pay. Answers whether it is a program.
pub(crate) fn parses(arena: &mut Allocator, text: &str, goal: Goal) -> bool {
    arena.reset();
    parse(arena, text, goal).diagnostics.is_empty()
}

fn parse<'a>(arena: &'a Allocator, text: &'a str, goal: Goal) -> ParserReturn<'a> {
    let kind = match goal {
        Goal::Module => SourceType::mjs(),
        Goal::Script => SourceType::cjs(),
        Goal::Either => SourceType::unambiguous(),
    };
    // The wrapper that node puts around CommonJS is a function.
    let options = ParseOptions {
        allow_return_outside_function: goal != Goal::Module,
        preserve_parens: false,
        enable_ident_hashes: false,
        ..ParseOptions::default()
    };
    Parser::new(arena, text, kind).with_options(options).parse()
}

fn format(parsed: &ParserReturn<'_>, goal: Goal) -> Format {
    match goal {
        Goal::Module => Format::Module,
        Goal::Either if parsed.program.source_type.is_module() => Format::Module,
        Goal::Either | Goal::Script => Format::CommonJs,
    }
}

fn trouble(text: &str, parsed: &ParserReturn<'_>) -> Option<Trouble> {
    let first = parsed.diagnostics.first()?;
    let at = first.labels.first().map_or(0, |label| label.offset());
    let line = Lines::of(text).line(at);
    Some(Trouble::Syntax { line, message: first.message.to_string() })
}

/// What only an ECMAScript module may say, said by another.
fn misplaced(text: &str, parsed: &ParserReturn<'_>, goal: Goal) -> Option<Trouble> {
    if goal != Goal::Script || !parsed.module_record.has_module_syntax {
        return None;
    }
    let mut statements = parsed.program.body.iter();
    let (what, at) = match statements.find_map(|it| it.as_module_declaration()) {
        Some(it @ ModuleDeclaration::ImportDeclaration(_)) => {
            ("Cannot use import statement", it.span().start)
        }
        Some(it) => ("Unexpected token 'export'", it.span().start),
        None => {
            ("Cannot use 'import.meta'", parsed.module_record.import_metas.first().map_or(0, |it| it.start))
        }
    };
    let message =
        if what.starts_with("Cannot") { format!("{what} outside a module") } else { what.to_owned() };
    Some(Trouble::Syntax { line: Lines::of(text).line(at), message })
}

fn mentions(text: &str, word: &str) -> bool {
    text.contains(word)
}

/// Turns positions into lines; cheap as long as they are asked for in the order of the text.
pub(crate) struct Lines<'t> {
    text: &'t [u8],
    at: usize,
    line: u32,
}

impl<'t> Lines<'t> {
    pub(crate) fn of(text: &'t str) -> Lines<'t> {
        Lines { text: text.as_bytes(), at: 0, line: 1 }
    }

    /// The line, from 1, of a byte position.
    pub(crate) fn line(&mut self, at: u32) -> u32 {
        let at = (at as usize).min(self.text.len());
        if at < self.at {
            (self.at, self.line) = (0, 1);
        }
        let passed = self.text[self.at..at].iter().filter(|byte| **byte == b'\n').count();
        self.line += u32::try_from(passed).unwrap_or(u32::MAX);
        self.at = at;
        self.line
    }
}

/// Fills in what the import and export statements of an ECMAScript module say.
struct Table<'f, 't> {
    facts: &'f mut Facts,
    lines: &'f mut Lines<'t>,
    /// Local names that are imported: the request and the name there, none for a namespace.
    imported: HashMap<Box<str>, (u32, Option<Box<str>>)>,
}

impl Table<'_, '_> {
    fn fill(&mut self, program: &Program<'_>) {
        let declarations = || program.body.iter().filter_map(Statement::as_module_declaration);
        declarations().for_each(|declaration| self.request(declaration));
        for declaration in declarations() {
            self.export(declaration);
        }
    }

    fn request(&mut self, declaration: &ModuleDeclaration<'_>) {
        match declaration {
            ModuleDeclaration::ImportDeclaration(import) => self.import(import),
            ModuleDeclaration::ExportFromDeclaration(export) => {
                let request = self.ask(&export.source, export.with_clause.as_deref());
                for specifier in &export.specifiers {
                    let imported = name(&specifier.local);
                    self.take(&imported, start(&specifier.local));
                    self.facts.exports.push(Export::From {
                        name: name(&specifier.exported),
                        request,
                        imported,
                    });
                }
            }
            ModuleDeclaration::ExportAllDeclaration(export) => {
                let request = self.ask(&export.source, export.with_clause.as_deref());
                self.facts.exports.push(match &export.exported {
                    Some(exported) => Export::Namespace { name: name(exported), request },
                    None => Export::Star { request },
                });
            }
            _ => {}
        }
    }

    fn import(&mut self, import: &ImportDeclaration<'_>) {
        let request = self.ask(&import.source, import.with_clause.as_deref());
        for specifier in import.specifiers.iter().flatten() {
            let (local, imported) = match specifier {
                ImportDeclarationSpecifier::ImportSpecifier(it) => {
                    let imported = name(&it.imported);
                    self.take(&imported, start(&it.imported));
                    (&it.local, Some(imported))
                }
                ImportDeclarationSpecifier::ImportDefaultSpecifier(it) => {
                    self.take("default", it.local.span.start);
                    (&it.local, Some("default".into()))
                }
                ImportDeclarationSpecifier::ImportNamespaceSpecifier(it) => (&it.local, None),
            };
            self.imported.insert(local.name.as_str().into(), (request, imported));
        }
    }

    fn ask(&mut self, source: &StringLiteral<'_>, with: Option<&WithClause<'_>>) -> u32 {
        let request = u32::try_from(self.facts.requests.len()).expect("a text is shorter than 4 GiB");
        self.facts.requests.push(Request {
            specifier: source.value.as_str().into(),
            how: How::Import,
            line: self.lines.line(source.span.start),
            names: Vec::new(),
            is_caught: false,
            attribute: with.and_then(type_attribute),
        });
        request
    }

    fn take(&mut self, name: &str, at: u32) {
        let line = self.lines.line(at);
        let request = self.facts.requests.last_mut().expect("a name is taken by the request before it");
        request.names.push(Name { name: name.into(), line });
    }

    fn export(&mut self, declaration: &ModuleDeclaration<'_>) {
        match declaration {
            ModuleDeclaration::ExportDeclaration(export) => {
                export.declaration.bound_names(&mut |local| {
                    let name = Box::<str>::from(local.name.as_str());
                    self.facts.exports.push(Export::Local { name: name.clone(), local: name });
                });
            }
            ModuleDeclaration::ExportDefaultDeclaration(export) => {
                let local = default_name(&export.declaration);
                self.facts.exports.push(Export::Local { name: "default".into(), local });
            }
            ModuleDeclaration::ExportNamedDeclaration(export) => {
                export.specifiers.iter().for_each(|specifier| self.export_local(specifier));
            }
            _ => {}
        }
    }

    fn export_local(&mut self, specifier: &ExportSpecifier<'_>) {
        let (local, exported) = (name(&specifier.local), name(&specifier.exported));
        self.facts.exports.push(match self.imported.get(&local) {
            Some((request, Some(imported))) => {
                Export::From { name: exported, request: *request, imported: imported.clone() }
            }
            Some((request, None)) => Export::Namespace { name: exported, request: *request },
            None => Export::Local { name: exported, local },
        });
    }
}

fn default_name(declaration: &ExportDefaultDeclarationKind<'_>) -> Box<str> {
    let id = match declaration {
        ExportDefaultDeclarationKind::FunctionDeclaration(function) => function.id.as_ref(),
        ExportDefaultDeclarationKind::ClassDeclaration(class) => class.id.as_ref(),
        _ => None,
    };
    id.map_or("*default*", |id| id.name.as_str()).into()
}

/// An exported local name that nothing in the module declares.
fn undeclared(program: &Program<'_>, exports: &[Export]) -> Option<Box<str>> {
    let locals = exports.iter().filter_map(|export| match export {
        Export::Local { local, .. } if **local != *"*default*" => Some(local),
        _ => None,
    });
    let mut missing: HashSet<&str> = locals.map(|local| &**local).collect();
    if missing.is_empty() {
        return None;
    }
    declared::strike(program, &mut missing);
    missing.iter().min().map(|name| (*name).into())
}

fn name(name: &ModuleExportName<'_>) -> Box<str> {
    name.name().as_str().into()
}

fn start(name: &ModuleExportName<'_>) -> u32 {
    name.span().start
}

fn type_attribute(with: &WithClause<'_>) -> Option<Box<str>> {
    let entry = with.with_entries.iter().find(|entry| entry.key.as_arena_str() == "type")?;
    Some(entry.value.value.as_str().into())
}
