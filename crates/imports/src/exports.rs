//! Whether a module exports a name: the specification's `ResolveExport` over a closure, with node's view of CommonJS.
//!
//! Knows export tables; must not know why somebody asks.

use crate::closure::{Closure, Content, Target};
use crate::module::{Export, Facts, Format};
use std::cell::OnceCell;
use std::collections::{HashMap, HashSet};

/// What a name means.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Binding<'c> {
    /// A binding of this module. Two ways to the same one are no conflict.
    Local(u32, &'c str),
    /// The namespace of this module.
    Namespace(u32),
    Missing,
    /// Two `export *` give it different meanings.
    Ambiguous,
    Circular,
    /// The other module is not known, or is at fault itself: there is a finding there, or nothing can be said.
    Unknown,
}

/// The export tables of a closure.
pub(crate) struct Tables<'c> {
    closure: &'c Closure,
    explicit: Vec<OnceCell<HashMap<&'c str, &'c Export>>>,
}

type Seen<'c> = HashSet<(u32, &'c str)>;

impl<'c> Tables<'c> {
    pub(crate) fn of(closure: &'c Closure) -> Tables<'c> {
        let explicit = closure.modules.iter().map(|_| OnceCell::new()).collect();
        Tables { closure, explicit }
    }

    /// What `name` means when it is imported from a module.
    pub(crate) fn resolve(&self, module: u32, name: &'c str) -> Binding<'c> {
        self.find(module, name, &mut Seen::new())
    }

    fn find(&self, module: u32, name: &'c str, seen: &mut Seen<'c>) -> Binding<'c> {
        match &self.closure.module(module).content {
            Content::Code(facts) if facts.trouble.is_some() => Binding::Unknown,
            Content::Code(facts) if facts.format == Format::CommonJs => {
                self.find_commonjs(module, facts, name, seen)
            }
            Content::Code(facts) => self.find_module(module, facts, name, seen),
            Content::Json if name == "default" => Binding::Local(module, "default"),
            Content::Json => Binding::Missing,
            Content::Opaque | Content::Unreadable(_) => Binding::Unknown,
        }
    }

    fn find_module(&self, module: u32, facts: &'c Facts, name: &'c str, seen: &mut Seen<'c>) -> Binding<'c> {
        if !seen.insert((module, name)) {
            return Binding::Circular;
        }
        match self.explicit(module, facts).get(name) {
            Some(Export::Local { local, .. }) => Binding::Local(module, local),
            Some(Export::Namespace { request, .. }) => match self.target(module, *request) {
                Target::Module(number) => Binding::Namespace(*number),
                Target::Outside | Target::Failed(_) => Binding::Unknown,
            },
            Some(Export::From { request, imported, .. }) => match self.target(module, *request) {
                Target::Module(number) => match self.find(*number, imported, seen) {
                    // This module says so itself.
                    Binding::Missing | Binding::Ambiguous => Binding::Unknown,
                    found => found,
                },
                Target::Outside | Target::Failed(_) => Binding::Unknown,
            },
            Some(Export::Star { .. }) | None if name == "default" => Binding::Missing,
            Some(Export::Star { .. }) | None => self.find_star(module, facts, name, seen),
        }
    }

    fn find_star(&self, module: u32, facts: &'c Facts, name: &'c str, seen: &mut Seen<'c>) -> Binding<'c> {
        let mut found: Option<Binding<'c>> = None;
        let mut is_unknown = false;
        for export in &facts.exports {
            let Export::Star { request } = export else { continue };
            let binding = match self.target(module, *request) {
                Target::Module(number) => self.find(*number, name, seen),
                Target::Outside | Target::Failed(_) => Binding::Unknown,
            };
            match (&found, binding) {
                (_, Binding::Missing | Binding::Circular) => {}
                (_, Binding::Unknown) => is_unknown = true,
                (_, Binding::Ambiguous) => return Binding::Ambiguous,
                (None, binding) => found = Some(binding),
                (Some(known), binding) if *known == binding => {}
                (Some(_), _) => return Binding::Ambiguous,
            }
        }
        match found {
            _ if is_unknown => Binding::Unknown,
            Some(binding) => binding,
            None => Binding::Missing,
        }
    }

    fn find_commonjs(
        &self,
        module: u32,
        facts: &'c Facts,
        name: &'c str,
        seen: &mut Seen<'c>,
    ) -> Binding<'c> {
        if matches!(name, "default" | "module.exports")
            || facts.names.binary_search_by(|it| (**it).cmp(name)).is_ok()
        {
            return Binding::Local(module, name);
        }
        if !seen.insert((module, name)) {
            return Binding::Circular;
        }
        for specifier in &facts.passes_on {
            let request =
                facts.requests.iter().position(|it| it.specifier == *specifier && it.how.is_require());
            let Some(Target::Module(number)) =
                request.map(|request| &self.closure.module(module).targets[request])
            else {
                return Binding::Unknown;
            };
            match self.find(*number, name, seen) {
                Binding::Missing | Binding::Circular if self.is_commonjs(*number) => {}
                Binding::Local(..) => return Binding::Local(module, name),
                _ => return Binding::Unknown,
            }
        }
        Binding::Missing
    }

    /// Whether node would read the names of a module that a CommonJS module passes on.
    fn is_commonjs(&self, module: u32) -> bool {
        matches!(&self.closure.module(module).content, Content::Code(facts) if facts.format == Format::CommonJs)
    }

    fn explicit(&self, module: u32, facts: &'c Facts) -> &HashMap<&'c str, &'c Export> {
        self.explicit[module as usize].get_or_init(|| {
            let named = facts.exports.iter().filter_map(|export| match export {
                Export::Local { name, .. } | Export::From { name, .. } | Export::Namespace { name, .. } => {
                    Some((&**name, export))
                }
                Export::Star { .. } => None,
            });
            named.collect()
        })
    }

    fn target(&self, module: u32, request: u32) -> &'c Target {
        &self.closure.module(module).targets[request as usize]
    }
}
