//! The python client: `python/story.py` tells what is done with it.

use std::path::Path;

use tokio::{process::Command, time::timeout};

use super::support::{Cluster, PATIENCE};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_python_client_works() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let target = Path::new(env!("CARGO_TARGET_TMPDIR")).parent().expect("a folder in target");
    let packages = target.join("tools/python-kubernetes");
    assert!(packages.is_dir(), "there is no {}: run ./test, which installs it", packages.display());
    let cluster = Cluster::new().await;
    let mut python = Command::new("python3");
    python
        .arg(root.join("tests/kubectl/python/story.py"))
        .arg(format!("http://{}", cluster.address))
        .env("PYTHONPATH", packages)
        .env("HOME", cluster.home.path())
        .kill_on_drop(true);
    let output = timeout(2 * PATIENCE, python.output()).await.expect("it ends in time").expect("python3 starts");
    let told = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success(), "{told}{}", String::from_utf8_lossy(&output.stderr));
    assert_eq!(told.lines().last(), Some("questions"), "it came to its end");
}
