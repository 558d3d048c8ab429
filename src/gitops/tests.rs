//! Tables over what is pure: loading, comparing, judging; and the real file system's odd corners.

use std::{
    collections::BTreeSet,
    fs,
    os::unix::fs::symlink,
    path::Path,
    sync::{Arc, LazyLock},
};

use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use rstest::rstest;

use super::{
    diff::{EmptyDirectory, Prune, diff},
    files::{File, Identity, Listing, Problem, real::read_once},
    git::{Commit, Failure, Known},
    history::{changes, manifests, restored},
    load::{LoadedFiles, load},
    others::Others,
    status::{Outcome, Pinned, Read, add_git, describe, status},
};
use crate::{
    api::{
        source::{FileError, InventoryEntry, Source, SourceReason, SourceSpec, SourceStatus},
        sourcerevision::{SourceRevisionCause, SourceRevisionSpec},
    },
    registry::Kinds,
};

fn kinds() -> Kinds {
    static KINDS: LazyLock<Kinds> =
        LazyLock::new(|| Kinds::from_crds(&crate::api::crds()).expect("our own definitions are valid"));
    KINDS.clone()
}

fn listing(files: &[(&str, &str)]) -> Listing {
    let mut files: Vec<_> =
        files.iter().map(|(path, text)| File { path: (*path).to_owned(), text: (*text).to_owned() }).collect();
    files.sort_by(|a, b| a.path.cmp(&b.path));
    Listing { files, ..Listing::empty(Identity("1:1".to_owned()), Path::new("/desired")) }
}

fn loaded(files: &[(&str, &str)]) -> LoadedFiles {
    load(&listing(files), &kinds())
}

/// `Workload default/web at web.yaml:1`
fn found(loaded: &LoadedFiles) -> Vec<String> {
    loaded.documents.iter().map(|document| format!("{} at {}", document.id, document.place())).collect()
}

fn wrong(loaded: &LoadedFiles) -> Vec<String> {
    loaded.errors.iter().map(describe).collect()
}

fn workload(name: &str) -> String {
    format!(
        "apiVersion: gaia.dev/v1alpha1\nkind: Workload\nmetadata:\n  name: {name}\nspec: {{live: {{container: {{image: i}}}}}}\n"
    )
}

#[test]
fn documents_keep_their_place_and_come_in_order() {
    let two = format!("# first\n{}---\n{}", workload("b"), workload("a"));
    let namespace = "apiVersion: v1\nkind: Namespace\nmetadata: {name: team}\n";
    let loaded = loaded(&[("deep/er/two.yaml", &two), ("z.yml", namespace), ("empty.yaml", "# nothing\n")]);
    assert_eq!(wrong(&loaded), [""; 0]);
    assert_eq!(
        found(&loaded),
        [
            "Namespace team at z.yml:1",
            "Workload default/b at deep/er/two.yaml:2",
            "Workload default/a at deep/er/two.yaml:8"
        ]
    );
    assert_eq!(loaded.files, 3);
    assert!(loaded.complete);
}

#[test]
fn lists_are_expanded() {
    let list = "apiVersion: v1\nkind: List\nitems:\n- apiVersion: gaia.dev/v1alpha1\n  kind: Workload\n  metadata:\n    name: one\n\
                - apiVersion: gaia.dev/v1alpha1\n  kind: Workload\n  metadata: {}\n";
    let loaded = loaded(&[("list.yaml", list)]);
    assert_eq!(found(&loaded), ["Workload default/one at list.yaml:4"]);
    assert_eq!(wrong(&loaded), ["list.yaml:10: metadata.name is missing"]);
    assert_eq!(loaded.documents[0].lines.exact("metadata.name"), Some(7));
}

