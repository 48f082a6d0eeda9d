//! A plugin's seat in declared state: an npm project with nothing in it but a link that leads into the generation that is
//! started. For services that take a plugin from there only, as if their own installer had laid it down.
//!
//! Knows projects and links. Must not know what a plugin is for, or what starts.

use std::ffi::{OsStr, OsString};
use std::path::{Path, PathBuf};

use rustix::fs::FileType;
use serde::{Deserialize, Serialize};
use serde_json::json;

use super::mended::{self, Lying};
use super::place::{Place, hidden, kind};
use super::{Error, record};

const MANIFEST: &str = "package.json";
/// Beside a link until it takes the old one's place.
const NEW: &str = "cutover-new";
/// Beside a link: what lay there before and was not ours.
const ASIDE: &str = "cutover-aside";
/// Which seats may hold a link, in the service's own directory.
const SEATS: &str = "seats.json";

/// One seat, by its place.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Seat {
    /// The project's directory, below a root of declared state. It need not be there.
    pub project: PathBuf,
    /// The npm package that is looked for in it.
    pub package: String,
}

/// Who is to have which seat.
#[derive(Clone, Debug, Default)]
pub struct Seating {
    /// A directory in a generation for each, or nobody of ours.
    pub seats: Vec<(Seat, Option<PathBuf>)>,
    /// Where generations lie: links that lead there are ours. A real path.
    pub generations: PathBuf,
}

/// What lies at a seat.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Sight {
    /// Nothing, or a link of ours.
    Free,
    /// Something that is put aside when the seat is given.
    Stranger,
    /// The seat cannot be given: this is where a directory would have to be.
    Blocked(PathBuf),
    /// The project is there, and does not name the package among its dependencies.
    Unnamed(PathBuf),
    /// The package lies in another project too, or above: nobody knows which of the two the service takes.
    Doubled(PathBuf),
}

impl Seat {
    /// Where the link lies.
    #[must_use]
    pub fn link(&self) -> PathBuf {
        self.project.join("node_modules").join(&self.package)
    }

    /// Whether a path is what a seat consists of: the link, what is made or put aside beside it and lies in that, the
    /// project's manifest, or a directory on the way.
    #[must_use]
    pub fn has(&self, path: &Path) -> bool {
        let link = self.link();
        if link.starts_with(path) || path == self.project.join(MANIFEST) {
            return true;
        }
        let (parent, name) = (link.parent().expect("it lies in node_modules"), name_in(&link));
        let below = path.strip_prefix(parent).ok().and_then(|below| below.components().next());
        below.is_some_and(|first| {
            let first = first.as_os_str();
            first == name || is_beside(first, name, NEW) || is_beside(first, name, ASIDE)
        })
    }

    /// Looks at the seat. Nothing is changed.
    ///
    /// # Errors
    /// If it lies in no root, or cannot be examined.
    pub fn look(&self, roots: &[Lying], generations: &Path) -> Result<Sight, Error> {
        let link = self.link();
        if let Some(blocking) = blocking(&link, roots)? {
            return Ok(Sight::Blocked(blocking));
        }
        if let Some(other) = self.other(roots, generations)? {
            return Ok(Sight::Doubled(other));
        }
        let manifest = self.project.join(MANIFEST);
        if let Some(text) = text_of(&manifest, roots)?
            && !names(&text, &self.package)
        {
            return Ok(Sight::Unnamed(manifest));
        }
        let Some((place, name)) = placed(&link, roots)? else { return Ok(Sight::Free) };
        match place.stat(&name)?.is_some() && !is_ours(&place, &name, generations)? {
            true => Ok(Sight::Stranger),
            false => Ok(Sight::Free),
        }
    }

