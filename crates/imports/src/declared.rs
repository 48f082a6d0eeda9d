//! Which names an ECMAScript module's own statements declare.
//!
//! Knows declarations; must not know what they are for.

use oxc_ast::ast::{
    ArrowFunctionExpression, Class, ExportDefaultDeclarationKind, Expression, Function, ModuleDeclaration,
    Program, Statement, VariableDeclaration,
};
use oxc_ast_visit::VisitJs;
use oxc_ecmascript::BoundNames as _;
use oxc_syntax::scope::ScopeFlags;
use std::collections::HashSet;

/// Takes out of `names` what the module declares at its top level, a `var` in a nested block included.
pub(crate) fn strike(program: &Program<'_>, names: &mut HashSet<&str>) {
    for statement in &program.body {
        strike_statement(statement, names);
    }
    if !names.is_empty() {
        let mut hoisted = Hoisted { names, depth: 0 };
        hoisted.visit_program(program);
    }
}

fn strike_statement(statement: &Statement<'_>, names: &mut HashSet<&str>) {
    let mut bound = |name: &str| {
        names.remove(name);
    };
    if let Some(declaration) = statement.as_declaration() {
        declaration.bound_names(&mut |id| bound(id.name.as_str()));
    }
    match statement.as_module_declaration() {
        Some(ModuleDeclaration::ExportDefaultDeclaration(export)) => match &export.declaration {
            ExportDefaultDeclarationKind::FunctionDeclaration(it) => {
                it.bound_names(&mut |id| bound(id.name.as_str()))
            }
            ExportDefaultDeclarationKind::ClassDeclaration(it) => {
                it.bound_names(&mut |id| bound(id.name.as_str()))
            }
            _ => {}
        },
        Some(declaration) => declaration.bound_names(&mut |id| bound(id.name.as_str())),
        None => {}
    }
}

/// `var` in blocks: hoisted to the top, but not out of functions.
struct Hoisted<'n, 'k> {
    names: &'n mut HashSet<&'k str>,
    depth: u32,
}

impl<'a> VisitJs<'a> for Hoisted<'_, '_> {
    fn visit_function(&mut self, _: &Function<'a>, _: ScopeFlags) {}

    fn visit_arrow_function_expression(&mut self, _: &ArrowFunctionExpression<'a>) {}

    fn visit_class(&mut self, _: &Class<'a>) {}

    fn visit_expression(&mut self, _: &Expression<'a>) {}

    fn visit_statement(&mut self, it: &Statement<'a>) {
        if self.depth < crate::nesting::DEPTH_MAX {
            self.depth += 1;
            oxc_ast_visit::walk_js::walk_statement(self, it);
            self.depth -= 1;
        }
    }

    fn visit_variable_declaration(&mut self, it: &VariableDeclaration<'a>) {
        if it.kind.is_var() {
            it.bound_names(&mut |id| {
                self.names.remove(id.name.as_str());
            });
        }
    }
}
