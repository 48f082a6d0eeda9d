//! Every module that the entry points lead to, each read once, on several threads.
//!
//! Knows how to read files and to follow requests; must not know which names are exported.

use crate::cache::{Cache, Key};
use crate::disk::{Disk, Found};
use crate::finding::Reach;
use crate::manifest::{self, Kind};
use crate::module::{Facts, Format, Goal, How, Trouble};
use crate::nesting::STACK_BYTES;
use crate::resolution::{Failure, Resolved, Resolver, Rule};
use crate::{Error, Interpreter, Limits, syntax};
use oxc_allocator::Allocator;
use std::collections::HashMap;
use std::fs::File;
use std::io::Read as _;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;
use std::sync::{Arc, Condvar, Mutex, MutexGuard};
use std::thread;

/// A file that asks for more memory than this to be parsed is parsed while no other such file is.
const LARGE_BYTES: u64 = 2 << 20;

/// A parser's memory beyond this is given back.
const ARENA_BYTES_KEPT: usize = 64 << 20;

/// All modules. The order differs from run to run.
pub(crate) struct Closure {
    pub(crate) modules: Vec<Module>,
}

pub(crate) struct Module {
    /// Links followed.
    pub(crate) path: Arc<Path>,
    pub(crate) content: Content,
    /// For each request of the facts, where it leads.
    pub(crate) targets: Vec<Target>,
    pub(crate) reach: Reach,
}

/// What a file turned out to be.
pub(crate) enum Content {
    Code(Arc<Facts>),
    Json,
    /// A file that is not read: an addon, WebAssembly, an ending that is not JavaScript's.
    Opaque,
    Unreadable(Unreadable),
}

pub(crate) enum Unreadable {
    Io(String),
    Large { bytes: u64, most: u64 },
    Json,
    Empty,
}

/// Where a request leads.
pub(crate) enum Target {
    /// By its place in the closure.
    Module(u32),
    /// Node's own, or not on this disk: nothing is known of its names.
    Outside,
    Failed(Failure),
}

/// Where to begin, and how surely node begins there.
pub(crate) struct Entry {
    pub(crate) path: Arc<Path>,
    pub(crate) reach: Reach,
}

/// Reads all that `entries` lead to.
///
/// # Errors
/// If the machine gives no thread, or it is given up.
pub(crate) fn walk(
    entries: &[Entry],
    resolver: &Resolver<'_>,
    interpreter: &Interpreter,
    limits: &Limits,
    cache: &mut Cache,
    is_given_up: &(dyn Fn() -> bool + Sync),
) -> Result<Closure, Error> {
    let walk = Walk {
        resolver,
        interpreter,
        limits,
        is_given_up,
        cache,
        front: Mutex::default(),
        bell: Condvar::new(),
        large: Mutex::new(()),
    };
    let starts: Vec<(u32, Reach)> = {
        let mut front = walk.front();
        entries.iter().map(|entry| (front.number(entry.path.clone()), entry.reach)).collect()
    };
    let (read, learnt) = walk.run()?;
    for (key, facts) in learnt {
        cache.learn(key, facts);
    }
    if is_given_up() {
        return Err(Error::GivenUp);
    }
    let mut modules: Vec<Option<Module>> = Vec::new();
    modules.resize_with(read.len(), || None);
    for (number, module) in read {
        modules[number as usize] = Some(module);
    }
    let modules = modules.into_iter().map(|module| module.expect("every number was queued once")).collect();
    let mut closure = Closure { modules };
    closure.mark(&starts);
    Ok(closure)
}

impl Closure {
    pub(crate) fn module(&self, number: u32) -> &Module {
        &self.modules[number as usize]
    }

    /// Marks how each module is reached, the surest ways first.
    fn mark(&mut self, starts: &[(u32, Reach)]) {
        let start =
            starts.iter().filter(|(_, reach)| *reach == Reach::Start).map(|(number, _)| *number).collect();
        self.spread(start, Reach::Start);
        let may =
            starts.iter().filter(|(_, reach)| *reach >= Reach::Later).map(|(number, _)| *number).collect();
        self.spread(may, Reach::Later);
    }

    fn spread(&mut self, mut front: Vec<u32>, reach: Reach) {
        let mut seen = vec![false; self.modules.len()];
        while let Some(number) = front.pop() {
            if std::mem::replace(&mut seen[number as usize], true) {
                continue;
            }
            let module = &mut self.modules[number as usize];
            module.reach = module.reach.max(reach);
            front.extend(module.successors(reach));
        }
    }
}