    /// Another place for the same package, in a project beside this one or in a directory above; a link of ours is none,
    /// unless something is put aside there: that comes back.
    fn other(&self, roots: &[Lying], generations: &Path) -> Result<Option<PathBuf>, Error> {
        let parent = self.project.parent().expect("it lies below a root");
        let mut projects: Vec<PathBuf> = parent.ancestors().map(Path::to_owned).collect();
        if let Some((beside, own)) = placed(&self.project, roots)? {
            let siblings = beside.names()?.into_iter().filter(|name| *name != own);
            projects.extend(siblings.map(|name| parent.join(name)));
        }
        for project in projects.into_iter().filter(|project| is_state(project, roots)) {
            let other = Self { project, package: self.package.clone() };
            let Some((place, name)) = placed(&other.link(), roots)? else { continue };
            let is_there = match is_ours(&place, &name, generations)? {
                true => put_aside(&place, &name)?.is_some(),
                false => place.stat(&name)?.is_some(),
            };
            // What lies there as somebody's dependency is no plugin.
            let manifest = mended::text_of(&other.project.join(MANIFEST), roots).ok().flatten();
            if is_there && manifest.is_some_and(|text| names(&text, &self.package)) {
                return Ok(Some(other.link()));
            }
        }
        Ok(None)
    }

    /// Where the link leads, if there is one. Read only: whoever owns the state may change it.
    #[must_use]
    pub fn target(&self) -> Option<PathBuf> {
        std::fs::read_link(self.link()).ok()
    }

    /// Whether a link of ours sits there.
    #[must_use]
    pub fn is_given(&self, generations: &Path) -> bool {
        self.target().is_some_and(|target| target.starts_with(generations))
    }

    /// The manifest of a project that is made for it. By name alone: which version is there, the package itself says.
    fn manifest(&self) -> String {
        format!("{:#}\n", json!({ "private": true, "dependencies": { &self.package: "latest" } }))
    }
}

/// The first directory on the way to a path that is none.
fn blocking(path: &Path, roots: &[Lying]) -> Result<Option<PathBuf>, Error> {
    let mut above: Vec<&Path> = path.ancestors().skip(1).filter(|above| is_state(above, roots)).collect();
    above.reverse();
    for directory in above {
        let Some((place, name)) = placed(directory, roots)? else { return Ok(None) };
        match place.stat(&name)? {
            None => return Ok(None),
            Some(stat) if kind(&stat) == FileType::Directory => {}
            Some(_) => return Ok(Some(directory.to_owned())),
        }
    }
    Ok(None)
}

fn text_of(path: &Path, roots: &[Lying]) -> Result<Option<String>, Error> {
    if !is_state(path, roots) {
        return Err(Error::Outside { path: path.to_owned() });
    }
    mended::text_of(path, roots)
}

/// Whether a project's manifest has the package among its dependencies.
fn names(manifest: &str, package: &str) -> bool {
    let manifest: Option<serde_json::Value> = serde_json::from_str(manifest).ok();
    manifest.is_some_and(|manifest| manifest["dependencies"].get(package).is_some())
}

/// The seats that may hold a link; empty if none ever did.
///
/// # Errors
/// If that cannot be read or understood.
pub fn seats(service: &Path) -> Result<Vec<Seat>, Error> {
    Ok(record::read(service, SEATS)?.unwrap_or_default())
}

/// Notes that these may hold a link. Durable on return.
///
/// # Errors
/// If it cannot be written.
pub fn note_seats(service: &Path, seats: &[Seat]) -> Result<(), Error> {
    record::write_durably(service, SEATS, &seats)
}

impl Seating {
    /// The seats that lie in these roots.
    #[must_use]
    pub fn within(&self, roots: &[Lying]) -> Self {
        let seats = self.seats.iter().filter(|(seat, _)| is_state(&seat.project, roots));
        Self { seats: seats.cloned().collect(), generations: self.generations.clone() }
    }