#[test]
fn what_only_the_server_may_say_is_left_out() {
    let text = "apiVersion: gaia.dev/v1alpha1\nkind: Workload\nmetadata: {name: a, uid: u, resourceVersion: \"5\", \
                labels: {a: b}, managedFields: []}\nspec: {active: Live}\nstatus: {active: Live}\n";
    let object = &loaded(&[("a.yaml", text)]).documents[0].object;
    let expected = serde_json::json!({"apiVersion": "gaia.dev/v1alpha1", "kind": "Workload",
        "metadata": {"name": "a", "namespace": "default", "labels": {"a": "b"}}, "spec": {"active": "Live"}});
    assert_eq!(*object, expected);
}

#[test]
fn mistakes_are_told_by_place() {
    let head = "apiVersion: gaia.dev/v1alpha1\nkind: Workload\n";
    for (text, expected) in [
        ("kind: Workload\nmetadata: {name: a}\n", "f.yaml:1: apiVersion is missing"),
        ("apiVersion: v1\nmetadata: {name: a}\n", "f.yaml:1: kind is missing"),
        (&format!("{head}metadata:\n  namespace: x\n"), "f.yaml:3: metadata.name is missing"),
        (&format!("{head}metadata:\n  name: 5\n"), "f.yaml:4: metadata.name must be a string"),
        (&format!("{head}metadata:\n  name: a\n  namespace: [b]\n"), "f.yaml:5: metadata.namespace must be a name"),
        ("apiVersion: v7\nkind: Workload\nmetadata: {name: a}\n", "f.yaml:2: no kind Workload in version v7"),
        (
            "apiVersion: gaia.dev/v1alpha1\nkind: Source\nmetadata:\n  name: a\n  namespace: b\n",
            "f.yaml:5: Source is cluster-scoped, it takes no namespace",
        ),
        ("- a\n- b\n", "f.yaml:1: a document must be an object with apiVersion, kind and metadata.name"),
        ("just text\n", "f.yaml:1: a document must be an object with apiVersion, kind and metadata.name"),
    ] {
        let loaded = loaded(&[("f.yaml", text), ("good.yaml", &workload("good"))]);
        assert_eq!(wrong(&loaded), [expected], "{text}");
        assert_eq!(found(&loaded), ["Workload default/good at good.yaml:1"], "the good file counts: {text}");
        assert!(loaded.complete, "everything was read");
    }
}

#[test]
fn a_file_that_does_not_parse_gives_nothing() {
    let broken = format!("{}---\nkind: [unfinished\n", workload("a"));
    let loaded = loaded(&[("f.yaml", &broken), ("g.yaml", &workload("b"))]);
    assert_eq!(found(&loaded), ["Workload default/b at g.yaml:1"]);
    assert_eq!(loaded.errors.len(), 1);
    assert!(loaded.errors[0].line.is_some_and(|line| line >= 7), "{:?}", loaded.errors);
}

#[test]
fn an_object_in_two_places_is_applied_from_neither_and_both_are_named() {
    let explicit =
        workload("web").replace("name: web", "{name: web, namespace: default}").replace("metadata:\n ", "metadata:");
    let loaded = loaded(&[("a.yaml", &workload("web")), ("sub/b.yaml", &explicit), ("c.yaml", &workload("other"))]);
    assert_eq!(found(&loaded), ["Workload default/other at c.yaml:1"]);
    assert_eq!(
        wrong(&loaded),
        [
            "a.yaml:1: Workload default/web is also in sub/b.yaml:1",
            "sub/b.yaml:1: Workload default/web is also in a.yaml:1"
        ]
    );
}

#[test]
fn the_revision_is_of_the_wishes_not_of_the_files() {
    let one = loaded(&[("a.yaml", &workload("a")), ("b.yaml", &workload("b"))]).revision();
    let moved = format!("# together\n{}---\n{}", workload("b"), workload("a"));
    assert_eq!(loaded(&[("all.yaml", &moved)]).revision(), one);
    assert_ne!(loaded(&[("all.yaml", &moved.replace("image: i", "image: j"))]).revision(), one);
}

fn inventory(names: &[&str]) -> Vec<InventoryEntry> {
    let one = |name: &&str| loaded(&[("old.yaml", &workload(name))]).documents[0].inventory_entry();
    names.iter().map(one).collect()
}