impl Module {
    /// The modules that are loaded when this one is; with [`Reach::Later`], also those that may be.
    fn successors(&self, reach: Reach) -> Vec<u32> {
        let Content::Code(facts) = &self.content else { return Vec::new() };
        let followed = |how: How| how.is_needed() || reach == Reach::Later;
        let targets = facts.requests.iter().zip(&self.targets).filter(|(request, _)| followed(request.how));
        targets.filter_map(|(_, target)| target.number()).collect()
    }
}

impl Target {
    pub(crate) fn number(&self) -> Option<u32> {
        match self {
            Target::Module(number) => Some(*number),
            _ => None,
        }
    }
}

/// The modules that are known and those that are not read yet.
#[derive(Default)]
struct Front {
    numbers: HashMap<Arc<Path>, u32>,
    queue: Vec<(u32, Arc<Path>)>,
    /// How many threads are at work, and may find more.
    busy: usize,
}

impl Front {
    fn number(&mut self, path: Arc<Path>) -> u32 {
        if let Some(number) = self.numbers.get(&path) {
            return *number;
        }
        let number = u32::try_from(self.numbers.len()).expect("a tree has fewer than 2^32 files");
        self.numbers.insert(path.clone(), number);
        self.queue.push((number, path));
        number
    }
}

struct Walk<'w> {
    resolver: &'w Resolver<'w>,
    interpreter: &'w Interpreter,
    limits: &'w Limits,
    is_given_up: &'w (dyn Fn() -> bool + Sync),
    cache: &'w Cache,
    front: Mutex<Front>,
    bell: Condvar,
    large: Mutex<()>,
}

type Harvest = (Vec<(u32, Module)>, Vec<(Key, Arc<Facts>)>);

impl Walk<'_> {
    fn front(&self) -> MutexGuard<'_, Front> {
        self.front.lock().expect("no thread panics while it holds the queue")
    }

    /// Reads on as many threads as there may be, or as the machine gives.
    fn run(&self) -> Result<Harvest, Error> {
        thread::scope(|scope| {
            let start = || {
                let thread = thread::Builder::new().name("imports".to_owned()).stack_size(STACK_BYTES);
                thread.spawn_scoped(scope, || self.work())
            };
            let first = start().map_err(|source| Error::StartThread { source })?;
            let more: Vec<_> = (1..self.limits.threads).map_while(|_| start().ok()).collect();
            let mut harvest = Harvest::default();
            for thread in std::iter::once(first).chain(more) {
                let (mut read, mut learnt) =
                    thread.join().expect("a reader catches what a module makes it do");
                harvest.0.append(&mut read);
                harvest.1.append(&mut learnt);
            }
            Ok(harvest)
        })
    }

    fn work(&self) -> Harvest {
        let mut reader = Reader { walk: self, arena: Allocator::default(), learnt: Vec::new() };
        let mut read = Vec::new();
        while let Some((number, path)) = self.next() {
            let content = reader.content(&path);
            let targets = self.targets(&path, &content);
            let module = Module { path, content, targets: self.settle(targets), reach: Reach::Apart };
            read.push((number, module));
        }
        (read, reader.learnt)
    }

    /// Waits for something to read; `None` when there will be nothing more.
    fn next(&self) -> Option<(u32, Arc<Path>)> {
        let is_given_up = (self.is_given_up)();
        let mut front = self.front();
        if is_given_up {
            front.queue.clear();
        }
        loop {
            if let Some(next) = front.queue.pop() {
                front.busy += 1;
                return Some(next);
            }
            if front.busy == 0 {
                self.bell.notify_all();
                return None;
            }
            front = self.bell.wait(front).expect("no thread panics while it holds the queue");
        }
    }

    fn targets(&self, path: &Path, content: &Content) -> Vec<Result<Resolved, Failure>> {
        let Content::Code(facts) = content else { return Vec::new() };
        let Some(directory) = path.parent().and_then(|parent| self.resolver.disk.directory(parent)) else {
            return facts.requests.iter().map(|_| Err(Failure::NoModule)).collect();
        };
        let rule = |how: How| if how.is_require() { Rule::Require } else { Rule::Import };
        let resolve = |specifier: &str, how| match self.resolver.resolve(&directory, specifier, rule(how)) {
            // It is found, and that is all that is asked: it may be anything.
            Ok(_) if how == How::Resolve => Ok(Resolved::Elsewhere),
            resolved => resolved,
        };
        facts.requests.iter().map(|request| resolve(&request.specifier, request.how)).collect()
    }

    fn settle(&self, resolved: Vec<Result<Resolved, Failure>>) -> Vec<Target> {
        let mut front = self.front();
        let targets = resolved.into_iter().map(|resolved| match resolved {
            Ok(Resolved::File(path)) => Target::Module(front.number(path)),
            Ok(Resolved::Builtin | Resolved::Elsewhere) => Target::Outside,
            Err(failure) => Target::Failed(failure),
        });
        let targets = targets.collect();
        front.busy -= 1;
        self.bell.notify_all();
        targets
    }
}

