//! What the statements inside of a module's body ask for and, in CommonJS, offer.
//!
//! Knows `import()`, `require`, `createRequire`, and the ways in which CommonJS code fills its exports. The names are
//! a superset of what node's own lexer finds, so that a name that is missing here is missing there.

use crate::module::{Facts, Format, How, Name, Request};
use crate::nesting::DEPTH_MAX;
use crate::syntax::Lines;
use oxc_ast::ast::{
    Argument, ArrowFunctionExpression, AssignmentExpression, AssignmentTarget, AwaitExpression,
    BindingPattern, CallExpression, CatchClause, ComputedMemberExpression, ConditionalExpression, Expression,
    FormalParameters, Function, IfStatement, ImportExpression, LogicalExpression, ObjectExpression,
    ObjectPropertyKind, Program, PropertyKey, Statement, StaticMemberExpression, SwitchStatement,
    TryStatement, VariableDeclarator,
};
use oxc_ast_visit::{VisitJs, walk_js as walk};
use oxc_ecmascript::BoundNames as _;
use oxc_syntax::scope::ScopeFlags;
use std::collections::{HashMap, HashSet};

/// Adds to `facts` what the body asks for and offers. Answers whether all of it was read: a chain of operators may be
/// deeper than any stack.
#[must_use = "a body that was read in part proves nothing"]
pub(crate) fn read(program: &Program<'_>, text: &str, facts: &mut Facts) -> bool {
    let mut body = Body::new(facts.format);
    body.visit_program(program);
    if body.is_cut {
        return false;
    }
    body.finish(text, facts);
    true
}

/// A request, as long as it is open whether its callee is a `require`.
struct Candidate {
    callee: Option<String>,
    specifier: Box<str>,
    how: How,
    at: u32,
    is_caught: bool,
    attribute: Option<Box<str>>,
}

struct Body {
    format: Format,
    depth: u32,
    is_cut: bool,
    /// How many functions, conditions and guarded blocks are open.
    guards: u32,
    /// How many `try` are open in the present function.
    tries: u32,
    /// How many open functions have a parameter called `require`.
    shadows: u32,
    candidates: Vec<Candidate>,
    /// What `createRequire` was bound to.
    requires: HashSet<String>,
    /// Other names of `createRequire`.
    makers: HashSet<String>,
    /// The names taken from the `import()` that begins at a position, each with its own position.
    taken: HashMap<u32, Vec<(Box<str>, u32)>>,
    awaited: HashSet<u32>,
    names: HashSet<Box<str>>,
    passes_on: Vec<Box<str>>,
    /// Variables that hold what `require('…')` gave.
    bound: HashMap<String, Box<str>>,
}

impl Body {
    fn new(format: Format) -> Body {
        Body {
            format,
            depth: 0,
            is_cut: false,
            guards: 0,
            tries: 0,
            shadows: 0,
            candidates: Vec::new(),
            requires: HashSet::new(),
            makers: HashSet::from(["createRequire".to_owned()]),
            taken: HashMap::new(),
            awaited: HashSet::new(),
            names: HashSet::new(),
            passes_on: Vec::new(),
            bound: HashMap::new(),
        }
    }

    fn finish(mut self, text: &str, facts: &mut Facts) {
        if self.format == Format::CommonJs {
            self.requires.insert("require".to_owned());
        }
        self.candidates
            .retain(|candidate| candidate.callee.as_ref().is_none_or(|it| self.requires.contains(it)));
        self.candidates.sort_by_key(|candidate| candidate.at);
        let mut lines = Lines::of(text);
        for candidate in self.candidates {
            let line = lines.line(candidate.at);
            let taken = self.taken.remove(&candidate.at).unwrap_or_default();
            let how = match candidate.how {
                How::Lazy if self.awaited.contains(&candidate.at) => How::Await,
                how => how,
            };
            facts.requests.push(Request {
                specifier: candidate.specifier,
                how,
                line,
                names: taken.into_iter().map(|(name, at)| Name { name, line: lines.line(at) }).collect(),
                is_caught: candidate.is_caught,
                attribute: candidate.attribute,
            });
        }
        if self.format == Format::CommonJs {
            facts.names = self.names.into_iter().collect();
            facts.names.sort_unstable();
            facts.passes_on = self.passes_on;
        }
    }