fn names(entries: &[InventoryEntry]) -> Vec<&str> {
    entries.iter().map(|entry| entry.name.as_str()).collect()
}

#[test]
fn the_inventory_names_what_was_and_what_will_be() {
    let loaded = loaded(&[("new.yaml", &workload("b")), ("newer.yaml", &workload("c"))]);
    let plan = diff(&loaded, &inventory(&["a", "b"]), EmptyDirectory::No, true);
    assert_eq!(names(&plan.inventory), ["a", "b", "c"]);
    assert_eq!(plan.inventory[1].file, "new.yaml:1", "b has moved");
    assert_eq!(names(&plan.surplus), ["a"]);
    assert_eq!(plan.prune, Prune::Yes);
}

#[test]
fn nothing_is_pruned_unless_all_is_known_and_right() {
    let before = inventory(&["a"]);
    let good = loaded(&[("b.yaml", &workload("b"))]);
    let broken = loaded(&[("b.yaml", &workload("b")), ("c.yaml", "{")]);
    let mut unread = listing(&[("b.yaml", &workload("b"))]);
    unread.problems.push(Problem { path: "c.yaml".to_owned(), message: "may not be read".to_owned() });
    let unread = load(&unread, &kinds());
    let gone = load(&Listing::unreadable("does not exist"), &kinds());
    let nothing = loaded(&[]);
    for (loaded, empty, prune, expected) in [
        (&good, EmptyDirectory::No, true, Prune::Yes),
        (&good, EmptyDirectory::No, false, Prune::Off),
        (&broken, EmptyDirectory::No, true, Prune::Broken),
        (&unread, EmptyDirectory::No, true, Prune::Broken),
        (&gone, EmptyDirectory::Unknown, true, Prune::Broken),
        (&nothing, EmptyDirectory::Known, true, Prune::Yes),
        (&nothing, EmptyDirectory::Unknown, true, Prune::UnknownEmptyDirectory),
    ] {
        let plan = diff(loaded, &before, empty, prune);
        assert_eq!(plan.prune, expected, "{loaded:?}");
        assert_eq!(names(&plan.surplus), ["a"], "still named, still in the inventory");
    }
}

#[test]
fn namespaces_are_pruned_last() {
    let namespace = "apiVersion: v1\nkind: Namespace\nmetadata: {name: team}\n";
    let mut before = loaded(&[("n.yaml", namespace)]).documents.iter().map(|d| d.inventory_entry()).collect::<Vec<_>>();
    before.extend(inventory(&["a", "b"]));
    let plan = diff(&loaded(&[("f.yaml", "")]), &before, EmptyDirectory::No, true);
    assert_eq!(names(&plan.surplus).last(), Some(&"team"));
}

#[test]
fn an_empty_directory_is_believed_only_if_it_is_the_same() {
    let full = listing(&[("a.yaml", "")]);
    let empty = listing(&[]);
    assert_eq!(EmptyDirectory::of(&full, None), EmptyDirectory::No);
    assert_eq!(EmptyDirectory::of(&empty, Some("1:1")), EmptyDirectory::Known);
    assert_eq!(EmptyDirectory::of(&empty, Some("1:2")), EmptyDirectory::Unknown);
    assert_eq!(EmptyDirectory::of(&empty, None), EmptyDirectory::Unknown);
    assert_eq!(EmptyDirectory::of(&Listing::unreadable("gone"), Some("1:1")), EmptyDirectory::Unknown);
}

fn at(second: i64) -> Timestamp {
    Timestamp::from_second(1_800_000_000 + second).expect("in range")
}

fn read(errors: usize) -> Read {
    let error = |n| FileError { file: format!("{n}.yaml"), line: Some(3), message: "is wrong".to_owned() };
    Read {
        directory_identity: Some("1:1".to_owned()),
        files: 2,
        objects: 3,
        revision: "r1".to_owned(),
        inventory: inventory(&["a"]),
        errors: (0..errors).map(error).collect(),
        server_failed: false,
        empty_directory: false,
        pruning: 0,
        number: Some(4),
        pinned: None,
    }
}