    /// Gives every seat to whom it is to have, durably. A directory that lies there is put aside, and put back when nobody
    /// of ours has the seat any more. May be run again after a crash at any line.
    ///
    /// # Errors
    /// If a seat lies in no root, its way there is no directory, or it cannot be written. All others are given.
    pub fn give(&self, roots: &[Lying]) -> Result<(), Error> {
        let given = self.seats.iter().map(|(seat, plugin)| match plugin {
            Some(plugin) => give(seat, plugin, roots, &self.generations),
            None => vacate(seat, roots, &self.generations),
        });
        // One that cannot be given keeps no other from being given.
        given.collect::<Vec<_>>().into_iter().collect()
    }
}

fn give(seat: &Seat, plugin: &Path, roots: &[Lying], generations: &Path) -> Result<(), Error> {
    let link = seat.link();
    let project = made(&seat.project, roots)?;
    if project.stat(OsStr::new(MANIFEST))?.is_none() {
        project.create(OsStr::new(MANIFEST), seat.manifest().as_bytes())?;
    }
    let place = made(link.parent().expect("it lies in node_modules"), roots)?;
    let name = name_in(&link);
    if place.stat(name)?.is_some() && !is_ours(&place, name, generations)? {
        let aside = free(&place, name)?;
        place.rename(name, &aside)?;
        let path = place.path.join(name);
        tracing::info!(path = %path.display(), aside = %aside.display(), "what lay at a plugin's seat is put aside");
        crate::crash_point!("seat put aside");
    }
    if led_to(&place, name)?.as_deref() == Some(plugin) {
        return Ok(());
    }
    let new = hidden(name, NEW);
    place.remove(&new)?;
    place.link(&new, plugin)?;
    crate::crash_point!("seat link made");
    place.rename(&new, name)?;
    place.sync()
}

fn vacate(seat: &Seat, roots: &[Lying], generations: &Path) -> Result<(), Error> {
    let link = seat.link();
    // What once was state and is no more has nobody's word that it may be written to.
    if !is_state(&link, roots) {
        tracing::warn!(path = %link.display(), "a plugin's seat is no declared state any more: it is left as it is");
        return Ok(());
    }
    let Some((place, name)) = placed(&link, roots)? else { return Ok(()) };
    place.remove(&hidden(&name, NEW))?;
    if is_ours(&place, &name, generations)? {
        place.unlink(&name)?;
        crate::crash_point!("seat vacated");
    }
    if place.stat(&name)?.is_none() {
        match put_aside(&place, &name)? {
            Some(aside) => {
                place.rename(&aside, &name)?;
                tracing::info!(path = %link.display(), "what lay at a plugin's seat before is back");
            }
            None => {
                place.sync()?;
                return clear(seat, roots);
            }
        }
    }
    place.sync()
}

/// Removes what is left of a project that was made for a seat.
fn clear(seat: &Seat, roots: &[Lying]) -> Result<(), Error> {
    let (link, manifest) = (seat.link(), seat.project.join(MANIFEST));
    if mended::text_of(&manifest, roots).ok().flatten() == Some(seat.manifest())
        && let Some((place, name)) = placed(&manifest, roots)?
    {
        place.unlink(&name)?;
    }
    for directory in link.ancestors().skip(1).take_while(|above| above.starts_with(&seat.project)) {
        let Some((place, name)) = placed(directory, roots)? else { continue };
        if !place.remove_if_empty(&name) {
            return place.sync();
        }
        place.sync()?;
    }
    Ok(())
}

fn is_state(path: &Path, roots: &[Lying]) -> bool {
    roots.iter().any(|root| path.starts_with(&root.live))
}

/// The open directory that holds a path, and its name there. `None` if the directory is not there.
fn placed(path: &Path, roots: &[Lying]) -> Result<Option<(Place, OsString)>, Error> {
    if !is_state(path, roots) {
        return Err(Error::Outside { path: path.to_owned() });
    }
    mended::placed(path, roots)
}

