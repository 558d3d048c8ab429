//! The image that test containers are made from: `tests/fixtures/peer`, linked statically, on nothing.

use std::{
    path::{Path, PathBuf},
    process::Command,
    sync::{Mutex, OnceLock},
};

use sha2::{Digest, Sha256};

const SOURCE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/fixtures/peer/src");

/// `gaia-fixture:<hash of its source>`, in the engine at `host`. Its entrypoint is `/peer`.
pub fn image(host: &str) -> String {
    static MAKING: Mutex<()> = Mutex::new(());
    let _turn = MAKING.lock().unwrap_or_else(|panicked| panicked.into_inner());
    let binary = binary();
    let name = format!("gaia-fixture:{}", binary.file_name().expect("it is a file").to_string_lossy());
    let found = Command::new("docker").args(["-H", host, "image", "inspect", &name]).output().expect("docker runs");
    if !found.status.success() {
        import(host, binary, &name);
    }
    name
}

fn import(host: &str, binary: &Path, name: &str) {
    let dir = tempfile::tempdir().expect("a temporary directory");
    std::fs::copy(binary, dir.path().join("peer")).expect("the binary can be copied");
    let tar = dir.path().join("peer.tar");
    run(Command::new("tar").arg("-C").arg(dir.path()).arg("-cf").arg(&tar).arg("peer"));
    let entrypoint = r#"ENTRYPOINT ["/peer"]"#;
    run(Command::new("docker").args(["-H", host, "import", "--change", entrypoint]).arg(&tar).arg(name));
}

/// The static binary, made at most once per version of its source.
pub fn binary() -> &'static Path {
    static BINARY: OnceLock<PathBuf> = OnceLock::new();
    BINARY.get_or_init(|| {
        let mut files: Vec<_> = std::fs::read_dir(SOURCE).expect("the fixture's source is there").flatten().collect();
        files.sort_by_key(|file| file.file_name());
        let mut hash = Sha256::new();
        for file in files {
            hash.update(std::fs::read(file.path()).expect("the fixture's source can be read"));
        }
        let hash: String = hash.finalize().iter().take(6).map(|byte| format!("{byte:02x}")).collect();
        let dir = Path::new(env!("CARGO_TARGET_TMPDIR")).join("peer");
        std::fs::create_dir_all(&dir).expect("the target directory can be written");
        let binary = dir.join(hash);
        if !binary.exists() {
            // Renamed into place, so that another test process never sees half of it.
            let half = dir.join(format!("half-{}", std::process::id()));
            let flags = ["--edition=2024", "-Copt-level=1", "-Ctarget-feature=+crt-static", "-o"];
            run(Command::new("rustc").args(flags).arg(&half).arg(Path::new(SOURCE).join("main.rs")));
            std::fs::rename(&half, &binary).expect("same directory");
        }
        binary
    })
}

fn run(command: &mut Command) {
    let output = command.output().unwrap_or_else(|error| panic!("{command:?}: {error}"));
    assert!(output.status.success(), "{command:?}: {}", String::from_utf8_lossy(&output.stderr));
}