    /// Runs `visit` one level deeper, unless that is too deep.
    fn descend(&mut self, visit: impl FnOnce(&mut Self)) {
        if self.depth >= DEPTH_MAX {
            self.is_cut = true;
            return;
        }
        self.depth += 1;
        visit(self);
        self.depth -= 1;
    }

    fn guarded(&mut self, visit: impl FnOnce(&mut Self)) {
        self.guards += 1;
        visit(self);
        self.guards -= 1;
    }

    fn in_function(&mut self, parameters: &FormalParameters<'_>, visit: impl FnOnce(&mut Self)) {
        let mut shadows = 0;
        parameters.bound_names(&mut |id| shadows += u32::from(id.name.as_str() == "require"));
        self.shadows += shadows;
        let tries = std::mem::take(&mut self.tries);
        self.guarded(visit);
        self.tries = tries;
        self.shadows -= shadows;
    }

    /// Whether the expression is `createRequire(…)` of this very module.
    fn makes_require(&self, it: &Expression<'_>) -> bool {
        let Expression::CallExpression(call) = it else { return false };
        let is_maker = match &call.callee {
            Expression::Identifier(id) => self.makers.contains(id.name.as_str()),
            Expression::StaticMemberExpression(member) => member.property.name.as_str() == "createRequire",
            _ => false,
        };
        is_maker && call.arguments.first().and_then(Argument::as_expression).is_some_and(is_own_address)
    }

    fn require(&mut self, call: &CallExpression<'_>) {
        let Some(specifier) = call.arguments.first().and_then(Argument::as_expression).and_then(literal)
        else {
            return;
        };
        let (callee, how) = match &call.callee {
            Expression::Identifier(id) => (Some(id.name.as_str().to_owned()), self.how_required()),
            Expression::StaticMemberExpression(member) => match &member.object {
                Expression::Identifier(id) if member.property.name.as_str() == "resolve" => {
                    (Some(id.name.as_str().to_owned()), How::Resolve)
                }
                Expression::Identifier(id)
                    if id.name.as_str() == "module" && member.property.name.as_str() == "require" =>
                {
                    (None, self.how_required())
                }
                _ => return,
            },
            made if self.makes_require(made) => (None, self.how_required()),
            _ => return,
        };
        if self.shadows > 0 && callee.as_deref() == Some("require") {
            return;
        }
        self.candidates.push(Candidate {
            callee,
            specifier,
            how,
            at: call.span.start,
            is_caught: self.tries > 0,
            attribute: None,
        });
    }

    fn how_required(&self) -> How {
        if self.guards == 0 { How::Require } else { How::LazyRequire }
    }

    /// `import('…').then(…)`: what the callback takes from the namespace.
    fn then(&mut self, call: &CallExpression<'_>) {
        let Expression::StaticMemberExpression(member) = &call.callee else { return };
        let Expression::ImportExpression(import) = &member.object else { return };
        let callback = call.arguments.first().and_then(Argument::as_expression);
        let (Some(Expression::ArrowFunctionExpression(callback)), "then") =
            (callback, member.property.name.as_str())
        else {
            return;
        };
        let Some(parameter) = callback.params.items.first() else { return };
        match &parameter.pattern {
            BindingPattern::BindingIdentifier(namespace) => {
                if let Some(Expression::StaticMemberExpression(it)) = callback.body.as_expression()
                    && it.object.is_specific_id(namespace.name.as_str())
                {
                    self.take(import, it.property.name.as_str(), it.property.span.start);
                }
            }
            pattern => self.destructure(import, pattern),
        }
    }