/// One thread's reading.
struct Reader<'w> {
    walk: &'w Walk<'w>,
    arena: Allocator,
    learnt: Vec<(Key, Arc<Facts>)>,
}

/// What an ending says of a file.
enum Reading {
    Code(Goal),
    Json,
    Addon,
    Opaque,
}

impl Reader<'_> {
    fn content(&mut self, path: &Path) -> Content {
        let reading = reading(path, self.walk.resolver.disk, self.walk.interpreter);
        if matches!(reading, Reading::Opaque) {
            return Content::Opaque;
        }
        let mut file = match open(path) {
            Ok(file) => file,
            Err(cause) => return Content::Unreadable(Unreadable::Io(cause)),
        };
        match (&reading, file.bytes) {
            (Reading::Addon, 0) => return Content::Unreadable(Unreadable::Empty),
            (Reading::Addon, _) => return Content::Opaque,
            (_, bytes) if bytes > self.walk.limits.file_bytes_max => {
                return Content::Unreadable(Unreadable::Large {
                    bytes,
                    most: self.walk.limits.file_bytes_max,
                });
            }
            _ => {}
        }
        let _alone = (file.bytes > LARGE_BYTES).then(|| self.walk.large.lock().expect("no reader panics"));
        let bytes = match file.read() {
            Ok(bytes) => bytes,
            Err(cause) => return Content::Unreadable(Unreadable::Io(cause)),
        };
        match reading {
            Reading::Code(goal) => Content::Code(self.facts(&bytes, goal)),
            _ if manifest::is_json(&bytes) => Content::Json,
            _ => Content::Unreadable(Unreadable::Json),
        }
    }

    fn facts(&mut self, bytes: &[u8], goal: Goal) -> Arc<Facts> {
        let key = Key::of(bytes, goal);
        if let Some(facts) = self.walk.cache.recall(&key) {
            return facts;
        }
        let text = String::from_utf8_lossy(bytes);
        let facts = catch_unwind(AssertUnwindSafe(|| syntax::facts(&mut self.arena, &text, goal)));
        let facts = facts.unwrap_or_else(|_| {
            self.arena = Allocator::default();
            let message = "the parser does not cope with it".to_owned();
            let format = if goal == Goal::Module { Format::Module } else { Format::CommonJs };
            Facts { format, trouble: Some(Trouble::Syntax { line: 0, message }), ..Facts::default() }
        });
        if self.arena.used_bytes() > ARENA_BYTES_KEPT {
            self.arena = Allocator::default();
        }
        let facts = Arc::new(facts);
        self.learnt.push((key, facts.clone()));
        facts
    }
}

struct Open {
    file: File,
    bytes: u64,
}

fn open(path: &Path) -> Result<Open, String> {
    let file = File::open(path).map_err(|error| error.to_string())?;
    let bytes = file.metadata().map_err(|error| error.to_string())?.len();
    Ok(Open { file, bytes })
}

impl Open {
    fn read(&mut self) -> Result<Vec<u8>, String> {
        let mut bytes = Vec::with_capacity(usize::try_from(self.bytes).unwrap_or_default() + 1);
        let mut limited = (&mut self.file).take(self.bytes);
        limited.read_to_end(&mut bytes).map_err(|error| error.to_string())?;
        Ok(bytes)
    }
}

/// How node would take a file of this name.
fn reading(path: &Path, disk: &Disk, interpreter: &Interpreter) -> Reading {
    match path.extension().and_then(|ending| ending.to_str()) {
        Some("mjs") => Reading::Code(Goal::Module),
        Some("cjs") => Reading::Code(Goal::Script),
        Some("json") => Reading::Json,
        Some("node") => Reading::Addon,
        Some("js") | None => Reading::Code(goal(path, disk, interpreter)),
        Some(_) => Reading::Opaque,
    }
}

fn goal(path: &Path, disk: &Disk, interpreter: &Interpreter) -> Goal {
    let scope =
        path.parent().and_then(|parent| disk.directory(parent)).and_then(|parent| disk.scope(&parent));
    let kind = match scope {
        Some((_, Found::Manifest(manifest))) => manifest.kind,
        _ => Kind::Unsaid,
    };
    match kind {
        Kind::Module => Goal::Module,
        Kind::CommonJs => Goal::Script,
        Kind::Unsaid if interpreter.detects_modules() => Goal::Either,
        Kind::Unsaid => Goal::Script,
    }
}