/// The directory at a live path, made where it is missing.
fn made(path: &Path, roots: &[Lying]) -> Result<Place, Error> {
    if let Some((place, _)) = placed(&path.join("inner"), roots)? {
        return Ok(place);
    }
    let place = match placed(path, roots)? {
        Some((place, _)) => place,
        None => made(path.parent().expect("it lies below a root"), roots)?,
    };
    // Who may look into the directory above the state says nothing about who may look into that.
    let is_root = roots.iter().any(|root| root.live == path);
    place.make_directory(name_in(path), if is_root { 0o700 } else { 0o2777 })?;
    place.enter(name_in(path))
}

fn name_in(path: &Path) -> &OsStr {
    path.file_name().expect("a seat's paths end in names")
}

/// Where the link at a name leads; `None` if there is none.
fn led_to(place: &Place, name: &OsStr) -> Result<Option<PathBuf>, Error> {
    match place.stat(name)? {
        Some(stat) if kind(&stat) == FileType::Symlink => place.read_link(name).map(Some),
        _ => Ok(None),
    }
}

fn is_ours(place: &Place, name: &OsStr, generations: &Path) -> Result<bool, Error> {
    Ok(led_to(place, name)?.is_some_and(|target| target.starts_with(generations)))
}

/// Whether a name is a hidden one beside another.
fn is_beside(other: &OsStr, name: &OsStr, mark: &str) -> bool {
    other.as_encoded_bytes().starts_with(hidden(name, mark).as_encoded_bytes())
}

/// The next name to put something aside under.
fn free(place: &Place, name: &OsStr) -> Result<OsString, Error> {
    let names = place.names()?;
    let first = std::iter::once(hidden(name, ASIDE));
    let mut all = first.chain((1..).map(|number| hidden(name, &format!("{ASIDE}-{number}"))));
    Ok(all.find(|one| !names.contains(one)).expect("names do not run out"))
}