    fn take(&mut self, import: &ImportExpression<'_>, name: &str, at: u32) {
        // Every object has these, and a promise of a namespace with `then` would not be one.
        self.taken.entry(import.span.start).or_default().push((name.into(), at));
    }

    fn destructure(&mut self, import: &ImportExpression<'_>, pattern: &BindingPattern<'_>) {
        let BindingPattern::ObjectPattern(pattern) = pattern else { return };
        for property in &pattern.properties {
            let has_default = matches!(property.value, BindingPattern::AssignmentPattern(_));
            if let (PropertyKey::StaticIdentifier(key), false, false) =
                (&property.key, property.computed, has_default)
            {
                self.take(import, key.name.as_str(), key.span.start);
            }
        }
    }

    fn offer_object(&mut self, object: &ObjectExpression<'_>) {
        for property in &object.properties {
            match property {
                ObjectPropertyKind::ObjectProperty(it) => match &it.key {
                    PropertyKey::StaticIdentifier(key) => drop(self.names.insert(key.name.as_str().into())),
                    PropertyKey::StringLiteral(key) => drop(self.names.insert(key.value.as_str().into())),
                    _ => {}
                },
                ObjectPropertyKind::SpreadProperty(spread) => self.pass_on(&spread.argument),
            }
        }
    }

    fn pass_on(&mut self, it: &Expression<'_>) {
        match it {
            Expression::CallExpression(call) => {
                let is_require =
                    matches!(&call.callee, Expression::Identifier(id) if id.name.as_str() == "require");
                let first = call.arguments.first().and_then(Argument::as_expression);
                match first.and_then(literal) {
                    Some(specifier) if is_require => self.passes_on.push(specifier),
                    _ => call
                        .arguments
                        .iter()
                        .filter_map(Argument::as_expression)
                        .for_each(|it| self.pass_on(it)),
                }
            }
            Expression::Identifier(id) => {
                if let Some(specifier) = self.bound.get(id.name.as_str()) {
                    self.passes_on.push(specifier.clone());
                }
            }
            _ => {}
        }
    }

    /// Calls through which CommonJS code offers names: `Object.defineProperty(exports, …)`, `__exportStar(require(…))`,
    /// `Object.keys(required).forEach(…)`.
    fn offer_by_call(&mut self, call: &CallExpression<'_>) {
        let callee = match &call.callee {
            Expression::Identifier(id) => id.name.as_str(),
            Expression::StaticMemberExpression(member) => member.property.name.as_str(),
            _ => return,
        };
        let mut arguments = call.arguments.iter().filter_map(Argument::as_expression);
        match callee {
            "defineProperty" => {
                if let (Some(target), Some(name)) = (arguments.next(), arguments.next().and_then(literal))
                    && is_exports(target)
                {
                    self.names.insert(name);
                }
            }
            "keys" | "__export" | "__exportStar" => arguments.for_each(|it| self.pass_on(it)),
            _ => {}
        }
    }

    fn bind(&mut self, it: &VariableDeclarator<'_>) {
        let Some(init) = &it.init else { return };
        match &it.id {
            BindingPattern::BindingIdentifier(id) => {
                if self.makes_require(init) {
                    self.requires.insert(id.name.as_str().to_owned());
                } else if matches!(init, Expression::StaticMemberExpression(m) if m.property.name.as_str() == "createRequire")
                {
                    self.makers.insert(id.name.as_str().to_owned());
                } else if let Some(specifier) = required(init) {
                    self.bound.insert(id.name.as_str().to_owned(), specifier);
                }
            }
            pattern => {
                if let Expression::AwaitExpression(awaited) = init
                    && let Expression::ImportExpression(import) = &awaited.argument
                {
                    self.destructure(import, pattern);
                }
            }
        }
    }
}

impl<'a> VisitJs<'a> for Body {
    fn visit_expression(&mut self, it: &Expression<'a>) {
        self.descend(|body| walk::walk_expression(body, it));
    }