fn ready(status: &SourceStatus) -> (&str, &str, &str) {
    let condition = status.conditions.iter().find(|c| c.type_ == "Ready").expect("every pass says whether it is ready");
    (&condition.status, &condition.reason, &condition.message)
}

#[test]
fn equal_findings_give_an_equal_status_at_any_time() {
    let first = status(&SourceStatus::default(), Outcome::Read(Box::new(read(0))), Some(1), at(0));
    assert_eq!(ready(&first), ("True", "Applied", "3 objects from 2 files"));
    assert_eq!(first.applied_revision.as_deref(), Some("r1"));
    assert_eq!(status(&first, Outcome::Read(Box::new(read(0))), Some(1), at(60)), first);
}

#[test]
fn errors_keep_the_revision_that_was_applied_and_are_bounded() {
    let good = status(&SourceStatus::default(), Outcome::Read(Box::new(read(0))), Some(1), at(0));
    let bad = Read { revision: "r2".to_owned(), ..read(300) };
    let bad = status(&good, Outcome::Read(Box::new(bad)), Some(1), at(5));
    let (value, reason, message) = ready(&bad);
    assert_eq!((value, reason), ("False", "InvalidFiles"));
    assert_eq!(message, "0.yaml:3: is wrong (and 299 more); nothing is deleted until this is mended");
    assert_eq!(bad.applied_revision.as_deref(), Some("r1"));
    assert_eq!(bad.errors.len(), 101);
    assert_eq!(bad.errors[100].message, "and 200 more errors");
}

#[test]
fn an_unreadable_directory_takes_nothing_away_from_the_status() {
    let good = status(&SourceStatus::default(), Outcome::Read(Box::new(read(0))), Some(1), at(0));
    let outcome = Outcome::Unreadable {
        reason: SourceReason::DirectoryUnreadable,
        why: "does not exist".to_owned(),
        directory: "/desired".to_owned(),
    };
    let lost = status(&good, outcome, Some(1), at(5));
    assert_eq!(ready(&lost).0, "False");
    assert_eq!(ready(&lost).1, "DirectoryUnreadable");
    assert_eq!((&lost.inventory, lost.objects), (&good.inventory, good.objects));
    assert_eq!(describe(&lost.errors[0]), ".: /desired does not exist");
}

#[test]
fn a_list_of_objects_that_has_no_room_takes_nothing_away_from_the_status() {
    let good = status(&SourceStatus::default(), Outcome::Read(Box::new(read(0))), Some(1), at(0));
    let many = status(&good, Outcome::TooManyObjects { objects: 20_000 }, Some(1), at(5));
    let (value, reason, message) = ready(&many);
    assert_eq!((value, reason), ("False", "TooManyObjects"));
    assert!(message.starts_with("the list of its 20000 objects does not fit into one Source"), "{message}");
    assert_eq!((&many.inventory, many.objects), (&good.inventory, good.objects));
}

#[test]
fn a_pin_is_told_while_it_lasts() {
    let told = |status: &SourceStatus| {
        let found = status.conditions.iter().find(|c| c.type_ == "Pinned");
        found.map(|c| (c.status.clone(), c.message.clone()))
    };
    let pinned = Pinned { revision: 2, files: "the files say the same".to_owned() };
    let held = Read { number: Some(2), pinned: Some(pinned), ..read(0) };
    let held = status(&SourceStatus::default(), Outcome::Read(Box::new(held)), Some(1), at(0));
    assert_eq!(told(&held), Some(("True".to_owned(), "revision 2 is kept; the files say the same".to_owned())));
    assert_eq!((ready(&held).2, held.revision), ("3 objects of revision 2", Some(2)));
    let outcome = Outcome::NoRevision { why: "there is no revision 7 of it".to_owned() };
    let lost = status(&held, outcome, Some(2), at(1));
    assert_eq!(told(&lost), Some(("False".to_owned(), "there is no revision 7 of it".to_owned())));
    assert_eq!((ready(&lost).1, lost.revision, &lost.inventory), ("NoSuchRevision", Some(2), &held.inventory));
    let free = status(&lost, Outcome::Read(Box::new(read(0))), Some(3), at(2));
    assert_eq!((told(&free), free.revision), (None, Some(4)));
}