/// What was put aside first: what lay there before there was a seat.
fn put_aside(place: &Place, name: &OsStr) -> Result<Option<OsString>, Error> {
    Ok(place.names()?.into_iter().find(|one| is_beside(one, name, ASIDE)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;
    use std::os::unix::fs::{PermissionsExt as _, symlink};

    struct Ground {
        _directory: tempfile::TempDir,
        roots: Vec<Lying>,
        state: PathBuf,
        generations: PathBuf,
        seat: Seat,
    }

    /// What another installer has written.
    const THEIRS: &str = r#"{"dependencies": {"@toy/extra": "0.9.0"}}"#;

    /// State with nothing in it, and two generations with the plugin.
    fn ground() -> Ground {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().canonicalize().unwrap();
        let (state, generations) = (path.join("state"), path.join("generations"));
        for number in ["1", "2"] {
            fs::create_dir_all(generations.join(number)).unwrap();
        }
        let seat = Seat { project: state.join("npm/projects/one"), package: "@toy/extra".into() };
        let roots = vec![Lying { live: state.clone(), at: state.clone() }];
        Ground { _directory: directory, roots, state, generations, seat }
    }

    impl Ground {
        fn give(&self, to: Option<&str>) -> Result<(), Error> {
            let plugin = to.map(|number| self.generations.join(number));
            self.seating(&self.seat, plugin).give(&self.roots)
        }

        fn seating(&self, seat: &Seat, plugin: Option<PathBuf>) -> Seating {
            Seating { seats: vec![(seat.clone(), plugin)], generations: self.generations.clone() }
        }

        fn look(&self) -> Sight {
            self.seat.look(&self.roots, &self.generations).unwrap()
        }

        fn sitting(&self) -> Option<PathBuf> {
            self.seat.target()
        }
    }

    #[test]
    fn a_seat_leads_to_the_generation_that_has_it_and_to_nobody_when_none_has() {
        let ground = ground();
        ground.give(None).unwrap();
        assert!(!ground.state.exists(), "nobody needs a place");
        for number in ["1", "2", "2", "1"] {
            ground.give(Some(number)).unwrap();
            assert_eq!(ground.sitting(), Some(ground.generations.join(number)));
        }
        let project = fs::read_to_string(ground.seat.project.join("package.json")).unwrap();
        let project: serde_json::Value = serde_json::from_str(&project).unwrap();
        assert_eq!(project["dependencies"], json!({ "@toy/extra": "latest" }));
        ground.give(None).unwrap();
        assert_eq!(ground.sitting(), None);
        let left = fs::read_dir(ground.seat.project.parent().unwrap()).unwrap().count();
        assert_eq!(left, 0, "what was made for it is gone with it");
    }

    #[test]
    fn what_lay_there_is_put_aside_and_comes_back_and_a_project_that_is_there_is_left_as_it_is() {
        let ground = ground();
        let link = ground.seat.link();
        fs::create_dir_all(&link).unwrap();
        fs::write(link.join("index.js"), "theirs").unwrap();
        fs::write(ground.seat.project.join("package.json"), "{}").unwrap();
        assert_eq!(ground.look(), Sight::Unnamed(ground.seat.project.join(MANIFEST)));
        fs::write(ground.seat.project.join("package.json"), THEIRS).unwrap();
        assert_eq!(ground.look(), Sight::Stranger);
        ground.give(Some("1")).unwrap();
        assert_eq!(ground.look(), Sight::Free);
        ground.give(Some("2")).unwrap();
        assert_eq!(ground.sitting(), Some(ground.generations.join("2")));
        assert_eq!(fs::read_to_string(ground.seat.project.join("package.json")).unwrap(), THEIRS);
        for _ in 0..2 {
            ground.give(None).unwrap();
            assert_eq!(fs::read_to_string(link.join("index.js")).unwrap(), "theirs");
        }
        // A killed start: put aside, and no link yet.
        fs::rename(&link, link.with_file_name(".extra.cutover-aside")).unwrap();
        symlink("/nowhere", link.with_file_name(".extra.cutover-new")).unwrap();
        ground.give(Some("1")).unwrap();
        assert_eq!(ground.sitting(), Some(ground.generations.join("1")));
        // And what took its place since is kept as well.
        fs::remove_file(&link).unwrap();
        fs::create_dir(&link).unwrap();
        ground.give(Some("1")).unwrap();
        assert!(link.with_file_name(".extra.cutover-aside-1").is_dir());
        ground.give(None).unwrap();
        assert_eq!(
            fs::read_to_string(link.join("index.js")).unwrap(),
            "theirs",
            "and what was there first is back"
        );
        ground.give(Some("1")).unwrap();
        // A link of somebody else is no link of ours.
        fs::remove_file(&link).unwrap();
        symlink("/elsewhere", &link).unwrap();
        ground.give(None).unwrap();
        assert_eq!(ground.sitting(), Some("/elsewhere".into()));
    }

    #[test]
    fn nothing_is_written_where_no_state_is_or_through_a_link() {
        let ground = ground();
        let elsewhere = ground.state.with_file_name("elsewhere");
        fs::create_dir_all(&elsewhere).unwrap();
        fs::create_dir(&ground.state).unwrap();
        symlink(&elsewhere, ground.state.join("npm")).unwrap();
        ground.give(Some("1")).unwrap_err();
        assert_eq!(ground.look(), Sight::Blocked(ground.state.join("npm")));
        let outside = Seat { project: elsewhere.join("one"), package: "x".into() };
        let refused = ground.seating(&outside, Some(elsewhere.clone())).give(&ground.roots).unwrap_err();
        assert!(matches!(refused, Error::Outside { .. }), "{refused}");
        ground.seating(&outside, None).give(&ground.roots).unwrap();
        assert_eq!(fs::read_dir(&elsewhere).unwrap().count(), 0);
    }

    #[test]
    fn a_package_that_lies_in_another_project_too_is_seen() {
        let ground = ground();
        let places = ["npm", "npm/projects/two"]
            .map(|place| Seat { project: ground.state.join(place), package: ground.seat.package.clone() });
        for is_given in [false, true] {
            for other in &places {
                fs::create_dir_all(other.link()).unwrap();
                assert_eq!(ground.look(), Sight::Free, "a dependency of something else");
                fs::write(other.project.join(MANIFEST), THEIRS).unwrap();
                assert_eq!(ground.look(), Sight::Doubled(other.link()), "{is_given}");
                // A link of ours is led elsewhere with the same start, but what is put aside there comes back.
                let ours = |plugin: Option<&str>| {
                    let plugin = plugin.map(|number| ground.generations.join(number));
                    ground.seating(other, plugin).give(&ground.roots).unwrap();
                };
                ours(Some("1"));
                assert_eq!(ground.look(), Sight::Doubled(other.link()));
                fs::remove_dir(other.link().with_file_name(".extra.cutover-aside")).unwrap();
                assert_eq!(ground.look(), Sight::Free);
                ours(None);
                fs::remove_file(other.project.join(MANIFEST)).unwrap();
            }
            ground.give(Some("1")).unwrap();
        }
    }

    #[test]
    fn what_belongs_to_a_seat_is_told_from_its_neighbours() {
        let seat = Seat { project: "/state/one".into(), package: "@toy/extra".into() };
        let modules = Path::new("/state/one/node_modules/@toy");
        for own in ["extra", "extra/index.mjs", ".extra.cutover-new", ".extra.cutover-aside-1/index.mjs"] {
            assert!(seat.has(&modules.join(own)), "{own}");
        }
        for way in ["/state", "/state/one", "/state/one/package.json", "/state/one/node_modules/@toy"] {
            assert!(seat.has(Path::new(way)), "{way}");
        }
        for other in ["extras", ".extra", "other/extra", "../package.json", "../../other"] {
            assert!(!seat.has(&modules.join(other)), "{other}");
        }
    }

    #[test]
    fn what_was_being_made_when_it_was_killed_is_made_anew() {
        let ground = ground();
        fs::create_dir_all(&ground.seat.project).unwrap();
        fs::write(ground.seat.project.join(".package.json.cutover-unfinished"), "{").unwrap();
        fs::create_dir(ground.seat.project.join(".node_modules.cutover-unfinished")).unwrap();
        ground.give(Some("1")).unwrap();
        let mut there: Vec<_> =
            fs::read_dir(&ground.seat.project).unwrap().map(|entry| entry.unwrap().file_name()).collect();
        there.sort();
        assert_eq!(there, ["node_modules", "package.json"]);
    }

    #[test]
    fn a_seat_that_cannot_be_given_keeps_no_other_from_being_given() {
        let ground = ground();
        fs::create_dir_all(ground.state.join("npm/projects")).unwrap();
        fs::write(ground.state.join("npm/projects/file"), "").unwrap();
        let blocked = Seat { project: ground.state.join("npm/projects/file"), package: "x".into() };
        let mut seating = ground.seating(&blocked, Some(ground.generations.join("1")));
        seating.seats.push((ground.seat.clone(), Some(ground.generations.join("2"))));
        seating.give(&ground.roots).unwrap_err();
        assert_eq!(ground.sitting(), Some(ground.generations.join("2")));
    }

    #[test]
    fn a_root_that_is_made_for_a_seat_is_its_owner_s_alone() {
        let ground = ground();
        ground.give(Some("1")).unwrap();
        let mode = fs::metadata(&ground.state).unwrap().permissions().mode() & 0o7777;
        assert_eq!(mode, 0o700);
    }

    #[test]
    fn a_copy_has_its_own_seat() {
        let ground = ground();
        ground.give(Some("1")).unwrap();
        let copy = ground.state.with_file_name("copy");
        fs::create_dir(&copy).unwrap();
        let roots = [Lying { live: ground.state.clone(), at: copy.clone() }];
        ground.seating(&ground.seat, Some(ground.generations.join("2"))).give(&roots).unwrap();
        let link = copy.join("npm/projects/one/node_modules/@toy/extra");
        assert_eq!(fs::read_link(link).unwrap(), ground.generations.join("2"));
        assert_eq!(ground.sitting(), Some(ground.generations.join("1")));
    }
}