    fn visit_statement(&mut self, it: &Statement<'a>) {
        self.descend(|body| walk::walk_statement(body, it));
    }

    fn visit_binding_pattern(&mut self, it: &BindingPattern<'a>) {
        self.descend(|body| walk::walk_binding_pattern(body, it));
    }

    fn visit_assignment_target(&mut self, it: &AssignmentTarget<'a>) {
        self.descend(|body| walk::walk_assignment_target(body, it));
    }

    fn visit_import_declaration(&mut self, it: &oxc_ast::ast::ImportDeclaration<'a>) {
        for specifier in it.specifiers.iter().flatten() {
            if let oxc_ast::ast::ImportDeclarationSpecifier::ImportSpecifier(it) = specifier
                && it.imported.name().as_str() == "createRequire"
            {
                self.makers.insert(it.local.name.as_str().to_owned());
            }
        }
    }

    fn visit_function(&mut self, it: &Function<'a>, flags: ScopeFlags) {
        self.in_function(&it.params, |body| walk::walk_function(body, it, flags));
    }

    fn visit_arrow_function_expression(&mut self, it: &ArrowFunctionExpression<'a>) {
        self.in_function(&it.params, |body| walk::walk_arrow_function_expression(body, it));
    }

    fn visit_if_statement(&mut self, it: &IfStatement<'a>) {
        self.guarded(|body| walk::walk_if_statement(body, it));
    }

    fn visit_switch_statement(&mut self, it: &SwitchStatement<'a>) {
        self.guarded(|body| walk::walk_switch_statement(body, it));
    }

    fn visit_conditional_expression(&mut self, it: &ConditionalExpression<'a>) {
        self.guarded(|body| walk::walk_conditional_expression(body, it));
    }

    fn visit_logical_expression(&mut self, it: &LogicalExpression<'a>) {
        self.guarded(|body| walk::walk_logical_expression(body, it));
    }

    fn visit_try_statement(&mut self, it: &TryStatement<'a>) {
        self.guarded(|body| {
            let expected = u32::from(it.handler.is_some());
            body.tries += expected;
            body.visit_block_statement(&it.block);
            body.tries -= expected;
            it.handler.iter().for_each(|handler| body.visit_catch_clause(handler));
            it.finalizer.iter().for_each(|finalizer| body.visit_block_statement(finalizer));
        });
    }

    fn visit_catch_clause(&mut self, it: &CatchClause<'a>) {
        self.guarded(|body| walk::walk_catch_clause(body, it));
    }

    fn visit_await_expression(&mut self, it: &AwaitExpression<'a>) {
        if let (Expression::ImportExpression(import), 0) = (&it.argument, self.guards) {
            self.awaited.insert(import.span.start);
        }
        walk::walk_await_expression(self, it);
    }

    fn visit_import_expression(&mut self, it: &ImportExpression<'a>) {
        if let Some(specifier) = literal(&it.source) {
            let attribute = it.options.as_ref().and_then(type_option);
            let how = How::Lazy;
            self.candidates.push(Candidate {
                callee: None,
                specifier,
                how,
                at: it.span.start,
                is_caught: self.tries > 0,
                attribute,
            });
        }
        walk::walk_import_expression(self, it);
    }

    fn visit_variable_declarator(&mut self, it: &VariableDeclarator<'a>) {
        self.bind(it);
        walk::walk_variable_declarator(self, it);
    }

    fn visit_call_expression(&mut self, it: &CallExpression<'a>) {
        self.require(it);
        self.then(it);
        if self.format == Format::CommonJs {
            self.offer_by_call(it);
        }
        walk::walk_call_expression(self, it);
    }

    fn visit_assignment_expression(&mut self, it: &AssignmentExpression<'a>) {
        if self.format == Format::CommonJs && offers(&it.left) {
            match &it.right {
                Expression::ObjectExpression(object) => self.offer_object(object),
                right => self.pass_on(right),
            }
        }
        walk::walk_assignment_expression(self, it);
    }

