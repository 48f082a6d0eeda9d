//! Goes through a closure and says what is wrong with it.
//!
//! Knows which request may ask what of which module; must not look at a disk.

use crate::Interpreter;
use crate::builtins::Builtins;
use crate::closure::{Closure, Content, Module, Target};
use crate::exports::{Binding, Tables};
use crate::finding::{Finding, Kind, Weight, Writer, failure};
use crate::module::{Format, How, Name, Request};

/// Everything that is wrong, in the order of files and lines.
pub(crate) fn faults(
    writer: &Writer<'_>,
    interpreter: &Interpreter,
    builtins: &Builtins,
) -> (Vec<Finding>, usize) {
    let linker =
        Linker { writer, closure: writer.closure, tables: Tables::of(writer.closure), interpreter, builtins };
    let mut findings: Vec<Finding> = Vec::new();
    let mut names = 0;
    for module in &writer.closure.modules {
        findings.extend(writer.module(module));
        let Content::Code(facts) = &module.content else { continue };
        for (request, target) in facts.requests.iter().zip(&module.targets) {
            names += request.names.len();
            linker.request(module, request, target, &mut findings);
        }
    }
    findings.sort();
    findings.dedup();
    (findings, names)
}

struct Linker<'c> {
    writer: &'c Writer<'c>,
    closure: &'c Closure,
    tables: Tables<'c>,
    interpreter: &'c Interpreter,
    builtins: &'c Builtins,
}

impl<'c> Linker<'c> {
    fn request(&self, module: &Module, request: &'c Request, target: &Target, findings: &mut Vec<Finding>) {
        match target {
            Target::Failed(cause) => {
                let (kind, text) = failure(cause, request, &module.path);
                findings.push(self.writer.request(module, request, kind, text));
            }
            Target::Module(number) => match self.refused(request, self.closure.module(*number)) {
                Some((kind, text)) => findings.push(self.writer.request(module, request, kind, text)),
                None => self.names(module, request, *number, findings),
            },
            Target::Outside if request.how == How::Import => self.builtin(module, request, findings),
            Target::Outside => {}
        }
    }

    fn builtin(&self, module: &Module, request: &Request, findings: &mut Vec<Finding>) {
        let specifier = &request.specifier;
        for name in request.names.iter().filter(|name| self.builtins.lacks(specifier, &name.name)) {
            let name_text = &name.name;
            let text =
                format!("The requested module '{specifier}' does not provide an export named '{name_text}'");
            let kind = Kind::MissingExport;
            let mut finding = self.writer.request(module, request, kind, format!("SyntaxError: {text}"));
            (finding.line, finding.name) = (name.line, Some(name.name.to_string()));
            findings.push(finding);
        }
    }

    /// Why node does not load a file that is there.
    fn refused(&self, request: &Request, target: &Module) -> Option<(Kind, String)> {
        let path = target.path.display();
        let is_require = request.how.is_require();
        let ending = target.path.extension().and_then(|ending| ending.to_str()).unwrap_or_default();
        match &target.content {
            Content::Json if !is_require && request.attribute.as_deref() != Some("json") => {
                // The words changed with version 22.
                let (code, of) = match self.interpreter.major {
                    ..22 => ("ERR_IMPORT_ASSERTION_TYPE_MISSING", "type \"json\""),
                    _ => ("ERR_IMPORT_ATTRIBUTE_MISSING", "\"type: json\""),
                };
                let text = format!("Module \"file://{path}\" needs an import attribute of {of}");
                Some((Kind::MissingAttribute, format!("TypeError [{code}]: {text}")))
            }
            Content::Opaque if !is_require && !self.is_known(ending) => {
                let text = format!("Unknown file extension \".{ending}\" for {path}");
                Some((Kind::UnknownExtension, format!("TypeError [ERR_UNKNOWN_FILE_EXTENSION]: {text}")))
            }
            Content::Code(facts)
                if is_require && facts.format == Format::Module && !self.interpreter.requires_modules() =>
            {
                let text = format!("Error [ERR_REQUIRE_ESM]: require() of ES Module {path} not supported.");
                Some((Kind::RequireOfModule, text))
            }
            _ => None,
        }
    }

    /// Whether `import` does something with a file that is not JavaScript. It takes TypeScript only outside of
    /// `node_modules`, but that is not for a check of packages to complain about.
    fn is_known(&self, ending: &str) -> bool {
        matches!(ending, "wasm" | "ts" | "mts" | "cts")
            || ending == "node" && self.interpreter.imports_addons()
    }

    fn names(&self, module: &Module, request: &'c Request, target: u32, findings: &mut Vec<Finding>) {
        for name in &request.names {
            let Some((kind, text)) = self.unlinked(request, target, name) else { continue };
            let mut finding = self.writer.request(module, request, kind, text);
            (finding.line, finding.name) = (name.line, Some(name.name.to_string()));
            if kind == Kind::UndefinedName {
                finding.weight = Weight::Soft;
            }
            findings.push(finding);
        }
    }

    fn unlinked(&self, request: &Request, target: u32, name: &'c Name) -> Option<(Kind, String)> {
        let (specifier, binding) = (&request.specifier, self.tables.resolve(target, &name.name));
        let name = &name.name;
        if !matches!(binding, Binding::Missing | Binding::Ambiguous | Binding::Circular) {
            return None;
        }
        if request.how != How::Import {
            let text = format!(
                "undefined: the imported module '{specifier}' does not provide an export named '{name}'"
            );
            return Some((Kind::UndefinedName, text));
        }
        let is_commonjs = matches!(
            &self.closure.module(target).content,
            Content::Code(facts) if facts.format == Format::CommonJs
        );
        Some(match binding {
            Binding::Ambiguous => {
                let text = format!(
                    "The requested module '{specifier}' contains conflicting star exports for name '{name}'"
                );
                (Kind::AmbiguousExport, format!("SyntaxError: {text}"))
            }
            Binding::Circular => {
                let text =
                    format!("SyntaxError: Detected cycle while resolving name '{name}' in '{specifier}'");
                (Kind::CircularExport, text)
            }
            _ if is_commonjs => {
                let text = format!(
                    "SyntaxError: Named export '{name}' not found. The requested module '{specifier}' is a CommonJS \
                     module, which may not support all module.exports as named exports."
                );
                (Kind::MissingExport, text)
            }
            _ => {
                let text =
                    format!("The requested module '{specifier}' does not provide an export named '{name}'");
                (Kind::MissingExport, format!("SyntaxError: {text}"))
            }
        })
    }
}
