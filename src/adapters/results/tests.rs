use rstest::rstest;
use serde_json::json;

use super::*;

fn files() -> (tempfile::TempDir, ResultFiles) {
    let directory = tempfile::tempdir().expect("a directory");
    let files = ResultFiles::new(&directory.path().join("results")).expect("a path");
    (directory, files)
}

fn chunks(parts: &[&'static str]) -> impl Stream<Item = Result<&'static str, String>> + use<> {
    futures::stream::iter(parts.iter().map(|part| Ok(*part)).collect::<Vec<_>>())
}

#[tokio::test]
async fn a_result_is_stored_whole_and_known_again() {
    let (_kept, files) = files();
    let mut stored = files.stored();
    let document = json!({"task_id": "../../etc/x", "worker_id": "w1", "received_at": "now", "result": {"ä": 1}});
    let path = files.store("../../etc/x", &document).await.expect("stored");
    assert!(path.ends_with("______etc_x/responses.json"), "{path:?}");
    assert!(std::fs::read_to_string(&path).expect("text").contains("  \"result\": {\n    \"ä\": 1"));
    assert_eq!(stored.recv().await.as_deref(), Ok("../../etc/x"));
    let posted = files.posted("../../etc/x").await.expect("readable").expect("it was delivered");
    assert_eq!((posted.worker.as_deref(), posted.received_at.as_deref()), (Some("w1"), Some("now")));
    assert_eq!(files.load("other").await.expect("readable"), None);
}

/// Whoever sends may leave at any time, and the process may die.
#[tokio::test]
async fn nothing_is_left_of_what_was_given_up() {
    let (kept, files) = files();
    let incoming = || std::fs::read_dir(files.root.join(INCOMING)).map(Iterator::count).unwrap_or_default();
    let slow = chunks(&["half"]).chain(futures::stream::pending());
    let upload = files.upload("t", "a.bin", slow, 1024);
    tokio::time::timeout(std::time::Duration::from_millis(200), upload).await.expect_err("it does not end");
    assert_eq!((incoming(), files.artifacts("t").await), (0, Vec::new()));
    std::fs::write(files.root.join(INCOMING).join("left"), "half").expect("written");
    ResultFiles::new(&kept.path().join("results")).expect("a path");
    assert_eq!(incoming(), 0);
}

#[tokio::test]
async fn what_a_worker_wrote_itself_was_not_delivered() {
    let (_kept, files) = files();
    std::fs::create_dir_all(files.directory("t")).expect("made");
    std::fs::write(files.directory("t").join(RESPONSES), r#"{"items": []}"#).expect("written");
    assert_eq!(files.posted("t").await.expect("readable"), None);
    assert!(files.load("t").await.expect("readable").is_some());
}

#[rstest]
#[case("")]
#[case(".")]
#[case("..")]
#[case("a/b")]
#[case("/etc/passwd")]
#[case("a/")]
#[case(RESPONSES)]
#[case(LOGS)]
#[tokio::test]
async fn names_that_lead_elsewhere_are_refused(#[case] name: &str) {
    let (_kept, files) = files();
    let refused = files.upload("t", name, chunks(&["x"]), 100).await;
    assert!(matches!(refused, Err(FileError::Name)), "{refused:?}");
}

#[rstest]
#[case("final model.zip")]
#[case("größe.bin")]
#[case(".hidden")]
#[case("back\\slash")]
#[tokio::test]
async fn names_are_taken_as_they_are(#[case] name: &str) {
    let (_kept, files) = files();
    files.upload("t", name, chunks(&["x", "y"]), 2).await.expect("stored");
    let found = files.find("t", name).await.expect("a name").expect("it is there");
    assert_eq!(std::fs::read_to_string(found).expect("text"), "xy");
    assert_eq!(files.artifacts("t").await, [(name.to_owned(), 2)]);
}

#[tokio::test]
async fn an_upload_that_ends_badly_leaves_what_was_there() {
    let (_kept, files) = files();
    files.upload("t", "a", chunks(&["old"]), 10).await.expect("stored");
    let broken = futures::stream::iter([Ok("ne"), Err("hung up")]);
    assert!(matches!(files.upload("t", "a", broken, 10).await, Err(FileError::BrokenOff(_))));
    let large = files.upload("t", "a", chunks(&["too", "large"]), 7).await;
    assert!(matches!(large, Err(FileError::TooLarge { limit: 7 })));
    let path = files.find("t", "a").await.expect("a name").expect("it is there");
    assert_eq!(std::fs::read_to_string(path).expect("text"), "old");
    assert_eq!(std::fs::read_dir(files.root.join(INCOMING)).expect("there").count(), 0);
}

#[tokio::test]
async fn links_lead_nowhere_else() {
    let (kept, files) = files();
    std::fs::write(kept.path().join("secret"), "s").expect("written");
    std::fs::create_dir_all(files.directory("t")).expect("made");
    std::os::unix::fs::symlink(kept.path().join("secret"), files.directory("t").join("a")).expect("linked");
    assert_eq!(files.find("t", "a").await.expect("a name"), None);
    // An upload takes the place of the link, and not of what it leads to.
    files.upload("t", "a", chunks(&["mine"]), 10).await.expect("stored");
    assert_eq!(std::fs::read_to_string(kept.path().join("secret")).expect("text"), "s");
    std::os::unix::fs::symlink(kept.path(), files.root.join("u")).expect("linked");
    assert!(matches!(files.upload("u", "a", chunks(&["x"]), 10).await, Err(FileError::Name)));
}

#[tokio::test]
async fn artifacts_of_later_generations_are_found() {
    let (_kept, files) = files();
    std::fs::create_dir_all(files.directory("t").join(ARTIFACTS)).expect("made");
    std::fs::write(files.directory("t").join(ARTIFACTS).join("a.bin"), "x").expect("written");
    assert!(files.find("t", "a.bin").await.expect("a name").is_some());
    assert!(files.find("t", "b.bin").await.expect("a name").is_none());
}

#[tokio::test]
async fn what_is_removed_is_gone_at_once_and_nothing_beside_it() {
    let (_kept, files) = files();
    for task in ["t", "other"] {
        files.upload(task, "a.bin", chunks(&["bytes"]), 1024).await.expect("uploaded");
    }
    files.remove("t").await.expect("removed");
    files.remove("t").await.expect("it is gone");
    files.remove("never").await.expect("it never was");
    assert_eq!((files.artifacts("t").await.len(), files.artifacts("other").await.len()), (0, 1));
    assert_eq!(std::fs::read_dir(files.root.join(INCOMING)).map(Iterator::count).unwrap_or_default(), 0);
    std::os::unix::fs::symlink(files.directory("other"), files.directory("link")).expect("linked");
    files.remove("link").await.expect("removed");
    assert_eq!(files.artifacts("other").await.len(), 1, "what a link leads to is another's");
}