    fn visit_static_member_expression(&mut self, it: &StaticMemberExpression<'a>) {
        if let Expression::AwaitExpression(awaited) = &it.object
            && let Expression::ImportExpression(import) = &awaited.argument
        {
            self.take(import, it.property.name.as_str(), it.property.span.start);
        }
        if self.format == Format::CommonJs && is_exports(&it.object) {
            self.names.insert(it.property.name.as_str().into());
        }
        walk::walk_static_member_expression(self, it);
    }

    fn visit_computed_member_expression(&mut self, it: &ComputedMemberExpression<'a>) {
        if self.format == Format::CommonJs
            && is_exports(&it.object)
            && let Some(name) = literal(&it.expression)
        {
            self.names.insert(name);
        }
        walk::walk_computed_member_expression(self, it);
    }
}

/// The value of a string, or of a template without holes.
fn literal(it: &Expression<'_>) -> Option<Box<str>> {
    match it {
        Expression::StringLiteral(it) => Some(it.value.as_str().into()),
        Expression::TemplateLiteral(it) if it.expressions.is_empty() => {
            Some(it.quasis.first()?.value.cooked?.as_str().into())
        }
        _ => None,
    }
}

/// `import.meta.url`, `import.meta.filename` or `__filename`.
fn is_own_address(it: &Expression<'_>) -> bool {
    match it {
        Expression::StaticMemberExpression(member) => {
            matches!(member.object, Expression::ImportMeta(_))
                && matches!(member.property.name.as_str(), "url" | "filename")
        }
        Expression::Identifier(id) => id.name.as_str() == "__filename",
        _ => false,
    }
}

/// `exports` or `module.exports`.
fn is_exports(it: &Expression<'_>) -> bool {
    match it {
        Expression::Identifier(id) => id.name.as_str() == "exports",
        Expression::StaticMemberExpression(member) => {
            member.property.name.as_str() == "exports" && member.object.is_specific_id("module")
        }
        _ => false,
    }
}

/// Whether what is assigned here becomes the exports.
fn offers(it: &AssignmentTarget<'_>) -> bool {
    match it {
        AssignmentTarget::AssignmentTargetIdentifier(id) => id.name.as_str() == "exports",
        AssignmentTarget::StaticMemberExpression(member) => {
            member.property.name.as_str() == "exports" && member.object.is_specific_id("module")
        }
        _ => false,
    }
}

/// The specifier of `require('…')`, also in an interop wrapper.
fn required(it: &Expression<'_>) -> Option<Box<str>> {
    let Expression::CallExpression(call) = it else { return None };
    let first = call.arguments.first().and_then(Argument::as_expression)?;
    if call.callee.is_specific_id("require") { literal(first) } else { required_directly(first) }
}

fn required_directly(it: &Expression<'_>) -> Option<Box<str>> {
    let Expression::CallExpression(call) = it else { return None };
    let first = call.arguments.first().and_then(Argument::as_expression)?;
    if call.callee.is_specific_id("require") { literal(first) } else { None }
}

/// The type in `import('…', { with: { type: '…' } })`.
fn type_option(it: &Expression<'_>) -> Option<Box<str>> {
    let with = property(it, "with")?;
    literal(property(with, "type")?)
}

fn property<'e, 'a>(it: &'e Expression<'a>, name: &str) -> Option<&'e Expression<'a>> {
    let Expression::ObjectExpression(object) = it else { return None };
    object.properties.iter().find_map(|property| match property {
        ObjectPropertyKind::ObjectProperty(it) => match &it.key {
            PropertyKey::StaticIdentifier(key) if key.name.as_str() == name => Some(&it.value),
            PropertyKey::StringLiteral(key) if key.value.as_str() == name => Some(&it.value),
            _ => None,
        },
        ObjectPropertyKind::SpreadProperty(_) => None,
    })
}