#[test]
fn what_is_known_of_a_repository_is_told() {
    let told = |status: &SourceStatus, type_: &str| {
        let found = status.conditions.iter().find(|c| c.type_ == type_);
        found.map(|c| format!("{} {}: {}", c.status, c.reason, c.message))
    };
    let whole = || status(&SourceStatus::default(), Outcome::Read(Box::new(read(0))), Some(1), at(0));
    let commit = Commit { id: "c1".to_owned(), subject: "More memory".to_owned() };
    let known = Known { commit: Some(commit), since: Some(at(3)), ..Known::default() };
    let mut good = whole();
    add_git(&mut good, Some(&known), true, at(5));
    assert_eq!(told(&good, "Fetched").as_deref(), Some("True Fetched: c1 More memory"));
    let git = good.git.clone().expect("it is of git");
    assert_eq!((git.observed_commit.as_deref(), git.applied_commit.as_deref()), (Some("c1"), Some("c1")));
    assert_eq!(git.last_fetch_time, Some(Time(at(3))));
    let mut again = good.clone();
    add_git(&mut again, Some(&Known { since: None, ..known.clone() }), true, at(9));
    assert_eq!(again, good, "the same says the same at any time");

    let failure = Failure { reason: SourceReason::FetchFailed, message: "u is away".to_owned() };
    let away = Known { failure: Some(failure), ..known };
    let mut lost = good.clone();
    add_git(&mut lost, Some(&away), true, at(9));
    assert_eq!(told(&lost, "Fetched").as_deref(), Some("False FetchFailed: u is away"));
    assert_eq!(told(&lost, "Ready").as_deref(), Some("False FetchFailed: u is away; what commit c1 says is kept"));
    assert_eq!(lost.git, good.git);
    let mut held = good.clone();
    add_git(&mut held, Some(&away), false, at(9));
    assert!(told(&held, "Ready").expect("a condition").starts_with("True"), "a pinned one needs no repository");

    let mut none = status(&SourceStatus::default(), Outcome::Fetching, Some(1), at(0));
    add_git(&mut none, Some(&Known::default()), false, at(0));
    assert_eq!(told(&none, "Fetched").as_deref(), Some("Unknown Fetching: it is under way"));
    add_git(&mut good, None, true, at(9));
    assert_eq!((told(&good, "Fetched"), good.git), (None, None), "it is a directory now");
}

#[test]
fn a_revision_gives_back_what_it_was_made_of() {
    let both = loaded(&[("a.yaml", &workload("a")), ("sub/b.yaml", &workload("b"))]);
    let spec = SourceRevisionSpec {
        source: "desired".to_owned(),
        revision: 1,
        since: Time(at(0)),
        digest: both.revision(),
        cause: SourceRevisionCause::default(),
        objects: 2,
        manifests: manifests(&both.documents).expect("small enough"),
    };
    let again = restored(&spec, &kinds()).expect("it is whole");
    assert_eq!((found(&again), again.revision(), again.files), (found(&both), both.revision(), 2));
    assert!(again.complete);
    let other = SourceRevisionSpec { digest: "another".to_owned(), ..spec };
    assert!(restored(&other, &kinds()).expect_err("it was tampered with").contains("its digest is another"));
}

