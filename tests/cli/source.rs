//! `gaia source`: earlier revisions, back to one, on again, and reading it at once.

use std::{fs, path::Path};

use crate::program::{Server, complaint};

struct Host {
    server: Server,
    desired: std::path::PathBuf,
    _data: tempfile::TempDir,
}

impl Host {
    fn new() -> Self {
        let data = tempfile::tempdir().expect("a temporary directory");
        let desired = data.path().join("desired");
        fs::create_dir(&desired).expect("can be made");
        write(&desired, "web:1");
        let server = Server::start_with(&data.path().join("data"), &["--desired", desired.to_str().expect("UTF-8")]);
        server.says(&["source", "sync"]);
        Self { server, desired, _data: data }
    }

    fn change_to(&self, image: &str) {
        write(&self.desired, image);
        self.server.says(&["source", "sync", "desired"]);
    }

    fn image(&self) -> String {
        let text = self.server.says(&["get", "workload", "web", "-o", "json"]);
        let object: serde_json::Value = serde_json::from_str(&text).expect("JSON");
        object["spec"]["live"]["container"]["image"].as_str().expect("an image").to_owned()
    }

    /// Number, objects and what it is now, of `gaia source history`.
    fn history(&self) -> Vec<String> {
        let text = self.server.says(&["source", "history"]);
        let now = |line: &str| {
            ["applied, pinned", "applied", "pinned"].into_iter().find(|word| line.ends_with(word)).unwrap_or("")
        };
        text.lines()
            .skip(1)
            .map(|line| format!("{} {}", line.split_whitespace().next().unwrap_or_default(), now(line)))
            .collect()
    }
}

fn write(directory: &Path, image: &str) {
    let text = format!(
        "apiVersion: gaia.dev/v1alpha1\nkind: Workload\nmetadata: {{name: web}}\nspec: {{live: {{running: false, container: {{image: '{image}'}}}}}}\n"
    );
    fs::write(directory.join("web.yaml"), text).expect("can be written");
}

#[test]
fn back_to_an_earlier_revision_and_on_again() {
    let host = Host::new();
    host.change_to("web:2");
    assert_eq!(host.history(), ["2 applied", "1 "]);
    let first = host.server.says(&["source", "history", "desired", "--revision", "1"]);
    assert!(first.contains("image: web:1") || first.contains("image: \"web:1\""), "{first}");

    assert_eq!(host.server.says(&["source", "rollback"]), "source.gaia.dev/desired: 1 objects of revision 1\n");
    assert_eq!(
        (host.image().as_str(), host.history().as_slice()),
        ("web:1", &["2 ".to_owned(), "1 applied, pinned".to_owned()][..])
    );
    // The files go on, and are not followed.
    host.change_to("web:3");
    assert_eq!(host.image(), "web:1");
    complaint(&host.server.gaia(&["source", "rollback", "--to", "9"]), 1);

    assert_eq!(host.server.says(&["source", "resume"]), "source.gaia.dev/desired: 1 objects from 1 files\n");
    assert_eq!(host.image(), "web:3");
    assert_eq!(host.history(), ["3 applied", "2 ", "1 "]);
}

#[test]
fn what_does_not_come_to_it_is_told() {
    let host = Host::new();
    fs::write(host.desired.join("broken.yaml"), "{").expect("can be written");
    let said = host.server.gaia(&["source", "sync"]);
    assert!(complaint(&said, 1).contains("InvalidFiles: broken.yaml"), "{said:?}");
    let said = host.server.gaia(&["source", "history", "--revision", "5"]);
    assert!(complaint(&said, 1).contains("Source desired has no revision 5"), "{said:?}");
    host.server.send(
        "PATCH",
        "/apis/gaia.dev/v1alpha1/sources/desired",
        "application/merge-patch+json",
        r#"{"spec":{"suspend":true}}"#,
    );
    for command in ["sync", "rollback", "resume"] {
        let said = host.server.gaia(&["source", command]);
        assert!(complaint(&said, 1).contains("is suspended"), "{said:?}");
    }
}