#[test]
fn a_revision_says_what_it_changed() {
    let before = loaded(&[("a.yaml", &workload("a")), ("b.yaml", &workload("b")), ("c.yaml", &workload("c"))]);
    let b = workload("b").replace("image: i", "image: j");
    let after = loaded(&[("moved/a.yaml", &workload("a")), ("b.yaml", &b), ("d.yaml", &workload("d"))]);
    assert_eq!(
        changes(&before.documents, &after.documents),
        [
            "changed Workload default/b (b.yaml:1)",
            "added Workload default/d (d.yaml:1)",
            "removed Workload default/c (c.yaml:1)"
        ]
    );
    assert_eq!(changes(&after.documents, &after.documents), [""; 0]);
    let many: String = (0..60).map(|n| format!("---\n{}", workload(&format!("w{n}")))).collect();
    let many = changes(&[], &loaded(&[("many.yaml", &many)]).documents);
    assert_eq!((many.len(), many.last().map(String::as_str)), (51, Some("and 10 more")));
}

#[test]
fn what_is_being_deleted_is_told_while_it_lasts() {
    let pruning = Read { pruning: 2, ..read(0) };
    let busy = status(&SourceStatus::default(), Outcome::Read(Box::new(pruning)), Some(1), at(0));
    assert!(crate::api::condition::is_true(&busy.conditions, "Reconciling"));
    let done = status(&busy, Outcome::Read(Box::new(read(0))), Some(1), at(1));
    assert!(!done.conditions.iter().any(|c| c.type_ == "Reconciling"));
}

fn paths(listing: &Listing) -> Vec<&str> {
    listing.files.iter().map(|file| file.path.as_str()).collect()
}

fn problems(listing: &Listing) -> Vec<String> {
    listing.problems.iter().map(|p| format!("{}: {}", p.path, p.message)).collect()
}

fn write(root: &Path, path: &str, text: impl AsRef<[u8]>) {
    let path = root.join(path);
    fs::create_dir_all(path.parent().expect("it is below the root")).expect("can be made");
    fs::write(path, text).expect("can be written");
}

#[test]
fn only_desired_files_are_read() {
    let root = tempfile::tempdir().expect("a temporary directory");
    let root = root.path();
    for path in ["a.yaml", "b.yml", "c.json", "deep/er/d.yaml"] {
        write(root, path, "x");
    }
    for path in
        ["a.yaml~", ".a.yaml.swp", ".#a.yaml", "#a.yaml#", "4913", "README.md", ".git/config.yaml", ".yaml", "yaml"]
    {
        write(root, path, "\u{0}not read");
    }
    symlink("/nowhere/at/all", root.join(".#lock.yaml")).expect("can be linked");
    symlink("/nowhere/at/all", root.join("lock")).expect("can be linked");
    let listing = read_once(root, &BTreeSet::new());
    assert_eq!(paths(&listing), ["a.yaml", "b.yml", "c.json", "deep/er/d.yaml"]);
    assert!(listing.is_complete(), "{listing:?}");
}

#[test]
fn a_mounted_config_map_is_read_once() {
    let root = tempfile::tempdir().expect("a temporary directory");
    let root = root.path();
    write(root, "..2026_11_20/a.yaml", "text");
    symlink("..2026_11_20", root.join("..data")).expect("can be linked");
    symlink("..data/a.yaml", root.join("a.yaml")).expect("can be linked");
    let listing = read_once(root, &BTreeSet::new());
    assert_eq!(paths(&listing), ["a.yaml"]);
    assert_eq!(listing.files[0].text, "text");
}

#[test]
fn links_in_a_circle_end() {
    let root = tempfile::tempdir().expect("a temporary directory");
    let root = root.path();
    write(root, "sub/a.yaml", "x");
    symlink("..", root.join("sub/up")).expect("can be linked");
    symlink(".", root.join("self")).expect("can be linked");
    symlink("loop.yaml", root.join("loop.yaml")).expect("can be linked");
    let listing = read_once(root, &BTreeSet::new());
    assert_eq!(paths(&listing), ["sub/a.yaml"]);
    assert_eq!(listing.problems.len(), 1, "a link to itself cannot be read: {listing:?}");
}

#[test]
fn what_cannot_be_read_makes_the_listing_incomplete() {
    let root = tempfile::tempdir().expect("a temporary directory");
    let root = root.path();
    write(root, "good.yaml", "x");
    write(root, "binary.yaml", b"a: 1\nb: \xff\n");
    write(root, "large.yaml", vec![b'#'; (4 << 20) + 1]);
    fs::create_dir(root.join("directory.yaml")).expect("can be made");
    symlink("/nowhere/at/all", root.join("dangling.yaml")).expect("can be linked");
    let socket = std::os::unix::net::UnixListener::bind(root.join("socket.yaml")).expect("can be made");
    let listing = read_once(root, &BTreeSet::new());
    drop(socket);
    assert_eq!(paths(&listing), ["good.yaml"]);
    assert_eq!(
        problems(&listing),
        [
            "binary.yaml: line 2 is not UTF-8",
            "dangling.yaml: does not exist",
            "large.yaml: is larger than 4 MiB",
            "socket.yaml: is not a regular file"
        ]
    );
    assert!(!listing.is_complete());
}

#[test]
fn a_directory_that_is_not_there_is_not_empty() {
    let root = tempfile::tempdir().expect("a temporary directory");
    write(root.path(), "file", "x");
    for (path, why) in [("missing", "does not exist"), ("file", "is not a directory")] {
        assert_eq!(read_once(&root.path().join(path), &BTreeSet::new()).root, Err(why.to_owned()));
    }
}

/// A Source over `/NAME` that came into being at `second` and keeps the Workloads of these names.
fn source(name: &str, second: i64, keeps: &[&str]) -> Arc<Source> {
    let mut source = Source::new(name, SourceSpec { directory: Some(format!("/{name}")), ..SourceSpec::default() });
    source.metadata.creation_timestamp = Some(Time(Timestamp::from_second(second).expect("small")));
    let entry = |name: &&str| loaded(&[("x.yaml", &workload(name))]).documents[0].inventory_entry();
    source.status = Some(SourceStatus { inventory: keeps.iter().map(entry).collect(), ..SourceStatus::default() });
    Arc::new(source)
}

#[rstest]
#[case::nobody_else_keeps_it(source("b", 2, &[]), source("a", 1, &["else"]), true)]
#[case::the_older_keeps_it(source("b", 2, &[]), source("a", 1, &["web"]), false)]
#[case::the_younger_keeps_it(source("a", 1, &[]), source("b", 2, &["web"]), false)]
#[case::both_and_we_are_older(source("a", 1, &["web"]), source("b", 2, &["web"]), true)]
#[case::both_and_we_are_younger(source("b", 2, &["web"]), source("a", 1, &["web"]), false)]
#[case::both_at_the_same_time_by_name(source("b", 1, &["web"]), source("a", 1, &["web"]), false)]
fn an_object_is_of_one_source(#[case] ours: Arc<Source>, #[case] other: Arc<Source>, #[case] ours_to_apply: bool) {
    let mut wished = loaded(&[("web.yaml", &workload("web"))]);
    let others = Others::of(&ours, &[Arc::clone(&ours), Arc::clone(&other)]);
    let refused = others.refuse(&ours, &mut wished);
    assert_eq!((refused == 0, found(&wished).len() == 1), (ours_to_apply, ours_to_apply));
    if !ours_to_apply {
        let by = other.metadata.name.as_deref().expect("named");
        let error =
            format!("web.yaml:1: Workload default/web is kept by Source {by}, which has it from /{by}/x.yaml:1");
        assert_eq!(wrong(&wished), [error]);
    }
}

#[test]
fn a_source_on_its_way_out_keeps_nothing() {
    let mut leaving = (*source("a", 1, &["web"])).clone();
    leaving.metadata.deletion_timestamp = Some(Time(Timestamp::from_second(3).expect("small")));
    let ours = source("b", 2, &[]);
    assert_eq!(Others::of(&ours, &[Arc::clone(&ours), Arc::new(leaving)]), Others::default());
}
